"""Runs: the list, one as it goes, and what may be done about it: cancel, approve."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_GET, require_POST

from audiences.access import may, requires
from audiences.models import Audience
from audiences.views.page import STOP_POLLING, actor, page, paginated, wants_fragment
from destinations import queries, refusals
from destinations.models import ENDED, Destination, Run
from destinations.services import Refused
from destinations.services import runs as service

FILTERS = (("", "All"), ("active", "Going on"), ("trouble", "Trouble"), (Run.State.DONE.value, "Done"))


@require_GET
@requires("run.view")
def runs(request: HttpRequest) -> HttpResponse:
    """Every run, newest first; state, audience and destination are in the address."""
    state, audience, destination = (
        request.GET.get(name, "")[:100].replace("\0", "") for name in ("state", "audience", "destination")
    )
    rows = paginated(request, queries.runs(state=state, audience=audience, destination=destination))
    context = {
        "rows": rows,
        "filters": FILTERS,
        "state": state,
        "audience": audience,
        "destination": destination,
        "filtered": bool(state or audience or destination),
        "audiences": Audience.objects.filter(mappings__isnull=False)
        .distinct()
        .order_by("key")
        .values_list("key", flat=True),
        "destinations": Destination.objects.order_by("name").values_list("key", "name"),
        "going": any(run.state not in ENDED for run in rows),
    }
    return page(request, "runs/list.html", context, fragment="results")


@require_GET
@requires("run.view")
def run(request: HttpRequest, pk: int) -> HttpResponse:
    row = get_object_or_404(
        Run.objects.select_related(
            "mapping__audience", "mapping__destination", "requested_by", "approved_by", "refresh__version"
        ).defer("refresh__keyframe", "refresh__entered", "refresh__left", "refresh__rule_counts"),
        pk=pk,
    )
    ended = row.state in ENDED
    people = None if row.planned_adds is None else row.planned_adds + (row.planned_removes or 0)
    context = {
        "run": row,
        "mapping": row.mapping,
        "ended": ended,
        "stages": queries.stages(row),
        "took": (row.finished_at - row.started_at).total_seconds() if row.finished_at and row.started_at else None,
        "pace": queries.pace(row),
        "told": queries.told(row),
        "people": people,
        "done": row.added + row.removed,
        "advice": _advice(row),
        "leaving": queries.leaving(row.mapping)
        if row.state == Run.State.NEEDS_APPROVAL and may(request.user, "person.view")
        else (),
        "batches": paginated(request, queries.batches(row), 25),
        "reasons": refusals.by_reason(row.mapping, row),
    }
    polled = wants_fragment(request)
    return page(request, "runs/run.html", context, fragment="live", status=STOP_POLLING if polled and ended else 200)


def _advice(run: Run) -> str:
    """What to do about a run that did not end well; empty: nothing."""
    if run.rehearsal or run.state not in (Run.State.FAILED, Run.State.INTERRUPTED, Run.State.CANCELLED):
        return ""
    if run.mapping.destination.state == Destination.State.REFUSED:
        return "reconnect"
    if run.mapping.blocked_reason:
        return "blocked"
    return "again" if run.state != Run.State.INTERRUPTED else "goes_on"


@require_POST
@requires("run.start")
def cancel(request: HttpRequest, pk: int) -> HttpResponse:
    try:
        service.cancel(actor=actor(request), run=get_object_or_404(Run, pk=pk))
    except Refused as refused:
        messages.warning(request, str(refused))
    else:
        messages.success(
            request,
            "It stops before its next call. What has been sent stays sent, and the next run goes on from there.",
        )
    return redirect("destinations:run", pk)


@require_POST
@requires("run.approve")
def approve(request: HttpRequest, pk: int) -> HttpResponse:
    reason = request.POST.get("reason", "")[:500].replace("\0", "")
    try:
        service.approve(actor=actor(request), run=get_object_or_404(Run, pk=pk), reason=reason)
    except Refused as refused:
        messages.warning(request, str(refused))
    else:
        messages.success(request, "Approved, in your name. It goes on.")
    return redirect("destinations:run", pk)
