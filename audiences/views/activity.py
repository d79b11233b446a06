"""The page of the audit trail: who changed what, when and why, found by words, person, kind of thing, deed and day."""

from datetime import date

from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from audiences import activity as trail
from audiences.access import requires
from audiences.models import Workspace
from audiences.views.page import page, paginated, zone_of


@require_GET
@requires("trail.view")
def activity(request: HttpRequest) -> HttpResponse:
    """What is looked for is in the address; a day that is none counts as not said."""
    given = {
        name: request.GET.get(name, "").replace("\0", "")[:200].strip()
        for name in ("q", "who", "type", "object", "verb")
    }
    wanted = trail.Search(
        words=given["q"],
        who=given["who"],
        kind=given["type"],
        thing=given["object"],
        verb=given["verb"],
        since=_day(request.GET.get("from", "")),
        until=_day(request.GET.get("to", "")),
    )
    zone = zone_of(request.user, Workspace.objects.first())
    rows = paginated(request, trail.search(wanted, zone))
    context = {
        "wanted": wanted,
        "rows": rows,
        "lines": trail.lines(rows, zone),
        "choices": trail.choices(),
        "backwards": wanted.since and wanted.until and wanted.since > wanted.until,
    }
    return page(request, "activity/list.html", context, fragment="results")


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None
