"""All that rules ask about one event: which statement fetches its rows, and how these are counted and measured, batch by batch."""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import pyarrow as pa
from pyroaring import BitMap

from audiences.people.engines import folding, ranges
from audiences.segments.leaves import Source, Span, Statement, Writer, around, span
from audiences.segments.tree import Condition, Measured, Moment, Occurred

OfEvent: TypeAlias = Occurred | Measured | Moment
Chosen: TypeAlias = tuple[Span, tuple[Condition, ...]]
"""Which of the occurrences a leaf looks at."""
Kind: TypeAlias = tuple[str, str]
Fold: TypeAlias = folding.Tally | folding.Extreme | folding.Total


class OneEvent:
    """Leaves on one event. Those that look at the same occurrences share what is kept of them."""

    def __init__(self, event: str, leaves: Sequence[OfEvent], as_of_us: int) -> None:
        self._event = event
        self._as_of_us = as_of_us
        self._chosen: dict[OfEvent, Chosen] = {leaf: (span(leaf.window, as_of_us), leaf.where) for leaf in leaves}
        self._properties = list(dict.fromkeys(leaf.property for leaf in leaves if isinstance(leaf, Measured)))
        self._tests = list(dict.fromkeys(where for _, where in self._chosen.values()))
        self.wanted = around(own for own, _ in self._chosen.values())
        self._timed = any(isinstance(leaf, Moment) for leaf in leaves) or any(
            own != self.wanted for own, _ in self._chosen.values()
        )
        counted = {chosen for leaf, chosen in self._chosen.items() if isinstance(leaf, Occurred) and leaf.count.low > 1}
        self._folds: dict[Chosen, dict[Kind, Fold]] = {}
        for leaf, chosen in self._chosen.items():
            kind = _kind(leaf)
            self._folds.setdefault(chosen, {}).setdefault(kind, _fold(kind, counting=chosen in counted))

    def names(self) -> set[str]:
        """The properties that matter."""
        return {condition.name for where in self._tests for condition in where} | set(self._properties)

    def statement(self, writer: Writer, sources: Sequence[Source]) -> Statement:
        """What fetches the rows that `add` takes."""
        return writer.occurrences(
            self._event,
            self._tests,
            self.wanted,
            sources,
            self._as_of_us,
            timed=self._timed,
            measured=self._properties,
        )

    def add(self, batch: pa.RecordBatch) -> None:
        """Count and measure some of the rows. Raises folding.TooLarge."""
        profile_nos = numbers(batch)
        times = batch.column("time_us").to_numpy() if self._timed else None
        measured = {name: folding.decimals(batch.column(f"d{at}")) for at, name in enumerate(self._properties)}
        for (own, where), folds in self._folds.items():
            looked_at = folding.both(
                flags(batch, f"w{self._tests.index(where)}") if where else None,
                None if times is None else _inside(times, own, self.wanted),
            )
            for (kind, name), fold in folds.items():
                if isinstance(fold, folding.Tally):
                    fold.add(folding.chosen(profile_nos, looked_at))
                    continue
                if isinstance(fold, folding.Extreme) and kind in ("first", "last"):
                    assert times is not None
                    fold.add(folding.chosen(profile_nos, looked_at), folding.chosen(times, looked_at))
                    continue
                values, present = measured[name]
                some = folding.both(looked_at, present)
                fold.add(folding.chosen(profile_nos, some), folding.chosen(values, some))

    def answers(self) -> list[tuple[OfEvent, BitMap]]:
        """Each leaf's people. Raises folding.TooLarge."""
        return [(leaf, self._answer(leaf, self._folds[chosen][_kind(leaf)])) for leaf, chosen in self._chosen.items()]

    def _answer(self, leaf: OfEvent, fold: Fold) -> BitMap:
        match leaf, fold:
            case Occurred(), folding.Tally():
                return fold.members(leaf.count.low)
            case Moment(), folding.Extreme():
                return fold.members(ranges.of_moment(leaf, self._as_of_us))
            case Measured(), folding.Extreme():
                return fold.members(ranges.of_measured(leaf))
            case Measured(), folding.Total():
                return fold.members(ranges.of_measured(leaf), average=leaf.measure == "avg")
        raise AssertionError(f"{type(leaf).__name__} is not kept as {type(fold).__name__}")


def _kind(leaf: OfEvent) -> Kind:
    """What has to be kept of the occurrences for a leaf, and of which property."""
    match leaf:
        case Occurred():
            return "count", ""
        case Moment():
            return leaf.which, ""
        case Measured():
            return ("total" if leaf.measure in ("sum", "avg") else leaf.measure), leaf.property


def _fold(kind: Kind, *, counting: bool) -> Fold:
    match kind[0]:
        case "count":
            return folding.Tally(counting=counting)
        case "total":
            return folding.Total()
        case which:
            return folding.Extreme(greatest=which in ("last", "max"))


def numbers(batch: pa.RecordBatch) -> folding.Places:
    """A batch's profile numbers."""
    return folding.places(batch.column("profile_no").to_numpy())


def flags(batch: pa.RecordBatch, name: str) -> folding.Flags:
    """A column of 0 and 1, a byte each."""
    return batch.column(name).to_numpy().view(np.bool_)


def _inside(times: folding.Times, own: Span, wanted: Span) -> folding.Flags | None:
    """Which times lie in a span, all of them lying in another around it; None: every one."""
    after = times > own.after if own.after > wanted.after else None
    until = times <= own.until if own.until < wanted.until else None
    return folding.both(after, until)
