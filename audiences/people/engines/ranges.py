"""Every comparison of a rule as a closed range of whole numbers (µs, millionths), or as what lies outside of one."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from audiences.segments.tree import Measured, Moment
from audiences.segments.values import millionths

BOUND = 2**62
"""What the numbers compared are smaller than, so that an end beyond it may stand on it."""


@dataclass(frozen=True, slots=True)
class Range:
    """low ≤ x ≤ high, or not (`outside`). An end is (value, step): value · times + step, where an average is compared as a sum."""

    low: tuple[int, int] | None = None
    high: tuple[int, int] | None = None
    outside: bool = False

    def holds(self, numbers: npt.NDArray[np.int64], times: npt.NDArray[np.int64] | int = 1) -> npt.NDArray[np.bool_]:
        """For each number. |number| < BOUND; `fits(times)` must be true."""
        inside: npt.NDArray[np.bool_] = np.ones(numbers.size, np.bool_)
        if self.low is not None:
            inside &= numbers >= _end(self.low, times)
        if self.high is not None:
            inside &= numbers <= _end(self.high, times)
        return ~inside if self.outside else inside

    def fits(self, times: int) -> bool:
        """Whether the ends, so many times, stay below BOUND."""
        return all(abs(end[0]) * times < BOUND - 1 for end in (self.low, self.high) if end is not None)


def _end(end: tuple[int, int], times: npt.NDArray[np.int64] | int) -> Any:
    value, step = end
    return max(-BOUND, min(BOUND, value)) * times + step


def of_moment(leaf: Moment, as_of_us: int) -> Range:
    """What the first or last time must be."""
    given = leaf.values
    match leaf.op:
        case "before":
            return Range(high=(given[0], -1))
        case "after":
            return Range(low=(given[0], 1))
        case "between":
            return Range(low=(given[0], 0), high=(given[1], -1))
        case "within_last" | "not_within_last":
            return Range((as_of_us - given[0], 1), (as_of_us, 0), outside=leaf.op == "not_within_last")
    raise ValueError(f"no such op: {leaf.op}")


def of_measured(leaf: Measured) -> Range:
    """What the measure must be, in millionths."""
    first, last = millionths(leaf.values[0]), millionths(leaf.values[-1])
    match leaf.op:
        case "is" | "is_not":
            return Range((first, 0), (first, 0), outside=leaf.op == "is_not")
        case "gt":
            return Range(low=(first, 1))
        case "gte":
            return Range(low=(first, 0))
        case "lt":
            return Range(high=(first, -1))
        case "lte":
            return Range(high=(first, 0))
        case "between":
            return Range((first, 0), (last, 0))
    raise ValueError(f"no such op: {leaf.op}")
