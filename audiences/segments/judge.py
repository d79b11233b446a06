"""What a rule means, said for one person in plain Python: the reference that every engine is tested against. No tables, no engines.

Time: windows are (as_of − w, as_of]; nothing after as_of counts, in any form. Missing: a value that is not there satisfies no
positive test, and is_not, not_in, missing and an attribute's not_within_last are the exact complements of their positives. What is
measured over occurrences (sum, avg, min, max, first, last) is missing when no occurrence has it, and then no comparison is true,
negative ones included.
"""

import operator
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from hashlib import sha256

from audiences.segments.tree import (
    All,
    Any,
    Attribute,
    Between,
    Bucket,
    Condition,
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
    Sequence,
    Step,
    Window,
    Within,
)
from audiences.segments.values import millionths, number_of, text_of, time_of

ANY_EVENT = "*"


@dataclass(frozen=True, slots=True)
class Occurrence:
    """One event of a person. Identical ones all count."""

    name: str
    time_us: int
    properties: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Person:
    """What a rule can ask of one live profile. `events`, in any order, are those already of this person: merges are applied.

    JSON is read by `json.loads`; readers that turn large whole numbers into floats change their text. `lists` holds the
    `list_key` of every list and Customer.io segment that this person is in.
    """

    profile_no: int
    bucket_key: str
    created_us: int
    attributes: Mapping[str, object] = field(default_factory=dict)
    events: tuple[Occurrence, ...] = ()
    lists: frozenset[str] = frozenset()


def judge(node: Node, person: Person, as_of_us: int) -> bool:
    """Whether the rule takes this person in at this moment. The rule is resolved: an {"audience"} left in it is a ValueError."""
    match node:
        case All(items):
            return all(judge(item, person, as_of_us) for item in items)
        case Any(items):
            return any(judge(item, person, as_of_us) for item in items)
        case Not(item):
            return not judge(item, person, as_of_us)
        case _:
            return _holds(node, person, as_of_us)


def verdicts(node: Node, person: Person, as_of_us: int) -> dict[str, bool]:
    """What `judge` says of every rule and group, by its path in the tree; the root's path is empty. Parents come before children."""
    found: dict[str, bool] = {}
    _judge_each(node, "", person, as_of_us, found)
    return found


def list_key(leaf: InList | InCustomerioSegment) -> str:
    """Under which key a list's members are kept while rules are computed: its own, or `customerio_segment:12`, which no list can have."""
    return leaf.key if isinstance(leaf, InList) else f"customerio_segment:{leaf.id}"


def bucket_of(salt: str, bucket_key: str) -> int:
    """0…9,999, for good: the first 8 bytes of SHA-256(salt ":" bucket_key), modulo 10,000."""
    return int.from_bytes(sha256(f"{salt}:{bucket_key}".encode()).digest()[:8]) % 10_000


def _judge_each(node: Node, path: str, person: Person, as_of_us: int, found: dict[str, bool]) -> bool:
    found[path] = False  # keeps the parent's place before its children
    dot = "." if path else ""
    match node:
        case All(items) | Any(items):
            word = "all" if isinstance(node, All) else "any"
            each = [
                _judge_each(item, f"{path}{dot}{word}[{index}]", person, as_of_us, found)
                for index, item in enumerate(items)
            ]
            found[path] = all(each) if isinstance(node, All) else any(each)
        case Not(item):
            found[path] = not _judge_each(item, f"{path}{dot}not", person, as_of_us, found)
        case _:
            found[path] = _holds(node, person, as_of_us)
    return found[path]


def _holds(leaf: Leaf, person: Person, as_of_us: int) -> bool:
    match leaf:
        case Attribute(condition):
            return _passes(condition, person.attributes, as_of_us)
        case Occurred(event, count, window, where):
            times = sum(1 for _ in _occurrences(person, event, window, where, as_of_us))
            return times >= count.low and (count.high is None or times <= count.high)
        case KnownFor(duration):
            return _known_since(person) <= as_of_us - duration
        case Measured():
            return _measures(leaf, person, as_of_us)
        case Moment(event, which, op, values, window, where):
            at = [occurrence.time_us for occurrence in _occurrences(person, event, window, where, as_of_us)]
            return bool(at) and _is_when(min(at) if which == "first" else max(at), op, values, as_of_us)
        case Sequence(steps, complete):
            return _follows(steps, complete, person, as_of_us)
        case InList() | InCustomerioSegment():
            return list_key(leaf) in person.lists
        case Bucket(salt, start, end):
            return start <= bucket_of(salt, person.bucket_key) < end
        case InAudience(key):
            raise ValueError(f"the rule still refers to the audience {key}; resolve it first")


def _known_since(person: Person) -> int:
    """What lies after as_of needs no leaving out: it cannot make anybody older than as_of."""
    return min([person.created_us, *(event.time_us for event in person.events)])


def _occurrences(
    person: Person, event: str, window: Window, where: tuple[Condition, ...], as_of_us: int
) -> Iterator[Occurrence]:
    return (
        occurrence
        for occurrence in person.events
        if event in (ANY_EVENT, occurrence.name)
        and _is_within(occurrence.time_us, window, as_of_us)
        and all(_passes(condition, occurrence.properties, as_of_us) for condition in where)
    )


