"""Runs: the list, one as it goes, and what may be done about it: cancel, approve."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_GET, require_POST

from audiences.access import requires
from audiences.views.page import STOP_POLLING, actor, page, paginated, wants_fragment
from destinations import queries
from destinations.models import ENDED, Run
from destinations.services import Refused
from destinations.services import runs as service

FILTERS = (("", "All"), ("active", "Going on"), ("trouble", "Trouble"), (Run.State.DONE.value, "Done"))


@require_GET
@requires("run.view")
def runs(request: HttpRequest) -> HttpResponse:
    state, audience = request.GET.get("state", ""), request.GET.get("audience", "")[:100].replace("\0", "")
    rows = paginated(request, queries.runs(state=state, audience=audience))
    context = {
        "rows": rows,
        "filters": FILTERS,
        "state": state,
        "audience": audience,
        "going": any(run.state not in ENDED for run in rows),
    }
    return page(request, "runs/list.html", context, fragment="results")


@require_GET
@requires("run.view")
def run(request: HttpRequest, pk: int) -> HttpResponse:
    row = get_object_or_404(
        Run.objects.select_related(
            "mapping__audience", "mapping__destination", "requested_by", "approved_by", "refresh__version"
        ).defer("refresh__keyframe", "refresh__entered", "refresh__left"),
        pk=pk,
    )
    ended = row.state in ENDED
    context = {
        "run": row,
        "mapping": row.mapping,
        "ended": ended,
        "stages": queries.stages(row),
        "took": (row.finished_at - row.started_at).total_seconds() if row.finished_at and row.started_at else None,
        "pace": queries.pace(row),
        "told": queries.told(row),
        "batches": paginated(request, queries.batches(row), 25),
        "reasons": queries.rejections(row.mapping, row),
    }
    polled = wants_fragment(request)
    return page(request, "runs/run.html", context, fragment="live", status=STOP_POLLING if polled and ended else 200)


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
