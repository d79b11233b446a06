"""Versions of an audience's rule: the list, two of them side by side, publishing, going back; and the test that makes publishing wait."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET

from audiences.access import requires
from audiences.models import Audience, SegmentVersion
from audiences.views.page import page


@require_GET
@requires("audience.view")
def versions_page(request: HttpRequest, key: str) -> HttpResponse:
    audience = get_object_or_404(Audience, key=key)
    return page(request, "versions/list.html", {"audience": audience})


@require_GET
@requires("audience.view")
def version(request: HttpRequest, key: str, number: int) -> HttpResponse:
    found = get_object_or_404(SegmentVersion.objects.select_related("audience"), audience__key=key, number=number)
    return page(request, "versions/version.html", {"audience": found.audience, "version": found})


@require_GET
@requires("audience.publish")
def roll_back(request: HttpRequest, key: str, number: int) -> HttpResponse:
    return version(request, key=key, number=number)  # type: ignore[return-value]


@require_GET
@requires("audience.view")
def test_lock(request: HttpRequest, key: str) -> HttpResponse:
    return versions_page(request, key=key)  # type: ignore[return-value]
