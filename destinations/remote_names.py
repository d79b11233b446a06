"""What an audience is called on a platform: what it should be, what it was told, and what a sync does about the difference.

The rule is here and nowhere else. A name that a person chose for the connection stays; an adopted audience keeps the name it had; else the
audience's name holds there as well, with that platform's channel where it follows the naming convention.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from django.utils import timezone
from django.utils.formats import date_format

from audiences.naming import Convention, NamingRefused
from audiences.services import naming
from destinations.connectors import registry
from destinations.models import TELLS, Mapping

NEW, SAME, WAITS, STUCK, LONG, KEPT, GONE = "new", "same", "waits", "stuck", "long", "kept", "gone"
LABELS = {
    NEW: "Not there yet",
    SAME: "As it should be",
    WAITS: "Renamed at the next sync",
    STUCK: "Stays as it is",
    LONG: "Too long there",
    KEPT: "Adopted, keeps its name",
    GONE: "Deleted there",
}


@dataclass(frozen=True, slots=True)
class RemoteName:
    """`wished` is empty where no name fits; `told` is empty where there is no remote audience yet. `words` say what is so, or what to do."""

    mapping: Mapping
    wished: str
    told: str
    state: str
    words: str = ""

    @property
    def label(self) -> str:
        return LABELS[self.state]

    @property
    def own(self) -> bool:
        """Chosen by a person for this connection."""
        return bool(self.mapping.own_name)

    @property
    def differs(self) -> bool:
        return self.state in (WAITS, STUCK, LONG)

    @property
    def renamed(self) -> bool:
        """Somebody gave it another name there, and it has it still."""
        return self.differs and bool(self.told) and self.told == self.mapping.renamed_there

    @property
    def to_rename(self) -> bool:
        """Whether the next sync tells the platform, even if it has nobody to add or remove."""
        return self.state == WAITS and self.mapping.state in TELLS


def of(mapping: Mapping, convention: Convention | None) -> RemoteName:
    """Of a row whose audience (with its live version) and destination are at hand: no query."""
    told = mapping.remote_name if mapping.remote_id else ""
    if mapping.lost == Mapping.Lost.GONE:
        return RemoteName(mapping, "", told, GONE, "It was deleted there. Open the connection to decide about it.")
    if mapping.adopted:
        return RemoteName(mapping, told, told, KEPT)
    label, can_rename = mapping.destination.kind, True
    if mapping.destination.kind in registry.CONNECTORS:
        capabilities = registry.CONNECTORS[mapping.destination.kind].capabilities
        label, can_rename = capabilities.label, capabilities.can_rename
    try:
        wished = mapping.own_name or naming.name_on(convention, mapping.audience, mapping.destination.kind)
    except NamingRefused as refused:
        return RemoteName(
            mapping, "", told, LONG, f"{refused} Until then it keeps the name it has." if told else f"{refused}"
        )
    if not mapping.remote_id:
        return RemoteName(mapping, wished, "", NEW, "It is made at the first sync.")
    if wished == told:
        return RemoteName(mapping, wished, told, SAME)
    if not can_rename:
        words = f"{label} renames nothing: it stays “{told}” there. Retire this connection and make a new one for another name."
        return RemoteName(mapping, wished, told, STUCK, words)
    if told == mapping.renamed_there and mapping.renamed_there_at:
        seen = date_format(timezone.localtime(mapping.renamed_there_at), "j F Y, H:i T")
        words = f"Somebody renamed it there to “{told}”, seen {seen}. The next sync puts it right."
        return RemoteName(mapping, wished, told, WAITS, words)
    return RemoteName(mapping, wished, told, WAITS, f"{label} still has “{told}”.")


def now(mapping: Mapping) -> RemoteName:
    """Of one connection, by what is kept at this moment."""
    return of(mapping, naming.current())


def every(*, audience_ids: Iterable[int] | None = None) -> list[RemoteName]:
    """Of all connections that have not ended, those that differ first. Two queries."""
    convention = naming.current()
    rows = (
        Mapping.objects.exclude(state=Mapping.State.RETIRED)
        .filter(audience__archived_at=None)
        .select_related("audience__live_version", "destination")
        .order_by("audience__key", "destination__name")
    )
    if audience_ids is not None:
        rows = rows.filter(audience__in=list(audience_ids))
    found = [of(row, convention) for row in rows]
    return sorted(found, key=lambda name: (name.state != GONE, not name.differs))


def tally(names: Iterable[RemoteName]) -> Counter[str]:
    """State → how many."""
    return Counter(name.state for name in names)


def holder(mapping: Mapping, name: str) -> str:
    """The key of another audience of ours that has this name at the same destination; empty: nobody."""
    others = Mapping.objects.filter(destination=mapping.destination_id, remote_name=name).exclude(pk=mapping.pk)
    taken = others.exclude(remote_id="").exclude(state=Mapping.State.RETIRED)
    return taken.values_list("audience__key", flat=True).first() or ""
