"""Writing the audit trail: every service that changes something ends here."""

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
