"""The contract between segments and whoever answers their leaves. No engine's ways appear here."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pyroaring import BitMap

from audiences.segments.tree import Leaf


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What data a computation sees: lake files live at `manifest`, hot events up to `hot`, profile changes up to `profiles`."""

    manifest: int
    hot: int
    profiles: int
    change_seq: int


@dataclass(frozen=True, slots=True)
class Pinned:
    """A snapshot and the moment it is judged at. `pin_id` names the Pin row that keeps its files from being unlinked."""

    snapshot: Snapshot
    as_of_us: int
    pin_id: int | None = None


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
