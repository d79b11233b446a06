"""What is logged of a request: the address as it is declared, never as it was called, which may hold a person's e-mail address."""

from django.http import HttpRequest
from django_structlog.middlewares import RequestMiddleware as Original


class RequestMiddleware(Original):
    """django_structlog's, with `PUT api/v1/customers/<path:identifier>` where it would write the whole address."""

    @staticmethod
    def format_request(request: HttpRequest) -> str:
        match = getattr(request, "resolver_match", None)
        return f"{request.method} {match.route if match else '?'}"
