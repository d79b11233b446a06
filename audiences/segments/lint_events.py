"""The part of lint.py about events as they come in: never seen, not seen lately, not seen from everybody, in several currencies. Pure."""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from audiences.segments.advice import BRITTLE, CURRENCIES, UNKNOWN, UNSEEN, Facts, Finding, Seen
from audiences.segments.literals import join
from audiences.segments.places import Place, at, replaced
from audiences.segments.reading import ANY_EVENT, MAX_CONDITIONS
from audiences.segments.tree import Condition, Leaf, Measured, Moment, Node, Occurred, Sequence

CHANCE = 0.05  # how likely a gap may be by chance and still be told


def findings(tree: Node, leaf: Leaf, place: Place, facts: Facts) -> Iterator[Finding]:
    path = at(tree, place)
    match leaf:
        case Occurred(event, where=where) | Measured(event, where=where) | Moment(event, where=where):
            yield from _event(event, where, path, facts, lambda name: replaced(tree, place, replace(leaf, event=name)))
            if isinstance(leaf, Measured):
                yield from _currencies(tree, leaf, place, facts)
        case Sequence(steps):
            for index, step in enumerate(steps):

                def renamed(name: str, index: int = index, leaf: Sequence = leaf) -> Node:
                    step = replace(leaf.steps[index], event=name)
                    return replaced(
                        tree, place, replace(leaf, steps=(*leaf.steps[:index], step, *leaf.steps[index + 1 :]))
                    )

                yield from _event(step.event, step.where, f"{join(path, 'sequence')}[{index}]", facts, renamed)


def _event(
    event: str, where: tuple[Condition, ...], path: str, facts: Facts, renamed: Callable[[str], Node]
) -> Iterator[Finding]:
    if event == ANY_EVENT:
        return
    seen = facts.events.get(event)
    if seen is None:
        near = _nearest(event, facts.events)
        hint = f" The nearest that has is “{near}”." if near else ""
        why = f"No event called “{_short(event)}” has ever come in, so nobody has done it.{hint}"
        yield Finding(UNKNOWN, path, why, renamed(near) if near else None)
    elif seen.recent == 0:
        why = f"“{_short(event)}” has not come in for seven days: is it still sent, and under this name?"
        yield Finding(UNSEEN, path, why)
    elif gaps := [*_missing_platforms(event, where, facts), *_only_signed_in(event, where, facts)]:
        why = (
            f"In the last seven days “{_short(event)}” came {' and '.join(gaps)}. The rule does not see what others do."
        )
        yield Finding(BRITTLE, path, why)


def _missing_platforms(event: str, where: tuple[Condition, ...], facts: Facts) -> Iterator[str]:
    """Where everything else comes from and this does not: more of it would be expected there than chance can take away."""
    mine = facts.events[event].platforms
    if any(condition.name == "platform" for condition in where):
        return
    others: dict[str, int] = {}
    for name, seen in facts.events.items():
        for platform, people in seen.platforms.items():
            others[platform] = others.get(platform, 0) + (people if name != event else 0)
    total = sum(others.values())
    if not total or not any(others.get(platform) for platform in mine):  # a system of its own, such as a till
        return
    many = sum(mine.values())
    missing = [
        f"from nobody on {_short(platform)}, where {people / total:.0%} of the people are"
        for platform, people in sorted(others.items())
        if platform not in mine and (1 - people / total) ** many < CHANCE
    ]
    yield from missing[:3]


def _only_signed_in(event: str, where: tuple[Condition, ...], facts: Facts) -> Iterator[str]:
    mine = facts.events[event].signed_in
    if mine.get(False) or not mine.get(True) or any(condition.name == "logged_in" for condition in where):
        return
    others = [seen.signed_in for name, seen in facts.events.items() if name != event]
    total = sum(sum(one.values()) for one in others)
    guests = sum(one.get(False, 0) for one in others)
    if total and (1 - guests / total) ** mine[True] < CHANCE:
        yield f"only from people who are logged in, as {1 - guests / total:.0%} are"


def _currencies(tree: Node, leaf: Measured, place: Place, facts: Facts) -> Iterator[Finding]:
    seen = facts.events.get(leaf.event, Seen()).currencies
    if len(seen) < 2 or any(condition.name == "currency" for condition in leaf.where):
        return
    usual = max(sorted(seen), key=lambda currency: seen[currency])
    fix = None
    if len(leaf.where) < MAX_CONDITIONS:
        fix = replaced(tree, place, replace(leaf, where=(*leaf.where, Condition("currency", "is", (usual,)))))
    why = f"“{_short(leaf.event)}” comes in {len(seen)} currencies, and their numbers are taken as if they were one. Ask for one."
    yield Finding(CURRENCIES, at(tree, place), why, fix)


def _nearest(event: str, known: Mapping[str, Seen]) -> str:
    by_fold = {name.casefold().replace(" ", "_").replace("-", "_"): name for name in sorted(known)}
    fold = event[:200].casefold().replace(" ", "_").replace("-", "_")
    return next((by_fold[match] for match in difflib.get_close_matches(fold, by_fold, n=1, cutoff=0.6)), "")


def _short(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:60]}…"
