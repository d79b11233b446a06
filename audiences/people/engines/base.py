"""The contract between segments and whoever answers their leaves. No engine's ways appear here."""

from collections.abc import Iterable, Sequence
from typing import Protocol

from pyroaring import BitMap

from audiences.people.pins import Pinned, Snapshot
from audiences.segments.tree import Leaf

__all__ = ["Engine", "Pinned", "Snapshot", "UnreadableLake"]


class Engine(Protocol):
    """Answers are bitmaps of profile_no with merges applied. A leaf's answer may hold profiles outside the universe; the caller intersects."""

    def universe(self, pin: Pinned) -> BitMap:
        """The live, identified profiles."""
        ...

    def members(self, leaves: Iterable[Leaf], pin: Pinned) -> dict[Leaf, BitMap]:
        """Each leaf's profiles. Leaves that name audiences or lists are not the engine's (segments/evaluate.py answers them)."""
        ...

    def point(self, leaves: Iterable[Leaf], profile_nos: Sequence[int], pin: Pinned) -> dict[Leaf, BitMap]:
        """The same, for these profiles alone."""
        ...


class UnreadableLake(Exception):
    """A live file was missing three times in a row, each time in a fresh snapshot."""
