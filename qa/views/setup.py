"""The way through the seven steps, the launch checklist, pairs."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET

from audiences.access import requires
from audiences.models import Audience
from audiences.views.page import page
from qa import checklist
from qa.models import SetUp


@require_GET
@requires("setup.edit")
def setups(request: HttpRequest) -> HttpResponse:
    rows = SetUp.objects.filter(finished_at=None).select_related("audience", "destination", "started_by")
    return page(request, "setup/list.html", {"rows": rows.order_by("-pk")})


@require_GET
@requires("setup.edit")
def new(request: HttpRequest) -> HttpResponse:
    return page(request, "setup/list.html", {"rows": []})


@require_GET
@requires("audience.view")
def setup(request: HttpRequest, key: str) -> HttpResponse:
    audience = get_object_or_404(Audience, key=key)
    return page(request, "setup/checklist.html", {"audience": audience, "checklist": checklist.of(audience)})


@require_GET
@requires("audience.edit")
def pair(request: HttpRequest, key: str) -> HttpResponse:
    audience = get_object_or_404(Audience, key=key)
    return page(request, "setup/checklist.html", {"audience": audience, "checklist": checklist.of(audience)})
