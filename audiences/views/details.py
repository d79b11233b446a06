"""What an audience is called and for, and how often it is counted; and following it."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.views.decorators.http import require_GET, require_POST

from audiences.access import requires
from audiences.models import Audience
from audiences.views.page import page


@require_GET
@requires("audience.edit")
def details(request: HttpRequest, key: str) -> HttpResponse:
    audience = get_object_or_404(Audience, key=key)
    return page(request, "owners/details.html", {"audience": audience})


@require_POST
@requires("audience.follow")
def follow(request: HttpRequest, key: str) -> HttpResponse:
    audience = get_object_or_404(Audience, key=key)
    return redirect("qa:audience", audience.key)