def _is_within(time_us: int, window: Window, as_of_us: int) -> bool:
    if time_us > as_of_us:
        return False
    match window:
        case Within(duration):
            return time_us > as_of_us - duration
        case Between(start, end):
            return start <= time_us < end
        case None:
            return True


_COMPARE: dict[str, Callable[[int | Decimal, int | Decimal], bool]] = {
    "is": operator.eq,
    "is_not": operator.ne,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}

_OPPOSITE = {"is_not": "is", "not_in": "in", "missing": "exists", "not_within_last": "within_last"}


def _passes(condition: Condition, values: Mapping[str, object], as_of_us: int) -> bool:
    """One test of an attribute or a property."""
    if condition.op in _OPPOSITE:
        return not _is_so(values.get(condition.name), _OPPOSITE[condition.op], condition, as_of_us)
    return _is_so(values.get(condition.name), condition.op, condition, as_of_us)


def _is_so(value: object, op: str, condition: Condition, as_of_us: int) -> bool:
    """A positive test; false for whatever is missing or has no number or moment where one is compared."""
    text = text_of(value)
    if text is None:
        return False
    wanted = condition.values
    match op:
        case "exists":
            return True
        case "is" | "in":
            return text in {text_of(one) for one in wanted}
        case "contains":
            return str(wanted[0]) in text
        case "starts_with":
            return text.startswith(str(wanted[0]))
        case "ends_with":
            return text.endswith(str(wanted[0]))
        case "gt" | "gte" | "lt" | "lte" | "between":
            number = number_of(text)
            return number is not None and _compares(number, op, tuple(Decimal(one) for one in wanted))
        case _:
            time = time_of(text)
            return time is not None and _is_when(time, op, tuple(int(one) for one in wanted), as_of_us)


def _compares(number: int | Decimal, op: str, wanted: tuple[int | Decimal, ...]) -> bool:
    if op == "between":
        return wanted[0] <= number <= wanted[1]
    return _COMPARE[op](number, wanted[0])


def _is_when(time_us: int, op: str, wanted: tuple[int, ...], as_of_us: int) -> bool:
    """A moment compared: before is <, after is >, between is from ≤ t < to; the relative ones count from as_of."""
    match op:
        case "before":
            return time_us < wanted[0]
        case "after":
            return time_us > wanted[0]
        case "between":
            return wanted[0] <= time_us < wanted[1]
        case "within_last":
            return as_of_us - wanted[0] < time_us <= as_of_us
        case "not_within_last":
            return not as_of_us - wanted[0] < time_us <= as_of_us
        case "within_next":
            return as_of_us < time_us <= as_of_us + wanted[0]
    raise ValueError(f"{op} compares no moments")


def _measures(leaf: Measured, person: Person, as_of_us: int) -> bool:
    """In whole millionths, and an average by multiplying the other side, so that nothing is ever rounded."""
    numbers = [
        millionths(number)
        for occurrence in _occurrences(person, leaf.event, leaf.window, leaf.where, as_of_us)
        if (number := number_of(occurrence.properties.get(leaf.property))) is not None
    ]
    if not numbers:
        return False
    wanted = [millionths(value) for value in leaf.values]
    match leaf.measure:
        case "sum":
            measured = sum(numbers)
        case "avg":
            measured = sum(numbers)
            wanted = [value * len(numbers) for value in wanted]
        case "min":
            measured = min(numbers)
        case _:
            measured = max(numbers)
    return _compares(measured, leaf.op, tuple(wanted))


def _follows(steps: tuple[Step, ...], complete: bool, person: Person, as_of_us: int) -> bool:
    """Whether some chain of occurrences takes every step, or (not complete) all but the last, whose window then passed without it."""
    *leading, last = steps
    reached: list[int] | None = None
    for step in leading:
        reached = _reach(step, reached, person, as_of_us)
    assert reached is not None, "a sequence has two steps or more"
    if complete:
        return bool(_reach(last, reached, person, as_of_us))
    assert last.within is not None, "the last step of an incomplete sequence has a window"
    happened = _times(last, None, person, as_of_us)
    return any(
        time + last.within <= as_of_us and not _any_between(happened, time, time + last.within) for time in reached
    )


def _reach(step: Step, before: list[int] | None, person: Person, as_of_us: int) -> list[int]:
    """The moments, ascending, at which a chain can have taken this step. `before` is the same for the step before it; None: the first."""
    if before is None:
        return _times(step, step.within, person, as_of_us)
    times = _times(step, None, person, as_of_us)
    reached = []
    for time in times:
        index = bisect_left(before, time)  # the latest strictly earlier moment gives the step its best chance
        if index and (step.within is None or time - before[index - 1] <= step.within):
            reached.append(time)
    return reached


def _times(step: Step, duration: int | None, person: Person, as_of_us: int) -> list[int]:
    window = None if duration is None else Within(duration)
    return sorted(event.time_us for event in _occurrences(person, step.event, window, step.where, as_of_us))


def _any_between(times: list[int], after: int, until: int) -> bool:
    """Whether one of the ascending times is in (after, until]."""
    index = bisect_left(times, after + 1)
    return index < len(times) and times[index] <= until
