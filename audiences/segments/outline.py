"""A rule as it is being edited, in which things may be missing or wrong. This is the door: outlines are made from trees here, read as
trees in outline_reading.py, turned into forms and back in outline_forms.py, changed in outline_edits.py; outline_items.py says what one is.
"""

from decimal import Decimal

from audiences.clock import DAY, HOUR, MINUTE
from audiences.segments.literals import write_moment
from audiences.segments.outline_edits import edited
from audiences.segments.outline_forms import form_of, of_post, too_large
from audiences.segments.outline_items import (
    DATES,
    SPANS,
    Item,
    Problem,
    blank,
    blank_condition,
    empty,
    group,
    is_group,
    shown,
    walk,
)
from audiences.segments.outline_reading import field_of, place_of, tree_of
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
    Window,
    Within,
)
from audiences.segments.tree import Sequence as Steps
from audiences.segments.values import plain

__all__ = [
    "Item",
    "Problem",
    "edited",
    "empty",
    "field_of",
    "form_of",
    "of_post",
    "of_tree",
    "place_of",
    "too_large",
    "tree_of",
    "walk",
]

_UNITS = {"d": DAY, "h": HOUR, "m": MINUTE}


def of_tree(node: Node) -> Item:
    """The outline that says the same."""
    made = _item(node)
    return made if is_group(made) and not made["nots"] else {**group(items=[made]), "bare": True}


def _item(node: Node) -> Item:
    nots = 0
    while isinstance(node, Not):
        nots, node = nots + 1, node.item
    match node:
        case All((Occurred() as occurred, KnownFor(duration))):
            made = {**_row(occurred), **_span(duration, "known", "known_unit")}
        case All(items) | Any(items):
            made = group("all" if isinstance(node, All) else "any", [_item(item) for item in items])
        case _:
            made = _row(node)
    return {**made, "nots": nots}


def _row(leaf: Leaf | Not) -> Item:
    match leaf:
        case Occurred(event, count, window, where):
            return {**blank("event"), "event": shown(event), **_count(count), **_window(window), "where": _where(where)}
        case Attribute(condition):
            return {"kind": "attribute", "nots": 0, **_condition(condition)}
        case Measured(event, measure, name, op, numbers, window, where):
            return {
                **blank("measure"),
                "event": shown(event),
                "measure": measure,
                "property": shown(name),
                "op": op,
                **_pair([plain(number) for number in numbers]),
                **_window(window),
                "where": _where(where),
            }
        case Moment(event, which, op, times, window, where):
            said = _span(times[0]) if op in SPANS else _pair([write_moment(us) for us in times])
            about = {**_window(window), "where": _where(where)}
            return {**blank("moment"), "event": shown(event), "which": which, "op": op, **said, **about}
        case Steps(steps, complete):
            made = [{"event": shown(step.event), **_span(step.within), "where": _where(step.where)} for step in steps]
            return {**blank("sequence"), "complete": "yes" if complete else "no", "steps": made}
        case KnownFor(duration):
            return {**blank("known_for"), **_span(duration)}
        case InAudience(key) | InList(key):
            return {**blank("audience" if isinstance(leaf, InAudience) else "list"), "key": shown(key)}
        case InCustomerioSegment(number):
            return {**blank("customerio"), "number": str(number)}
        case Bucket(salt, start, end):
            ends = {"low": plain(Decimal(start) / 100), "high": plain(Decimal(end) / 100)}
            return {**blank("bucket"), "salt": shown(salt), **ends}
    raise ValueError(f"{type(leaf).__name__} is no row")


def _condition(condition: Condition) -> Item:
    made, op = {**blank_condition(), "name": shown(condition.name), "op": condition.op}, condition.op
    if op in ("in", "not_in"):
        return {**made, "values": "\n".join(shown(str(value)) for value in condition.values)}
    if op in SPANS:
        return {**made, **_span(_whole(condition.values[0]))}
    if op in DATES:
        return {**made, "value": write_moment(_whole(condition.values[0]))}
    return {**made, **_pair([plain(v) if isinstance(v, Decimal) else shown(str(v)) for v in condition.values])}


def _whole(value: Scalar) -> int:
    assert isinstance(value, int)
    return value


def _where(where: tuple[Condition, ...]) -> list[Item]:
    return [_condition(condition) for condition in where]


def _pair(texts: list[str]) -> dict[str, str]:
    return dict(zip(("value", "value2"), texts, strict=False))


def _count(count: Count) -> dict[str, str]:
    match count:
        case Count(0, 0):
            return {"times": "zero", "n": "1", "n2": ""}
        case Count(low, None):
            return {"times": "at_least", "n": str(low), "n2": ""}
        case Count(low, high) if low == high:
            return {"times": "exactly", "n": str(low), "n2": ""}
        case Count(0, high):
            return {"times": "at_most", "n": str(high), "n2": ""}
        case Count(low, high):
            return {"times": "between", "n": str(low), "n2": str(high)}


def _window(window: Window) -> dict[str, str]:
    match window:
        case Within(duration):
            return {"window": "last", **_span(duration, "last", "last_unit")}
        case Between(start, end):
            return {"window": "range", "from": write_moment(start), "to": write_moment(end)}
        case None:
            return {"window": "ever"}


def _span(us: int | None, name: str = "span", unit: str = "unit") -> dict[str, str]:
    """A day is 24 hours, as people say it; longer whole days are days."""
    if us is None:
        return {name: "", unit: "d"}
    letter = next(letter for letter, length in _UNITS.items() if us % length == 0 and not length == us == DAY)
    return {name: str(us // _UNITS[letter]), unit: letter}
