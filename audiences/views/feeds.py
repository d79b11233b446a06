"""The feeds: every event as it arrives, how long it is usually silent, and from when on it counts as stopped."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_GET, require_POST

from audiences import clock
from audiences.access import requires
from audiences.forms import SilenceForm
from audiences.models import EventName
from audiences.people import feeds
from audiences.services import feeds as service
from audiences.views.page import actor, page, paginated


@require_GET
@requires("feed.view")
def feeds_page(request: HttpRequest) -> HttpResponse:
    """Those that have stopped first."""
    now = clock.now_us()
    found = sorted(feeds.everything(now), key=lambda feed: (not feed.stopped(now), feed.name))
    rows = paginated(request, found)
    context = {
        "rows": rows,
        "shown": [(feed, feed.stopped(now), SilenceForm.of(feed)) for feed in rows],
        "stopped": sum(feed.stopped(now) for feed in found),
    }
    return page(request, "settings/feeds.html", context)


@require_POST
@requires("feed.edit")
def allow_silence(request: HttpRequest) -> HttpResponse:
    """Set how long one event may be silent."""
    form = SilenceForm(request.POST)
    name = request.POST.get("event", "")[:100].replace("\0", "")
    event = get_object_or_404(EventName, pk=name)
    if form.is_valid():
        service.allow_silence(actor=actor(request), name=event.name, hours=form.cleaned_data["hours"])
        messages.success(request, f"Saved for “{event.name[:60]}”. It holds from the next sync on.")
    else:
        messages.error(request, f"“{event.name[:60]}”: {form.errors['hours'][0]}")
    return redirect("audiences:feeds")
