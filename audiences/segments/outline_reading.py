"""Outlines read as trees, with what is missing or wrong at its field. Each row is said as JSON of the grammar, which judges it."""

import re
from collections.abc import Callable
from decimal import Decimal

from audiences.segments import grammar
from audiences.segments.literals import Refused
from audiences.segments.outline_items import GROUPS, ROOT, SPANS, Item, Problem, is_group, meant
from audiences.segments.tree import Node

_NUMBER = re.compile(r"[+-]?[0-9]{1,40}([.][0-9]{1,40})?")
_WHOLE = re.compile(r"[+-]?[0-9]{1,40}")
_STEPPED = re.compile(r"(all|any|sequence|where|value|between)\[(\d+)\]")


def tree_of(outline: Item) -> tuple[Node | None, tuple[Problem, ...]]:
    """The tree, or why there is none yet: every field that is missing, and of each row the first that is wrong."""
    problems: list[Problem] = []
    said = _said(outline, ROOT, problems)
    if problems or said is None:
        return None, tuple(problems)
    try:
        return grammar.parse(said), ()
    except Refused as refused:  # too many rules, or too deep
        return None, (Problem(place_of(outline, refused.path), refused.words),)


def field_of(outline: Item, path: str) -> str:
    """The field that a path of the rule as JSON means: `all[1].event` may be `rule-1.event`."""
    place = place_of(outline, path)
    item = outline
    for index in place.split("-")[1:]:
        item = item["items"][int(index)]
    return place if is_group(item) else f"{place}.{_field(item, path)}"


def place_of(outline: Item, path: str) -> str:
    """The item at, or nearest above, a path of the rule as JSON: `all[1].not` may be `rule-1`."""
    item, at = outline, ROOT
    if outline.get("bare") and len(outline["items"]) == 1:
        item, at = outline["items"][0], f"{ROOT}-0"
    for word, index in _STEPPED.findall(path):
        if not is_group(item) or word not in GROUPS or int(index) >= len(item["items"]):
            break
        item, at = item["items"][int(index)], f"{at}-{index}"
    return at


def _said(item: Item, path: str, problems: list[Problem]) -> Item | None:
    """The item as JSON of the grammar; None where something is missing or wrong in it."""
    made: Item | None
    if is_group(item):
        if not item["items"]:
            problems.append(Problem(path, "Nothing is in it yet: add a rule, or remove it.", missing=True))
            return None
        inner = [_said(one, f"{path}-{index}", problems) for index, one in enumerate(item["items"])]
        made = inner[0] if item.get("bare") and len(inner) == 1 else {item["kind"]: inner}
    else:
        made = _read_row(item, path, problems)
    for _ in range(item["nots"]):
        made = {"not": made}
    return made


def _read_row(row: Item, path: str, problems: list[Problem]) -> Item | None:
    before = len(problems)
    reader = _Reader(path, problems)
    made = _READ[row["kind"]](reader, row)
    if len(problems) > before:
        return None
    try:
        grammar.parse(made)
    except Refused as refused:
        problems.append(
            Problem(f"{path}.{_field(row, refused.path)}", f"{refused.words[:1].upper()}{refused.words[1:]}.")
        )
        return None
    return made


