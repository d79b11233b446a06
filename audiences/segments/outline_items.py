"""What an outline is made of: rows with fields, groups, problems at their places; and texts as fields hold them.

An outline is JSON. A group is {"kind": "all" or "any", "nots": 0, "items": […]}, a row {"kind": one of ROWS, "nots": 0, and its
fields as typed}. `nots` says how many times it is turned round. The outermost is always a group; `bare` on it: while one thing is in
it, that thing is the rule. An item's place is `rule` and its indices: `rule-0-2`; a field's is `rule-0-2.event`, `rule-0.where1.op`.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Item = dict[str, Any]

ROOT = "rule"
GROUPS = ("all", "any")
TEST = ("op", "value", "value2", "values", "span", "unit")
WINDOW = ("window", "last", "last_unit", "from", "to")
ROWS: dict[str, tuple[str, ...]] = {
    "event": ("event", "times", "n", "n2", *WINDOW, "known", "known_unit"),
    "attribute": ("name", *TEST),
    "measure": ("event", "measure", "property", "op", "value", "value2", *WINDOW),
    "moment": ("event", "which", "op", "value", "value2", "span", "unit", *WINDOW),
    "sequence": ("complete",),
    "known_for": ("span", "unit"),
    "audience": ("key",),
    "list": ("key",),
    "customerio": ("number",),
    "bucket": ("salt", "low", "high"),
}
WITH_WHERE = ("event", "measure", "moment")
CONDITION = ("name", *TEST)
STEP = ("event", "span", "unit")
USUAL = {
    "times": "at_least", "n": "1", "window": "last", "last_unit": "d", "unit": "d", "known_unit": "d", "measure": "sum", "which": "last",
    "complete": "yes",
}  # fmt: skip
USUAL_OP = {"attribute": "is", "measure": "gte", "moment": "within_last"}
DATES, SPANS = ("before", "after"), ("within_last", "not_within_last", "within_next")


@dataclass(frozen=True, slots=True)
class Problem:
    """`path` is the field or item; `missing`: nothing is there yet, rather than something wrong."""

    path: str
    words: str
    missing: bool = False


def blank(kind: str = "event") -> Item:
    """A row with nothing said yet."""
    fields = {name: USUAL.get(name, "") for name in ROWS[kind]}
    if "op" in fields:
        fields["op"] = USUAL_OP[kind]
    made: Item = {"kind": kind, "nots": 0, **fields}
    if kind in WITH_WHERE:
        made["where"] = []
    if kind == "sequence":
        made["steps"] = [blank_step(), blank_step()]
    return made


def blank_condition() -> Item:
    return {"name": "", "op": "is", "value": "", "value2": "", "values": "", "span": "", "unit": "d"}


def blank_step() -> Item:
    return {"event": "", "span": "", "unit": "d", "where": []}


def group(kind: str = "all", items: Sequence[Item] = (), nots: int = 0) -> Item:
    return {"kind": kind, "nots": nots, "items": list(items)}


def empty() -> Item:
    """Where a new rule begins."""
    return {**group(items=[blank()]), "bare": True}


def is_group(item: Item) -> bool:
    return item["kind"] in GROUPS


def walk(item: Item, path: str = ROOT) -> Iterator[tuple[str, Item]]:
    """Every item with its place, each group before what is in it."""
    yield path, item
    for index, inner in enumerate(item.get("items", ())):
        yield from walk(inner, f"{path}-{index}")


def shown(text: str) -> str:
    """A text as a field holds it: as it is, or in quotes where a field would lose something of it."""
    plainly = text and text == text.strip() and text[0] != '"' and text.isprintable()
    return text if plainly else json.dumps(text, ensure_ascii=not text.isprintable())


def meant(field: str) -> str:
    """The text that a field says."""
    if field[:1] == '"' and field[-1:] == '"':
        try:
            read = json.loads(field)
        except ValueError:
            return field
        return read if isinstance(read, str) else field
    return field
