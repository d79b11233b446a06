"""Destinations: the accounts that audiences go to."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET

from audiences.access import requires
from audiences.page_queries import activity
from audiences.views.page import page
from destinations import page_queries
from destinations.models import Destination


@require_GET
@requires("destination.view")
def destinations(request: HttpRequest) -> HttpResponse:
    return page(request, "destinations/list.html", {"cards": page_queries.cards()})


@require_GET
@requires("destination.view")
def destination(request: HttpRequest, key: str) -> HttpResponse:
    row = get_object_or_404(Destination.objects.select_related("account", "credentials_by"), key=key)
    context = {
        "destination": row,
        "platform": page_queries.platform_of(row.kind),
        "connections": page_queries.connections(destination=row, whole=False),
        "activity": activity("destination", key),
    }
    return page(request, "destinations/destination.html", context)
