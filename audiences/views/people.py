"""People: found by id, e-mail or phone, and why each is in an audience or out of it. Identifiers are masked unless revealing them is allowed and on record.

What was searched for is never in an address: the form is posted, and the answer is an address with the person's number.
"""

from django.conf import settings
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from audiences import history, standings
from audiences.access import requires
from audiences.forms import PersonSearchForm
from audiences.models import AttributeName, EventName, Profile
from audiences.people import biography
from audiences.people.engines.base import UnreadableLake
from audiences.services import trail, workspace
from audiences.views.page import actor, page

EVENTS_SHOWN = 50


@sensitive_post_parameters("q")
@require_http_methods(["GET", "POST"])
@requires("person.view")
def people(request: HttpRequest) -> HttpResponse:
    form = PersonSearchForm(request.POST or None)
    missed = False
    if request.method == "POST" and form.is_valid():
        settings = workspace.current()
        found = biography.find(form.cleaned_data["q"], settings.default_region if settings else "US")
        if found is not None:
            return redirect("audiences:person", found)
        missed = True
    context = {
        "form": form,
        "missed": missed,
        "number": Profile.objects.filter(kind=Profile.Kind.PERSON, state=Profile.State.LIVE).count(),
        "anonymous": Profile.objects.filter(kind=Profile.Kind.ANONYMOUS, state=Profile.State.LIVE).count(),
        "attributes": AttributeName.objects.order_by("name"),
        "events": EventName.objects.order_by("-last_seen_us"),
    }
    return page(request, "people/search.html", context, status=404 if missed else 422 if form.errors else 200)


@require_GET
@requires("person.view")
def person(request: HttpRequest, profile_no: int) -> HttpResponse:
    return _person(request, profile_no, whole=False)


@require_POST
@requires("person.reveal")
def reveal(request: HttpRequest, profile_no: int) -> HttpResponse:
    """The same page with the identifiers whole, once; the trail says who looked."""
    trail.record(actor(request), "person.revealed", "person", str(profile_no))
    return _person(request, profile_no, whole=True)


@require_GET
@requires("person.view")
def standing(request: HttpRequest, profile_no: int, key: str) -> HttpResponse:
    """One person and one audience: each rule, and when they came and went."""
    life = _life(profile_no)
    found = standings.standings(life, [key])
    if not found:
        raise Http404
    context = {
        "life": life,
        "title": standings.title(life.profile, life.keys),
        "standing": found[0],
        "audience": found[0].audience,
        "stays": list(reversed(history.stays(found[0].audience, profile_no))),
    }
    return page(request, "people/standing.html", context)


def _person(request: HttpRequest, profile_no: int, *, whole: bool) -> HttpResponse:
    survivor = biography.survivor(profile_no)
    if survivor != profile_no:
        messages.info(request, f"Number {profile_no} was merged into this person.")
        return redirect("audiences:person", survivor)
    life = _life(profile_no)
    events = sorted(life.person.events, key=lambda event: -event.time_us)
    context = {
        "life": life,
        "profile": life.profile,
        "title": standings.title(life.profile, life.keys),
        "identifiers": standings.identifiers(life.identity, whole=whole),
        "attributes": standings.attributes(life.person.attributes, whole=whole),
        "whole": whole,
        "events": [(event, standings.attributes(event.properties, whole=whole)) for event in events[:EVENTS_SHOWN]],
        "event_count": len(events),
        "standings": standings.standings(life),
        "demo": settings.DEMO,
    }
    return page(request, "people/person.html", context)


def _life(profile_no: int) -> biography.Biography:
    try:
        life = biography.of(profile_no)
    except UnreadableLake:
        raise RuntimeError("the lake could not be read three times in a row") from None
    if life is None:
        raise Http404
    return life
