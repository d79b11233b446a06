"""Runs: the list, and one as it goes."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET

from audiences.access import requires
from audiences.views.page import STOP_POLLING, page, paginated, wants_fragment
from destinations import page_queries
from destinations.models import Run

FILTERS = (("", "All"), ("active", "Going on"), ("trouble", "Trouble"), (Run.State.DONE.value, "Done"))


@require_GET
@requires("run.view")
def runs(request: HttpRequest) -> HttpResponse:
    state, audience = request.GET.get("state", ""), request.GET.get("audience", "")[:100].replace("\0", "")
    rows = paginated(request, page_queries.runs(state=state, audience=audience))
    context = {
        "rows": rows,
        "filters": FILTERS,
        "state": state,
        "audience": audience,
        "going": any(run.state not in page_queries.ENDED for run in rows),
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
    ended = row.state in page_queries.ENDED
    context = {
        "run": row,
        "mapping": row.mapping,
        "ended": ended,
        "stages": page_queries.stages(row),
        "pace": page_queries.pace(row),
        "told": page_queries.told(row),
        "batches": paginated(request, page_queries.batches(row), 25),
        "reasons": page_queries.rejections(row.mapping, row),
    }
    polled = wants_fragment(request)
    return page(request, "runs/run.html", context, fragment="live", status=STOP_POLLING if polled and ended else 200)
