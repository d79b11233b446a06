"""The seven steps of a set-up, a page each: any of them at any time, and nothing that was entered is lost."""

from collections.abc import Callable

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from audiences import vocabulary
from audiences.access import may, requires, who_may
from audiences.models import Workspace
from audiences.segments import exits
from audiences.services.audiences import AudienceRefused
from audiences.views.page import actor, page
from destinations import queries
from destinations.models import ENDED, Destination, Mapping, Run
from destinations.services import Refused, Stopped, mappings
from destinations.services import destinations as destination_service
from destinations.views.connections import MANY
from qa import checklist, gates, pairs, setup, setup_forms
from qa.setup import STEPS, Standing
from qa.views import setup_rule
from qa.views.setup_parts import Result, first, pair_offer, place, show

LOW, FAIR = 0.3, 0.6  # shares of people with an identifier, below which it is said


@require_http_methods(["GET", "POST"])
@requires("setup.edit")
def step(request: HttpRequest, pk: int, name: str) -> HttpResponse:
    row = setup.find(pk)
    if row is None or name not in STEPS:
        raise Http404
    if row.finished_at is not None:
        messages.info(request, "This set-up is finished. What it made is here.")
        return redirect("qa:setup", row.audience.key) if row.audience else redirect("qa:setups")
    standing = setup.look(row)
    result = _PAGES[name](request, standing)
    if isinstance(result, HttpResponse):
        return result
    status = result.pop("status", 200)
    fragment = result.pop("fragment", "")
    context = {
        "standing": standing,
        "setup": row,
        "audience": standing.audience,
        "mapping": standing.mapping,
        "platform": standing.platform,
        "step": name,
        "number": list(STEPS).index(name) + 1,
        "label": STEPS[name],
        "steps": standing.steps(name),
        "before": _beside(name, -1),
        "after": _beside(name, 1),
        "checklist": checklist.of(standing.audience) if standing.audience and not fragment else (),
        **result,
    }
    return page(request, f"setup/{name.replace('-', '_')}.html", context, fragment=fragment, status=status)


def _destination(request: HttpRequest, standing: Standing) -> Result:
    row = standing.setup
    target = row.destination.key if row.destination else f"new:{standing.kind}" if standing.kind else ""
    back = request.GET.get("destination", "")  # come back from connecting a new one
    if back and Destination.objects.filter(key=back).exists() and standing.mapping is None:
        target = back
    initial = {"purpose": row.purpose, "target": target}
    form = setup_forms.PlaceForm(request.POST if request.method == "POST" else None, initial=initial)
    if request.method == "POST" and form.is_valid():
        try:
            setup.choose(
                actor=actor(request),
                setup=row,
                purpose=form.cleaned_data["purpose"],
                destination=form.destination,
                kind=form.kind,
            )
        except Refused as refused:
            show(refused, form)
        else:
            return redirect("qa:setup-step", row.pk, "identity")
    return {**place(form), "status": 422 if form.is_bound else 200}


def _identity(request: HttpRequest, standing: Standing) -> Result:
    if standing.platform is None:
        return first(request, standing, "destination", "Choose where it goes first.")
    coverage = queries.coverage(standing.audience, standing.platform)
    usual = standing.identifiers or [part.kind for part in coverage if part.people and _usual(part)]
    form = setup_forms.IdentifiersForm(
        request.POST if request.method == "POST" else None,
        kinds=standing.platform.identifiers,
        initial={"identifiers": usual},
    )
    if request.method == "POST" and form.is_valid():
        try:
            setup.confirm_identity(actor=actor(request), setup=standing.setup, **form.cleaned_data)
        except Refused as refused:
            show(refused, form)
        else:
            return redirect("qa:setup-step", standing.setup.pk, "segment")
    chosen = form["identifiers"].value() or []
    return {
        "form": form,
        "rows": [(part, part.kind in chosen, _coverage_words(part)) for part in coverage],
        "first": coverage[0] if coverage else None,
        "status": 422 if form.is_bound else 200,
    }


def _usual(part: queries.Coverage) -> bool:
    """What is ticked at first: what names a person by itself and may go beside the others."""
    return part.naming and "of its own" not in part.words


