"""Where audiences go, as pages of audiences show it: what each platform was told, what keeps a connection from its work, the name and the page there.

Reads only. What a connection's own page shows beyond this is in queries.py.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import F, OuterRef, QuerySet, Subquery

from audiences import charts
from audiences.naming import Convention
from destinations import remote_names, remotes
from destinations.connectors import registry
from destinations.models import AT_WORK, ENDED, Destination, Mapping, Run


@dataclass(frozen=True, slots=True)
class Place:
    """A connection in so few words that those of every audience are read at once, to search and filter by."""

    audience_id: int
    destination: str
    destination_name: str
    kind: str
    platform: str
    remote_name: str
    state: str
    trouble: str  # in a sentence; empty: it does its work, or was never meant to


@dataclass(frozen=True, slots=True)
class Placement:
    """A connection as an audience's line or page shows it. `sent` and `received` None: nothing was planned yet."""

    mapping: Any  # a Mapping with the counts that `of` annotates
    platform: str
    name: str
    url: str
    sent: int | None
    received: int | None
    refused: int | None
    unknown: int | None
    trouble: str
    renamed: str  # that somebody gave it another name there, in words; empty: nobody has, or it was put right
    synced_at: datetime | None

    @property
    def sends(self) -> bool:
        return self.mapping.state in AT_WORK

    @property
    def there(self) -> bool:
        """Whether the platform has it, so that an ad set can name it."""
        return bool(self.mapping.remote_id) and self.sends and not self.mapping.lost

    @property
    def matched(self) -> str:
        """For lists: 31k–36k."""
        return matched(self.mapping, charts.short, unknown=f"{self.platform} does not say" if self.received else "")

    @property
    def matched_whole(self) -> str:
        return matched(self.mapping, "{:,}".format, unknown=f"{self.platform} does not say" if self.received else "")

    @property
    def match_rate(self) -> str:
        """What was matched of what was received, as a share or a range of shares; empty where either is not known."""
        ends = [end for end in (self.mapping.matched_low, self.mapping.matched_high) if end is not None]
        if not ends or not self.received:
            return ""
        shares = sorted({min(100, round(100 * end / self.received)) for end in ends})
        return "–".join(str(share) for share in shares) + "%"


def matched(mapping: Mapping, words: Callable[[int], str], *, unknown: str = "") -> str:
    """A number, a range, or who does not say."""
    low, high = mapping.matched_low, mapping.matched_high
    if low is None and high is None:
        return mapping.matched_words or unknown or "Not known yet"
    if low is None or high is None or low == high:
        return words((high if low is None else low) or 0)
    return f"{words(low)}–{words(high)}"


def everywhere() -> dict[int, list[Place]]:
    """Of every audience, what has not been retired. One query."""
    rows = (
        Mapping.objects.exclude(state=Mapping.State.RETIRED)
        .order_by("destination__name", "pk")
        .values_list(
            "audience_id", "destination__key", "destination__name", "destination__kind", "remote_name", "state",
            "blocked_reason", "destination__state", "lost", "lost_at",
        )
    )  # fmt: skip
    found: dict[int, list[Place]] = {}
    for audience_id, key, name, kind, remote_name, state, blocked, standing, lost, lost_at in rows:
        gone = remotes.lost_words(lost, name, lost_at)
        trouble = _trouble(state, name, standing, blocked, gone)
        place = Place(audience_id, key, name, kind, label(kind), remote_name, state, trouble)
        found.setdefault(audience_id, []).append(place)
    return found


def of(audience_ids: Iterable[int], convention: Convention | None) -> dict[int, list[Placement]]:
    """Of these audiences, what has not been retired. One query."""
    found: dict[int, list[Placement]] = {}
    for row in _rows().filter(audience__in=list(audience_ids)):
        found.setdefault(row.audience_id, []).append(_placement(row, convention))
    return found


def label(kind: str) -> str:
    connector = registry.CONNECTORS.get(kind)
    return connector.capabilities.label.split(" (")[0] if connector else kind


def page_of(mapping: Mapping) -> str:
    """Where a person opens it in the ad account; empty: it is not there yet, or the platform has no such page."""
    connector = registry.CONNECTORS.get(mapping.destination.kind)
    if connector is None or not mapping.remote_id or mapping.lost == Mapping.Lost.GONE:
        return ""
    return connector.page_of(mapping.destination.base_url, mapping.destination.config, mapping.remote_id)


def _rows() -> QuerySet[Any]:
    ended = Run.objects.filter(mapping=OuterRef("pk"), rehearsal=False, state__in=ENDED).order_by("-pk")
    return (
        Mapping.objects.exclude(state=Mapping.State.RETIRED)
        .select_related("audience__live_version", "destination")
        .defer("audience__live_version__segment", "destination__credentials")
        .annotate(
            planned=F("ledger__refresh_id"),
            sent=F("ledger__ever_sent_count"),
            received=F("ledger__present_count"),
            refused=F("ledger__rejected_count"),
            unsure=F("ledger__unknown_count"),
            last_state=Subquery(ended.values("state")[:1]),
            last_ended=Subquery(ended.values("finished_at")[:1]),
        )
        .order_by("destination__name", "pk")
    )


def _placement(row: Any, convention: Convention | None) -> Placement:
    name = remote_names.of(row, convention)
    told = row.planned is not None and (row.state in AT_WORK or row.sent)
    gone = remotes.lost_words(row.lost, row.destination.name, row.lost_at)
    trouble = _trouble(row.state, row.destination.name, row.destination.state, row.blocked_reason, gone)
    if not trouble and row.state in AT_WORK and row.last_state in (Run.State.FAILED, Run.State.INTERRUPTED):
        trouble = f"The last sync to {row.destination.name} failed."
    return Placement(
        row,
        label(row.destination.kind),
        name.told or name.wished or row.audience.name,
        page_of(row),
        row.sent if told else None,
        row.received if told else None,
        row.refused if told else None,
        row.unsure if told else None,
        trouble,
        name.words if name.renamed else "",
        row.last_ended,
    )


def _trouble(state: str, name: str, standing: str, blocked: str, gone: str) -> str:
    if gone and state in AT_WORK:
        return f"{gone}. Nothing is sent there until somebody decides what is to become of it."
    if state not in AT_WORK or state == Mapping.State.FROZEN:
        return ""
    if standing == Destination.State.REFUSED:
        return f"{name} refuses our token: nothing arrives there until it is connected again."
    return f"Stopped on {name}: {blocked}" if blocked else ""
