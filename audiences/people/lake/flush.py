"""Hot events become lake files: written first, then swapped for the hot rows in one transaction."""

import time
from collections.abc import Callable

import pyarrow as pa
from django.db import connection, connections

from audiences import faults
from audiences.models import Counter
from audiences.people.lake import hot, manifest
from audiences.people.lake.staging import EVENTS, stage_events

# One write transaction deletes as many rows as were read; on SQLite it keeps all other writers out for so long.
LIMIT = {"sqlite": 10_000, "postgresql": 100_000}


def flush(*, limit: int | None = None, still_mine: Callable[[], None] | None = None) -> int:
    """Move the oldest hot events into the lake; how many. 0: none were there. Raises Overtaken.

    `still_mine` is called inside the transaction, and raises if the caller may no longer write (Claim.guard).
    """
    upto, table, ids = _oldest(limit or LIMIT[connection.vendor])
    if not table.num_rows:
        return 0
    faults.point("flush.read")
    staged = stage_events(table, origin="flush")
    faults.point("flush.staged")
    started = time.monotonic()
    with manifest.publishing(staged):
        if still_mine:
            still_mine()
        manifest.publish(staged)
        faults.point("flush.published")
        if _delete(ids) != len(ids):
            raise manifest.Overtaken
        faults.point("flush.deleted")
        Counter.objects.update_or_create(name="flushed", defaults={"value": upto})
        faults.point("flush.before_commit")
    held = time.monotonic() - started
    faults.point("flush.committed")
    if connection.vendor == "sqlite":
        time.sleep(held)  # its lock is not fair: others get their turn only while nobody asks
    return len(ids)


def _oldest(limit: int) -> tuple[int, pa.Table, list[int]]:
    """The hot rows of the lowest marks, all rows of each mark, with their ids: about `limit` of them."""
    with manifest.one_moment() as cursor:
        vendor = connections["snapshot"].vendor
        mark = hot.MARK[vendor].column
        highest = hot.MARK[vendor].highest.format(table="audiences_event")
        cursor.execute(
            f"SELECT min({mark}), max({mark}) FROM (SELECT {mark} FROM audiences_event"
            f" WHERE {mark} <= {highest} ORDER BY {mark} LIMIT {int(limit)}) AS oldest"
        )
        lowest, upto = cursor.fetchone()
        if lowest is None:
            return 0, EVENTS.empty_table(), []
        query = f"SELECT id, {hot.EVENT_FIELDS.format(mark=mark)} FROM audiences_event WHERE {mark} <= {int(upto)} ORDER BY {mark}"
        with_ids = pa.schema([("id", pa.int64()), *EVENTS])
        table = pa.Table.from_batches(hot.read(cursor, query, with_ids), with_ids)
    return upto, table.drop_columns(["id"]), table["id"].to_pylist()


def _delete(ids: list[int]) -> int:
    """Delete exactly these hot rows; how many there were."""
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("DELETE FROM audiences_event WHERE id = ANY(%s)", [ids])
        else:
            cursor.execute("DELETE FROM audiences_event WHERE id IN (SELECT value FROM json_each(%s))", [str(ids)])
        return int(cursor.rowcount)