def _coverage_words(part: queries.Coverage) -> tuple[str, str]:
    """(tone, words) of how many have it."""
    if part.share is None:
        return "", "Nobody is known yet: import people, or let the shop send them."
    if part.people == 0:
        return "bad", "Nobody has it, so it finds nobody."
    if not part.naming:
        return "", "Helps beside others; it names nobody by itself."
    if part.share < LOW:
        return "bad", "Too few to go by alone: most of the people would never arrive."
    if part.share < FAIR:
        return (
            "watch",
            "Rather few: the audience there will lean to those who gave it, such as people with an account.",
        )
    return "good", "Good."


def _connect(request: HttpRequest, standing: Standing) -> Result:
    row = standing.setup
    if request.method == "POST":
        act = request.POST.get("act", "")
        if act == "check" and row.destination:
            if not may(request.user, "destination.edit"):
                raise PermissionDenied(f"This needs the role {who_may('destination.edit')}.")
            checked = destination_service.check(actor=actor(request), destination=row.destination)
            good = checked.state == Destination.State.CONNECTED
            (messages.success if good else messages.error)(request, checked.state_words)
            return redirect("qa:setup-step", row.pk, "connect")
        if act == "connect":
            try:
                setup.connect(actor=actor(request), setup=row)
            except Refused as refused:
                messages.error(request, str(refused))
                return redirect("qa:setup-step", row.pk, "connect")
            messages.success(request, "Connected, as a rehearsal: nothing is sent before you go live.")
            return redirect("qa:setup-step", row.pk, "behaviour")
    link = request.build_absolute_uri(_link_path(standing)) if "link" in request.GET else ""
    return {"link": link, "may_connect": may(request.user, "destination.edit")}


def _link_path(standing: Standing) -> str:
    return reverse("qa:engineer", args=[setup.link_for(standing.setup)])


def _behaviour(request: HttpRequest, standing: Standing) -> Result:
    mapping, audience = standing.mapping, standing.audience
    if mapping is None or audience is None or standing.tree is None:
        return first(request, standing, "connect", "Connect it first, as a rehearsal.")
    workspace = Workspace.objects.first()
    form = setup_forms.BehaviourForm(
        request.POST if request.method == "POST" else None,
        currency=workspace.currency if workspace else "EUR",
        mapping=mapping,
        initial={
            "cadence_seconds": mapping.cadence_seconds,
            "removal_limit_percent": mapping.removal_limit_percent,
            "weekly_spend": standing.setup.weekly_spend,
        },
    )
    if request.method == "POST" and form.is_valid():
        try:
            setup.confirm_behaviour(actor=actor(request), setup=standing.setup, **form.cleaned_data)
        except Refused as refused:
            show(refused, form)
        else:
            return redirect("qa:setup-step", standing.setup.pk, "spot-check")
    purchase = pairs.purchase(vocabulary.known().events)
    rehearsal = Run.objects.filter(mapping=mapping, rehearsal=True).order_by("-pk").first()
    return {
        "form": form,
        "rehearsing": bool(rehearsal and rehearsal.state not in ENDED),
        "fragment": "rehearsal" if request.headers.get("HX-Target") == "rehearsal" else "",
        "entering": exits.entering(standing.tree),
        "leaving": exits.leaving(standing.tree),
        "purchase": purchase,
        "buying_leaves": purchase in exits.by_deed(standing.tree),
        "pair": pair_offer(standing),
        "rehearsal": rehearsal,
        "status": 422 if form.is_bound else 200,
    }


def _spot_check(request: HttpRequest, standing: Standing) -> Result:
    if standing.audience is None:
        return first(request, standing, "segment", "Build the segment first.")
    return {"signed": standing.signed}


