"""What is wrong with which audience now, by its open incidents; and how far its size may move. For lists; alerts are incidents.py's. Reads only."""

from collections.abc import Iterable

from qa import limits
from qa.limits import Allowed
from qa.models import Incident, Limits


def open_for(audience_ids: Iterable[int] | None = None) -> dict[int, list[Incident]]:
    """Audience → its open incidents, the worst first; those of a connection are its audience's. One query."""
    rows = Incident.objects.filter(recovered_at=None).select_related("mapping", "acknowledged_by")
    found: dict[int, list[Incident]] = {}
    for row in sorted(rows, key=lambda row: (row.severity != Incident.Severity.CRITICAL, row.since)):
        pk = row.audience_id or (row.mapping.audience_id if row.mapping else None)
        if pk is not None:
            found.setdefault(pk, []).append(row)
    wanted = None if audience_ids is None else set(audience_ids)
    return {pk: rows for pk, rows in found.items() if wanted is None or pk in wanted}


def allowed(audience_ids: Iterable[int]) -> dict[int, Allowed]:
    """Audience → how far its numbers may move, where somebody has said so. One query."""
    rows = Limits.objects.filter(audience__in=list(audience_ids))
    return {row.audience_id: limits.allowed(row) for row in rows}
