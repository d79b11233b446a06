"""What machines ask that watch this one. Answered before hosts, sessions and request logs are looked at (config/middleware.py)."""

from django.db import Error
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from qa import health


@require_safe
def live(request: HttpRequest) -> JsonResponse:
    """This web process answers. It asks nothing of anybody else, so that it is not restarted for what a restart does not mend."""
    return JsonResponse({"live": True})


@require_safe
def ready(request: HttpRequest) -> JsonResponse:
    """503: send it no requests. `degraded` names what is away although pages and intake go on answering."""
    found = health.readiness()
    body = {"ready": found.ready, **found.checks, "degraded": list(found.degraded)}
    return JsonResponse(body, status=200 if found.ready else 503)


@require_safe
def beat(request: HttpRequest) -> JsonResponse:
    """503: a queue's canary has not been done for too long, although its workers are not known to be merely busy."""
    try:
        found = health.beats()
    except Error:
        return JsonResponse({"beating": None, "queues": {}}, status=503)
    beating = all(queue.state in (health.OK, health.BUSY) for queue in found)
    queues = {queue.queue: {"seconds": queue.seconds, "state": queue.state} for queue in found}
    return JsonResponse({"beating": beating, "queues": queues}, status=200 if beating else 503)
