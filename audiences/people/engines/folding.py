"""From columns of rows to sets of people, in numpy: counting, and finding chains of events. No SQL and no rules' meaning beyond that.

profile_no is dense, so an array with a place for each number is smaller and faster than any hash table.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from audiences import bitmaps

Numbers = npt.NDArray[np.uint32]
Times = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


class Tally:
    """Which profiles occurred or, if `counting`, how often each did."""

    def __init__(self, *, counting: bool = False) -> None:
        self._counting = counting
        self._seen: npt.NDArray[Any] = np.zeros(0, np.int64 if counting else np.bool_)

    def add(self, profile_nos: Numbers, times: npt.NDArray[np.integer] | None = None) -> None:
        """Once for each number that stands there, or so many `times` (≥ 1)."""
        if not profile_nos.size:
            return
        size = int(profile_nos.max()) + 1
        if size > self._seen.size:
            more = max(size, self._seen.size * 5 // 4) - self._seen.size
            self._seen = np.concatenate([self._seen, np.zeros(more, self._seen.dtype)])
        if not self._counting:
            self._seen[profile_nos] = True
        elif times is None and profile_nos.size * 4 > size:
            self._seen[:size] += np.bincount(profile_nos)
        else:
            np.add.at(self._seen, profile_nos, 1 if times is None else times)

    def members(self, least: int = 1) -> BitMap:
        """The profiles that occurred at least so often; more than once can be asked only if `counting`."""
        assert self._counting or least == 1
        return bitmaps.from_mask(self._seen >= least if self._counting else self._seen)


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
