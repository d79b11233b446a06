"""What is doubtful about a rule that can be counted: each finding with its place, why it matters and, where it can, the rule put right.

Pure: what is known of this workspace comes in as Facts (audiences/findings.py loads them). Findings are advice and stop nothing.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from audiences.clock import DAY, HOUR, MINUTE
from audiences.segments import exits, grammar, lint_events, logic
from audiences.segments.advice import (
    CONTRADICTION,
    DID_NOT,
    NARROW,
    NO_EXIT,
    NO_TIME_WINDOW,
    REDUNDANT,
    Facts,
    Finding,
    Seen,
)
from audiences.segments.literals import LONGEST_WINDOW, Refused, join
from audiences.segments.places import Place, at, node_at, removed, replaced
from audiences.segments.reading import MAX_RULES
from audiences.segments.recipes import USUAL
from audiences.segments.tree import (
    All,
    Any,
    Attribute,
    Between,
    Bucket,
    Count,
    InAudience,
    KnownFor,
    Leaf,
    Measured,
    Moment,
    Node,
    Not,
    Occurred,
    Sequence,
    Within,
    leaves,
)

__all__ = ["Facts", "Finding", "Seen", "findings"]

WINDOW, QUIET = 30 * DAY, 14 * DAY  # what fixes put in
RETARGETING = "retargeting"


def findings(tree: Node, facts: Facts) -> tuple[Finding, ...]:
    """The whole rule's first, then place by place, as they stand in it."""
    found = [*_exit(tree, facts)]
    seen: set[tuple[str, str]] = set()
    for finding in _walk(tree, tree, (), facts, _Around()):
        if (finding.code, finding.path) not in seen:  # each place says a thing once
            seen.add((finding.code, finding.path))
            found.append(finding)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class _Around:
    """What the groups around a rule ask beside it: a limit in time, something done. `turned`: it stands inside a "not"."""

    timed: bool = False
    done: bool = False
    turned: bool = False
    grouped: bool = False  # straight inside an "all", whose rules were looked at together


def _walk(tree: Node, node: Node, place: Place, facts: Facts, around: _Around) -> Iterator[Finding]:
    match node:
        case All(items):
            if not around.grouped:
                yield from _together(tree, place)
            inside = _Around(
                around.timed or any(map(_timed, items)), around.done or any(map(_done, items)), around.turned, True
            )
            for index, item in enumerate(items):
                yield from _walk(tree, item, (*place, index), facts, inside)
        case Any(items):
            yield from _alternatives(tree, items, place)
            for index, item in enumerate(items):
                yield from _walk(tree, item, (*place, index), facts, replace(around, grouped=False))
        case Not(item):
            if not around.turned and _absent(node) and not around.done:
                yield _did_not(tree, node, place)
            yield from _walk(tree, item, (*place, 0), facts, _Around(turned=True))
        case _:
            yield from _leaf(tree, node, place, facts, around)


def _leaf(tree: Node, leaf: Leaf, place: Place, facts: Facts, around: _Around) -> Iterator[Finding]:
    if not around.turned:
        if _absent(leaf) and not around.done:
            yield _did_not(tree, leaf, place)
        if not around.timed and (open_ended := _unlimited(leaf)):
            why = "Nothing here says when: whoever did it once, however long ago, is found for ever. Give it a time window."
            yield Finding(NO_TIME_WINDOW, at(tree, place), why, replaced(tree, place, open_ended))
    yield from _narrow(tree, leaf, place, facts)
    for where in [leaf.where] if isinstance(leaf, Occurred | Measured | Moment) else []:
        if clash := logic.clashing(where):
            yield Finding(
                CONTRADICTION, at(tree, place), f"No {clash[0].name} meets both conditions, so nothing is counted."
            )
    if isinstance(leaf, Sequence):
        for index, step in enumerate(leaf.steps):
            if clash := logic.clashing(step.where):
                path = f"{join(at(tree, place), 'sequence')}[{index}]"
                yield Finding(CONTRADICTION, path, f"No {clash[0].name} meets both conditions of this step.")
    yield from lint_events.findings(tree, leaf, place, facts)


# --- leaving


