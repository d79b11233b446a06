"""Home: what needs me now."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect


def home(request: HttpRequest) -> HttpResponse:
    """Where everybody begins."""
    return redirect("qa:catalog")
