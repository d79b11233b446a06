"""What data a computation sees, as values. Taking and holding one is the lake's (people/lake/manifest.py)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What data a computation sees: lake files live at `manifest`, hot events up to `hot`, profile changes up to `profiles`.

    The last three are marks: row ids on SQLite, transaction ids on PostgreSQL, and `change_seq` is that of the change log.
    """

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
