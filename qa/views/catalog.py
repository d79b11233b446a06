"""The catalogue: every audience, found by plain words, trouble first."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from audiences import queries
from audiences.access import requires
from audiences.models import User
from audiences.views.page import page, paginated


@require_GET
@requires("audience.view")
def catalog(request: HttpRequest) -> HttpResponse:
    words = request.GET.get("q", "").replace("\0", "")[:200].strip()
    only = request.GET.get("only", "")
    user = request.user if isinstance(request.user, User) else None
    found = queries.catalog(words=words, only=only, user=user)
    context = {
        "catalog": found,
        "rows": paginated(request, found.rows),
        "words": words,
        "only": only if only in {choice.value for choice in found.filters} else "",
    }
    return page(request, "audiences/catalog.html", context, fragment="results")
