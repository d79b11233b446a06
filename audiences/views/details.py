"""What an audience is called and for, and how often it is counted; and following it."""

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, redirect
from django.utils.http import url_has_allowed_host_and_scheme
from django.views.decorators.http import require_GET, require_POST

from audiences.access import requires
from audiences.models import Audience
from audiences.services import audiences
from audiences.views.page import actor, page, wants_fragment


@require_GET
@requires("audience.edit")
def details(request: HttpRequest, key: str) -> HttpResponse:
    audience = get_object_or_404(Audience, key=key)
    return page(request, "owners/details.html", {"audience": audience})


@require_POST
@requires("audience.follow")
def follow(request: HttpRequest, key: str) -> HttpResponse:
    """Follow it, or (`follows` empty) no longer; back to where the button was."""
    audience, follows = get_object_or_404(Audience, key=key), bool(request.POST.get("follows"))
    audiences.follow(actor=actor(request), audience=audience, follows=follows)
    if wants_fragment(request):
        return page(request, "audiences/parts.html", {"audience": audience, "followed": follows}, fragment="follow")
    if follows:
        messages.success(request, f"You follow {audience.name}: your home page shows what happens to it.")
    back = request.POST.get("next", "")
    safe = url_has_allowed_host_and_scheme(back, allowed_hosts={request.get_host()}, require_https=request.is_secure())
    return redirect(back) if safe else redirect("qa:audience", audience.key)
