"""From columns of rows to sets of people, in numpy: counting, and finding chains of events. No SQL and no rules' meaning beyond that.

profile_no is dense, so an array with a place for each number is smaller and faster than any hash table.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyroaring import BitMap

from audiences import bitmaps
from audiences.people.engines.ranges import BOUND, Range

Numbers = npt.NDArray[np.uint32]
Places = npt.NDArray[np.intp]
Times = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class TooLarge(Exception):
    """A number or a sum that 64 bits may not hold. Ask in SQL."""


class Tally:
    """Which profiles occurred or, if `counting`, how often each did."""

    def __init__(self, *, counting: bool = False) -> None:
        self._counting = counting
        self._seen: npt.NDArray[Any] = np.zeros(0, np.int64 if counting else np.bool_)

    def add(self, profile_nos: Places, times: npt.NDArray[np.integer] | None = None) -> None:
        """Once for each number that stands there, or so many `times` (≥ 1)."""
        if not profile_nos.size:
            return
        self._seen = _with_places(self._seen, profile_nos, 0)
        if not self._counting:
            self._seen[profile_nos] = True
        elif times is None and profile_nos.size * 4 > self._seen.size:
            self._seen += np.bincount(profile_nos, minlength=self._seen.size)
        else:
            np.add.at(self._seen, profile_nos, 1 if times is None else times)

    def members(self, least: int = 1) -> BitMap:
        """The profiles that occurred at least so often; more than once can be asked only if `counting`."""
        assert self._counting or least == 1
        return bitmaps.from_mask(self._seen >= least if self._counting else self._seen)


class Extreme:
    """The least or, if `greatest`, the greatest number of each profile."""

    def __init__(self, *, greatest: bool) -> None:
        self._none = -BOUND if greatest else BOUND
        self._better = np.maximum if greatest else np.minimum
        self._found = np.zeros(0, np.int64)

    def add(self, profile_nos: Places, numbers: npt.NDArray[np.int64]) -> None:
        if profile_nos.size:
            self._found = _with_places(self._found, profile_nos, self._none)
            self._better.at(self._found, profile_nos, numbers)

    def members(self, wanted: Range) -> BitMap:
        """The profiles that have one, and one in this range."""
        return bitmaps.from_mask(wanted.holds(self._found) & (self._found != self._none))


class Total:
    """The sum of each profile's numbers, and how many there are. Raises TooLarge rather than be wrong."""

    def __init__(self) -> None:
        self._sums, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._most = 0.0  # no sum can be larger

    def add(self, profile_nos: Places, numbers: npt.NDArray[np.int64]) -> None:
        if not profile_nos.size:
            return
        self._most += float(np.abs(numbers.astype(np.float64)).sum())
        if self._most >= BOUND / 2:
            raise TooLarge
        self._sums = _with_places(self._sums, profile_nos, 0)
        self._counts = _with_places(self._counts, profile_nos, 0)
        np.add.at(self._sums, profile_nos, numbers)
        self._counts += np.bincount(profile_nos, minlength=self._counts.size)

    def members(self, wanted: Range, *, average: bool) -> BitMap:
        """The profiles that have numbers whose sum or average is in this range."""
        if average and self._counts.size and not wanted.fits(int(self._counts.max())):
            raise TooLarge
        held = wanted.holds(self._sums, self._counts) if average else wanted.holds(self._sums)
        return bitmaps.from_mask(held & (self._counts > 0))


