"""From JSON values to the tree, or a refusal with a path. JSON text, canonical form and references are grammar.py's.

In the tree the values of is, is_not, in, not_in, contains, starts_with and ends_with are texts (comparison is by text form), those
of gt, gte, lt, lte and between decimals, those of before and after moments in µs, those of within_last, not_within_last and
within_next durations in µs. The values of `in` are a set: sorted, each once.
"""

from collections.abc import Callable
from decimal import Decimal

from audiences.segments.literals import (
    LONGEST_AGE,
    Refused,
    join,
    nearest,
    read_duration,
    read_moment,
    read_number,
    read_plain,
    read_text,
    read_whole,
)
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
    Scalar,
    Sequence,
    Step,
    Window,
    Within,
)

MAX_DEPTH = 12
MAX_RULES = 400
MAX_VALUES = 10_000
MAX_CONDITIONS = 20
MAX_STEPS = 10
MAX_COUNT = 1_000_000_000

ANY_EVENT = "*"
MEASURES = ("sum", "avg", "min", "max")
_FORMS = (
    "all",
    "any",
    "not",
    "attribute",
    "event",
    "sequence",
    "audience",
    "list",
    "customerio_segment",
    "bucket",
    "known_for",
)
_NUMBER_OPS = ("gt", "gte", "lt", "lte", "between")
_MEASURED_OPS = ("is", "is_not", *_NUMBER_OPS)
_MOMENT_OPS = ("before", "after", "between", "within_last", "not_within_last")
_AGE_REMEDY = "; for longer, compare with a date (before, after)"


Json = dict[str, object]


class Twice(Json):
    """An object of a JSON text in which `key` stood twice."""

    key = ""


def parse(data: object) -> Node:
    """The tree of what a JSON or YAML reader made. Raises Refused with the path of the first thing that is wrong."""
    return _Reader().node(data, "", 1)


