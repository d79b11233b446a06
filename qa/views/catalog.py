"""The catalogue: every audience, found by plain words, trouble first."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from audiences.access import requires
from audiences.views.page import actor, page, paginated, wants_fragment
from qa import catalog as audiences


@require_GET
@requires("audience.view")
def catalog(request: HttpRequest) -> HttpResponse:
    asked = request.GET.copy()
    for name in [name for name, value in asked.items() if not value]:
        del asked[name]  # a form sends what is left empty too; the address stays one that people can send each other
    request.GET = asked  # type: ignore[assignment]
    found = audiences.find(actor(request), asked)
    rows = paginated(request, found.found)
    context = {
        "catalog": found,
        "wish": found.wish,
        "rows": rows,
        "lines": audiences.dress(list(rows.object_list)),
        "view_url": request.build_absolute_uri(f"{request.path}?{asked.urlencode()}"),
    }
    response = page(request, "audiences/catalog.html", context, fragment="results")
    if wants_fragment(request):
        response["HX-Push-Url"] = f"{request.path}?{asked.urlencode()}" if asked else request.path
    return response
