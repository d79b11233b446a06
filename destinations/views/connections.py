"""Connections: one audience to one destination, from its set-up to its end.

What changes who is told what has a page of its own first, which says what will happen; only its button acts.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from audiences.access import requires
from audiences.models import Audience, User
from audiences.queries import activity
from audiences.views.page import actor, page
from destinations import latencies, queries, refusals, remote_descriptions, remote_names
from destinations.forms import AdoptForm, ChooseForm, ConnectionForm, ExceptionForm, FreezeForm, ReasonForm, TypedForm
from destinations.models import ENDED, Hold, Run
from destinations.models import Mapping as Connection
from destinations.services import Refused, Stopped, holds, mappings, runs

S = Connection.State
MANY = 10_000  # from so many people on, the audience's key must be typed


@dataclass(frozen=True, slots=True)
class Deed:
    """Something that may be done with a connection: from which states, in which words, by which form and service."""

    title: str
    words: str
    button: str
    states: tuple[str, ...]
    act: Callable[[User, Connection, dict[str, Any]], object]
    form: type[forms.Form] = ReasonForm
    danger: bool = False
    typed: bool = False
    done: str = "Done."


def _with_reason(service: Callable[..., object]) -> Callable[[User, Connection, dict[str, Any]], object]:
    return lambda user, mapping, values: service(actor=user, mapping=mapping, reason=values["reason"])


DEEDS: Mapping[str, Deed] = {
    "trial": Deed(
        "Start a trial",
        "Only a sample of the people goes, always the same ones. Nobody else is told to the platform before you go live.",
        "Start the trial",
        (S.REHEARSAL,),
        _with_reason(mappings.start_trial),
        done="The trial has begun; its first run is on its way.",
    ),
    "live": Deed(
        "Go live",
        "From now on everybody who may be sent is sent, and who leaves is removed, at every sync.",
        "Go live",
        (S.REHEARSAL, S.TRIAL),
        _with_reason(mappings.go_live),
        typed=True,
        done="It is live; the first run is on its way.",
    ),
    "pause": Deed(
        "Pause",
        "Nobody is added any more. Removals go on, so nobody is shown advertisements who left.",
        "Pause",
        (S.TRIAL, S.LIVE),
        _with_reason(mappings.pause),
        done="Paused. Removals go on.",
    ),
    "freeze": Deed(
        "Freeze",
        "Nothing is sent, removals included: people who leave, or who buy, stay on the platform until it ends.",
        "Freeze",
        (S.TRIAL, S.LIVE, S.PAUSED),
        lambda user, mapping, values: mappings.freeze(actor=user, mapping=mapping, **values),
        form=FreezeForm,
        danger=True,
        done="Frozen. Nothing is sent until it ends.",
    ),
    "resume": Deed(
        "Go on",
        "It becomes again what it was before, and what has changed since then is sent at once.",
        "Go on",
        (S.PAUSED, S.FROZEN),
        _with_reason(mappings.resume),
        done="It goes on; a run is on its way.",
    ),
    "retire": Deed(
        "Retire",
        "The end of this connection. Everybody who was sent is removed on the platform first; an adopted audience keeps what was in it before.",
        "Retire",
        (S.REHEARSAL, S.TRIAL, S.LIVE, S.PAUSED, S.FROZEN),
        _with_reason(mappings.retire),
        danger=True,
        typed=True,
        done="Retired. What was sent is being removed.",
    ),
    "exception": Deed(
        "Write an exception",
        "It may go live without a suppression audience beside it: people who have just bought can go on seeing its ads. Your name, your reason and the end are kept on record.",
        "Put it on record",
        (S.REHEARSAL, S.TRIAL, S.LIVE, S.PAUSED),
        lambda user, mapping, values: mappings.override(actor=user, mapping=mapping, by=user.email, **values),
        form=ExceptionForm,
        danger=True,
        done="The exception is on record until its end.",
    ),
    "adopt": Deed(
        "Adopt an audience of the platform",
        "Use one that is there already, so that ad sets which point at it go on. What is in it counts as unknown until everybody was told again.",
        "Adopt",
        (S.REHEARSAL,),
        lambda user, mapping, values: mappings.adopt(actor=user, mapping=mapping, **values),
        form=AdoptForm,
        done="Adopted.",
    ),
    "resync": Deed(
        "Tell everybody again",
        "Everybody who is or ever was sent is told to the platform again, in or out. Nobody is left behind; it takes as long as the first sync.",
        "Tell everybody again",
        (S.TRIAL, S.LIVE, S.PAUSED),
        _with_reason(mappings.resync),
        typed=True,
        done="Everybody is being told again.",
    ),
    "recreate": Deed(
        "Create it anew and send everybody again",
        "Its audience was deleted on the platform. The next sync makes a new one under the same name, with an id of its own, and sends everybody who may be sent, as if for the first time. Ad sets that name the deleted one must be pointed at the new one.",
        "Create it anew",
        (S.TRIAL, S.LIVE, S.PAUSED, S.FROZEN),
        _with_reason(mappings.recreate),
        danger=True,
        typed=True,
        done="It is made anew at the next sync, and everybody is sent again.",
    ),
    "look": Deed(
        "Look at it there now",
        "The platform is asked whether it knows the audience, what it is called and how many it matched; else that is asked once an hour. A connection whose audience was lost goes on if it is there again.",
        "Look now",
        (S.TRIAL, S.LIVE, S.PAUSED, S.FROZEN),
        lambda user, mapping, values: mappings.look_again(actor=user, mapping=mapping),
        form=forms.Form,
        done="It is there.",
    ),
    "unblock": Deed(
        "Call again",
        "The connection was stopped because a person had to act first. If that is done, it may call again.",
        "Call again",
        (S.REHEARSAL, S.TRIAL, S.LIVE, S.PAUSED, S.FROZEN),
        _with_reason(mappings.unblock),
        done="It may call again.",
    ),
}


@require_http_methods(["GET", "POST"])
@requires("mapping.edit")
def new(request: HttpRequest) -> HttpResponse:
    """Both ends first; then identifiers, with how many of these people have each."""
    ends = ChooseForm(
        request.GET if request.GET.get("audience") and request.GET.get("destination") else None,
        initial=request.GET.dict(),
    )
    form = platform = None
    coverage: list[queries.Coverage] = []
    audience = destination = None
    if ends.is_bound and ends.is_valid():
        audience, destination = ends.cleaned_data["audience"], ends.cleaned_data["destination"]
        platform = queries.platform_of(destination.kind)
        if platform is None:
            ends.add_error("destination", "Its platform is not known here any more.")
        elif audience.purpose not in platform.purposes:
            ends.add_error(
                "audience", f"{platform.label} does not take {audience.get_purpose_display().lower()} audiences."
            )
        else:
            coverage = queries.coverage(audience, platform)
            some = [part.kind for part in coverage if part.naming and part.people] or list(platform.identifiers)[:1]
            form = ConnectionForm(request.POST or None, platform=platform, initial={"identifiers": some})
    if request.method == "POST" and form is not None and form.is_valid():
        assert audience is not None and destination is not None
        try:
            made = mappings.create(
                actor=actor(request), audience=audience, destination=destination, **form.cleaned_data
            )
        except Refused as refused:
            _show(refused, form)
        else:
            runs.rehearse(actor=actor(request), mapping=made)
            messages.success(request, "Connected, as a rehearsal: it shows what would be sent, and sends nothing.")
            return redirect("destinations:connection", made.pk)
    context = {
        "ends": ends,
        "form": form,
        "platform": platform,
        "coverage": coverage,
        "audience": audience,
        "destination": destination,
    }
    failed = (ends.is_bound and bool(ends.errors)) or (form is not None and form.is_bound)
    return page(request, "destinations/new_connection.html", context, status=422 if failed else 200)


@require_GET
@requires("audience.view")
def connection(request: HttpRequest, pk: int) -> HttpResponse:
    seen = _seen(pk)
    mapping = seen.mapping
    rehearsal = queries.runs().filter(mapping=pk, rehearsal=True).first()
    context = {
        "seen": seen,
        "mapping": mapping,
        "platform": queries.platform_of(mapping.destination.kind),
        "objection": "" if mapping.state == S.RETIRED else mappings.objection(mapping),
        "exemption": queries.exemption(mapping),
        "name": remote_names.now(mapping),
        "described": remote_descriptions.of(mapping),
        "deeds": [(name, deed) for name, deed in DEEDS.items() if _may_now(name, deed, mapping)],
        "reasons": refusals.by_reason(mapping),
        "latency": latencies.of([pk])[pk],
        "removals": latencies.newest(pk, 8),
        "rehearsal": rehearsal,
        "rehearsing": bool(rehearsal and rehearsal.state not in ENDED),
        "runs": queries.runs().filter(mapping=pk, rehearsal=False)[:8],
        "activity": activity("mapping", mappings.name_of(mapping)),
    }
    return page(request, "destinations/connection.html", context, fragment="rehearsal")


@require_http_methods(["GET", "POST"])
@requires("mapping.edit")
def edit(request: HttpRequest, pk: int) -> HttpResponse:
    seen = _seen(pk)
    mapping, platform = seen.mapping, queries.platform_of(seen.mapping.destination.kind)
    if platform is None:
        raise Http404
    form = ConnectionForm.of(mapping, platform, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            mappings.change(actor=actor(request), mapping=mapping, **form.cleaned_data)
        except Refused as refused:
            _show(refused, form)
        else:
            messages.success(request, "Saved. It holds from the next sync on.")
            return redirect("destinations:connection", pk)
    context = {
        "seen": seen,
        "mapping": mapping,
        "form": form,
        "platform": platform,
        "coverage": queries.coverage(mapping.audience, platform),
    }
    return page(request, "destinations/edit_connection.html", context, status=422 if form.is_bound else 200)


@require_http_methods(["GET", "POST"])
@requires("mapping.edit")
def deed(request: HttpRequest, pk: int, name: str) -> HttpResponse:
    """The review of one deed, and the deed."""
    chosen, seen = DEEDS.get(name), _seen(pk)
    if chosen is None:
        raise Http404
    mapping = seen.mapping
    if not _may_now(name, chosen, mapping):
        messages.error(request, f"It is {mapping.get_state_display().lower()} now; that cannot be done from there.")
        return redirect("destinations:connection", pk)
    form, stopped = _form(request, chosen, seen), ""
    if request.method == "POST" and form.is_valid():
        values = {field: value for field, value in form.cleaned_data.items() if field != "confirm"}
        try:
            chosen.act(actor(request), mapping, values)
        except Stopped as refused:
            stopped = str(refused)
        except Refused as refused:
            _show(refused, form)
        else:
            messages.success(request, chosen.done)
            return redirect("destinations:connection", pk)
    context = {"seen": seen, "mapping": mapping, "deed": chosen, "form": form, "objection": stopped}
    return page(request, "destinations/deed.html", context, status=422 if form.is_bound else 200)


@require_POST
@requires("run.start")
def rehearse(request: HttpRequest, pk: int) -> HttpResponse:
    mapping = get_object_or_404(Connection.objects.select_related("audience", "destination"), pk=pk)
    runs.rehearse(actor=actor(request), mapping=mapping)
    messages.success(request, "A rehearsal is on its way. It sends nothing.")
    return redirect("destinations:rehearsal", pk)


@require_POST
@requires("run.start")
def sync(request: HttpRequest, pk: int) -> HttpResponse:
    return _to_its_run(request, pk, runs.request)


@require_POST
@requires("run.start")
def sync_audience(request: HttpRequest, key: str) -> HttpResponse:
    """Every connection of an audience that sends."""
    audience = get_object_or_404(Audience, key=key)
    asked, not_asked = [], []
    for mapping in Connection.objects.filter(audience=audience).select_related("audience", "destination"):
        if mapping.state == S.RETIRED:
            continue
        try:
            asked.append(runs.request(actor=actor(request), mapping=mapping))
        except Refused as refused:
            not_asked.append(f"{mapping.destination.name}: {refused}")
    if asked:
        messages.success(request, f"{len(asked)} run{'s are' if len(asked) > 1 else ' is'} on the way.")
    if not_asked:
        messages.warning(request, "Not synced. " + " ".join(not_asked))
    if not asked and not not_asked:
        messages.error(request, "It is connected to no destination yet, so there is nothing to sync.")
    return redirect("destinations:run", asked[0].pk) if len(asked) == 1 else redirect("qa:audience", key)


@require_POST
@requires("run.start")
def retry(request: HttpRequest, pk: int) -> HttpResponse:
    """Refused people again, now."""
    return _to_its_run(request, pk, runs.retry_failed)


@require_POST
@requires("hold.lift")
def lift(request: HttpRequest, pk: int) -> HttpResponse:
    hold = get_object_or_404(Hold.objects.select_related("mapping__audience", "mapping__destination"), pk=pk)
    try:
        holds.lift(actor=actor(request), hold=hold, reason=request.POST.get("reason", "")[:500].replace("\0", ""))
    except Refused as refused:
        messages.error(request, str(refused))
    else:
        messages.success(request, "Lifted. It goes on with the next run, which is on its way.")
    return redirect("destinations:connection", hold.mapping_id)


def _to_its_run(request: HttpRequest, pk: int, ask: Callable[..., Run]) -> HttpResponse:
    """Ask for a run of this connection and show it, or say on the connection's page why there is none."""
    mapping = get_object_or_404(Connection.objects.select_related("audience", "destination"), pk=pk)
    try:
        run = ask(actor=actor(request), mapping=mapping)
    except Refused as refused:
        messages.error(request, str(refused))
        return redirect("destinations:connection", pk)
    return redirect("destinations:run", run.pk)


def _seen(pk: int) -> queries.Seen:
    seen = queries.connection(pk)
    if seen is None:
        raise Http404
    return seen


def _may_now(name: str, deed: Deed, mapping: Connection) -> bool:
    if name == "recreate" and mapping.lost != Connection.Lost.GONE:
        return False
    if name == "look" and not mapping.remote_id:
        return False
    if name == "unblock":
        return bool(mapping.blocked_reason) and not mapping.lost
    if name == "exception" and mapping.audience.purpose != Audience.Purpose.RETARGETING:
        return False
    if name == "adopt" and mapping.remote_id:
        return False
    return mapping.state in deed.states


def _form(request: HttpRequest, deed: Deed, seen: queries.Seen) -> forms.Form:
    data = request.POST if request.method == "POST" else None
    moved = max(seen.tally.wanted, seen.tally.received) if seen.tally else 0
    if deed.typed and moved >= MANY:
        return TypedForm(data, key=seen.mapping.audience.key)
    return deed.form(data)


def _show(refused: Refused, form: forms.Form) -> None:
    for problem in refused.problems:
        words = problem.words[:1].upper() + problem.words[1:]
        form.add_error(problem.path if problem.path in form.fields else None, words)
