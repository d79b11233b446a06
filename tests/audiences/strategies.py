"""Random rules over random people, for the laws that hold for all of them: a small vocabulary, so that rules often meet somebody.

Times crowd around the edges of the windows; values are the ones that get confused: 00042 and 42, "" and missing, true and "true",
numbers as text, dates as ISO and as unix seconds, e and é. Everything a person holds went through JSON, as accepted events do.
"""

import json
from collections.abc import Sequence as Items
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from random import Random

from hypothesis import strategies as st

from audiences.clock import DAY, HOUR, SECOND, from_us, to_us
from audiences.segments.judge import Occurrence, Person, list_key
from audiences.segments.tree import (
    All,
    Any,
    Attribute,
    Between,
    Bucket,
    Condition,
    Count,
    InCustomerioSegment,
    InList,
    KnownFor,
    Leaf,
    Measured,
    Moment,
    Node,
    Not,
    Occurred,
    Sequence,
    Step,
    Window,
    Within,
)

AS_OF = to_us(
    datetime(2024, 6, 1, tzinfo=UTC)
)  # midnight, first of a month: files and dates have their edges here, too

ATTRIBUTES = ("plan", "größe", "signed_up", 'odd "name"')
EVENTS = ("viewed", "added to cart", "bought")
PROPERTIES = ("category", "value", "at", "it's")
LISTS = ("staff", "testers")
CUSTOMERIO_SEGMENTS = (7, 12)
LIST_KEYS = (*LISTS, *(list_key(InCustomerioSegment(number)) for number in CUSTOMERIO_SEGMENTS))
DURATIONS = (HOUR, DAY, 3 * DAY, 30 * DAY, 60 * DAY, 540 * DAY)

_AGES = (0, *DURATIONS, 10 * DAY, 45 * DAY, 200 * DAY)
_NUDGES = (0, 0, 0, -1, 1, -SECOND, SECOND, -HOUR)
_TEXTS = (
    "00042",
    "42",
    "42.0",
    "10.5",
    "10.50",
    "-1",
    "",
    "DE",
    "de",
    "é",
    "e\u0301",
    "100 %",
    "a_b",
    "a'b",
    'a"b',
    "true",
    "null",
    "🙂",
)
_OTHERS = (
    42,
    42.0,
    10.5,
    -1,
    0,
    0.1,
    3,
    1e21,
    1e-7,
    0.0000005,
    True,
    False,
    None,
    [],
    [42],
    {"a": "é"},
    "0.0000005",
    "[42]",
    "x\\y",
    "x\ny",
    " 42",
)


def moments(as_of_us: int = AS_OF) -> st.SearchStrategy[int]:
    """A moment on, just before or just after the edge of a window, most of them no later than as_of."""
    return st.builds(lambda age, nudge: as_of_us - age + nudge, st.sampled_from(_AGES), st.sampled_from(_NUDGES))


