"""Whether the web process answers."""

from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_GET


@require_GET
def live(request: HttpRequest) -> JsonResponse:
    """It asks nothing of the database, so that a busy one is not restarted."""
    return JsonResponse({"live": True})
