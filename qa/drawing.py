"""Whom a spot check looks at: people inside, just left, just outside; what the rule says of each alone; what a platform was told.

One pin for the count and for the judge, so that the two can only differ where one of them is wrong. Reads only.
"""

import random
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from django.utils import timezone
from pyroaring import BitMap

from audiences import bitmaps, clock, history, standings, vocabulary
from audiences.models import Audience, Identity, Refresh, SegmentVersion
from audiences.people import engines
from audiences.people.engines.base import Pinned
from audiences.segments import evaluate, grammar, judge
from audiences.segments.tree import (
    All,
    Attribute,
    Condition,
    Count,
    InAudience,
    InCustomerioSegment,
    InList,
    Leaf,
    Measured,
    Moment,
    Node,
    Not,
    Occurred,
    Sequence,
    leaves,
)
from audiences.segments.tree import Any as AnyOf
from audiences.services import refreshes
from destinations import queries, trace
from destinations.connectors import registry
from destinations.connectors.base import ConnectorError
from destinations.models import Eligibility, Ledger
from destinations.models import Mapping as Connection
from qa.models import SpotCheckPerson

INSIDE, LEFT, OUTSIDE = SpotCheckPerson.Group.INSIDE, SpotCheckPerson.Group.LEFT, SpotCheckPerson.Group.OUTSIDE
COUNTS_LOOKED_AT = 200  # for who has left, newest first
_chance = random.SystemRandom()


class CannotDraw(Exception):
    """Nobody can be drawn, in words."""


@dataclass(frozen=True, slots=True)
class Drawn:
    """One person. `judged` None: they were removed while being drawn. `rules`: path, words, holds, group, decides."""

    profile_no: int
    group: str
    counted: bool
    judged: bool | None
    rules: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Draw:
    """`compared`: what the connection was told can be held against this count; `why_not` in words where not."""

    as_of_us: int
    people: tuple[Drawn, ...]
    compared: bool
    why_not: str = ""


@dataclass(frozen=True, slots=True)
class Side:
    """The platform's side: how it was looked at in words, and by profile_no what it was told and whether it holds them."""

    means: str
    traces: Mapping[int, trace.Trace] = field(default_factory=dict)
    found: Mapping[int, bool] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Counted:
    universe: BitMap
    members: BitMap
    near: tuple[BitMap, ...]  # for each rule those outside whom it alone keeps out
    lists: Mapping[str, BitMap]


def draw(version: SegmentVersion, size: int, connection: Connection | None) -> Draw:
    """Count this version afresh and draw `size` people of it. Raises CannotDraw, UnreadableLake."""
    tree = _resolved(version)
    with refreshes.pinned(clock.now_us()) as pin:
        counted = _count(tree, pin)
        if not counted.universe:
            raise CannotDraw("There is nobody to draw: no people have been taken in yet.")
        before, kept_back, why_not = _when_synced(version, connection)
        moved = BitMap() if before is None else counted.members ^ before
        groups = _choose(version.audience, counted, moved, kept_back, size)
        numbers = [number for group in groups.values() for number in group]
        people = engines.current().people(numbers, pin)
    drawn = []
    for group, chosen in groups.items():
        for number in chosen:
            lists = frozenset(name for name, members in counted.lists.items() if number in members)
            person = replace(people[number], lists=lists) if number in people else None
            judged, rules = _judge(tree, person, pin.as_of_us)
            drawn.append(Drawn(number, group, number in counted.members, judged, rules))
    return Draw(pin.as_of_us, tuple(drawn), before is not None, why_not)