class _Reader:
    """Reads one tree; counts its rules as it goes."""

    def __init__(self) -> None:
        self.rules = 0

    def node(self, data: object, path: str, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise Refused(
                path, f"stands more than {MAX_DEPTH} levels deep; put part of the rule into an audience of its own"
            )
        rule = _fields(data, path)
        forms = [form for form in _FORMS if form in rule and not (form == "known_for" and "event" in rule)]
        if not forms:
            given = next(iter(rule), "")
            raise Refused(path, f"is no rule; {nearest(given, _FORMS)}")
        form = forms[0]
        if len(forms) > 1:
            raise Refused(path, f"has both {form} and {forms[1]}; give each a rule of its own, inside all or any")
        if form == "not":
            _only(rule, path, "not")
            return Not(self.node(rule["not"], join(path, "not"), depth + 1))
        if form in ("all", "any"):
            _only(rule, path, form)
            place = join(path, form)
            items = tuple(
                self.node(item, f"{place}[{index}]", depth + 1)
                for index, item in enumerate(_items(rule[form], place, MAX_RULES, "rule"))
            )
            return All(items) if form == "all" else Any(items)
        return self.leaf(form, rule, path)

    def leaf(self, form: str, rule: Json, path: str) -> Node:
        self.rules += 1 + (form == "event" and "known_for" in rule)
        if self.rules > MAX_RULES:
            raise Refused(path, f"is rule number {MAX_RULES + 1}; the most is {MAX_RULES}")
        place = join(path, form)
        match form:
            case "attribute":
                return Attribute(_read_condition(rule, path, "attribute"))
            case "event":
                return _read_event(rule, path)
            case "sequence":
                return _read_sequence(rule, path)
            case "bucket":
                _only(rule, path, form)
                return _read_bucket(rule[form], place)
            case "audience" | "list":
                _only(rule, path, form)
                key = read_text(rule[form], place)
                return InAudience(key) if form == "audience" else InList(key)
            case "customerio_segment":
                _only(rule, path, form)
                return InCustomerioSegment(read_whole(rule[form], place, 1, 2**31 - 1))
            case _:
                _only(rule, path, form)
                return KnownFor(_read_age(rule[form], place))


def _read_event(rule: Json, path: str) -> Node:
    kinds = [key for key in (*MEASURES, "first", "last") if key in rule]
    if len(kinds) > 1:
        raise Refused(path, f"has both {kinds[0]} and {kinds[1]}; give each a rule of its own, inside all or any")
    kind = kinds[0] if kinds else ""
    if kind:
        _only(rule, path, "event", kind, "op", "value", "within", "where")
    else:
        _only(rule, path, "event", "count", "within", "where", "known_for")
    event = _read_event_name(rule, path, any_event=not kind)
    window = _read_window(rule["within"], join(path, "within")) if "within" in rule else None
    where = _read_where(rule, path)
    if event == ANY_EVENT and where:
        raise Refused(join(path, "where"), 'cannot stand on "*", any event; name the event')
    if kind in MEASURES:
        name = read_text(rule[kind], join(path, kind))
        op = _read_op(rule, path, _MEASURED_OPS)
        return Measured(
            event, kind, name, op, _read_numbers(_value(rule, path), join(path, "value"), op), window, where
        )
    if kind:
        if rule[kind] is not True and rule[kind] not in ("occurrence", "time"):
            raise Refused(join(path, kind), 'must be "occurrence"')
        op = _read_op(rule, path, _MOMENT_OPS)
        return Moment(event, kind, op, _read_times(_value(rule, path), join(path, "value"), op), window, where)
    count = _read_count(rule["count"], join(path, "count")) if "count" in rule else Count(1, None)
    occurred = Occurred(event, count, window, where)
    if "known_for" not in rule:
        return occurred
    return All((occurred, KnownFor(_read_age(rule["known_for"], join(path, "known_for")))))


def _read_event_name(rule: Json, path: str, *, any_event: bool) -> str:
    event = read_text(_required(rule, path, "event"), join(path, "event"))
    if event == ANY_EVENT and not any_event:
        raise Refused(join(path, "event"), 'cannot be "*", any event, here; name the event')
    return event


def _read_count(data: object, path: str) -> Count:
    bounds = _fields(data, path)
    _only(bounds, path, "at_least", "at_most", "exactly", "between")
    if len(bounds) != 1:
        raise Refused(path, "needs one of at_least, at_most, exactly or between")
    [(key, value)] = bounds.items()
    place = join(path, key)
    match key:
        case "at_least":
            return Count(read_whole(value, place, 1, MAX_COUNT), None)
        case "at_most":
            return Count(0, read_whole(value, place, 0, MAX_COUNT))
        case "exactly":
            times = read_whole(value, place, 0, MAX_COUNT)
            return Count(times, times)
        case _:
            low, high = (read_whole(item, f"{place}[{n}]", 0, MAX_COUNT) for n, item in enumerate(_pair(value, place)))
            if low > high:
                raise Refused(place, "must go from the smaller to the larger number")
            return Count(low, high)


def _read_window(data: object, path: str) -> Window:
    if isinstance(data, dict):
        return Between(*_read_range(data, path))
    if not isinstance(data, str):
        raise Refused(path, 'must be a duration such as "30d" or {"from": …, "to": …}; left out it means ever')
    return Within(read_duration(data, path, remedy="; leave it out to mean ever"))


def _read_range(data: object, path: str) -> tuple[int, int]:
    """`{"from", "to"}` as moments, from < to."""
    ends = _fields(data, path)
    _only(ends, path, "from", "to")
    start, end = (read_moment(_required(ends, path, key), join(path, key)) for key in ("from", "to"))
    if start >= end:
        raise Refused(join(path, "to"), "must be later than from; it is itself not included")
    return start, end


def _read_where(rule: Json, path: str) -> tuple[Condition, ...]:
    if "where" not in rule:
        return ()
    place = join(path, "where")
    items = _items(rule["where"], place, MAX_CONDITIONS, "condition", empty=True)
    return tuple(
        _read_condition(_fields(item, f"{place}[{n}]"), f"{place}[{n}]", "property") for n, item in enumerate(items)
    )


def _read_condition(rule: Json, path: str, subject: str) -> Condition:
    name = read_text(_required(rule, path, subject), join(path, subject))
    op = _read_op(rule, path, tuple(_VALUES))
    if op in ("exists", "missing"):
        if "value" in rule:
            raise Refused(join(path, "value"), f"must be left out: the op {op} compares with nothing")
        _only(rule, path, subject, "op")
        return Condition(name, op)
    _only(rule, path, subject, "op", "value")
    return Condition(name, op, _VALUES[op](_value(rule, path), join(path, "value"), op))


def _read_op(rule: Json, path: str, ops: tuple[str, ...]) -> str:
    op = _required(rule, path, "op")
    if not isinstance(op, str) or op not in ops:
        raise Refused(join(path, "op"), f"is not known here; {nearest(op if isinstance(op, str) else '', ops)}")
    return op


def _read_one(data: object, path: str, op: str) -> tuple[Scalar, ...]:
    if isinstance(data, list):
        raise Refused(path, f"must be one value; a list goes with {'not_in' if op == 'is_not' else 'in'}")
    return (read_plain(data, path),)


def _read_many(data: object, path: str, op: str) -> tuple[Scalar, ...]:
    items = _items(data, path, MAX_VALUES, "value")
    return tuple(sorted({read_plain(item, f"{path}[{n}]") for n, item in enumerate(items)}))


def _read_part(data: object, path: str, op: str) -> tuple[Scalar, ...]:
    text = read_plain(data, path)
    if not text:
        raise Refused(path, "must not be empty; the op exists finds everybody with a value")
    return (text,)


def _read_numbers(data: object, path: str, op: str) -> tuple[Decimal, ...]:
    if op != "between":
        return (read_number(data, path),)
    low, high = (read_number(item, f"{path}[{n}]") for n, item in enumerate(_pair(data, path)))
    if low > high:
        raise Refused(path, "must go from the smaller to the larger number")
    return low, high


def _read_times(data: object, path: str, op: str) -> tuple[int, ...]:
    match op:
        case "before" | "after":
            return (read_moment(data, path),)
        case "between":
            if isinstance(data, list):
                start, end = _pair(data, path)
                data = {"from": start, "to": end}
            return _read_range(data, path)
        case _:
            return (_read_age(data, path),)


def _read_age(data: object, path: str) -> int:
    return read_duration(data, path, LONGEST_AGE, _AGE_REMEDY)


_VALUES: dict[str, Callable[[object, str, str], tuple[Scalar, ...]]] = {
    **dict.fromkeys(("is", "is_not"), _read_one),
    **dict.fromkeys(("in", "not_in"), _read_many),
    **dict.fromkeys(("exists", "missing"), lambda data, path, op: ()),
    **dict.fromkeys(("contains", "starts_with", "ends_with"), _read_part),
    **dict.fromkeys(_NUMBER_OPS, _read_numbers),
    **dict.fromkeys(("before", "after", "within_last", "not_within_last", "within_next"), _read_times),
}


def _read_sequence(rule: Json, path: str) -> Sequence:
    _only(rule, path, "sequence", "complete")
    place = join(path, "sequence")
    items = _items(rule["sequence"], place, MAX_STEPS, "step")
    if len(items) < 2:
        raise Refused(place, "needs two steps or more; one alone is an event rule")
    complete = rule.get("complete", True)
    if not isinstance(complete, bool):
        raise Refused(join(path, "complete"), "must be true or false")
    steps = tuple(_read_step(item, f"{place}[{n}]") for n, item in enumerate(items))
    if not complete and steps[-1].within is None:
        raise Refused(
            join(f"{place}[{len(steps) - 1}]", "within"), "is needed when complete is false: how long the last step had"
        )
    return Sequence(steps, complete)


def _read_step(data: object, path: str) -> Step:
    step = _fields(data, path)
    _only(step, path, "event", "within", "where")
    event = _read_event_name(step, path, any_event=False)
    within = None
    if "within" in step:
        within = read_duration(step["within"], join(path, "within"), remedy="; leave it out for no limit")
    return Step(event, within, _read_where(step, path))


def _read_bucket(data: object, path: str) -> Bucket:
    bucket = _fields(data, path)
    _only(bucket, path, "salt", "from", "to")
    salt = read_text(_required(bucket, path, "salt"), join(path, "salt"))
    start, end = (_read_percent(_required(bucket, path, key), join(path, key)) for key in ("from", "to"))
    if start >= end:
        raise Refused(join(path, "to"), "must be more than from")
    return Bucket(salt, start, end)


def _read_percent(data: object, path: str) -> int:
    """Hundredths of a percent."""
    hundredths = read_number(data, path) * 100
    if not 0 <= hundredths <= 10_000:
        raise Refused(path, "must be a percentage from 0 to 100")
    if hundredths != hundredths.to_integral_value():
        raise Refused(path, "may have at most two decimal places")
    return int(hundredths)


def _fields(data: object, path: str) -> Json:
    if not isinstance(data, dict):
        raise Refused(path, "must be an object, {…}")
    if isinstance(data, Twice):
        raise Refused(join(path, data.key), "stands here twice")
    if not all(isinstance(key, str) for key in data):
        raise Refused(path, "has a key that is not text")
    return data


def _only(fields: Json, path: str, *known: str) -> None:
    for key in fields:
        if key not in known:
            raise Refused(join(path, key), f"is not known here; {nearest(key, known)}")


def _required(fields: Json, path: str, key: str) -> object:
    if key not in fields:
        raise Refused(join(path, key), "is needed")
    return fields[key]


def _value(rule: Json, path: str) -> object:
    return _required(rule, path, "value")


def _items(data: object, path: str, most: int, noun: str, *, empty: bool = False) -> list[object]:
    if not isinstance(data, list):
        raise Refused(path, "must be a list, […]")
    if not data and not empty:
        raise Refused(path, f"needs at least one {noun}")
    if len(data) > most:
        raise Refused(path, f"has {len(data):,} {noun}s; the most is {most:,}")
    return data


def _pair(data: object, path: str) -> list[object]:
    if not isinstance(data, list) or len(data) != 2:
        raise Refused(path, "must be a list of two, [from, to]")
    return data
