"""Outlines as flat forms: a field's name is its place, `rule-0-2.event`. What a form does not say has its usual value; what it says too
much is passed over. Whatever is posted, an outline comes out."""

import re
from collections.abc import Mapping
from typing import Any

from audiences.segments.outline_items import (
    CONDITION,
    GROUPS,
    ROOT,
    ROWS,
    STEP,
    WITH_WHERE,
    Item,
    blank,
    blank_condition,
    blank_step,
    is_group,
    walk,
)

MAX_ITEMS, MAX_LEVELS, MAX_PARTS = 2_000, 40, 40
_KIND = re.compile(rf"{ROOT}(-\d+)*\.kind")
_MANY = f"a rule has at most {MAX_ITEMS:,} parts; put some of them into an audience of their own, and name that"
OPS = {
    "attribute": ("is", "is_not", "in", "not_in", "contains", "starts_with", "ends_with", "gt", "gte", "lt", "lte", "between", "before", "after", "within_last", "not_within_last", "within_next", "exists", "missing"),
    "measure": ("gte", "gt", "lte", "lt", "between", "is", "is_not"),
    "moment": ("within_last", "not_within_last", "before", "after", "between"),
}  # fmt: skip
CHOICES: Mapping[str, tuple[str, ...]] = {
    "times": ("at_least", "at_most", "exactly", "between", "zero"),
    "window": ("last", "range", "ever"),
    "measure": ("sum", "avg", "min", "max"),
    "which": ("last", "first"),
    "complete": ("yes", "no"),
    **dict.fromkeys(("unit", "last_unit", "known_unit"), ("d", "h", "m", "w")),
}


def form_of(outline: Item) -> dict[str, str]:
    """The fields of the form that says it."""
    form: dict[str, str] = {}
    for path, item in walk(outline):
        form |= {f"{path}.kind": item["kind"], f"{path}.nots": str(item["nots"])}
        if item.get("bare"):
            form[f"{path}.bare"] = "1"
        if is_group(item):
            continue
        form |= {f"{path}.{name}": item[name] for name in ROWS[item["kind"]]}
        for index, step in enumerate(item.get("steps", ())):
            form |= {f"{path}.step{index}.{name}": step[name] for name in STEP}
            form |= _conditions(f"{path}.step{index}", step)
        form |= _conditions(path, item)
    return form


def of_post(post: Mapping[str, Any]) -> Item:
    """The outline that a form says. Raises ValueError in words where it says more than any outline holds."""
    if sum(bool(_KIND.fullmatch(name)) for name in post) > MAX_ITEMS:
        raise ValueError(_MANY)
    root = _read(post, ROOT, 1)
    if root is None or not is_group(root):
        root = {"kind": "all", "nots": 0, "items": [root] if root else [], "bare": True}
    elif post.get(f"{ROOT}.bare"):
        root["bare"] = True
    return {**root, "nots": 0}


def too_large(outline: Item) -> str:
    """Why a form could not say this outline, in words; empty: it can."""
    parts = [item for _, item in walk(outline)]
    if len(parts) > MAX_ITEMS:
        return _MANY
    if max(path.count("-") for path, _ in walk(outline)) >= MAX_LEVELS:
        return f"groups stand at most {MAX_LEVELS - 1} deep in one another"
    holders = [holder for item in parts for holder in (item, *item.get("steps", ()))]
    if any(len(holder.get(within, ())) > MAX_PARTS for holder in holders for within in ("steps", "where")):
        return f"one rule has at most {MAX_PARTS} conditions or steps"
    return ""


def _conditions(path: str, holder: Item) -> dict[str, str]:
    return {
        f"{path}.where{index}.{name}": condition[name]
        for index, condition in enumerate(holder.get("where", ()))
        for name in CONDITION
    }


def _read(post: Mapping[str, Any], path: str, level: int) -> Item | None:
    kind = post.get(f"{path}.kind")
    if kind is None:
        return None
    given = str(post.get(f"{path}.nots", ""))
    nots = int(given) if re.fullmatch(r"[0-9]|1[0-2]", given) else 0
    if kind in GROUPS:
        items: list[Item] = []
        while level < MAX_LEVELS and (item := _read(post, f"{path}-{len(items)}", level + 1)) is not None:
            items.append(item)
        return {"kind": kind, "nots": nots, "items": items}
    kind = kind if kind in ROWS else "event"
    row = _fields(post, path, {**blank(kind), "nots": nots}, ROWS[kind])
    if kind in OPS:
        row["op"] = _one_of(row["op"], OPS[kind])
    if kind in WITH_WHERE:
        row["where"] = _read_conditions(post, path)
    if kind == "sequence" and f"{path}.step0.event" in post:
        row["steps"] = []
        while (at := f"{path}.step{len(row['steps'])}") + ".event" in post and len(row["steps"]) < MAX_PARTS:
            row["steps"].append({**_fields(post, at, blank_step(), STEP), "where": _read_conditions(post, at)})
    return row


def _read_conditions(post: Mapping[str, Any], path: str) -> list[Item]:
    made: list[Item] = []
    while (at := f"{path}.where{len(made)}") + ".name" in post and len(made) < MAX_PARTS:
        condition = _fields(post, at, blank_condition(), CONDITION)
        made.append({**condition, "op": _one_of(condition["op"], OPS["attribute"])})
    return made


def _fields(post: Mapping[str, Any], path: str, usual: Item, names: tuple[str, ...]) -> Item:
    made = dict(usual)
    for name in names:
        if (given := post.get(f"{path}.{name}")) is not None:
            text = str(given).replace("\0", "").replace("\r\n", "\n").replace("\r", "\n")
            made[name] = _one_of(text, CHOICES[name]) if name in CHOICES else text
    if "values" in names:  # one value goes on being said when more may be, and the other way round
        if made["op"] in ("in", "not_in") and f"{path}.values" not in post:
            made["values"] = made["value"]
        elif made["op"] not in ("in", "not_in") and f"{path}.values" in post and f"{path}.value" not in post:
            made["value"] = made["values"].split("\n")[0]
    return made


def _one_of(given: str, known: tuple[str, ...]) -> str:
    return given if given in known else known[0]
