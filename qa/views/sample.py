"""Make this person buy, in the demo: what it would change, the purchase itself, and both sides of what follows, as it happens."""

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_GET, require_POST

from audiences import standings
from audiences.access import requires
from audiences.models import ProfileKey
from audiences.people import biography
from audiences.views.page import STOP_POLLING, actor, page, wants_fragment
from destinations.services import Refused
from qa.sample import story as stories


@require_GET
@requires("sample.act")
def before(request: HttpRequest, profile_no: int) -> HttpResponse:
    """What a purchase would change, and the button; or somebody else, where it would change nothing."""
    _only_in_the_demo()
    life = biography.of(profile_no)
    if life is None:
        raise Http404
    outlook = stories.outlook(life)
    other = None if outlook.leaves else stories.candidate()
    context = {
        "profile_no": profile_no,
        "title": standings.title(life.profile, life.keys),
        "outlook": outlook,
        "other": other,
        "other_title": _title(other),
        "past": stories.stories(profile_no)[:5],
    }
    return page(request, "sample/before.html", context)


@require_POST
@requires("sample.act")
def buy(request: HttpRequest, profile_no: int) -> HttpResponse:
    _only_in_the_demo()
    try:
        entry = stories.buy(actor=actor(request), profile_no=profile_no)
    except Refused as refused:
        messages.info(request, f"Nothing was bought. {refused}")
        return redirect("qa:story-before", profile_no)
    return redirect("qa:story", profile_no, entry.pk)


@require_GET
@requires("sample.act")
def story(request: HttpRequest, profile_no: int, pk: int) -> HttpResponse:
    _only_in_the_demo()
    entry = get_object_or_404(stories.stories(profile_no), pk=pk)
    told = stories.tell(entry)
    ended = told.done or told.given_up
    other = stories.candidate() if ended and not wants_fragment(request) else None
    context = {
        "profile_no": profile_no,
        "entry": entry,
        "title": _title(profile_no),
        "story": told,
        "basket": stories.BASKET,
        "ended": ended,
        "other": other,
        "other_title": _title(other),
    }
    status = STOP_POLLING if ended and wants_fragment(request) else 200
    return page(request, "sample/story.html", context, fragment="live", status=status)


def _only_in_the_demo() -> None:
    if not settings.DEMO:
        raise Http404


def _title(profile_no: int | None) -> str:
    """How the person is called on pages; the number where they have no id."""
    if profile_no is None:
        return ""
    known = ProfileKey.objects.filter(profile_no=profile_no, kind=ProfileKey.Kind.ID).order_by("pk").first()
    return f"Person {known.value}" if known else f"Person no. {profile_no}"
