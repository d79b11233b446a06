"""What Rollcall does by itself: due work, how far it is, and what failed."""

from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_GET

from audiences import queries
from audiences.access import requires
from audiences.models import Job
from audiences.views.page import page, paginated, wants_fragment


@require_GET
@requires("settings.view")
def jobs(request: HttpRequest) -> HttpResponse:
    """Failing first, then what runs, then what comes next."""
    now = timezone.now()
    rows = sorted(
        Job.objects.all(),
        key=lambda job: (not job.attempts, job.lease_until is None, job.due_at is None, job.due_at or now, job.task),
    )
    context = {"rows": paginated(request, rows), "failing": sum(1 for job in rows if job.attempts), "now": now}
    return page(request, "settings/jobs.html", context, fragment="results")


@require_GET
@requires("audience.view")
def working(request: HttpRequest) -> HttpResponse:
    """How far the long work is that every page tells of; when it is over, the page that asked is loaded anew."""
    work = queries.working()
    response = page(request, "working.html", {"work": work}, fragment="bar")
    if work is None and wants_fragment(request):
        response["HX-Refresh"] = "true"
    return response
