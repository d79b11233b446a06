"""Who has signed off which version: what the page of versions asks for, cell by cell."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET

from audiences.access import requires
from audiences.models import Audience
from audiences.views.page import page
from qa.models import SpotCheck


@require_GET
@requires("spot_check.view")
def sign_offs(request: HttpRequest, key: str) -> HttpResponse:
    """The last signature under each version of the audience. Three queries."""
    audience = get_object_or_404(Audience, key=key)
    signed = SpotCheck.objects.filter(audience=audience, state=SpotCheck.State.SIGNED).select_related(
        "signed_by", "version"
    )
    latest = {check.version_id: check for check in signed.order_by("signed_at")}
    return page(request, "qa/sign_offs.html", {"audience": audience, "signed": list(latest.values())}, fragment="cells")
