"""The rehearsal of a connection: who would be added and removed, by which calls, how long it would take, and what stands in the way."""

from django.http import Http404, HttpRequest, HttpResponse
from django.views.decorators.http import require_GET

from audiences.access import requires
from audiences.views.page import STOP_POLLING, page, wants_fragment
from destinations import queries, rehearsals, remote_names
from destinations.models import Mapping
from destinations.services import mappings

MAY_START = (Mapping.State.REHEARSAL, Mapping.State.TRIAL)


@require_GET
@requires("audience.view")
def rehearsal(request: HttpRequest, pk: int) -> HttpResponse:
    seen = queries.connection(pk)
    if seen is None:
        raise Http404
    mapping = seen.mapping
    found = rehearsals.of(mapping)
    platform = queries.platform_of(mapping.destination.kind)
    startable = mapping.state in MAY_START
    objection = None if mapping.state == Mapping.State.RETIRED else mappings.objection(mapping)
    hindrances = mappings.hindrances(mapping) if startable else []
    checks = rehearsals.checks(seen, found, platform, objection=objection, hindrances=hindrances, startable=startable)
    identifiers = rehearsals.identifiers(mapping, platform) if platform else []
    context = {
        "seen": seen,
        "mapping": mapping,
        "platform": platform,
        "rehearsal": found,
        "run": found.run,
        "startable": startable,
        "objection": objection,
        "checks": checks,
        "stopped": any(check.state == rehearsals.STOP for check in checks),
        "name": remote_names.now(mapping),
        "identifiers": identifiers,
        "kept": [row for row in identifiers if not row.sent],
    }
    polled = wants_fragment(request)
    status = STOP_POLLING if polled and found.going is None else 200
    return page(request, "runs/rehearsal.html", context, fragment="live", status=status)