def platform_side(connection: Connection | None, drawn: Draw) -> Side:
    """What was told, and, where the platform lets anybody read it, what it holds. No call is made where it does not."""
    if connection is None:
        return Side("No connection was chosen, so nothing was held against a platform.")
    if not drawn.compared:
        return Side(drawn.why_not)
    traces = trace.traces(connection, [person.profile_no for person in drawn.people])
    platform = queries.platform_of(connection.destination.kind)
    label = platform.label if platform else connection.destination.name
    receipts = "The strongest evidence is its receipt for the call that last carried each person."
    if platform is None or not platform.can_read_members:
        return Side(f"{label} lets nobody read members. {receipts}", traces)
    if not connection.remote_id or "external_id" not in connection.identifiers:
        return Side(
            f"{label} can only be asked for ids of your own, and this connection sends none. {receipts}", traces
        )
    try:
        with registry.open(connection.destination) as connector:
            held = set(connector.read_members(connection.remote_id))
    except ConnectorError as error:
        return Side(f"{label}'s members could not be read: {error} {receipts}", traces)
    ids = dict(
        Identity.objects.filter(profile_no__in=traces, replaced_at=None, erased_at=None)
        .exclude(external_id="")
        .values_list("profile_no", "external_id")
    )
    found = {number: external_id in held for number, external_id in ids.items()}
    return Side(f"{label} let us read its members: all {len(held):,}, on {_today()}.", traces, found)


def _resolved(version: SegmentVersion) -> Node:
    tree = vocabulary.rule(version.segment)
    problems = vocabulary.known().problems(tree)
    if problems:
        raise CannotDraw(f"The rule cannot be counted: {'; '.join(map(str, problems))}.")
    try:
        return grammar.resolve(tree, vocabulary.live_rules())
    except grammar.Refused as refused:
        raise CannotDraw(f"The rule cannot be counted: {refused}.") from refused


def _count(tree: Node, pin: Pinned) -> _Counted:
    engine, lists = engines.current(), refreshes.lists_of([tree])
    universe = engine.universe(pin)
    each = [leaf for _, leaf in leaves(tree)]
    wider = {leaf: _wider(leaf) for leaf in each}
    asked = {leaf for leaf in (*each, *wider.values()) if leaf is not None and not isinstance(leaf, _LISTED)}
    answers = dict(engine.members(asked, pin))
    for leaf in each:
        if isinstance(leaf, InList | InCustomerioSegment):
            answers[leaf] = lists[judge.list_key(leaf)]
    members = evaluate.members(tree, universe, answers)
    near = []
    for leaf, alone in pivots(tree, universe, lambda node: evaluate.members(node, universe, answers)):
        kept_out = alone - members
        hint = wider[leaf]
        near.append((kept_out & answers[hint]) or kept_out if hint is not None else kept_out)
    return _Counted(universe, members, tuple(near), lists)


_LISTED = (InList, InCustomerioSegment, InAudience)


def pivots(node: Node, universe: BitMap, of: Callable[[Node], BitMap]) -> Iterator[tuple[Leaf, BitMap]]:
    """For each leaf those people of whom it alone decides: were its answer the other, the whole rule's would be too."""
    match node:
        case All(items) | AnyOf(items):
            for index, item in enumerate(items):
                others = BitMap(universe)
                for at, other in enumerate(items):
                    if at != index:
                        others &= of(other) if isinstance(node, All) else universe - of(other)
                for leaf, alone in pivots(item, universe, of):
                    yield leaf, alone & others
        case Not(item):
            yield from pivots(item, universe, of)
        case _:
            yield node, BitMap(universe)


def _wider(leaf: Leaf) -> Leaf | None:
    """A looser rule: of all who fail the leaf, those who pass this one have come near it. None: nobody is nearer than others."""
    match leaf:
        case Occurred(event, count) if count.low > 0:
            return Occurred(event, Count(1, None))
        case Measured(event=event) | Moment(event=event):
            return Occurred(event, Count(1, None))
        case Sequence(steps):
            return Occurred(steps[0].event, Count(1, None))
        case Attribute(condition) if condition.op not in ("exists", "missing"):
            return Attribute(Condition(condition.name, "exists"))
    return None