def _owners(request: HttpRequest, standing: Standing) -> Result:
    audience = standing.audience
    if audience is None:
        return first(request, standing, "segment", "Build the segment first.")
    act = request.POST.get("act", "") if request.method == "POST" else ""
    if act == "live":
        return _go_live(request, standing)
    if act == "pair":
        for suppression in standing.linked:
            pairs.connect(actor=actor(request), audience=audience, suppression=suppression)
        messages.success(request, "Connected there too, as a rehearsal. Take it live first.")
        return redirect("qa:setup-step", standing.setup.pk, "owners")
    if act == "finish":
        setup.finish(actor=actor(request), setup=standing.setup)
        messages.success(request, "The set-up is finished. It stays a rehearsal until somebody goes live.")
        return redirect("qa:audience", audience.key)
    form = setup_forms.OwnersForm(request.POST if act == "owners" else None, audience=audience)
    if act == "owners" and form.is_valid():
        if not may(request.user, "audience.edit"):
            raise PermissionDenied(f"This needs the role {who_may('audience.edit')}.")
        try:
            setup.confirm_owners(actor=actor(request), setup=standing.setup, **form.cleaned_data)
        except AudienceRefused as refused:
            for problem in refused.problems:
                form.add_error(problem.path if problem.path in form.fields else None, problem.words)
        else:
            messages.success(request, "The owners are named.")
            return redirect("qa:setup-step", standing.setup.pk, "owners")
    mapping = standing.mapping
    return {
        "form": form,
        "objection": mappings.objection(mapping) if mapping else "",
        "exemption": queries.exemption(mapping) if mapping else None,
        "first": _rehearsing(standing),
        "lacking": pairs.lacking(audience),
        "suppressed": bool(mapping and gates.suppressed(mapping)),
        "left": [row for row in standing.steps("") if row.key not in standing.done and row.key != "owners"],
        "status": 422 if form.is_bound else 200,
    }


def _rehearsing(standing: Standing) -> list[Mapping]:
    """Linked suppression connections on the same destination that are still in rehearsal: they go live before."""
    if standing.mapping is None:
        return []
    rows = Mapping.objects.filter(
        audience__in=[one.pk for one in standing.linked],
        destination=standing.mapping.destination_id,
        state=Mapping.State.REHEARSAL,
    )
    return list(rows.select_related("audience", "destination").order_by("audience__key"))


def _go_live(request: HttpRequest, standing: Standing) -> HttpResponse:
    """This connection, or one that suppresses it, by the same door as everywhere: the gates stand in it."""
    if not may(request.user, "mapping.edit"):
        raise PermissionDenied(f"This needs the role {who_may('mapping.edit')}.")
    here = redirect("qa:setup-step", standing.setup.pk, "owners")
    asked = request.POST.get("mapping", "")
    own = standing.mapping
    mapping = next((row for row in [*_rehearsing(standing), *([own] if own else [])] if str(row.pk) == asked), None)
    if mapping is None:
        messages.error(request, "That connection is not one of this set-up, or it has gone live meanwhile.")
        return here
    seen = queries.connection(mapping.pk)
    if seen and seen.tally and seen.tally.wanted >= MANY:
        return redirect("destinations:deed", mapping.pk, "live")  # where the key is typed first
    if mapping.state not in (Mapping.State.LIVE, Mapping.State.PAUSED):
        try:
            mappings.go_live(actor=actor(request), mapping=mapping, reason="From the set-up")
        except Stopped as stopped:
            messages.error(request, str(stopped))
            return here
        except Refused as refused:
            messages.error(request, f"Not live: {refused}")
            return here
    if own is None or mapping.pk != own.pk:
        messages.success(request, f"{mapping.audience.key} is live on {mapping.destination.name}.")
        return here
    setup.finish(actor=actor(request), setup=standing.setup)
    messages.success(
        request, f"{mapping.audience.key} is live on {mapping.destination.name}; the first run is on its way."
    )
    return redirect("qa:audience", mapping.audience.key)


def _beside(name: str, by: int) -> str:
    at = list(STEPS).index(name) + by
    return list(STEPS)[at] if 0 <= at < len(STEPS) else ""


_PAGES: dict[str, Callable[[HttpRequest, Standing], Result]] = {
    "destination": _destination,
    "identity": _identity,
    "segment": setup_rule.segment,
    "connect": _connect,
    "behaviour": _behaviour,
    "spot-check": _spot_check,
    "owners": _owners,
}