class _Reader:
    """Reads the fields of one row, and notes which are missing or no number."""

    def __init__(self, path: str, problems: list[Problem]) -> None:
        self.path = path
        self.problems = problems

    def within(self, inner: str) -> "_Reader":
        return _Reader(f"{self.path}.{inner}", self.problems)

    def note(self, field: str, words: str, *, missing: bool = False) -> None:
        self.problems.append(Problem(f"{self.path}.{field}", words, missing))

    def text(self, fields: Item, name: str, words: str) -> str:
        if not fields[name].strip():
            self.note(name, words, missing=True)
        return meant(fields[name])

    def whole(self, fields: Item, name: str, words: str = "Say a number.") -> int:
        text = fields[name].strip()
        if not text:
            self.note(name, words, missing=True)
        elif not _WHOLE.fullmatch(text):
            self.note(name, "Must be a whole number.")
        else:
            return int(text)
        return 0

    def number(self, fields: Item, name: str) -> Decimal:
        text = fields[name].strip()
        if not text:
            self.note(name, "Say a number.", missing=True)
        elif not _NUMBER.fullmatch(text):
            self.note(name, "Must be a number, with a point before its decimals.")
        else:
            return Decimal(text)
        return Decimal(0)

    def duration(self, fields: Item, name: str, unit: str) -> str:
        number = self.whole(fields, name, "Say how long.")
        return f"{number}{fields[unit]}"

    def test(self, fields: Item) -> Item:
        """The op and its values, of an attribute, property or sum, or of when something happened."""
        op = fields["op"]
        match op:
            case "exists" | "missing":
                return {"op": op}
            case "in" | "not_in":
                lines = [meant(line) for line in fields["values"].split("\n") if line.strip()]
                if not lines:
                    self.note("values", "Say at least one value.", missing=True)
                return {"op": op, "value": lines}
            case "within_last" | "not_within_last" | "within_next":
                return {"op": op, "value": self.duration(fields, "span", "unit")}
            case "before" | "after":
                return {"op": op, "value": self.text(fields, "value", "Say a date.").strip()}
            case "between":
                return {"op": op, "value": [self.number(fields, "value"), self.number(fields, "value2")]}
            case "gt" | "gte" | "lt" | "lte":
                return {"op": op, "value": self.number(fields, "value")}
        return {"op": op, "value": self.text(fields, "value", "Say a value.")}

    def about(self, fields: Item) -> Item:
        """The window and the conditions of an event."""
        made: Item = {}
        match fields["window"]:
            case "last":
                made["within"] = self.duration(fields, "last", "last_unit")
            case "range":
                ends = {key: self.text(fields, key, "Say a date.").strip() for key in ("from", "to")}
                made["within"] = ends
        return {**made, **self.where(fields)}

    def where(self, fields: Item) -> Item:
        made = [
            {
                "property": self.within(f"where{index}").text(one, "name", "Say which property."),
                **self.within(f"where{index}").test(one),
            }
            for index, one in enumerate(fields["where"])
        ]
        return {"where": made} if made else {}

    def event(self, row: Item) -> Item:
        made: Item = {"event": self.text(row, "event", "Say which event.")}
        match row["times"]:
            case "zero":
                made["count"] = {"exactly": 0}
            case "between":
                made["count"] = {"between": [self.whole(row, "n"), self.whole(row, "n2")]}
            case times:
                made["count"] = {times: self.whole(row, "n")}
        made |= self.about(row)
        if row["known"].strip():
            made["known_for"] = self.duration(row, "known", "known_unit")
        return made

    def measure(self, row: Item) -> Item:
        event = self.text(row, "event", "Say which event.")
        name = self.text(row, "property", "Say which property.")
        exact = row["op"] in ("is", "is_not")
        test = {"op": row["op"], "value": self.number(row, "value")} if exact else self.test(row)
        return {"event": event, row["measure"]: name, **test, **self.about(row)}

    def moment(self, row: Item) -> Item:
        event = self.text(row, "event", "Say which event.")
        if row["op"] == "between":
            ends = [self.text(row, name, "Say a date.").strip() for name in ("value", "value2")]
            test: Item = {"op": "between", "value": {"from": ends[0], "to": ends[1]}}
        else:
            test = self.test(row)
        return {"event": event, row["which"]: "occurrence", **test, **self.about(row)}

    def sequence(self, row: Item) -> Item:
        steps = []
        for index, step in enumerate(row["steps"]):
            reader = self.within(f"step{index}")
            made: Item = {"event": reader.text(step, "event", "Say which event.")}
            if step["span"].strip():
                made["within"] = reader.duration(step, "span", "unit")
            steps.append({**made, **reader.where(step)})
        if row["complete"] == "no" and row["steps"] and not row["steps"][-1]["span"].strip():
            self.within(f"step{len(steps) - 1}").note("span", "Say how long the last step had.", missing=True)
        return {"sequence": steps, **({} if row["complete"] == "yes" else {"complete": False})}

    def bucket(self, row: Item) -> Item:
        salt = self.text(row, "salt", "Name the split.")
        return {"bucket": {"salt": salt, "from": self.number(row, "low"), "to": self.number(row, "high")}}


_READ: dict[str, Callable[[_Reader, Item], Item]] = {
    "event": _Reader.event,
    "attribute": lambda reader, row: {
        "attribute": reader.text(row, "name", "Say which attribute."),
        **reader.test(row),
    },
    "measure": _Reader.measure,
    "moment": _Reader.moment,
    "sequence": _Reader.sequence,
    "known_for": lambda reader, row: {"known_for": reader.duration(row, "span", "unit")},
    "audience": lambda reader, row: {"audience": reader.text(row, "key", "Say which audience.")},
    "list": lambda reader, row: {"list": reader.text(row, "key", "Say which list.")},
    "customerio": lambda reader, row: {"customerio_segment": reader.whole(row, "number", "Say its number.")},
    "bucket": _Reader.bucket,
}


_CALLED = {
    "property": "name", "attribute": "name", "audience": "key", "list": "key", "customerio_segment": "number", "sequence": "complete",
    "sum": "property", "avg": "property", "min": "property", "max": "property",
}  # fmt: skip


def _field(row: Item, path: str) -> str:
    """The field of a row that a path of the grammar means."""
    kind = row["kind"]
    inner = "".join(f"{word}{index}." for word, index in re.findall(r"(sequence|where)\[(\d+)\]", path))
    inner = inner.replace("sequence", "step")
    words = re.findall(r"[a-z_]+|\d+", path.rsplit("where[", 1)[-1] if "where" in inner else path)
    word = next((word for word in reversed(words) if not word.isdigit()), "")
    second = word == "to" or words[-1:] == ["1"]
    if "value" in words:
        return inner + _value_field(str(_condition_at(row, inner)["op"]), second=second)
    if word in ("at_least", "at_most", "exactly", "between"):
        return "n2" if second else "n"
    if word in ("from", "to") and kind == "bucket":
        return "high" if second else "low"
    if word == "within":
        return f"{inner}span" if inner else "last"
    if word == "known_for":
        return "span" if kind == "known_for" else "known"
    return inner + _CALLED.get(word, word)


def _condition_at(row: Item, inner: str) -> Item:
    at = row
    for word, index in re.findall(r"(step|where)(\d+)\.", inner):
        at = at["steps" if word == "step" else "where"][int(index)]
    return at


def _value_field(op: str, *, second: bool) -> str:
    if op in ("in", "not_in"):
        return "values"
    if op in SPANS:
        return "span"
    return "value2" if second and op == "between" else "value"
