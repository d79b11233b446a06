"""A bulk renaming with what becomes of the names on platforms. Reads only; who is renamed and why is audiences/renaming.py's."""

import copy
from collections.abc import Collection
from dataclasses import dataclass, replace

from audiences import renaming
from audiences.models import Audience
from audiences.renaming import Rename
from audiences.services import naming
from destinations import remote_names
from destinations.models import Mapping
from destinations.remote_names import RemoteName


@dataclass(frozen=True, slots=True)
class Follow:
    """What becomes of one connection's name there. `words`: what happens when, or why nothing does."""

    mapping: Mapping
    before: str
    after: str
    words: str

    @property
    def changes(self) -> bool:
        return bool(self.after) and self.after != self.before


@dataclass(frozen=True, slots=True)
class Planned:
    rename: Rename
    follows: tuple[Follow, ...]

    @property
    def key(self) -> str:
        return self.rename.audience.key

    @property
    def ready(self) -> bool:
        """Whether it can be renamed as it stands here."""
        return bool(self.rename.after) and not self.rename.conflict


def plan(keys: Collection[str] = ()) -> list[Planned]:
    """Of these audiences, or of all, those whose name would change; what stands in the way, there too, is said. A fixed number of queries."""
    renames = renaming.plan(keys)
    convention = naming.current()
    rows = Mapping.objects.exclude(state=Mapping.State.RETIRED).filter(audience__archived_at=None)
    rows = rows.select_related("destination").order_by("destination__name")
    mappings: dict[int, list[Mapping]] = {}
    held: dict[tuple[int, str], int] = {}  # (destination, name there) → whose
    for row in rows:
        mappings.setdefault(row.audience_id, []).append(row)
        if row.remote_id and not row.lost:
            held[row.destination_id, row.remote_name] = row.audience_id
    moving = {rename.audience.pk for rename in renames if rename.after and not rename.conflict}
    found = []
    for rename in renames:
        follows, conflict = [], rename.conflict
        called = _called(rename)
        for mapping in mappings.get(rename.audience.pk, ()):
            mapping.audience = called
            name = remote_names.of(mapping, convention)
            follow = _follow(name)
            follows.append(follow)
            holder = held.get((mapping.destination_id, follow.after), rename.audience.pk)
            if follow.changes and holder != rename.audience.pk and holder not in moving and not conflict:
                conflict = f"{mapping.destination.name} has another audience of ours called “{follow.after}” already."
        found.append(Planned(replace(rename, conflict=conflict), tuple(follows)))
    return sorted(found, key=lambda planned: not planned.ready)


def _called(rename: Rename) -> Audience:
    """The audience as it would be called."""
    called = copy.copy(rename.audience)
    if rename.after:
        called.name, called.name_tokens, called.name_reason = rename.after, rename.tokens, ""
    return called


def _follow(name: RemoteName) -> Follow:
    mapping = name.mapping
    if name.state == remote_names.WAITS:
        words = "renamed at the next sync" if name.to_rename else "renamed when it sends again"
        return Follow(mapping, name.told, name.wished, words)
    if name.state == remote_names.NEW:
        return Follow(mapping, "", name.wished, "made so at the first sync")
    words = {
        remote_names.SAME: "stays as it is",
        remote_names.STUCK: "is never renamed there",
        remote_names.LONG: "would be too long there",
        remote_names.KEPT: "adopted, keeps its name",
        remote_names.GONE: "deleted there",
    }[name.state]
    if name.own:
        words = "has a name of its own there"
    return Follow(mapping, name.told, name.told, words)
