"""What is doubtful about a rule here: loads what segments/lint.py holds it against. Reads only, the same few queries whatever the rule.

How fast an audience reaches its platforms is known to the floor that sends; it says so through `paces` (destinations/apps.py).
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from audiences import clock, vocabulary
from audiences.models import Audience, EventName
from audiences.people import engines, lake
from audiences.people.engines.base import Pinned, UnreadableLake
from audiences.segments import exits, lint
from audiences.segments.lint import Facts, Finding, Seen
from audiences.segments.recipes import USUAL
from audiences.segments.tree import Node

USUAL_CADENCE = 900


@dataclass(frozen=True, slots=True)
class Pace:
    """How often an audience is sent, at the slowest of its platforms, in seconds; and how long sending took lately, in µs, 0 if unknown."""

    cadence_seconds: int = 0
    latency_us: int = 0


@dataclass(frozen=True, slots=True)
class Known:
    """What is the same for every rule of this workspace: the events, as they came in lately, and the live rules by key."""

    events: Mapping[str, Seen]
    rules: Mapping[str, Node]

    def facts(
        self,
        purpose: str,
        *,
        cadence_seconds: int = USUAL_CADENCE,
        pace: Pace = Pace(),
        excluded_by: Iterable[str] = (),
    ) -> Facts:
        """What a rule of an audience with this purpose is held against; `excluded_by`: the keys of its linked suppression audiences."""
        return Facts(
            purpose=purpose,
            cadence=max(cadence_seconds, pace.cadence_seconds) * clock.SECOND,
            latency=pace.latency_us,
            suppressed=any(_takes_buyers(self.rules[key]) for key in excluded_by if key in self.rules),
            events=self.events,
            rules=self.rules,
        )


_paces: list[Callable[[Collection[int]], Mapping[int, Pace]]] = []


def paces(ask: Callable[[Collection[int]], Mapping[int, Pace]]) -> None:
    """Ask this for the pace of audiences, by their ids."""
    if ask not in _paces:
        _paces.append(ask)


def of(audience: Audience, tree: Node) -> tuple[Finding, ...]:
    """What to say of this rule, were it the audience's. An audience that is not kept yet needs no more than its purpose."""
    here = known()
    if audience.pk is None:
        return lint.findings(tree, here.facts(audience.purpose))
    pace = next((found[audience.pk] for ask in _paces if audience.pk in (found := ask([audience.pk]))), Pace())
    linked = list(audience.excluded_by.values_list("key", flat=True))
    rules = {key: rule for key, rule in here.rules.items() if key != audience.key} | {audience.key: tree}
    facts = Known(here.events, rules).facts(
        audience.purpose, cadence_seconds=audience.cadence_seconds, pace=pace, excluded_by=linked
    )
    return lint.findings(tree, facts)


def known() -> Known:
    """The workspace as it is now. Where the event history cannot be read, nothing is said of what came in."""
    names = list(EventName.objects.values_list("name", flat=True))
    try:
        lately = engines.current().lately(Pinned(lake.take_snapshot(), clock.now_us()))
    except UnreadableLake:
        return Known({name: Seen() for name in names}, vocabulary.live_rules())
    return Known({name: lately.get(name, Seen(0)) for name in names}, vocabulary.live_rules())


def _takes_buyers(rule: Node) -> bool:
    return any(way.event in USUAL["purchase"] for way in exits.entering(rule))
