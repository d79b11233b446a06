"""Who is wanted on a platform now: a fresh count, the eligibility order, their identities, and why others have left. No calls, no ledger."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from pyroaring import BitMap

from audiences import clock
from audiences.bitmaps import unpack
from audiences.models import Audience, Membership, Refresh
from audiences.segments import grammar
from audiences.segments.tree import Node
from audiences.services import refreshes
from destinations import changes, eligibility, identities, plan
from destinations.eligibility import Step
from destinations.models import Mapping as Connection


class CannotCount(Exception):
    """Who is wanted cannot be said, in words a person can act on. Nothing is sent."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """`base`: identities. `rules`: of the audience and of whom it leaves out, by key, as they were counted."""

    base: BitMap = field(repr=False)
    refresh: Refresh
    steps: tuple[Step, ...]
    rules: Mapping[str, Node] = field(repr=False)

    @property
    def events(self) -> frozenset[str] | None:
        """Names of the events that could take someone out before the next count (None: any)."""
        return events_in(self.rules.values())

    @property
    def as_of(self) -> datetime:
        return clock.from_us(self.refresh.as_of_us)


def count(mapping: Connection) -> Wanted:
    """Count the audience and everyone who excludes from it at one fresh pin, and apply the order. Raises CannotCount."""
    others = eligibility.excluding(mapping)
    audiences = [mapping.audience, *others]
    try:
        done = refreshes.refresh(audiences, cause=Refresh.Cause.SYNC)
    except refreshes.NothingToCount as error:
        raise CannotCount(f"Nothing can be counted: {error}.") from error
    for audience in audiences:
        counted = done[audience.key]
        if counted.state != Refresh.State.DONE:
            raise CannotCount(f"{audience.key} could not be counted: {counted.error}")
    membership = Membership.objects.select_related("refresh").get(audience=mapping.audience)
    try:
        people, steps = eligibility.judge(mapping, unpack(membership.members))
    except (eligibility.NotAnswered, eligibility.CannotExclude) as error:
        raise CannotCount(str(error)) from error
    if mapping.state == Connection.State.TRIAL:
        people = plan.sample(people, mapping.trial_percent)
    base, reachable = identities.in_force(people, mapping.identifiers)
    steps.append(Step(eligibility.UNREACHABLE, people - reachable, len(reachable)))
    eligibility.keep(mapping, membership.refresh_id, steps)
    return Wanted(base, membership.refresh, tuple(steps), refreshes.rules_of(audiences).trees)


def events_in(rules: Iterable[Node]) -> frozenset[str] | None:
    """The events that these rules mention, and purchases; None where one is about any event."""
    names: set[str] = set(changes.PURCHASES)
    for tree in rules:
        names.update(name for name, _ in grammar.names(tree).events)
        if '"event":"*"' in grammar.canonical(tree):
            return None
    return frozenset(names)


def reasons(
    mapping: Connection, left: BitMap, entered: BitMap, *, since: int, same_rule: bool
) -> list[tuple[int, bool, str]]:
    """(identity_no, wanted, cause) of those whom something that happened after the mark `since` took out or brought in.

    Whoever is missing only because two counts differ is not in it, and where the rule itself has changed (`same_rule` false)
    an event is no explanation.
    """
    profiles = identities.profiles_of(left | entered)
    people = BitMap(profiles.values())
    if not people:
        return []
    events = events_in(refreshes.rules_of([mapping.audience]).trees.values())
    happened = changes.since(since, events, among=None if len(people) > 50_000 else list(people))
    bought = BitMap(c.profile_no for c in happened if c.kind == "event" and c.name in changes.PURCHASES)
    did = BitMap(c.profile_no for c in happened if c.kind == "event")
    removed, merged = eligibility.gone(people), eligibility.merged(people)
    try:
        barred = eligibility.without_consent(people, eligibility.consents_needed(mapping.audience.purpose))
    except eligibility.NotAnswered:
        barred = BitMap()
    current = set(identities.current_of(list(people)).values())
    stays = BitMap(profiles[number] for number in entered if number in profiles)  # under other identifiers
    suppression = mapping.audience.purpose == Audience.Purpose.SUPPRESSION
    why: list[tuple[int, bool, str]] = []
    for number in left:
        profile = profiles.get(number)
        if profile is None:
            continue
        if profile in removed:
            why.append((number, False, plan.IDENTITY if profile in merged else plan.ERASURE))
        elif profile in barred:
            why.append((number, False, plan.CONSENT))
        elif profile in stays:
            why.append((number, False, plan.IDENTITY))
        elif profile in bought and not suppression:
            why.append((number, False, plan.PURCHASE))
        elif number not in current:
            why.append((number, False, plan.IDENTITY))
        elif same_rule and profile in did:
            why.append((number, False, plan.RULE))
    if suppression:
        why += [(number, True, plan.PURCHASE) for number in entered if profiles.get(number, 2**32 - 1) in bought]
    return why
