"""From the tree to JSON values that reading.py reads as an equal tree, in the shortest form."""

from decimal import Decimal

from audiences.segments.literals import write_duration, write_moment, write_number
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

Json = dict[str, object]


def to_json(node: Node) -> Json:
    """What `parse` reads as an equal tree, in the shortest form."""
    match node:
        case All((Occurred() as occurred, KnownFor(duration))):
            return to_json(occurred) | {"known_for": write_duration(duration)}
        case All(items):
            return {"all": [to_json(item) for item in items]}
        case Any(items):
            return {"any": [to_json(item) for item in items]}
        case Not(item):
            return {"not": to_json(item)}
        case Attribute(condition):
            return {"attribute": condition.name, **_write_test(condition)}
        case Occurred(event, count, window, where):
            return {"event": event, **_write_count(count), **_write_about(window, where)}
        case KnownFor(duration):
            return {"known_for": write_duration(duration)}
        case Measured(event, measure, name, op, numbers, window, where):
            shown = [write_number(number) for number in numbers]
            test = {"op": op, "value": shown if op == "between" else shown[0]}
            return {"event": event, measure: name, **test, **_write_about(window, where)}
        case Moment(event, which, op, times, window, where):
            return {
                "event": event,
                which: "occurrence",
                "op": op,
                "value": _write_times(op, times),
                **_write_about(window, where),
            }
        case Sequence(steps, complete):
            return {"sequence": [_write_step(step) for step in steps], **({} if complete else {"complete": False})}
        case InAudience(key):
            return {"audience": key}
        case InList(key):
            return {"list": key}
        case InCustomerioSegment(number):
            return {"customerio_segment": number}
        case Bucket(salt, start, end):
            percents = {"from": write_number(Decimal(start) / 100), "to": write_number(Decimal(end) / 100)}
            return {"bucket": {"salt": salt, **percents}}


def _write_test(condition: Condition) -> Json:
    match condition.op:
        case "exists" | "missing":
            return {"op": condition.op}
        case "in" | "not_in":
            value: object = list(condition.values)
        case "before" | "after" | "within_last" | "not_within_last" | "within_next":
            value = _write_times(condition.op, tuple(time for time in condition.values if isinstance(time, int)))
        case "between":
            value = [write_number(number) for number in condition.values if isinstance(number, Decimal)]
        case _:
            [first] = condition.values
            value = write_number(first) if isinstance(first, Decimal) else first
    return {"op": condition.op, "value": value}


def _write_times(op: str, times: tuple[int, ...]) -> object:
    match op, times:
        case "before" | "after", (moment,):
            return write_moment(moment)
        case "between", (start, end):
            return {"from": write_moment(start), "to": write_moment(end)}
        case _, (duration,):
            return write_duration(duration)
    raise ValueError(f"{op} with {len(times)} times is no rule")


def _write_count(count: Count) -> Json:
    match count:
        case Count(1, None):
            return {}
        case Count(low, None):
            return {"count": {"at_least": low}}
        case Count(low, high) if low == high:
            return {"count": {"exactly": low}}
        case Count(0, high):
            return {"count": {"at_most": high}}
        case Count(low, high):
            return {"count": {"between": [low, high]}}


def _write_about(window: Window, where: tuple[Condition, ...]) -> Json:
    written: Json = {}
    match window:
        case Within(duration):
            written["within"] = write_duration(duration)
        case Between(start, end):
            written["within"] = {"from": write_moment(start), "to": write_moment(end)}
    if where:
        written["where"] = [{"property": condition.name, **_write_test(condition)} for condition in where]
    return written


def _write_step(step: Step) -> Json:
    return {"event": step.event, **_write_about(Within(step.within) if step.within else None, step.where)}