def _exit(tree: Node, facts: Facts) -> Iterator[Finding]:
    if facts.purpose != RETARGETING or facts.suppressed:
        return
    rule = tree
    try:
        rule = grammar.resolve(tree, facts.rules)
    except Refused:
        if any(isinstance(leaf, InAudience) for _, leaf in leaves(tree)):
            return  # what it refers to is not there: that is said, and who leaves cannot be
    bought = [name for name in USUAL["purchase"] if name in facts.events]
    if _about_buyers(rule, bought):
        if not exits.leaving(rule):
            why = "Nobody ever leaves: who has bought once is shown the ad for good. Give it a time window."
            yield Finding(NO_EXIT, "", why)
        return
    if not _ends(rule, bought):
        fix = _with(tree, Occurred(bought[0], Count(0, 0), Within(QUIET))) if bought else None
        why = (
            "Whoever buys stays in, and goes on being shown an ad for what they have. Leave out who has bought lately."
        )
        yield Finding(NO_EXIT, "", why, fix)


def _ends(node: Node, bought: list[str]) -> bool:
    """Whether buying takes a person out of it. Where no event of a purchase is known here, any deed may be one."""
    match node:
        case All(items):
            return any(_ends(item, bought) for item in items)
        case Any(items):
            return all(_ends(item, bought) for item in items)
        case Not(Not(item)):
            return _ends(item, bought)
        case _:
            deeds = exits.by_deed(node)
            return bool(deeds & set(bought) if bought else deeds)


def _about_buyers(node: Node, bought: list[str]) -> bool:
    """Whether only people who have bought can be in it: buying is why they are, and does not end it."""
    match node:
        case All(items):
            return any(_about_buyers(item, bought) for item in items)
        case Any(items):
            return all(_about_buyers(item, bought) for item in items)
        case Occurred(event, count):
            return event in bought and count.low > 0
        case Measured(event) | Moment(event):
            return event in bought
        case Sequence(steps, complete):
            return any(step.event in bought for step in (steps if complete else steps[:-1]))
    return False


def _with(tree: Node, rule: Node) -> Node | None:
    """The tree that asks for this too; None where it would be too large to be one."""
    whole = All((*tree.items, rule)) if isinstance(tree, All) else All((tree, rule))
    try:
        return grammar.parse(grammar.to_json(whole))
    except Refused:
        return None


# --- rules beside each other


def _together(tree: Node, place: Place) -> Iterator[Finding]:
    """Rules that must all hold, groups of the same kind written into each other taken as one."""
    rules = list(_flat(tree, place))
    spare: set[int] = set()
    for index, (here, rule) in enumerate(rules):
        for before, (there, other) in enumerate(rules[:index]):
            if logic.excludes(other, rule):
                why = f"It cannot hold together with {_place(tree, there)}, so nobody is ever found. Take one of them out."
                yield Finding(CONTRADICTION, at(tree, here), why)
                break
            later = logic.implies(other, rule)
            drop, keep = (index, before) if later else (before, index)
            if (later or logic.implies(rule, other)) and not {drop, keep} & spare:
                spare.add(drop)
    for index in sorted(spare):
        here, rule = rules[index]
        why = "Another rule beside it asks for as much or more: it changes nothing and makes the rule harder to read."
        yield Finding(REDUNDANT, at(tree, here), why, removed(tree, here))


def _alternatives(tree: Node, items: tuple[Node, ...], place: Place) -> Iterator[Finding]:
    for index, item in enumerate(items):
        for other_index, other in enumerate(items):
            if index == other_index or not logic.implies(item, other):
                continue
            if index > other_index or not logic.implies(other, item):
                here = (*place, index)
                why = f"Whoever it finds is found by {_place(tree, (*place, other_index))} already: it adds nobody."
                yield Finding(REDUNDANT, at(tree, here), why, removed(tree, here))
                break


def _flat(tree: Node, place: Place) -> Iterator[tuple[Place, Node]]:
    stack = [(place, node_at(tree, place))]
    while stack:
        here, rule = stack.pop()
        if isinstance(rule, All):
            stack += reversed([((*here, index), item) for index, item in enumerate(rule.items)])
        else:
            yield here, rule


def _place(tree: Node, place: Place) -> str:
    return at(tree, place) or "the rule"


# --- time


