"""A rule as one plain-English sentence that can be read in one way only. Lists of changes between two rules are diff.py's.

Each level has one connecting word, repeated; a group within a group of the other kind stands in round brackets.
"""

import re
from collections.abc import Iterable, Sequence
from datetime import time

from audiences.clock import DAY, HOUR, MINUTE, from_us
from audiences.segments.literals import clip, listed
from audiences.segments.reading import ANY_EVENT
from audiences.segments.tree import (
    All,
    Any,
    Attribute,
    Between,
    Bucket,
    Condition,
    Count,
    InAudience,
    InCustomerioSegment,
    InList,
    KnownFor,
    Leaf,
    Measured,
    Moment,
    Node,
    Not,
    Occurred,
    Scalar,
    Step,
    Window,
    Within,
)
from audiences.segments.tree import Sequence as Steps
from audiences.segments.values import text_of

LISTED = 5  # values before “and 12 more”
SHOWN = 120  # characters of a name or value
_PLAIN_NAME = re.compile(r"\w+")
_PLAIN_VALUE = re.compile(r"true|false|-?(0|[1-9][0-9]*)(\.[0-9]+)?")
_MEASURES = {"sum": "total", "avg": "average", "min": "smallest", "max": "largest"}
_COMPARED = {"gt": "above ", "gte": "at least ", "lt": "below ", "lte": "at most ", "is": "", "is_not": "not "}


def sentence(node: Node) -> str:
    """`People who did “add_to_cart” at least once in the last 24 hours, and did not do “purchase” in the last 3 days.`"""
    return f"People {_clause(node)}."


def phrase(node: Node) -> str:
    """One rule of several: `who did “add_to_cart” at least once in the last 24 hours`."""
    return " ".join(_phrase(_unwrapped(node))).strip()


def window(when: Window) -> str:
    """`in the last 24 hours`, `from 1 to the end of 3 May 2024` or `at any time`."""
    return _when(when).strip() or "at any time"


def times(count: Count) -> str:
    """`at least once`, `2 to 4 times` or `not at all`."""
    return "not at all" if count.high == 0 else _times(count)


def conditions(where: tuple[Condition, ...]) -> str:
    """`category is “shoes”, and value is above 10`, or `any`."""
    return ", and ".join(map(_tested, where)) or "any"


def compared(op: str, values: Sequence[Scalar]) -> str:
    """`at least 10`, or for moments `in the last 3 days`, as it stands after "is"."""
    moments = op in ("before", "after", "within_last", "not_within_last", "within_next")
    return _when_compared(op, values) if moments else _compared(op, values)


def measure(leaf: Measured) -> str:
    """`total value over “purchase”`."""
    return f"{_MEASURES[leaf.measure]} {_named(leaf.property)} over {_quoted(leaf.event)}"


def span(us: int) -> str:
    """`30 days`; a day is 24 hours."""
    return _duration(us)


def _clause(node: Node) -> str:
    """What follows "people" or "those": `who …`, `whose …` or several of these, joined."""
    node = _unwrapped(node)
    match node:
        case All(items):
            return _joined(_flat(items, All), "and")
        case Any(items):
            return _joined(_flat(items, Any), "or")
        case _:
            return " ".join(_phrase(node))


def _joined(items: Iterable[Node], word: str) -> str:
    """A pronoun is left out where it is the one before."""
    text, before = "", ""
    for item in items:
        pronoun, phrase = _phrase(item)
        shown = phrase if not pronoun or pronoun == before else f"{pronoun} {phrase}"
        text = f"{text}, {word} {shown}" if text else shown
        before = pronoun
    return text


def _phrase(node: Node) -> tuple[str, str]:
    """`who` or `whose` and what follows it; a group is one phrase in brackets without a pronoun before it."""
    match node:
        case All() | Any():
            return "", f"({_clause(node)})"
        case Not(item):
            return "who", _negated(_unwrapped(item))
        case Attribute(condition):
            return "whose", _tested(condition)
        case Measured() | Moment():
            return "whose", _measured(node)
        case _:
            return "who", _did(node)


