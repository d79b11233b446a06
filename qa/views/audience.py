"""One audience: how it is, what it means, where it goes and how it came to be so; and the buttons that act on it."""

from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.http import require_GET, require_POST

from audiences.access import requires
from audiences.models import Audience, Workspace
from audiences.services import audiences
from audiences.views.page import actor, page, wants_fragment, zone_of
from qa import portrait


@require_GET
@requires("audience.view")
def audience(request: HttpRequest, key: str) -> HttpResponse:
    zone = zone_of(request.user, Workspace.objects.first())
    if wants_fragment(request) and request.headers.get("HX-Target") == "numbers":
        numbers = portrait.numbers(key, zone)
        if numbers is None:
            raise Http404
        context = {"numbers": numbers, "audience": numbers.row.audience}
        return page(request, "audiences/audience.html", context, fragment="numbers")
    found = portrait.of(actor(request), key, zone)
    if found is None:
        raise Http404
    context = {"portrait": found, "numbers": found.numbers, "row": found.row, "audience": found.row.audience}
    return page(request, "audiences/audience.html", context)


@require_POST
@requires("audience.refresh")
def count(request: HttpRequest, key: str) -> HttpResponse:
    """Have it counted now."""
    found = Audience.objects.filter(key=key).first()
    if found is None:
        raise Http404
    try:
        audiences.ask_refresh(actor=actor(request), audience=found)
    except audiences.AudienceRefused as refused:
        messages.error(request, f"Not counted: {refused}.")
    else:
        messages.success(request, "It is being counted. This page shows the new number when it is there.")
    return redirect("qa:audience", key)