def _timed(node: Node) -> bool:
    """Whether it holds for a limited time only, or looks at a limited time."""
    match node:
        case All(items):
            return any(map(_timed, items))
        case Any(items):
            return all(map(_timed, items))
        case Not(item):
            return _timed(item)
        case Occurred(window=window) | Measured(window=window):
            return window is not None
        case Moment():
            return True
        case Sequence(steps):
            return steps[0].within is not None
        case Attribute(condition):
            return condition.op in ("before", "after", "within_last", "not_within_last", "within_next")
    return False


def _unlimited(leaf: Leaf) -> Leaf | None:
    """The same with a window, of something done at any time; None of everything else."""
    match leaf:
        case Occurred(count=Count(low), window=None) if low:
            return replace(leaf, window=Within(WINDOW))
        case Measured(window=None):
            return replace(leaf, window=Within(WINDOW))
        case Sequence(steps) if steps[0].within is None:
            return replace(leaf, steps=(replace(steps[0], within=WINDOW), *steps[1:]))
    return None


def _narrow(tree: Node, leaf: Leaf, place: Place, facts: Facts) -> Iterator[Finding]:
    pace = max(facts.cadence, facts.latency)
    match leaf:
        case Occurred(window=Within(span)) | Measured(window=Within(span)):
            pass
        case Sequence(steps) if steps[0].within is not None:
            span = steps[0].within
        case Moment(op="within_last" | "not_within_last", values=(span,)):
            span = min(span, leaf.window.duration) if isinstance(leaf.window, Within) else span
        case Moment(window=Within(span)):
            pass
        case _:
            return
    if span >= pace:
        return
    what = "counted and sent every" if facts.cadence >= facts.latency else "with the platforms only after about"
    why = (
        f"It looks at {_long(span)}, but the audience is {what} {_long(pace)}: "
        "most people come and go in between and are never sent."
    )
    wide = -(-pace // HOUR) * HOUR if pace > MINUTE * 30 else -(-pace // MINUTE) * MINUTE
    fix = replaced(tree, place, _widened(leaf, wide)) if wide <= LONGEST_WINDOW else None
    yield Finding(NARROW, at(tree, place), why, fix)


def _widened(leaf: Leaf, least: int) -> Leaf:
    match leaf:
        case Occurred() | Measured():
            return replace(leaf, window=Within(least))
        case Sequence(steps):
            return replace(leaf, steps=(replace(steps[0], within=least), *steps[1:]))
        case Moment(op=op, values=values, window=window):
            if op in ("within_last", "not_within_last"):
                values = (max(values[0], least),)
            if isinstance(window, Within):
                window = Within(max(window.duration, least))
            return replace(leaf, values=values, window=window)
    return leaf


# --- what was not done


def _absent(node: Node) -> Occurred | None:
    """The rule as "did not", where it asks that nothing was done."""
    match node:
        case Occurred(count=Count(_, 0)):
            return node
        case Not(Occurred(count=Count(1, None)) as did):
            return replace(did, count=Count(0, 0))
    return None


def _done(node: Node) -> bool:
    """Whether it asks for something done, or for an age: then whoever has just come is not found by what they have not done yet."""
    match node:
        case All(items):
            return any(map(_done, items))
        case Any(items):
            return all(map(_done, items))
        case Occurred(count=count):
            return count.low > 0
        case Not(Occurred(count=Count(_, 0))):
            return True
    return not isinstance(node, Attribute | Bucket | Not)


def _did_not(tree: Node, node: Node, place: Place) -> Finding:
    rule = _absent(node)
    assert rule is not None
    fix = None
    if not isinstance(rule.window, Between) and sum(1 for _ in leaves(tree)) < MAX_RULES:
        age = rule.window.duration if isinstance(rule.window, Within) else WINDOW
        fix = replaced(tree, place, All((rule, KnownFor(age))))
    why = (
        "Whoever came a minute ago has not done it either, and is found at once. "
        "Ask how long they must have been known (known_for), or for something that they did."
    )
    return Finding(DID_NOT, at(tree, place), why, fix)


def _long(us: int) -> str:
    for unit, name in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        if us >= unit:
            many = us / unit
            return f"{many:.3g} {name}{'' if many == 1 else 's'}"
    return "less than a minute"