def _when_synced(version: SegmentVersion, connection: Connection | None) -> tuple[BitMap | None, BitMap, str]:
    """The members by the count that the connection was last synced with, those of them that a step kept back, and "".

    None and why, where that sync says nothing about this version.
    """
    if connection is None:
        return None, BitMap(), ""
    where = connection.destination.name
    ledger = Ledger.objects.filter(mapping=connection).select_related("refresh__version").first()
    if ledger is None or ledger.refresh is None or not connection.remote_id:
        words = f"Nothing has been sent to {where} yet: the connection is {connection.get_state_display().lower()}."
        return None, BitMap(), words
    if ledger.refresh.version_id != version.pk:
        then = ledger.refresh.version.number
        words = f"{where} was last told of v{then}, and this is v{version.number}. Sync, then draw again."
        return None, BitMap(), words
    try:
        members = history.members_at(ledger.refresh)
    except LookupError:
        words = f"The count with which {where} was last synced is not on record any more. Sync, then draw again."
        return None, BitMap(), words
    steps = Eligibility.objects.filter(mapping=connection, refresh=ledger.refresh, out_count__gt=0)
    kept_back = BitMap()
    for taken_out in steps.values_list("taken_out", flat=True):
        kept_back |= bitmaps.unpack(taken_out)
    return members, kept_back, ""


def _choose(audience: Audience, counted: _Counted, moved: BitMap, kept_back: BitMap, size: int) -> dict[str, list[int]]:
    """Half inside, a quarter just left, a quarter just outside; where a group has too few, the others have more.

    `moved`: since the last sync they have entered or left, so that nobody can hold what was sent against what is so now.
    `kept_back`: members who are not sent; of those inside about a third may be such.
    """
    members = counted.members - moved
    outside = counted.universe - counted.members - moved
    wanted = {INSIDE: size - size // 2, LEFT: size // 4, OUTSIDE: size // 2 - size // 4}
    left = _pick(_just_left(audience, outside, wanted[LEFT]), wanted[LEFT])
    near = [candidates & outside for candidates in counted.near]
    missed = _spread(near, wanted[OUTSIDE] + wanted[LEFT] - len(left), but=left)
    number = size - len(left) - len(missed)
    inside = _pick(members & kept_back, number // 3)
    inside = _pick(members - kept_back, number - len(inside)) + inside
    inside += _pick(members - BitMap(inside), number - len(inside))
    still = size - len(left) - len(missed) - len(inside)
    missed += _spread(near, still, but=[*left, *missed])
    still = size - len(left) - len(missed) - len(inside)
    missed += _pick(outside - BitMap([*left, *missed]), still)
    return {INSIDE: inside, LEFT: left, OUTSIDE: missed}


def _just_left(audience: Audience, outside: BitMap, enough: int) -> BitMap:
    """Of those outside whom the latest counts saw leave."""
    found = BitMap()
    rows = Refresh.objects.filter(audience=audience, state=Refresh.State.DONE, left_count__gt=0)
    for packed in rows.order_by("-as_of_us", "-pk").values_list("left", flat=True)[:COUNTS_LOOKED_AT]:
        found |= bitmaps.unpack(packed) & outside
        if len(found) >= enough:
            break
    return found


def _pick(people: BitMap, number: int) -> list[int]:
    return [people[at] for at in _chance.sample(range(len(people)), max(0, min(number, len(people))))]


def _spread(sets: Collection[BitMap], number: int, *, but: Collection[int]) -> list[int]:
    """So many, in turn from each of the sets, so that each rule shows whom it keeps out."""
    taken = BitMap(but)
    found: list[int] = []
    queues = [iter(_pick(people - taken, number)) for people in sets]
    while queues and len(found) < number:
        for queue in list(queues):
            chosen = next((person for person in queue if person not in taken), None)
            if chosen is None:
                queues.remove(queue)
            elif len(found) < number:
                taken.add(chosen)
                found.append(chosen)
    return found


def _judge(tree: Node, person: judge.Person | None, as_of_us: int) -> tuple[bool | None, list[dict[str, Any]]]:
    if person is None:
        return None, []
    rule = standings.rule_of(tree, judge.verdicts(tree, person, as_of_us))
    return rule.holds, rules_as_data(rule)


def rules_as_data(rule: standings.Rule) -> list[dict[str, Any]]:
    """Every rule and group, groups before their parts: its path, its words, whether it holds, whether it decides."""
    deciding = {part.path for part in standings.decisive(rule)}
    return [
        {
            "path": part.path,
            "words": part.words,
            "holds": part.holds,
            "group": bool(part.children),
            "decides": part.path in deciding,
        }
        for part in rule.flat()
    ]


def _today() -> str:
    now = timezone.localtime()
    return f"{now.day} {now:%b %Y, %H:%M %Z}"