def _with_places(array: npt.NDArray[Any], profile_nos: Places, empty: int) -> npt.NDArray[Any]:
    """The array with a place for each of these numbers; it grows by a quarter or more at a time."""
    size = int(profile_nos.max()) + 1
    if array.size >= size:
        return array
    return np.concatenate([array, np.full(max(size, array.size * 5 // 4) - array.size, empty, array.dtype)])


def places(profile_nos: npt.NDArray[np.uint32]) -> Places:
    """Profile numbers as indices, the form that numpy is quickest with."""
    return profile_nos.astype(np.intp)


def chosen(values: npt.NDArray[Any], flags: Flags | None) -> npt.NDArray[Any]:
    """The values whose flag is set; all, if there are no flags. Five times as fast as values[flags]."""
    return values if flags is None else values.take(np.flatnonzero(flags))


def both(one: Flags | None, other: Flags | None) -> Flags | None:
    """The rows in both; None stands for all rows."""
    if one is None or other is None:
        return other if one is None else one
    return one & other


def decimals(column: pa.Array) -> tuple[npt.NDArray[np.int64], Flags | None]:
    """A DECIMAL(38, 6) column in millionths, and which rows have a value (None: all). Raises TooLarge."""
    halves = np.frombuffer(column.buffers()[1], np.int64).reshape(-1, 2)[column.offset : column.offset + len(column)]
    present = None if column.null_count == 0 else column.is_valid().to_numpy(zero_copy_only=False)
    low, high = halves[:, 0], halves[:, 1]
    wrong = (high != low >> 63) | (low >= BOUND) | (low <= -BOUND)
    if present is not None:
        wrong &= present
    if wrong.any():
        raise TooLarge
    return low, present


def follow(
    profile_nos: Numbers,
    times: Times,
    taken: Sequence[Flags],
    within: Sequence[int | None],
    complete: bool,
    as_of_us: int,
) -> BitMap:
    """The profiles with a chain of rows that takes every step; not `complete`: all but the last, whose window then passed without it.

    `taken[i]` are the rows that can be step i, `within[i]` its µs from the step before; on step 0, back from as_of.
    """
    order = np.lexsort((times, profile_nos))
    people, moments = profile_nos[order], times[order]
    steps = [flags[order] for flags in taken]
    rows = np.arange(people.size)
    new_person = np.ones(people.size, np.bool_)
    new_person[1:] = people[1:] != people[:-1]
    new_moment = new_person.copy()
    new_moment[1:] |= moments[1:] != moments[:-1]
    first_of_person = np.maximum.accumulate(np.where(new_person, rows, 0))
    first_of_moment = np.maximum.accumulate(np.where(new_moment, rows, 0))

    reached = steps[0]
    if within[0] is not None:
        reached = reached & (moments > as_of_us - within[0])
    for step, limit in zip(steps[1 : None if complete else -1], within[1 : None if complete else -1], strict=True):
        before = _last_before(reached, first_of_moment)
        possible = step & (before >= first_of_person)
        if limit is not None:
            possible &= moments - moments[np.maximum(before, 0)] <= limit
        reached = possible
    if not complete:
        limit = within[-1]
        assert limit is not None, "the last step of an incomplete sequence has a window"
        after = _first_after(steps[-1], new_moment)
        found = after < people.size
        at = np.minimum(after, max(people.size - 1, 0))
        followed = found & (people[at] == people) & (moments[at] - moments <= limit)
        reached = reached & (moments + limit <= as_of_us) & ~followed
    return bitmaps.from_sorted(np.unique(people[reached]))


def _last_before(reached: Flags, first_of_moment: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """For each row, the last reached row of a strictly earlier moment (or of an earlier person); −1 if there is none."""
    last = np.maximum.accumulate(np.where(reached, np.arange(reached.size), -1))
    return np.where(first_of_moment > 0, last[np.maximum(first_of_moment - 1, 0)], -1)


def _first_after(wanted: Flags, new_moment: Flags) -> npt.NDArray[np.intp]:
    """For each row, the first wanted row of a strictly later moment (or of a later person); the number of rows if there is none."""
    size = wanted.size
    if not size:
        return np.empty(0, np.intp)
    at = np.where(wanted, np.arange(size), size)
    first = np.append(np.minimum.accumulate(at[::-1])[::-1], size)
    next_moment = np.append(np.where(new_moment, np.arange(size), size)[1:], size)
    end_of_moment = np.minimum.accumulate(next_moment[::-1])[::-1]
    return first[end_of_moment]
