"""Settings, Names, on the platforms: what each connection's audience is called there, and what it should be called."""

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from audiences.access import requires
from audiences.views.page import page, paginated
from destinations import remote_names

FILTERS = (
    ("", "All"),
    ("differs", "Differ"),
    (remote_names.GONE, "Deleted there"),
    (remote_names.NEW, "Not there yet"),
    (remote_names.KEPT, "Adopted"),
)


@require_GET
@requires("naming.view")
def remote_names_page(request: HttpRequest) -> HttpResponse:
    """Each connection's name there; those that differ first."""
    only, key = request.GET.get("only", "")[:20], request.GET.get("audience", "")[:100]
    names = [name for name in remote_names.every() if not key or name.mapping.audience.key == key]
    tally = remote_names.tally(names)
    differ = sum(name.differs for name in names)
    counts = {"": len(names), "differs": differ, **tally}
    found = [name for name in names if not only or name.state == only or (only == "differs" and name.differs)]
    context = {
        "rows": paginated(request, found),
        "total": len(names),
        "differ": differ,
        "gone": tally[remote_names.GONE],
        "filters": [
            (value, label, counts.get(value, 0)) for value, label in FILTERS if counts.get(value) or value in ("", only)
        ],
        "only": only,
        "key": key,
    }
    return page(request, "naming/platforms.html", context)


@require_GET
@requires("naming.view")
def cells(request: HttpRequest) -> HttpResponse:
    """For the list of audiences: a cell for each of up to 100 (`a`, their numbers), swapped in by its id."""
    numbers = [int(n) for n in request.GET.getlist("a")[:100] if n.isascii() and n.isdigit() and len(n) < 18]
    names = remote_names.every(audience_ids=numbers)
    found = [(number, [name for name in names if name.mapping.audience_id == number]) for number in numbers]
    return page(request, "naming/platform_cells.html", {"cells": found}, fragment="cells")
