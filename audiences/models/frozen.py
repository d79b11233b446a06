"""What the database itself refuses to change: published versions, and the audit trail. Triggers, installed by a migration.

They hold for whoever writes: this application, a console, another program. A version once published may only be retired.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper

VERSIONS, TRAIL = "audiences_segmentversion", "audiences_auditentry"
KEPT = (
    "id", "audience_id", "number", "segment", "sha256", "sentence", "reason",
    "author_id", "created_at", "published_by_id", "published_at",
)  # fmt: skip
_SQLITE = "sqlite"


@dataclass(frozen=True, slots=True)
class Guard:
    """Before `deed` (UPDATE, DELETE) of a row of `table` for which `when` holds, the words are an integrity error.

    `{differs}` stands for the engine's comparison that takes NULL for a value.
    """

    name: str
    table: str
    deed: str
    words: str
    when: str = ""


_PUBLISHED = "OLD.state IN ('published', 'retired')"
_CHANGED = " OR ".join(f"NEW.{column} {{differs}} OLD.{column}" for column in KEPT)
_STATE = "(NEW.state {differs} OLD.state AND NOT (OLD.state = 'published' AND NEW.state = 'retired'))"
GUARDS = (
    Guard(
        "version_stays",
        VERSIONS,
        "UPDATE",
        "a published version never changes; publish another one",
        f"{_PUBLISHED} AND ({_CHANGED} OR {_STATE})",
    ),
    Guard("version_is_kept", VERSIONS, "DELETE", "a published version is never deleted", _PUBLISHED),
    Guard("trail_stays", TRAIL, "UPDATE", "the audit trail is only ever added to"),
    Guard("trail_is_kept", TRAIL, "DELETE", "the audit trail is only ever added to"),
)


def install(connection: BaseDatabaseWrapper) -> None:
    """Put every guard in place; those that are there are put there anew."""
    with connection.cursor() as cursor:
        for guard in GUARDS:
            for statement in (*_remove(connection.vendor, guard), *_create(connection.vendor, guard)):
                cursor.execute(statement)


def remove(connection: BaseDatabaseWrapper) -> None:
    with connection.cursor() as cursor:
        for guard in GUARDS:
            for statement in _remove(connection.vendor, guard):
                cursor.execute(statement)


def installed(connection: BaseDatabaseWrapper) -> set[str]:
    """The names of the guards that are in place."""
    if connection.vendor == _SQLITE:
        rows = "SELECT name FROM sqlite_master WHERE type = 'trigger'"
    else:
        rows = "SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"
    with connection.cursor() as cursor:
        cursor.execute(rows)
        return {name for (name,) in cursor.fetchall()} & {guard.name for guard in GUARDS}


@contextmanager
def set_aside(using: str = "default") -> Iterator[None]:
    """In one transaction: the guards away, the block, the guards back. For making up the past of the sample shop, and for nothing else."""
    with transaction.atomic(using=using):
        remove(connections[using])
        yield
        install(connections[using])


def _create(vendor: str, guard: Guard) -> tuple[str, ...]:
    if vendor == _SQLITE:
        when = f"WHEN {guard.when.format(differs='IS NOT')} " if guard.when else ""
        return (
            f"CREATE TRIGGER {guard.name} BEFORE {guard.deed} ON {guard.table} FOR EACH ROW {when}"
            f"BEGIN SELECT RAISE(ABORT, '{guard.words}'); END",
        )
    when = f"WHEN ({guard.when.format(differs='IS DISTINCT FROM')}) " if guard.when else ""
    return (
        "CREATE OR REPLACE FUNCTION rollcall_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ "
        "BEGIN RAISE EXCEPTION USING MESSAGE = TG_ARGV[0], ERRCODE = 'integrity_constraint_violation'; END $$",
        f"CREATE TRIGGER {guard.name} BEFORE {guard.deed} ON {guard.table} FOR EACH ROW {when}"
        f"EXECUTE FUNCTION rollcall_refuse('{guard.words}')",
    )


def _remove(vendor: str, guard: Guard) -> tuple[str, ...]:
    on = "" if vendor == _SQLITE else f" ON {guard.table}"
    return (f"DROP TRIGGER IF EXISTS {guard.name}{on}",)
