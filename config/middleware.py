"""Around every request: what machines ask is answered first, and what is logged names no person."""

import time
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.template.loader import render_to_string
from django.urls import Resolver404, resolve, reverse
from django_structlog.middlewares import RequestMiddleware as Original

from audiences import access, tallies
from audiences.forms import UPLOAD_LIMIT

FORM_BYTES = (
    2_000_000  # of a form without files; what it may hold is less (DATA_UPLOAD_MAX_MEMORY_SIZE), and Django's to refuse
)


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


class LargeBodies:
    """Refuses a body by the size it says it has, before any of it is read: Django writes uploaded files to the disk as they come, whoever
    sends them, and checks who that is later. The Track API has limits of its own. Stands after authentication, before anything reads forms."""

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self._get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        said = request.META.get("CONTENT_LENGTH") or "0"
        size = int(said) if said.isascii() and said.isdigit() else 0
        if size > FORM_BYTES and not request.path_info.startswith("/api/") and size > self._allowed(request):
            return HttpResponse(render_to_string("413.html"), status=413)
        return self._get_response(request)

    @staticmethod
    def _allowed(request: HttpRequest) -> int:
        takes_files = request.path_info == reverse("audiences:upload") and access.may(request.user, "import.run")
        return UPLOAD_LIMIT + FORM_BYTES if takes_files else FORM_BYTES


class RequestMiddleware(Original):
    """django_structlog's, with `PUT api/v1/customers/<path:identifier>` where it would write the whole address, which may hold
    a person's e-mail address."""

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        match = getattr(request, "resolver_match", None)
        return f"{request.method} {match.route if match else '?'}"
