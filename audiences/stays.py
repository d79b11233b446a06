"""When everybody was in an audience: a row for each stretch of membership, worked out of its counts column by column.

One person's stretches are history.py's, in the same words; a test holds that both say the same.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from django.db.models import Q, QuerySet
from pyroaring import BitMap

from audiences import bitmaps
from audiences.models import Refresh

STAYS = pa.schema(
    [
        ("profile_no", pa.uint32()),
        ("entered_us", pa.int64()),
        ("left_us", pa.int64()),
        ("entered_version", pa.int32()),
        ("left_version", pa.int32()),
        ("since_before", pa.bool_()),
        ("entered_by_new_version", pa.bool_()),
        ("left_by_new_version", pa.bool_()),
        ("backfilled", pa.bool_()),
    ]
)
"""The words are those of history.Stay. `left_*` are null while they are in; all but profile_no and `left_*` are null where a stretch
had begun before `after`."""

_NOT_IN, _SINCE_EARLIER = -1, -2
_FIRST, _NEW_VERSION, _BACKFILLED = 1, 2, 4
_ROWS = 50_000


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Where a count stands among those of its audience."""

    as_of_us: int
    refresh_id: int


@dataclass(slots=True)
class Progress:
    """What a reading has seen so far: the last count, and how many there were up to it, by which a changed past is recognised."""

    last: Position | None = None
    counts: int = 0
    version: int | None = None


def read(
    audience_id: int,
    merged: Mapping[int, int],
    *,
    after: Position | None = None,
    until_us: int | None = None,
    upto: Position | None = None,
    only: BitMap | None = None,
    progress: Progress | None = None,
) -> Iterator[pa.Table]:
    """Stretches of membership (schema STAYS), some ten thousand at a time: those that have ended in the order of their ends, then those that go on.

    `merged`: old number → survivor (called.merged_people). `after`: only what this count does not know, which is new stretches
    whole and the ends of older ones. Counts as of `until_us` and later, and beyond `upto`, are left out. `only`: of these people.
    """
    seen = progress if progress is not None else Progress()
    book = _Book(merged, only)
    start = _keyframe_before(audience_id, after) if after is not None else None
    if start is not None:
        seen.counts = counts_up_to(audience_id, start) - 1
    for count in _counts(audience_id, start, until_us, upto):
        position = Position(count.as_of_us, count.pk)
        entered, left = book.follow(count)
        new_version = seen.version is not None and count.version.number != seen.version
        known = after is not None and position <= after
        flags = (
            _FIRST * (seen.counts == 0)
            | _NEW_VERSION * new_version
            | _BACKFILLED * (count.cause == Refresh.Cause.BACKFILL)
        )
        seen.last, seen.counts, seen.version = position, seen.counts + 1, count.version.number
        yield from book.end(left, position.as_of_us, count.version.number, new_version, silent=known)
        book.begin(entered, _SINCE_EARLIER if known else position.as_of_us, count.version.number, flags)
    yield from book.rest()


def position_of(audience_id: int) -> Position | None:
    """The last finished count; None before the first."""
    last = _done(audience_id).order_by("as_of_us", "id").values_list("as_of_us", "pk").last()
    return Position(*last) if last else None


def counts_up_to(audience_id: int, position: Position) -> int:
    """How many finished counts there are up to this one. Past days that were computed later, or anew, change it."""
    return _done(audience_id).filter(_upto(position)).count()


