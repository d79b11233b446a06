"""What pages of the floor below show of this one, by address: an audience's connections."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET

from audiences.access import requires
from audiences.models import Audience
from audiences.views.page import page
from destinations import queries


@require_GET
@requires("audience.view")
def connections(request: HttpRequest, key: str) -> HttpResponse:
    """An audience's connections: a page of its own, and a part of the audience's."""
    audience = get_object_or_404(Audience.objects.select_related("live_version"), key=key)
    context = {
        "audience": audience,
        "connections": queries.connections(audience=audience),
        "runs": queries.runs(audience=key)[:8],
    }
    return page(request, "destinations/connections.html", context, fragment="panel")
