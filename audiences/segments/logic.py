"""What follows from a rule whoever the people are: that one rule implies another, or that nobody can be in both. Pure.

Never wrong, not always complete: where neither can be told from the rules alone, both answers are no.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TypeAlias

from audiences.segments.judge import Person, judge
from audiences.segments.primitives import happened, primitive
from audiences.segments.reading import ANY_EVENT
from audiences.segments.tree import (
    All,
    Any,
    Attribute,
    Between,
    Bucket,
    Condition,
    Count,
    KnownFor,
    Measured,
    Moment,
    Node,
    Not,
    Occurred,
    Sequence,
    Window,
    Within,
)

Fact: TypeAlias = tuple[Node, bool]  # a rule that holds, or that does not

_RELATIVE = ("within_last", "not_within_last", "within_next")
_OPPOSITE = {"is_not": "is", "not_in": "in", "missing": "exists", "not_within_last": "within_last"}
_ENDLESS = Decimal("Infinity")


def implies(one: Node, other: Node) -> bool:
    """Whether everybody in `one` is in `other`, at any moment."""
    if one == other:
        return True
    known = tuple(_facts(one))
    return all(any(_follows(fact, from_) for from_ in known) for fact in _facts(other))


def excludes(one: Node, other: Node) -> bool:
    """Whether nobody can be in both at the same moment."""
    if one == Not(other) or other == Not(one):
        return True
    for here, there in ((one, other), (other, one)):
        if isinstance(here, Any) and all(_any_clash(item, there) for item in here.items):
            return True
    return _any_clash(one, other)


def clashing(where: tuple[Condition, ...]) -> tuple[Condition, Condition] | None:
    """Two conditions that no value meets both; None where there are none such."""
    for index, one in enumerate(where):
        for other in where[:index]:
            if one.name == other.name and _conditions_clash(other, one):
                return other, one
    return None


def _facts(node: Node) -> Iterator[Fact]:
    """What holds together wherever the rule does. Groups of alternatives stay whole, and are compared as they are."""
    match node:
        case All(items):
            for item in items:
                yield from _facts(item)
        case Any(items) if len(items) == 1:
            yield from _facts(items[0])
        case Not(Not(item)):
            yield from _facts(item)
        case Not(item):
            match item if isinstance(item, All | Any | Not) else primitive(item):
                case Not(positive):
                    yield positive, True
                case Any(items):
                    for one in items:
                        yield from _facts(Not(one))
                case other:
                    yield other, False
        case Any():
            yield node, True
        case _:
            rule = primitive(node)
            if rule == node:
                yield node, True
            else:
                yield from _facts(rule)


def _any_clash(one: Node, other: Node) -> bool:
    theirs = tuple(_facts(other))
    return any(_clash(here, there) for here in _facts(one) for there in theirs)


def _follows(fact: Fact, known: Fact) -> bool:
    (what, holds), (known_what, known_holds) = fact, known
    if holds and known_holds:
        return _within(known_what, what)
    if not holds and not known_holds:
        return _within(what, known_what)
    return not holds and _apart(known_what, what)


def _clash(one: Fact, other: Fact) -> bool:
    if one[1] and other[1]:
        return _apart(one[0], other[0])
    if one[1] != other[1]:
        holds, fails = (one[0], other[0]) if one[1] else (other[0], one[0])
        return _within(holds, fails)
    return False


def _within(narrow: Node, wide: Node) -> bool:
    """Whether everybody in the one is in the other. Of rules as `primitive` leaves them."""
    if narrow == wide:
        return True
    match narrow, wide:
        case (Occurred(), Occurred()):
            return (
                wide.event in (narrow.event, ANY_EVENT)
                and narrow.count.low >= wide.count.low
                and _window_within(narrow.window, wide.window)
                and all(
                    any(one.name == other.name and _condition_within(one, other) for one in narrow.where)
                    for other in wide.where
                )
            )
        case (Measured() | Moment(), Occurred()):
            return _within(Occurred(narrow.event, Count(1, None), narrow.window, narrow.where), wide)
        case (Sequence(), Occurred()):
            return any(_within(step, wide) for step in happened(narrow))
        case (Attribute(one), Attribute(other)):
            return one.name == other.name and _condition_within(one, other)
        case (KnownFor(longer), KnownFor(shorter)):
            return longer >= shorter
        case (Bucket(), Bucket()):
            return narrow.salt == wide.salt and wide.start <= narrow.start and narrow.end <= wide.end
        case (Measured(), Measured()) if _same_but_test(narrow, wide):
            inner, outer = _span(narrow.op, narrow.values), _span(wide.op, wide.values)
            return inner is not None and outer is not None and inner.within(outer)
        case (Moment(), Moment()) if _same_but_test(narrow, wide):
            return _moment_within(narrow.op, narrow.values, wide.op, wide.values)
    return False


def _apart(one: Node, other: Node) -> bool:
    """Whether nobody can be in both. Of rules as `primitive` leaves them."""
    match one, other:
        case (Attribute(here), Attribute(there)):
            return here.name == there.name and _conditions_clash(here, there)
        case (Bucket(), Bucket()):
            return one.salt == other.salt and (one.end <= other.start or other.end <= one.start)
        case (Measured(), Measured()) if _same_but_test(one, other):
            return _spans_apart(_span(one.op, one.values), _span(other.op, other.values))
        case (Moment(), Moment()) if _same_but_test(one, other):
            return _moments_apart(one.op, one.values, other.op, other.values) or _moments_apart(
                other.op, other.values, one.op, one.values
            )
    return False


def _same_but_test(one: Measured | Moment, other: Measured | Moment) -> bool:
    match one, other:
        case (Measured(), Measured()):
            return replace(one, op=other.op, values=other.values) == other
        case (Moment(), Moment()):
            return replace(one, op=other.op, values=other.values) == other
    return False


def _window_within(narrow: Window, wide: Window) -> bool:
    match narrow, wide:
        case (_, None):
            return True
        case (Within(shorter), Within(longer)):
            return shorter <= longer
        case (Between(), Between()):
            return wide.start <= narrow.start and narrow.end <= wide.end
    return False


@dataclass(frozen=True, slots=True)
class _Span:
    """The numbers or moments that a test lets through."""

    low: Decimal
    high: Decimal
    low_open: bool = False
    high_open: bool = False

    def within(self, other: "_Span") -> bool:
        low = self.low > other.low or (self.low == other.low and (self.low_open or not other.low_open))
        return low and (self.high < other.high or (self.high == other.high and (self.high_open or not other.high_open)))

    def apart(self, other: "_Span") -> bool:
        return _before(self, other) or _before(other, self)


def _before(one: _Span, other: _Span) -> bool:
    return one.high < other.low or (one.high == other.low and (one.high_open or other.low_open))


def _span(op: str, values: tuple[object, ...]) -> _Span | None:
    """Numbers have both ends of between, moments only its first: what is too much here only makes an answer no."""
    numbers = [Decimal(value) for value in values if isinstance(value, int | Decimal)]
    match op:
        case "gt" | "after":
            return _Span(numbers[0], _ENDLESS, low_open=True)
        case "gte":
            return _Span(numbers[0], _ENDLESS)
        case "lt" | "before":
            return _Span(-_ENDLESS, numbers[0], high_open=True)
        case "lte":
            return _Span(-_ENDLESS, numbers[0])
        case "between":
            return _Span(numbers[0], numbers[1], high_open=isinstance(values[1], int))
        case "is" if numbers:
            return _Span(numbers[0], numbers[0])
    return None


def _spans_apart(one: _Span | None, other: _Span | None) -> bool:
    return one is not None and other is not None and one.apart(other)


def _moment_within(op: str, values: tuple[int, ...], wide_op: str, wide: tuple[int, ...]) -> bool:
    if op == wide_op == "within_last":
        return values[0] <= wide[0]
    if op == wide_op == "not_within_last":
        return values[0] >= wide[0]
    inner, outer = _span(op, values), _span(wide_op, wide)
    return inner is not None and outer is not None and inner.within(outer)


def _moments_apart(op: str, values: tuple[int, ...], other_op: str, others: tuple[int, ...]) -> bool:
    if op == "within_last" and other_op == "not_within_last":
        return values[0] <= others[0]
    return _spans_apart(_span(op, values), _span(other_op, others))


def _positive(condition: Condition) -> tuple[Condition, bool]:
    opposite = _OPPOSITE.get(condition.op)
    return (Condition(condition.name, opposite, condition.values), False) if opposite else (condition, True)


def _condition_within(one: Condition, other: Condition) -> bool:
    """Whether every value, or lack of one, that the one lets through passes the other. Of the same name."""
    (narrow, holds), (wide, wanted) = _positive(one), _positive(other)
    if holds and wanted:
        return _values_within(narrow, wide)
    if not holds and not wanted:
        return _values_within(wide, narrow)
    return holds and _values_apart(narrow, wide)


def _conditions_clash(one: Condition, other: Condition) -> bool:
    (here, holds), (there, wanted) = _positive(one), _positive(other)
    if holds and wanted:
        return _values_apart(here, there)
    if holds != wanted:
        return _values_within(here, there) if holds else _values_within(there, here)
    return False


def _values_within(narrow: Condition, wide: Condition) -> bool:
    if narrow == wide or wide.op == "exists":
        return True
    if narrow.op in ("is", "in"):
        return wide.op not in _RELATIVE and all(_passes(str(value), wide) for value in narrow.values)
    if narrow.op == wide.op and narrow.op in ("within_last", "within_next"):
        return int(narrow.values[0]) <= int(wide.values[0])
    if narrow.op == wide.op and narrow.op in ("contains", "starts_with", "ends_with"):
        return _passes(str(narrow.values[0]), wide)
    return _kind(narrow) == _kind(wide) != "" and _moment_or_number_within(narrow, wide)


def _moment_or_number_within(narrow: Condition, wide: Condition) -> bool:
    inner, outer = _span(narrow.op, narrow.values), _span(wide.op, wide.values)
    return inner is not None and outer is not None and inner.within(outer)


def _values_apart(one: Condition, other: Condition) -> bool:
    """Whether no value passes both: a name has one value."""
    for here, there in ((one, other), (other, one)):
        if here.op in ("is", "in"):
            return there.op not in _RELATIVE and not any(_passes(str(value), there) for value in here.values)
    if {one.op, other.op} == {"within_last", "within_next"}:
        return True
    return _kind(one) == _kind(other) != "" and _spans_apart(_span(one.op, one.values), _span(other.op, other.values))


def _kind(condition: Condition) -> str:
    if condition.op in ("gt", "gte", "lt", "lte", "between"):
        return "number"
    return "moment" if condition.op in ("before", "after") else ""


def _passes(value: str, condition: Condition) -> bool:
    return judge(Attribute(condition), Person(0, "", 0, {condition.name: value}), 0)