def _negated(node: Node) -> str:
    match node:
        case Occurred(event, Count(1, None), window, where):
            return _did(Occurred(event, Count(0, 0), window, where))
        case InAudience() | InList() | InCustomerioSegment():
            return _did(node).replace("are ", "are not ", 1)
        case _:
            return f"are not among those ({_clause(node)})"  # in brackets, so that an "and" after it stays outside


def _did(leaf: Leaf | Not) -> str:
    match leaf:
        case Occurred():
            return _occurred(leaf)
        case KnownFor(duration):
            return f"have been known for at least {_duration(duration)}"
        case Steps(steps, complete):
            return _followed(steps, complete)
        case InAudience(key):
            return f"are in the audience {_quoted(key)}"
        case InList(key):
            return f"are on the list {_quoted(key)}"
        case InCustomerioSegment(number):
            return f"are in the Customer.io segment {number}"
        case Bucket(salt, start, end):
            return f"fall between {start / 100:g}% and {end / 100:g}% in the random split {_quoted(salt)}"
    raise ValueError(f"{type(leaf).__name__} is no deed")


def _occurred(leaf: Occurred) -> str:
    count, when = leaf.count, _when(leaf.window)
    if leaf.event == ANY_EVENT:
        did, nothing, never = "did anything", "did nothing", "never did anything"
    else:
        what = f"{_quoted(leaf.event)}{_where(leaf.where)}"
        did, nothing, never = f"did {what}", f"did not do {what}", f"never did {what}"
    if count.high == 0:
        return f"{nothing}{when}" if when else never
    return f"{did} {_times(count)}{when or ('' if count.low == 0 else ' at any time')}"


def _times(count: Count) -> str:
    match count:
        case Count(low, None):
            return f"at least {_often(low)}"
        case Count(0, high) if high is not None:
            return f"at most {_often(high)} (or not at all)"
        case Count(low, high) if low == high:
            return f"exactly {_often(low)}"
        case Count(low, high):
            return f"{low:,} to {high:,} times"


def _often(times: int) -> str:
    return "once" if times == 1 else f"{times:,} times"


def _measured(leaf: Measured | Moment) -> str:
    what = f"{_quoted(leaf.event)}{_where(leaf.where)}{_when(leaf.window)}"
    if isinstance(leaf, Moment):
        if leaf.op == "not_within_last":
            return f"{leaf.which} {what} did not happen {_relative('last', leaf.values[0])}"
        return f"{leaf.which} {what} happened {_when_compared(leaf.op, leaf.values)}"
    return f"{_MEASURES[leaf.measure]} {_named(leaf.property)} over {what} is {_compared(leaf.op, leaf.values)}"


def _followed(steps: tuple[Step, ...], complete: bool) -> str:
    first, *others = steps
    shown = f"did {_step(first)}"
    if first.within is not None:
        shown += _when(Within(first.within))
    for step in others if complete else others[:-1]:
        shown += f", then {_step(step)}"
        if step.within is not None:
            shown += f" within {_duration(step.within)}"
    if not complete:
        last = others[-1]
        assert last.within is not None, "the last step of an incomplete sequence has a window"
        shown += f", then let {_duration(last.within)} pass without {_step(last)}"
    return shown


def _step(step: Step) -> str:
    return f"{_quoted(step.event)}{_where(step.where)}"


def _where(conditions: tuple[Condition, ...]) -> str:
    return f" (where {', and '.join(map(_tested, conditions))})" if conditions else ""


def _tested(condition: Condition) -> str:
    """`country is “DE” or “FR”`; the ops that are true of a missing value say so."""
    name, op, values = _named(condition.name), condition.op, condition.values
    match op:
        case "exists":
            return f"{name} is known"
        case "missing":
            return f"{name} is missing"
        case "is":
            return f"{name} is {_value(values[0])}"
        case "is_not":
            return f"{name} is not {_value(values[0])} or is missing"
        case "in":
            return f"{name} is {_one_of(values)}"
        case "not_in":
            return f"{name} is {_none_of(values)}, or is missing"
        case "contains" | "starts_with" | "ends_with":
            return f"{name} {op.replace('_', ' ')} {_value(values[0], quoted=True)}"
        case "gt" | "gte" | "lt" | "lte" | "between":
            return f"{name} is {_compared(op, values)}"
        case "not_within_last":
            return f"{name} is {_when_compared(op, values)} or is missing"
        case _:
            return f"{name} is {_when_compared(op, values)}"


