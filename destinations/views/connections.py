"""Connections: one audience to one destination, from its set-up to its end."""

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from audiences.access import requires
from audiences.page_queries import activity
from audiences.views.page import page
from destinations import page_queries


@require_GET
@requires("audience.view")
def connection(request: HttpRequest, pk: int) -> HttpResponse:
    seen = page_queries.connection(pk)
    if seen is None:
        raise Http404
    context = {
        "seen": seen,
        "mapping": seen.mapping,
        "platform": page_queries.platform_of(seen.mapping.destination.kind),
        "reasons": page_queries.rejections(seen.mapping),
        "runs": page_queries.runs().filter(mapping=pk)[:8],
        "activity": activity("mapping", str(pk)),
    }
    return page(request, "destinations/connection.html", context)