def whole_moments(as_of_us: int = AS_OF) -> st.SearchStrategy[int]:
    """The same in whole seconds, as rules and attributes write them."""
    return moments(as_of_us).map(lambda us: us // SECOND * SECOND)


def people(as_of_us: int = AS_OF, min_size: int = 1, max_size: int = 30) -> st.SearchStrategy[list[Person]]:
    """Live profiles numbered from 1. Drawn from a seed: many and varied for little; fewer people when it shrinks, the same ones."""
    seeds, sizes = st.integers(0, 2**32), st.integers(min_size, max_size)
    return st.builds(
        lambda seed, size: [_person(seed, number, as_of_us) for number in range(1, size + 1)], seeds, sizes
    )


def histories(as_of_us: int = AS_OF, max_size: int = 8) -> st.SearchStrategy[tuple[Occurrence, ...]]:
    """A person's events, in any order; some at the same moment, some after as_of, some twice."""
    return st.integers(0, 2**32).map(lambda seed: _history(Random(seed), as_of_us, max_size))


def _person(seed: int, number: int, as_of_us: int) -> Person:
    chance = Random(f"{seed}:{number}")
    return Person(
        profile_no=number,
        bucket_key=f"p{number:05}",
        created_us=_moment(chance, as_of_us),
        attributes=_values(chance, ATTRIBUTES, as_of_us),
        events=_history(chance, as_of_us, 8),
        lists=frozenset(key for key in LIST_KEYS if chance.random() < 0.4),
    )


def _history(chance: Random, as_of_us: int, most: int) -> tuple[Occurrence, ...]:
    events = [
        Occurrence(chance.choice(EVENTS), _moment(chance, as_of_us), _values(chance, PROPERTIES, as_of_us))
        for _ in range(chance.randint(0, most))
    ]
    if events and chance.random() < 0.3:
        events.append(chance.choice(events))
    if events and chance.random() < 0.3:
        events.append(replace(chance.choice(events), name=chance.choice(EVENTS)))
    return tuple(events)


def _moment(chance: Random, as_of_us: int) -> int:
    return as_of_us - chance.choice(_AGES) + chance.choice(_NUDGES)


def _values(chance: Random, names: Items[str], as_of_us: int) -> dict[str, object]:
    """A JSON object over a few names, as reading its text gives it."""
    made = {name: _value(chance, as_of_us) for name in names if chance.random() < 0.7}
    read: dict[str, object] = json.loads(json.dumps(made))
    return read


def _value(chance: Random, as_of_us: int) -> object:
    us = _moment(chance, as_of_us) // SECOND * SECOND
    match chance.randrange(10):
        case 0 | 1:
            return chance.choice(_TEXTS)
        case 2 | 3:
            return chance.choice(_OTHERS)
        case 4:
            return from_us(us).isoformat().replace("+00:00", chance.choice(("Z", "+00:00", "")))
        case 5:
            return from_us(us).date().isoformat()
        case 6:
            return chance.choice((us // SECOND, us // 1000, str(us // SECOND), us / SECOND + 0.5))
        case 7:
            return from_us(us + HOUR).isoformat().replace("+00:00", "+01:00")
        case 8:
            return chance.randint(-3, 3)
        case _:
            return chance.randint(0, 9999) / 100


def durations() -> st.SearchStrategy[int]:
    return st.sampled_from(DURATIONS)


@st.composite
def ranges(draw: st.DrawFn, as_of_us: int = AS_OF) -> tuple[int, int]:
    """Two moments, from < to."""
    start, end = sorted((draw(whole_moments(as_of_us)), draw(whole_moments(as_of_us))))
    return start, end if end > start else start + SECOND


def windows(as_of_us: int = AS_OF) -> st.SearchStrategy[Window]:
    return st.one_of(st.none(), durations().map(Within), ranges(as_of_us).map(lambda ends: Between(*ends)))


def counts() -> st.SearchStrategy[Count]:
    return st.sampled_from(
        (Count(1, None), Count(2, None), Count(0, 0), Count(0, 1), Count(1, 1), Count(2, 2), Count(1, 2), Count(0, 2))
    )


def numbers() -> st.SearchStrategy[Decimal]:
    return st.sampled_from(("42", "10.5", "-1", "0", "0.1", "21", "0.000001", "3", "94.5", "1717200000")).map(Decimal)


def number_pairs() -> st.SearchStrategy[tuple[Decimal, ...]]:
    return st.tuples(numbers(), numbers()).map(lambda pair: tuple(sorted(pair)))


@st.composite
def conditions(draw: st.DrawFn, names: Items[str] = PROPERTIES, as_of_us: int = AS_OF) -> Condition:
    """One test of an attribute or property, with every op there is."""
    name = draw(st.sampled_from(names))
    texts = st.one_of(
        st.sampled_from(_TEXTS), whole_moments(as_of_us).map(lambda us: str(us // SECOND)), st.just("false")
    )
    kind = draw(st.sampled_from(("one", "many", "none", "part", "number", "between", "moment", "duration")))
    match kind:
        case "one":
            return Condition(name, draw(st.sampled_from(("is", "is_not"))), (draw(texts),))
        case "many":
            values = draw(st.sets(texts, min_size=1, max_size=4))
            return Condition(name, draw(st.sampled_from(("in", "not_in"))), tuple(sorted(values)))
        case "none":
            return Condition(name, draw(st.sampled_from(("exists", "missing"))))
        case "part":
            part = draw(st.sampled_from(("4", "42", "0", "D", "é", "e", "%", "_", "'", '"', "T00:00:00", "🙂", "\\")))
            return Condition(name, draw(st.sampled_from(("contains", "starts_with", "ends_with"))), (part,))
        case "number":
            return Condition(name, draw(st.sampled_from(("gt", "gte", "lt", "lte"))), (draw(numbers()),))
        case "between":
            return Condition(name, "between", draw(number_pairs()))
        case "moment":
            return Condition(name, draw(st.sampled_from(("before", "after"))), (draw(whole_moments(as_of_us)),))
        case _:
            op = draw(st.sampled_from(("within_last", "not_within_last", "within_next")))
            return Condition(name, op, (draw(durations()),))


def wheres(as_of_us: int = AS_OF) -> st.SearchStrategy[tuple[Condition, ...]]:
    """None more often than not."""
    return st.one_of(
        st.just(()),
        st.just(()),
        st.just(()),
        st.lists(conditions(as_of_us=as_of_us), min_size=1, max_size=2).map(tuple),
    )


def occurred(as_of_us: int = AS_OF) -> st.SearchStrategy[Occurred]:
    return st.one_of(
        st.builds(Occurred, st.sampled_from(EVENTS), counts(), windows(as_of_us), wheres(as_of_us)),
        st.builds(Occurred, st.just("*"), counts(), windows(as_of_us)),
    )


@st.composite
def measured(draw: st.DrawFn, as_of_us: int = AS_OF) -> Measured:
    op = draw(st.sampled_from(("is", "is_not", "gt", "gte", "lt", "lte", "between")))
    return Measured(
        draw(st.sampled_from(EVENTS)),
        draw(st.sampled_from(("sum", "avg", "min", "max"))),
        draw(st.sampled_from(PROPERTIES)),
        op,
        draw(number_pairs()) if op == "between" else (draw(numbers()),),
        draw(windows(as_of_us)),
        draw(wheres(as_of_us)),
    )


@st.composite
def first_or_last(draw: st.DrawFn, as_of_us: int = AS_OF) -> Moment:
    op = draw(st.sampled_from(("before", "after", "between", "within_last", "not_within_last")))
    values: tuple[int, ...]
    match op:
        case "between":
            values = draw(ranges(as_of_us))
        case "before" | "after":
            values = (draw(whole_moments(as_of_us)),)
        case _:
            values = (draw(durations()),)
    which = draw(st.sampled_from(("first", "last")))
    return Moment(draw(st.sampled_from(EVENTS)), which, op, values, draw(windows(as_of_us)), draw(wheres(as_of_us)))


@st.composite
def sequences(draw: st.DrawFn, as_of_us: int = AS_OF) -> Sequence:
    step = st.builds(Step, st.sampled_from(EVENTS), st.one_of(st.none(), durations()), wheres(as_of_us))
    steps = draw(st.lists(step, min_size=2, max_size=4))
    complete = draw(st.booleans())
    if not complete and steps[-1].within is None:
        steps[-1] = replace(steps[-1], within=draw(durations()))
    return Sequence(tuple(steps), complete)


@st.composite
def buckets(draw: st.DrawFn) -> Bucket:
    start, end = sorted(draw(st.sets(st.integers(0, 10_000), min_size=2, max_size=2)))
    return Bucket(draw(st.sampled_from(("a", "é", "salt:1"))), start, end)


def leaves(as_of_us: int = AS_OF, *, lists: bool = True) -> st.SearchStrategy[Leaf]:
    """Any rule that is not a group. Without `lists`, only those that the engine itself answers."""
    kinds: list[st.SearchStrategy[Leaf]] = [
        st.builds(Attribute, conditions(ATTRIBUTES, as_of_us)),
        occurred(as_of_us),
        measured(as_of_us),
        first_or_last(as_of_us),
        sequences(as_of_us),
        durations().map(KnownFor),
        buckets(),
    ]
    if lists:
        kinds += [st.sampled_from(LISTS).map(InList), st.sampled_from(CUSTOMERIO_SEGMENTS).map(InCustomerioSegment)]
    return st.one_of(kinds)


def trees(as_of_us: int = AS_OF, *, lists: bool = True, max_leaves: int = 6) -> st.SearchStrategy[Node]:
    """Valid, resolved rules, the pair of a count and `known_for` among them."""
    pair = st.builds(lambda event, age: All((event, KnownFor(age))), occurred(as_of_us), durations())
    return st.recursive(
        st.one_of(leaves(as_of_us, lists=lists), pair),
        lambda inner: st.one_of(
            st.lists(inner, min_size=1, max_size=3).map(lambda items: All(tuple(items))),
            st.lists(inner, min_size=1, max_size=3).map(lambda items: Any(tuple(items))),
            inner.map(Not),
        ),
        max_leaves=max_leaves,
    ).filter(_is_shallow)


def _is_shallow(node: Node, levels: int = 12) -> bool:
    match node:
        case All(items) | Any(items):
            return levels > 1 and all(_is_shallow(item, levels - 1) for item in items)
        case Not(item):
            return levels > 1 and _is_shallow(item, levels - 1)
        case _:
            return True