def _compared(op: str, values: Sequence[Scalar]) -> str:
    if op == "between":
        return f"from {_value(values[0])} to {_value(values[1])}"
    return f"{_COMPARED[op]}{_value(values[0])}"


def _when_compared(op: str, values: Sequence[Scalar]) -> str:
    us = [int(value) for value in values]
    match op:
        case "before" | "after":
            return f"{op} {_moment(us[0])}"
        case "between":
            return _range(us[0], us[1])
        case "within_last":
            return _relative("last", us[0])
        case "not_within_last":
            return f"not {_relative('last', us[0])}"
        case "within_next":
            return _relative("next", us[0])
    raise ValueError(f"{op} compares no moments")


def _one_of(values: Sequence[Scalar]) -> str:
    shown = [_value(value) for value in values[:LISTED]]
    if len(values) > LISTED:
        return f"one of {', '.join(shown)} and {len(values) - LISTED:,} more"
    return listed(shown)


def _none_of(values: Sequence[Scalar]) -> str:
    shown = [_value(value) for value in values[:LISTED]]
    if len(values) == 1:
        return f"not {shown[0]}"
    if len(values) > LISTED:
        return f"none of {', '.join(shown)} and {len(values) - LISTED:,} more"
    return f"none of {', '.join(shown[:-1])} and {shown[-1]}"


def _when(window: Window) -> str:
    match window:
        case Within(duration):
            return f" {_relative('last', duration)}"
        case Between(start, end):
            return f" {_range(start, end)}"
        case None:
            return ""


def _relative(which: str, us: int) -> str:
    return f"in the {which} {_duration(us).removeprefix('1 ')}"


def _range(start: int, end: int) -> str:
    """from ≤ t < to: whole days are named with the last of them, anything else with the moment before which it ends."""
    if start % DAY == end % DAY == 0:
        last = end - DAY
        return f"on {_day(start)}" if start == last else f"from {_day(start)} to the end of {_day(last)}"
    return f"from {_moment(start)} until just before {_moment(end)}"


def _moment(us: int) -> str:
    if us % DAY == 0:
        return _day(us)
    clock = from_us(us).time()
    shown = clock.isoformat("minutes") if clock == time(clock.hour, clock.minute) else clock.isoformat()
    return f"{_day(us)}, {shown} UTC"


def _day(us: int) -> str:
    day = from_us(us)
    return f"{day.day} {day:%B} {day.year}"


def _duration(us: int) -> str:
    """A day is 24 hours, as marketers say; longer whole days are days."""
    for unit, name in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        if us % unit == 0 and not (unit == DAY == us):
            return f"{us // unit:,} {name}{'' if us == unit else 's'}"
    raise ValueError("a duration is whole minutes")


def _value(value: Scalar, *, quoted: bool = False) -> str:
    text = text_of(value) or ""
    return text if _PLAIN_VALUE.fullmatch(text) and not quoted else _quoted(text)


def _named(name: str) -> str:
    return clip(name, SHOWN) if _PLAIN_NAME.fullmatch(name) else _quoted(name)


def _quoted(text: str) -> str:
    return f"“{clip(text, SHOWN)}”"


def _unwrapped(node: Node) -> Node:
    """A group of one is what is in it."""
    while isinstance(node, All | Any) and len(node.items) == 1:
        [node] = node.items
    return node


def _flat(items: Iterable[Node], kind: type[All] | type[Any]) -> Iterable[Node]:
    """The items of a group, with those of groups of the same kind in it: the grouping changes nothing."""
    for item in map(_unwrapped, items):
        if isinstance(item, kind):
            yield from _flat(item.items, kind)
        else:
            yield item
