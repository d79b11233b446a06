"""The contract between segments and whoever answers their leaves. No engine's ways appear here."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from pyroaring import BitMap

from audiences.people.engines.stopping import Stop, Stopped
from audiences.people.pins import Pinned, Snapshot
from audiences.segments.advice import Seen
from audiences.segments.judge import Person
from audiences.segments.leaves import Span, around, span
from audiences.segments.tree import Leaf, Window

__all__ = [
    "EVERYTHING",
    "Engine",
    "EventFacts",
    "NameFacts",
    "Needed",
    "Pinned",
    "Snapshot",
    "Statistics",
    "Stop",
    "Stopped",
    "UnreadableLake",
    "ValueFacts",
]


SHARED = 10  # a value that fewer people share than this may tell who they are, and is nowhere told of
MOST_VALUES = 20


@dataclass(frozen=True, slots=True)
class ValueFacts:
    """A value's text form, how often it came and with how many people."""

    text: str
    times: int
    people: int


@dataclass(frozen=True, slots=True)
class NameFacts:
    """How often a property came, or an attribute is there, and with how many live people. `values`: up to MOST_VALUES of those that SHARED
    people or more have, most people first."""

    times: int
    people: int
    values: tuple[ValueFacts, ...] = ()


@dataclass(frozen=True, slots=True)
class EventFacts:
    """Occurrences, live people who have one, the newest one's time; how many were `recent`, and what properties these carry."""

    name: str
    occurrences: int
    people: int
    newest_us: int
    recent: int
    properties: Mapping[str, NameFacts]


@dataclass(frozen=True, slots=True)
class Statistics:
    """`people` are live; `attributes` are those that they carry. Events by number of occurrences, the most first."""

    people: int
    events: tuple[EventFacts, ...]
    attributes: Mapping[str, NameFacts]


@dataclass(frozen=True, slots=True)
class Needed:
    """Of what people did: events of these names (None: all) in these windows, with these properties (None: all, as accepted)."""

    events: frozenset[str] | None = None
    properties: frozenset[str] | None = None
    windows: frozenset[Window] = frozenset({None})

    def span(self, as_of_us: int) -> Span:
        """What holds all of it at this moment."""
        return around(span(window, as_of_us) for window in self.windows)


EVERYTHING = Needed()


class Engine(Protocol):
    """Answers are bitmaps of profile_no with merges applied. A leaf's answer may hold profiles outside the universe; the caller intersects.

    Every door raises UnreadableLake: take a new pin then.
    """

    def universe(self, pin: Pinned) -> BitMap:
        """The live, identified profiles."""
        ...

    def members(self, leaves: Iterable[Leaf], pin: Pinned, stop: Stop | None = None) -> dict[Leaf, BitMap]:
        """Each leaf's profiles. Leaves that name audiences or lists are not the engine's (segments/evaluate.py answers them).

        Raises Stopped, soon after `stop` was told so; what had been answered by then may be remembered.
        """
        ...

    def point(self, leaves: Iterable[Leaf], profile_nos: Sequence[int], pin: Pinned) -> dict[Leaf, BitMap]:
        """The same, for these profiles alone."""
        ...

    def people(
        self,
        profile_nos: Sequence[int],
        pin: Pinned,
        needed: Needed = EVERYTHING,
    ) -> dict[int, Person]:
        """These profiles as judge.py takes them, with what is needed of their events, at least; on no lists.

        Properties that are named may come as texts. Numbers that no profile has are left out.
        """
        ...

    def statistics(self, pin: Pinned) -> Statistics:
        """What there is to write rules about. It looks at every event: for background work."""
        ...

    def lately(self, pin: Pinned) -> dict[str, Seen]:
        """What came in of each event in the seven days before as_of; events that did not come are left out."""
        ...

    def watermark(self, pin: Pinned) -> int | None:
        """The newest event's time in µs; None if there is no event."""
        ...


class UnreadableLake(Exception):
    """A file of the pin was missing three times in a row, or the pin ran out: with a new pin it may be readable."""
