"""The rows of the record that tell what platforms were told: each call, and what became of each person in it. Reads only."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
from django.db.models import QuerySet
from pyroaring import BitMap

from audiences.bitmaps import to_array, unpack
from audiences.models import Alias
from audiences.people.called import Called
from destinations import identities
from destinations.models import Operation
from destinations.record import shape
from destinations.record.reading import from_rows

ACCEPTED, REJECTED, UNKNOWN, PENDING, IN_FLIGHT, NOT_APPLIED = (
    "accepted",
    "rejected",
    "unknown",
    "pending",
    "in_flight",
    "not_applied",
)
_OUTCOMES = {
    Operation.State.PREPARED: IN_FLIGHT,
    Operation.State.SUBMITTED: PENDING,
    Operation.State.SETTLED: ACCEPTED,
    Operation.State.UNKNOWN: UNKNOWN,
    Operation.State.UNAPPLIED: NOT_APPLIED,
}
_AT_ONCE = 50


def in_order(operations: QuerySet[Operation]) -> Iterator[list[Operation]]:
    """Operations, oldest first, some at a time, with all that the two tables need."""
    rows = operations.select_related("mapping__audience", "mapping__destination", "version").order_by("pk")
    some: list[Operation] = []
    for operation in rows.prefetch_related("refusals").iterator(chunk_size=_AT_ONCE):
        some.append(operation)
        if len(some) == _AT_ONCE:
            yield some
            some = []
    if some:
        yield some


def deliveries(operations: Iterable[Operation]) -> pa.Table:
    """One row a call (shape.DELIVERIES). Numbers of what is not known yet are null."""
    rows = []
    for call in operations:
        answered = call.state in (Operation.State.SETTLED, Operation.State.SUBMITTED, Operation.State.UNAPPLIED)
        rows.append(
            (
                call.pk,
                call.mapping.audience.key,
                call.mapping_id,
                call.mapping.destination.key,
                call.mapping.destination.kind,
                call.kind,
                call.cause,
                call.version.number if call.version else None,
                call.count,
                call.accepted if answered else None,
                call.rejected if answered else None,
                call.count - call.accepted - call.rejected if call.state != Operation.State.PREPARED else None,
                _OUTCOMES[Operation.State(call.state)],
                not call.open,
                call.request_id or None,
                call.http_status,
                call.prepared_at,
                call.finished_at,
            )
        )
    return from_rows(shape.DELIVERIES, rows)


def people(operations: Iterable[Operation], called: Called, only: BitMap | None = None) -> Iterator[pa.Table]:
    """What became of each person of each call who can be named (shape.DELIVERED_PEOPLE).

    Where a platform refused some without saying whom, the outcome of those it did not name is not known. Whoever was sent under
    two identities in one call has the better of the two outcomes. `only`: of these profiles.
    """
    chosen = None if only is None else _identities_of(only)
    for call in operations:
        ids = unpack(call.identities)
        if chosen is not None:
            ids &= chosen
        if not ids:
            continue
        profiles = identities.profiles_of(ids)
        outcome = _OUTCOMES[Operation.State(call.state)]
        named = {row.code: (row.reason, unpack(row.identities) & ids) for row in call.refusals.all()}
        told = BitMap().union(*(refused for _, refused in named.values())) if named else BitMap()
        if outcome in (ACCEPTED, PENDING) and call.rejected > sum(
            len(unpack(r.identities)) for r in call.refusals.all()
        ):
            outcome = UNKNOWN
        groups: list[_Group] = [(ids - told, outcome, None, None)]
        groups += [(refused, REJECTED, code, reason) for code, (reason, refused) in sorted(named.items())]
        tables = [_of_group(call.pk, group, profiles, called) for group in groups if group[0]]
        whole = pa.concat_tables(tables) if tables else shape.DELIVERED_PEOPLE.schema.empty_table()
        if whole.num_rows:
            yield _once_each(whole)


def _identities_of(people: BitMap) -> BitMap:
    """All identities that they have or had, also as those who turned out to be them."""
    found = BitMap()
    numbers = list(people)
    for start in range(0, len(numbers), 10_000):
        some = numbers[start : start + 10_000]
        merged = Alias.objects.filter(survivor_no__in=some).values_list("old_no", flat=True)
        found |= BitMap(number for number, _ in identities.of_profiles([*some, *merged]))
    return found


_Group = tuple[BitMap, str, str | None, str | None]  # whom, what became of them, the platform's code and words


def _of_group(call: int, group: _Group, profiles: dict[int, int], called: Called) -> pa.Table:
    ids, outcome, code, reason = group
    numbers = np.array([profiles.get(number, 0) for number in to_array(ids).tolist()], np.int64)
    who = called.of(numbers).drop_null()
    size = len(who)
    return shape.made(
        shape.DELIVERED_PEOPLE,
        [
            pa.repeat(pa.scalar(call), size),
            who,
            pa.repeat(pa.scalar(outcome), size),
            pa.repeat(pa.scalar(code, pa.string()), size),
            pa.repeat(pa.scalar(reason, pa.string()), size),
        ],
    )


def _once_each(table: pa.Table) -> pa.Table:
    first: dict[str, int] = {}
    for at, name in enumerate(table["external_id"].to_pylist()):
        first.setdefault(name, at)
    return table if len(first) == table.num_rows else table.take(pa.array(first.values()))