@dataclass
class _Book:
    """Who is in, since when and by which version, as arrays by profile number."""

    merged: Mapping[int, int]
    only: BitMap | None
    _raw: BitMap = field(default_factory=BitMap)  # as the counts have it: merged people under their old numbers
    _entered: npt.NDArray[np.int64] = field(default_factory=lambda: np.full(0, _NOT_IN, np.int64))
    _version: npt.NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    _flags: npt.NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    _rows: list[pa.Table] = field(default_factory=list)
    _waiting: int = 0

    def __post_init__(self) -> None:
        self._mergers = BitMap(self.merged.keys()) | BitMap(self.merged.values())
        self._merged_in = BitMap()  # of those, who is in, under today's numbers

    def follow(self, count: Refresh) -> tuple[BitMap, BitMap]:
        """Who entered and who left by this count, under today's numbers."""
        if count.keyframe is not None:
            now = bitmaps.unpack(count.keyframe)
            entered, left = now - self._raw, self._raw - now
            self._raw = now
        else:
            entered, left = bitmaps.unpack(count.entered) - self._raw, bitmaps.unpack(count.left) & self._raw
            self._raw |= entered
            self._raw -= left
        if self._mergers and (entered.intersect(self._mergers) or left.intersect(self._mergers)):
            now = BitMap(self.merged.get(number, number) for number in self._raw & self._mergers)
            entered = (entered - self._mergers) | (now - self._merged_in)
            left = (left - self._mergers) | (self._merged_in - now)
            self._merged_in = now
        if self.only is not None:
            entered, left = entered & self.only, left & self.only
        return entered, left

    def begin(self, entered: BitMap, at_us: int, version: int, flags: int) -> None:
        if not entered:
            return
        self._reach(int(entered.max()) + 1)
        who = bitmaps.to_array(entered)
        self._entered[who], self._version[who], self._flags[who] = at_us, version, flags

    def end(self, left: BitMap, at_us: int, version: int, new_version: bool, *, silent: bool) -> Iterator[pa.Table]:
        """`silent`: it is known already."""
        who = bitmaps.to_array(left)
        if who.size and not silent:
            yield from self._write(who, (at_us, version, new_version))
        self._entered[who] = _NOT_IN

    def rest(self) -> Iterator[pa.Table]:
        """Who is still in, of those whose stretch is not known yet; and whatever waits to be handed over."""
        still = np.flatnonzero(self._entered >= 0).astype(np.uint32)
        for start in range(0, still.size, _ROWS):
            yield from self._write(still[start : start + _ROWS], None)
        if self._rows:
            yield pa.concat_tables(self._rows)

    def _write(self, who: npt.NDArray[np.uint32], end: tuple[int, int, bool] | None) -> Iterator[pa.Table]:
        entered, flags = self._entered[who], self._flags[who]
        before = entered == _SINCE_EARLIER
        size = who.size

        def of(values: npt.NDArray[np.generic], kind: pa.DataType) -> pa.Array:
            return pa.array(values, kind, mask=before)

        def ended(value: int | bool | None, kind: pa.DataType) -> pa.Array:
            return pa.nulls(size, kind) if value is None else pa.repeat(pa.scalar(value, kind), size)

        at_us, version, new_version = end or (None, None, None)
        self._rows.append(
            pa.table(
                [
                    pa.array(who, pa.uint32()),
                    of(entered, pa.int64()),
                    ended(at_us, pa.int64()),
                    of(self._version[who], pa.int32()),
                    ended(version, pa.int32()),
                    of(flags & _FIRST > 0, pa.bool_()),
                    of(flags & _NEW_VERSION > 0, pa.bool_()),
                    ended(new_version, pa.bool_()),
                    of(flags & _BACKFILLED > 0, pa.bool_()),
                ],
                schema=STAYS,
            )
        )
        self._waiting += size
        if self._waiting >= _ROWS:
            yield pa.concat_tables(self._rows)
            self._rows, self._waiting = [], 0

    def _reach(self, size: int) -> None:
        missing = size - self._entered.size
        if missing > 0:
            missing += size // 8  # so that a growing audience does not grow them each time
            self._entered = np.concatenate([self._entered, np.full(missing, _NOT_IN, np.int64)])
            self._version = np.concatenate([self._version, np.zeros(missing, np.int32)])
            self._flags = np.concatenate([self._flags, np.zeros(missing, np.uint8)])


def _done(audience_id: int) -> QuerySet[Refresh]:
    return Refresh.objects.filter(audience_id=audience_id, state=Refresh.State.DONE)


def _upto(position: Position) -> Q:
    return Q(as_of_us__lt=position.as_of_us) | Q(as_of_us=position.as_of_us, id__lte=position.refresh_id)


def _keyframe_before(audience_id: int, position: Position) -> Position | None:
    """The last count up to this one that holds everybody: nothing before it need be read."""
    rows = _done(audience_id).filter(_upto(position), keyframe__isnull=False).order_by("as_of_us", "id")
    found = rows.values_list("as_of_us", "pk").last()
    return Position(*found) if found else None


def _counts(audience_id: int, start: Position | None, until_us: int | None, upto: Position | None) -> Iterator[Refresh]:
    rows = _done(audience_id).select_related("version").order_by("as_of_us", "id")
    if start is not None:
        rows = rows.filter(Q(as_of_us__gt=start.as_of_us) | Q(as_of_us=start.as_of_us, id__gte=start.refresh_id))
    if until_us is not None:
        rows = rows.filter(as_of_us__lt=until_us)
    if upto is not None:
        rows = rows.filter(_upto(upto))
    wanted = rows.only("as_of_us", "cause", "keyframe", "entered", "left", "version__number", "audience_id")
    return wanted.iterator(chunk_size=20)
