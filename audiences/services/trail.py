"""Writing the audit trail: every service that changes something ends here."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from audiences.models import AuditEntry, User


def record(
    actor: User | None,
    verb: str,
    object_type: str,
    object_key: str,
    *,
    before: Any = None,
    after: Any = None,
    reason: str = "",
) -> None:
    """One line of the trail, in the caller's transaction. `actor` None is the system. Never pass a person's data or a secret."""
    AuditEntry.objects.create(
        actor=actor,
        actor_label=actor.email if actor else "system",
        verb=verb,
        object_type=object_type,
        object_key=object_key,
        before=before,
        after=after,
        reason=reason,
    )


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the trail that is still to be written."""

    verb: str
    object_type: str
    object_key: str
    before: Any = None
    after: Any = None
    reason: str = ""


def record_all(actor: User | None, lines: Iterable[Line]) -> None:
    """Many lines of one act, in few statements, in the caller's transaction."""
    label = actor.email if actor else "system"
    rows = [
        AuditEntry(
            actor=actor,
            actor_label=label,
            verb=line.verb,
            object_type=line.object_type,
            object_key=line.object_key,
            before=line.before,
            after=line.after,
            reason=line.reason,
        )
        for line in lines
    ]
    AuditEntry.objects.bulk_create(rows, batch_size=500)
