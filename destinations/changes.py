"""What has happened to people since a count was taken: the change log, read by mark. Writes nothing."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from django.db import connection

from audiences.models import ChangeLog
from audiences.people import bulk

# Events that end an advertisement's purpose: whoever did one leaves because of it, not because two counts differ.
PURCHASES = frozenset({"purchase"})


@dataclass(frozen=True, slots=True)
class Change:
    """One line of the log. `mark` orders lines by when they became final (seq on SQLite, transaction id on PostgreSQL)."""

    mark: int
    profile_no: int
    kind: str
    name: str
    at_us: int
    seq: int


def final_mark() -> int:
    """Every line with a mark up to here is final: no other can appear below it."""
    if connection.vendor == "postgresql":
        return int(bulk.fetch("SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1")[0][0])
    return int(
        bulk.fetch("SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'audiences_changelog'), 0)")[0][0]
    )


def beyond(mark: int) -> tuple[int, int, int]:
    """(final mark, how many lines there are after `mark`, how many of them are not final yet), as of one moment and cheaply."""
    if connection.vendor == "postgresql":
        sql = (
            "SELECT final.mark, count(seq), count(seq) FILTER (WHERE xid > final.mark) "
            "FROM (SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint - 1 AS mark) AS final "
            "LEFT JOIN audiences_changelog ON xid > %s GROUP BY final.mark"
        )
        final, after, open_still = bulk.fetch(sql, [mark])[0]
        return int(final), int(after), int(open_still)
    final = final_mark()
    return final, final - mark, 0


def reach(mark: int, lines: int) -> int | None:
    """The mark of the line that comes so many lines after `mark`; None where there are not so many."""
    column = _column()
    sql = f"SELECT {column} FROM audiences_changelog WHERE {column} > %s ORDER BY {column} LIMIT 1 OFFSET %s"  # noqa: S608 - our own
    found = bulk.fetch(sql, [mark, lines])
    return int(found[0][0]) if found else None


def since(
    mark: int, events: Collection[str] | None, among: Collection[int] | None = None, upto: int | None = None
) -> list[Change]:
    """Lines after `mark` in order (and none beyond `upto`), of events only those named (None: all). `among`: of these profiles only."""
    column = _column()
    conditions = [f"{column} > %s"]
    parameters: list[Any] = [mark]
    if upto is not None:
        conditions.append(f"{column} <= %s")
        parameters.append(upto)
    if events is not None:
        named, values = bulk.among("name", sorted(events) or [""])
        conditions.append(f"(kind <> %s OR {named})")
        parameters += [ChangeLog.Kind.EVENT.value, *values]
    if among is not None:
        chosen, values = bulk.among("profile_no", among)
        conditions.append(chosen)
        parameters += values
    rows = bulk.fetch(
        f"SELECT {column}, profile_no, kind, name, at_us, seq FROM audiences_changelog "  # noqa: S608 - no values in it
        f"WHERE {' AND '.join(conditions)} ORDER BY {column}, seq",
        parameters,
    )
    return [Change(*row) for row in rows]


def _column() -> str:
    return "xid" if connection.vendor == "postgresql" else "seq"
