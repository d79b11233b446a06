"""Pages and panels of this floor."""

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_GET

from audiences.access import requires
from audiences.models import Job
from audiences.views.page import STOP_POLLING, page
from qa.sample import fill


@require_GET
def live(request: HttpRequest) -> JsonResponse:
    """The web process answers. It asks nothing of the database, so that a busy one is not restarted."""
    return JsonResponse({"live": True})


@require_GET
@requires("audience.view")
def panel_filling(request: HttpRequest) -> HttpResponse:
    """How far the sample shop is filled; once it is, the page is told to stop asking."""
    job = Job.objects.filter(task=fill.TASK, key=fill.KEY).first()
    filled = job is None or fill.is_filled()
    return page(
        request,
        "qa/filling.html",
        {"job": job, "filled": filled},
        fragment="bar",
        status=STOP_POLLING if filled and request.htmx else 200,  # type: ignore[attr-defined]  # set by HtmxMiddleware
    )
