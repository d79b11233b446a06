"""One export: the record of some audiences for a period, table by table, into whatever files the caller opens. Memory is bounded: rows are streamed."""

from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import timedelta

import pyarrow as pa
from django.db.models import QuerySet
from pyroaring import BitMap

from audiences import clock, stays
from audiences.models import Audience
from audiences.people import called as people
from audiences.people import lake
from audiences.people.called import Called
from destinations.models import Mapping, Operation
from destinations.record import deliveries, reading, shape
from destinations.record.files import Writer
from destinations.record.shape import Table

HOLD = timedelta(hours=6)  # how long the lake's files are kept for a long export


@dataclass(frozen=True, slots=True)
class Scope:
    """Of these audiences, from `start_us` up to (and without) `end_us`. `everybody`: events of all people, not only of members."""

    audiences: tuple[Audience, ...]
    start_us: int
    end_us: int
    everybody: bool = False


def write(
    scope: Scope,
    tables: Collection[Table],
    opened: Callable[[Table], AbstractContextManager[Writer]],
    tell: Callable[[dict[str, int]], None] = lambda rows: None,
) -> dict[str, int]:
    """Write each of these tables through `opened`; table → rows. `tell` hears how many there are so far. Raises lake.SnapshotGone.

    Memberships are as they were at the end of the period, by the counts before it; events are those of the period, of whoever was a
    member at any time in it; calls are those prepared in it, as they stand now.
    """
    called = people.everybody()
    export = _Export(scope, called)
    counted: dict[str, int] = {}
    for table in shape.TABLES:
        if table not in tables:
            continue
        counted[table.name] = 0
        with opened(table) as writer:
            for rows in export.rows(table):
                writer.write(rows)
                counted[table.name] += rows.num_rows
                tell(counted)
    return counted


class _Export:
    def __init__(self, scope: Scope, called: Called) -> None:
        self._scope, self._called = scope, called
        self._merged = people.merged_people()

    def rows(self, table: Table) -> Iterator[pa.Table]:
        readers: dict[str, Callable[[], Iterator[pa.Table]]] = {
            shape.AUDIENCES.name: self._audiences,
            shape.MEMBERSHIPS.name: self._memberships,
            shape.DELIVERIES.name: self._deliveries,
            shape.DELIVERED_PEOPLE.name: self._delivered_people,
            shape.EVENTS.name: self._events,
            shape.HOLDOUTS.name: self._holdouts,
        }
        return readers[table.name]()

    def _audiences(self) -> Iterator[pa.Table]:
        yield reading.audiences(self._scope.audiences, self._called)

    def _memberships(self) -> Iterator[pa.Table]:
        for audience in self._scope.audiences:
            found = stays.read(audience.pk, self._merged, until_us=self._scope.end_us)
            yield from reading.memberships(audience, self._called, found, self._scope.start_us)

    def _deliveries(self) -> Iterator[pa.Table]:
        for some in deliveries.in_order(self._calls()):
            yield deliveries.deliveries(some)

    def _delivered_people(self) -> Iterator[pa.Table]:
        for some in deliveries.in_order(self._calls()):
            yield from deliveries.people(some, self._called)

    def _events(self) -> Iterator[pa.Table]:
        only = None if self._scope.everybody else self._members()
        with lake.pinned(self._scope.end_us, hold=HOLD) as pinned:
            parts = lake.read_events(pinned, start_us=self._scope.start_us, end_us=self._scope.end_us)
            for _, tables in reading.events(parts, self._called, only):
                yield from tables

    def _holdouts(self) -> Iterator[pa.Table]:
        connections = Mapping.objects.filter(audience__in=self._scope.audiences).order_by("pk")
        for connection in connections.select_related("audience", "destination"):
            for _, rows in reading.held_out(connection, self._called, end_us=self._scope.end_us):
                yield rows

    def _calls(self) -> QuerySet[Operation]:
        return Operation.objects.filter(
            mapping__audience__in=self._scope.audiences,
            prepared_at__gte=clock.from_us(self._scope.start_us),
            prepared_at__lt=clock.from_us(self._scope.end_us),
        )

    def _members(self) -> BitMap:
        """Everybody who was a member at any time in the period."""
        found = BitMap()
        for audience in self._scope.audiences:
            for table in stays.read(audience.pk, self._merged, until_us=self._scope.end_us):
                ends = table["left_us"].fill_null(2**63 - 1).to_numpy()
                found |= BitMap(table["profile_no"].to_numpy()[ends > self._scope.start_us].tolist())
        return found
