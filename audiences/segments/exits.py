"""How people come into a rule and how they leave it again, in words. Pure; a rule that nobody ever leaves is found here."""

from collections.abc import Iterator
from dataclasses import dataclass

from audiences.clock import DAY, HOUR, MINUTE
from audiences.segments.tree import (
    All,
    Any,
    Attribute,
    Bucket,
    InAudience,
    InCustomerioSegment,
    InList,
    KnownFor,
    Measured,
    Moment,
    Node,
    Not,
    Occurred,
    Sequence,
    Within,
)

DEED, TIME, CHANGE = "deed", "time", "change"


@dataclass(frozen=True, slots=True)
class Way:
    """One way in or out. `kind`: by what they do (`event` says what), by time passing, or by a change of what is known of them."""

    kind: str
    words: str
    event: str = ""


def leaving(node: Node) -> tuple[Way, ...]:
    """Each of these alone takes a person out. Empty: who is in stays in for ever."""
    return tuple(dict.fromkeys(_out(node)))


def entering(node: Node) -> tuple[Way, ...]:
    """What brings a person in, where the rest of the rule holds already."""
    return tuple(dict.fromkeys(_in(node)))


def brought_in_by(node: Node) -> frozenset[str]:
    """The events that bring a person in at once, where the rest of the rule holds already."""
    return frozenset(way.event for way in entering(node) if way.kind == DEED)


def by_deed(node: Node) -> frozenset[str]:
    """The events that take a person out at once."""
    return frozenset(way.event for way in leaving(node) if way.kind == DEED)


def _out(node: Node) -> Iterator[Way]:
    match node:
        case All(items):
            for item in items:
                yield from _out(item)
        case Any(items):
            each = [tuple(_out(item)) for item in items]
            if len(each) == 1:
                yield from each[0]
            elif all(each):
                yield Way(CHANGE, "when none of the alternatives holds any more")
        case Not(Not(item)):
            yield from _out(item)
        case Not(item):
            for way in _in(item):
                yield Way(way.kind, way.words, way.event)
        case Occurred(event, count, window, _):
            what = _quoted(event)
            if count.high is not None:
                more = "" if count.high == 0 else f" more than {_often(count.high)}"
                if window is None or isinstance(window, Within):
                    yield Way(DEED, f"as soon as they do {what}{more}", event)
            if count.low and isinstance(window, Within):
                if count.low == 1:
                    yield Way(TIME, f"{_long(window.duration)} after their last {what}")
                else:
                    yield Way(TIME, f"when fewer than {count.low:,} {what} lie in the last {_long(window.duration)}")
        case Measured(event, _, name, _, _, window, _):
            if isinstance(window, Within):
                yield Way(
                    TIME,
                    f"when {name} of their {_quoted(event)} in the last {_long(window.duration)} is no longer enough",
                )
        case Moment(event, which, op, values, _, _):
            if op == "not_within_last" and which == "last":
                yield Way(DEED, f"as soon as they do {_quoted(event)}", event)
            elif op == "within_last":
                yield Way(TIME, f"{_long(values[0])} after their {which} {_quoted(event)}")
        case Sequence(steps, _):
            if steps[0].within is not None:
                yield Way(TIME, f"{_long(steps[0].within)} after their {_quoted(steps[0].event)}")
        case Attribute(condition):
            if condition.op in ("within_last", "within_next"):
                yield Way(TIME, f"when {condition.name} is no longer in that time")
            else:
                yield Way(CHANGE, f"when {condition.name} changes")
        case InAudience(key):
            yield Way(CHANGE, f"when they leave the audience {key}")
        case InList(key):
            yield Way(CHANGE, f"when they are taken off the list {key}")
        case InCustomerioSegment(number):
            yield Way(CHANGE, f"when they leave the Customer.io segment {number}")
        case KnownFor() | Bucket():
            return


def _in(node: Node) -> Iterator[Way]:
    match node:
        case All(items) | Any(items):
            for item in items:
                yield from _in(item)
        case Not(Not(item)):
            yield from _in(item)
        case Not(item):
            yield from _out(item)
        case Occurred(event, count, window, _):
            what = _quoted(event)
            if count.high == 0:
                if isinstance(window, Within):
                    yield Way(TIME, f"{_long(window.duration)} after their last {what}")
            elif count.low:
                often = "" if count.low == 1 else f" {_often(count.low)}"
                span = f" within {_long(window.duration)}" if count.low > 1 and isinstance(window, Within) else ""
                yield Way(DEED, f"when they do {what}{often}{span}", event)
        case Measured(event, _, name, _, _, _, _):
            yield Way(DEED, f"when {name} of their {_quoted(event)} is enough", event)
        case Moment(event, which, op, values, _, _):
            if op == "not_within_last":
                yield Way(TIME, f"{_long(values[0])} after their {which} {_quoted(event)}")
            elif op == "within_last":
                yield Way(DEED, f"when they do {_quoted(event)}", event)
        case Sequence(steps, complete):
            last = steps[-1]
            if complete:
                yield Way(DEED, f"when they do {_quoted(last.event)} after the rest", last.event)
            elif last.within is not None:
                yield Way(TIME, f"{_long(last.within)} after {_quoted(steps[-2].event)}, without {_quoted(last.event)}")
        case KnownFor(duration):
            yield Way(TIME, f"{_long(duration)} after they were first known")
        case Attribute(condition):
            yield Way(CHANGE, f"when {condition.name} changes to it")
        case InAudience(key):
            yield Way(CHANGE, f"when they enter the audience {key}")
        case InList(key):
            yield Way(CHANGE, f"when they are put on the list {key}")
        case InCustomerioSegment(number):
            yield Way(CHANGE, f"when they enter the Customer.io segment {number}")
        case Bucket():
            return


def _often(times: int) -> str:
    return "once" if times == 1 else f"{times:,} times"


def _long(us: int) -> str:
    for unit, name in ((DAY, "day"), (HOUR, "hour"), (MINUTE, "minute")):
        if us % unit == 0 and not (unit == DAY == us):
            return f"{us // unit:,} {name}{'' if us == unit else 's'}"
    return f"{us // MINUTE:,} minutes"


def _quoted(event: str) -> str:
    return f"“{event if len(event) <= 60 else event[:60] + '…'}”"
