"""The audit trail as a page: who changed what, when and why, found by words, person, kind of thing, deed and day."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from audiences.access import requires
from audiences.models import AuditEntry
from audiences.views.page import page, paginated


@require_GET
@requires("trail.view")
def activity(request: HttpRequest) -> HttpResponse:
    return page(request, "activity/list.html", {"activity": paginated(request, AuditEntry.objects.order_by("-pk"))})
