"""The rows of the record that tell of audiences and of people: who was a member when, what they did, who was held out. Reads only.

What was told to platforms is deliveries.py's. Everybody is named by external id, and nobody who cannot be (audiences/people/called.py).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import pyarrow as pa
from pyroaring import BitMap

from audiences import bitmaps, clock, history
from audiences.models import Audience, Membership, Refresh
from audiences.people import lake
from audiences.people.called import Called
from destinations import eligibility
from destinations.models import Eligibility
from destinations.models import Mapping as Connection
from destinations.record import shape
from destinations.record.shape import MOMENT


def audiences(chosen: Iterable[Audience], called: Called) -> pa.Table:
    """Each audience as it stands now (shape.AUDIENCES). Sizes are null where it was never counted."""
    rows = []
    counted = Membership.objects.select_related("refresh").defer(
        "refresh__keyframe", "refresh__entered", "refresh__left"
    )
    for audience in chosen:
        membership = counted.filter(audience=audience).first()
        rows.append(
            (
                audience.key,
                audience.name,
                audience.purpose,
                audience.created_at,
                audience.archived_at,
                audience.live_version.number if audience.live_version else None,
                clock.from_us(membership.refresh.as_of_us) if membership else None,
                membership.count if membership else None,
                called.named(bitmaps.unpack(membership.members)) if membership else None,
            )
        )
    return from_rows(shape.AUDIENCES, rows)


def memberships(audience: Audience, called: Called, found: Iterable[pa.Table], start_us: int = 0) -> Iterator[pa.Table]:
    """Stretches (audiences/stays.py) as rows of shape.MEMBERSHIPS: those that had not ended by `start_us`, of people who can be named."""
    for table in found:
        if start_us:
            ends = table["left_us"].fill_null(2**63 - 1).to_numpy()
            table = table.filter(pa.array(ends > start_us))
        ids = called.of(table["profile_no"].to_numpy())
        named = ids.is_valid()
        table = table.filter(named)
        if table.num_rows:
            yield shape.made(
                shape.MEMBERSHIPS,
                [
                    pa.repeat(pa.scalar(audience.key), table.num_rows),
                    ids.filter(named),
                    moments(table["entered_us"]),
                    moments(table["left_us"]),
                    *(
                        table[name]
                        for name in table.column_names
                        if name not in ("profile_no", "entered_us", "left_us")
                    ),
                ],
            )


def events(
    parts: Iterable[lake.Part], called: Called, only: BitMap | None = None
) -> Iterator[tuple[lake.Part, Iterator[pa.Table]]]:
    """Each part of the lake (lake.read_events) with its events as rows of shape.EVENTS. `only`: of these people, by today's numbers."""
    for part in parts:
        yield part, _events(part, called, only)


def held_out(
    connection: Connection, called: Called, *, after: int = 0, end_us: int | None = None
) -> Iterator[tuple[int, pa.Table]]:
    """(refresh id, rows of shape.HOLDOUTS) of each sync of a live connection that held anybody out: who was not in their arm before.

    Who is treated is whom the sync would have sent if nobody had been held out, whether or not they could be reached, less who was.
    `after`: only of syncs after this refresh; whoever was away at it may be told again, with a later moment.
    """
    if connection.first_live_at is None:
        return
    steps = Eligibility.objects.filter(mapping=connection, refresh__as_of_us__gte=clock.to_us(connection.first_live_at))
    if end_us is not None:
        steps = steps.filter(refresh__as_of_us__lt=end_us)
    known = {shape.HELD_OUT: BitMap(), shape.TREATED: BitMap()}
    earlier = eligibility.ORDER[: eligibility.ORDER.index(eligibility.HOLDOUT)]
    of_each = steps.filter(refresh_id__gte=after, step=eligibility.HOLDOUT, out_count__gt=0).order_by("refresh_id")
    for step in of_each.select_related("refresh").defer("refresh__entered", "refresh__left").iterator(chunk_size=10):
        out = bitmaps.unpack(step.taken_out)
        reached = history.members_at(step.refresh)
        for packed in steps.filter(refresh_id=step.refresh_id, step__in=earlier).values_list("taken_out", flat=True):
            reached -= bitmaps.unpack(packed)
        arms = {shape.HELD_OUT: out, shape.TREATED: reached - out}
        fresh = {arm: people - known[arm] for arm, people in arms.items()}
        for arm, people in fresh.items():
            known[arm] |= people
        if step.refresh_id > after:
            yield step.refresh_id, _arms(connection, called, fresh, step.refresh)


def moments(microseconds: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    """Microseconds since 1970 as moments."""
    return microseconds.cast(pa.int64()).cast(MOMENT)


def from_rows(table: shape.Table, rows: Sequence[Sequence[object]]) -> pa.Table:
    """Python values, row by row, as rows of a table."""
    columns = list(zip(*rows, strict=True)) or [()] * len(table.columns)
    return shape.made(
        table, [pa.array(values, column.type) for values, column in zip(columns, table.columns, strict=True)]
    )


def _events(part: lake.Part, called: Called, only: BitMap | None) -> Iterator[pa.Table]:
    wanted = None
    if only is not None:
        wanted = np.zeros(1 + (only.max() if only else 0), bool)
        wanted[bitmaps.to_array(only)] = True
    for batch in part.batches:
        numbers = batch.column("profile_no").to_numpy()
        ids = called.of(numbers)
        chosen = np.asarray(ids.is_valid())
        if wanted is not None:
            people = called.survivors(numbers)
            chosen &= wanted[np.minimum(people, wanted.size - 1)] & (people < wanted.size)
        if not chosen.any():
            continue
        mask = pa.array(chosen)
        kept = batch.filter(mask)
        yield shape.made(
            shape.EVENTS,
            [
                kept.column("event_key"),
                ids.filter(mask),
                kept.column("name"),
                moments(kept.column("time_us")),
                moments(kept.column("received_us")),
                kept.column("source"),
                kept.column("properties"),
            ],
        )


def _arms(connection: Connection, called: Called, people: Mapping[str, BitMap], refresh: Refresh) -> pa.Table:
    tables = []
    for arm, members in people.items():
        ids = called.of(bitmaps.to_array(members)).drop_null().unique()
        size = len(ids)
        tables.append(
            shape.made(
                shape.HOLDOUTS,
                [
                    pa.repeat(pa.scalar(connection.pk), size),
                    pa.repeat(pa.scalar(connection.audience.key), size),
                    pa.repeat(pa.scalar(connection.destination.key), size),
                    ids,
                    pa.repeat(pa.scalar(arm), size),
                    moments(pa.repeat(pa.scalar(refresh.as_of_us), size)),
                ],
            )
        )
    return pa.concat_tables(tables)
