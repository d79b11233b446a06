"""Who owns an audience; and what somebody hands over before they go."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET

from audiences import owners
from audiences.access import requires
from audiences.models import Audience, User
from audiences.views.page import page


@require_GET
@requires("audience.view")
def owners_page(request: HttpRequest, key: str) -> HttpResponse:
    audience = get_object_or_404(Audience, key=key)
    return page(request, "owners/owners.html", {"audience": audience, "holdings": owners.holdings(audience)})


@require_GET
@requires("settings.edit")
def hand_over(request: HttpRequest, pk: int) -> HttpResponse:
    user = get_object_or_404(User, pk=pk)
    return page(request, "owners/hand_over.html", {"leaving": user, "holdings": owners.held_by(user)})
