"""What machines ask that watch this one. Answered before hosts, sessions and request logs are looked at (config/middleware.py)."""

import hmac

from django.conf import settings
from django.db import Error
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.views.decorators.http import require_safe
from prometheus_client.exposition import choose_encoder

from qa import health, metrics

_PROXIED = {"X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-Ip", "Forwarded", "Via"}


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


@require_safe
def scrape(request: HttpRequest) -> HttpResponse:
    """All metrics, to whoever knows METRICS_TOKEN; without one, to this machine alone, and never through a proxy."""
    if settings.METRICS_TOKEN:
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if not hmac.compare_digest(given.encode(), settings.METRICS_TOKEN.encode()):
            return HttpResponse(status=401, headers={"WWW-Authenticate": "Bearer"})
    elif request.META.get("REMOTE_ADDR") not in ("127.0.0.1", "::1") or _PROXIED & set(request.headers):
        return HttpResponse(
            "Set METRICS_TOKEN to read metrics from elsewhere.\n", status=403, content_type="text/plain"
        )
    encode, kind = choose_encoder(request.headers.get("Accept", ""))
    try:
        return HttpResponse(encode(metrics.registry()), content_type=kind)
    except Error:
        return HttpResponse(status=503)
