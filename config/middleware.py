"""Around every request: what machines ask is answered first, and what is logged names no person."""

import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.urls import Resolver404, resolve
from django_structlog.middlewares import RequestMiddleware as Original

from audiences import tallies


class MachinesFirst:
    """Outermost. Answers `/health/…` and `/metrics` by any name of this host, over plain HTTP, without a session or a log line, since
    probes call by address; and takes the time of everything else."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path_info.startswith(("/health/", "/metrics")):
            try:
                match = resolve(request.path_info)
            except Resolver404:
                return HttpResponse(status=404)
            answer: HttpResponse = match.func(request, **match.kwargs)
            answer["Cache-Control"] = "no-store"
            return answer
        began = time.monotonic()
        response = self._get_response(request)
        if not request.path_info.startswith("/static/"):
            status = f"{response.status_code // 100}xx"
            tallies.observe("request_seconds", _kind(request), status, seconds=time.monotonic() - began)
        return response


def _kind(request: HttpRequest) -> str:
    if request.path_info.startswith("/api/"):
        return "intake"
    if request.method not in ("GET", "HEAD"):
        return "action"
    return "fragment" if "HX-Request" in request.headers else "page"


class RequestMiddleware(Original):
    """django_structlog's, with `PUT api/v1/customers/<path:identifier>` where it would write the whole address, which may hold
    a person's e-mail address."""

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        match = getattr(request, "resolver_match", None)
        return f"{request.method} {match.route if match else '?'}"
