"""Which connections an event may concern: whom it may take out where, and whom it may bring into suppression. Kept until rules or connections change."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from audiences.models import Audience
from audiences.segments import effects
from audiences.segments.judge import ANY_EVENT
from audiences.segments.tree import Leaf, Node, leaves
from audiences.services import refreshes
from destinations import eligibility
from destinations.models import AT_WORK, Exclusion
from destinations.models import Mapping as Connection


@dataclass(frozen=True, slots=True)
class Interest:
    """`connections` by id; `others`: whom each leaves out; `trees`: live rules by audience id, without those that cannot be counted."""

    connections: Mapping[int, Connection]
    others: Mapping[int, Sequence[Audience]]
    trees: Mapping[int, Node]
    _out: Mapping[str, frozenset[int]]
    _into: Mapping[str, frozenset[int]]

    @property
    def events(self) -> frozenset[str] | None:
        """The names of events that may change anything; None: any."""
        names = {*self._out, *self._into}
        return None if ANY_EVENT in names else frozenset(names)

    def taken_out(self, happened: Iterable[str]) -> set[int]:
        """Connections that these events may take somebody out of."""
        return _of(self._out, happened)

    def brought_in(self, happened: Iterable[str]) -> set[int]:
        """Suppression connections that these events may bring somebody into."""
        return _of(self._into, happened)

    def leaves(self, connections: Collection[int]) -> list[Leaf]:
        """Everything that must be known of a person to judge them for these connections."""
        audiences = {self.connections[pk].audience_id for pk in connections}
        audiences |= {other.pk for pk in connections for other in self.others[pk]}
        return list({leaf: None for pk in audiences if pk in self.trees for _, leaf in leaves(self.trees[pk])})


class Index:
    """The interest as of now, made anew when a rule went live, a connection changed its state, or what is left out where has changed."""

    def __init__(self) -> None:
        self._print: Any = None
        self._interest: Interest | None = None

    def now(self) -> Interest:
        found = _fingerprint()
        if self._interest is None or found != self._print:
            self._print, self._interest = found, _interest()
        return self._interest


def _fingerprint() -> Any:
    links = Audience.excluded_by.through.objects.order_by("pk")
    return (
        list(
            Connection.objects.filter(state__in=AT_WORK)
            .order_by("pk")
            .values_list("pk", "audience", "destination", "state", "identifiers", "trial_percent", "remote_id")
        ),
        list(
            Audience.objects.order_by("pk").values_list(
                "pk", "live_version", "archived_at", "purpose", "invalid_reason"
            )
        ),
        list(links.values_list("from_audience", "to_audience")),
        list(Exclusion.objects.order_by("pk").values_list("pk", "destination", "audience", "person_list")),
    )


def _interest() -> Interest:
    rows = Connection.objects.filter(
        state__in=AT_WORK, audience__archived_at=None, audience__live_version__isnull=False
    )
    connections = {row.pk: row for row in rows.select_related("audience__live_version", "destination")}
    others = eligibility.excluding_each(list(connections.values()))
    audiences = {row.audience_id: row.audience for row in connections.values()}
    audiences |= {other.pk: other for some in others.values() for other in some}
    countable = [one for one in audiences.values() if one.live_version and not one.archived_at]
    by_key = refreshes.rules_of(countable).trees
    trees = {one.pk: by_key[one.key] for one in countable if one.key in by_key}
    what = {pk: effects.of(tree) for pk, tree in trees.items()}
    nothing = effects.Effects()
    out: dict[str, set[int]] = defaultdict(set)
    into: dict[str, set[int]] = defaultdict(set)
    for pk, row in connections.items():
        own = what.get(row.audience_id, nothing)
        if row.audience.purpose == Audience.Purpose.SUPPRESSION:
            for name in own.brings_in:
                into[name].add(pk)
            continue
        takes_out = own.takes_out.union(*(what.get(other.pk, nothing).brings_in for other in others[pk]))
        for name in takes_out:
            out[name].add(pk)
    return Interest(
        connections,
        others,
        trees,
        {name: frozenset(found) for name, found in out.items()},
        {name: frozenset(found) for name, found in into.items()},
    )


def _of(by_event: Mapping[str, frozenset[int]], happened: Iterable[str]) -> set[int]:
    found = set(by_event.get(ANY_EVENT, ()))
    for name in happened:
        found |= by_event.get(name, frozenset())
    return found
