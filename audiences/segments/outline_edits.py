"""What is done to an outline by one press of a button: added, removed, doubled, moved. Pure: a new outline comes out, and the place of
what the focus should be on. What cannot be done changes nothing."""

import copy
import re
from collections.abc import Callable

from audiences.segments.outline_items import ROOT, Item, blank, blank_condition, blank_step, group, is_group

_DRAGGED = re.compile(rf"({ROOT}(?:-\d{{1,4}})+):({ROOT}(?:-\d{{1,4}})+)(:after)?")
_PLACE = re.compile(rf"{ROOT}((?:-\d{{1,4}})*)((?:\.(?:step|where)\d{{1,2}})*)")
MOVE = "move"
MAX_DEPTH = 3  # groups within groups that are offered; deeper ones are shown and edited all the same


def edited(outline: Item, deed: str, place: str) -> tuple[Item, str]:
    """The outline after a deed (a key of DEEDS) at a place, and where the focus goes. MOVE takes two places: what is moved, and before what
    it comes, or after it."""
    made = copy.deepcopy(outline)
    if deed == MOVE:
        return made, _dragged(made, place)
    do, match = DEEDS.get(deed), _PLACE.fullmatch(place)
    if do is None or match is None:
        return made, ROOT
    indices = [int(index) for index in match[1].split("-")[1:]]
    if _at(made, indices) is None:
        return made, ROOT
    parts = [(word, int(index)) for word, index in re.findall(r"(step|where)(\d+)", match[2])]
    return made, do(made, indices, parts) or place


def _at(outline: Item, indices: list[int]) -> Item | None:
    item = outline
    for index in indices:
        if index >= len(item.get("items", ())):
            return None
        item = item["items"][index]
    return item


def _item(outline: Item, indices: list[int]) -> Item:
    found = _at(outline, indices)
    assert found is not None, "edited looks before"
    return found


def place(indices: list[int]) -> str:
    return ROOT + "".join(f"-{index}" for index in indices)


Parts = list[tuple[str, int]]
Deed = Callable[[Item, list[int], Parts], str]


def _append(outline: Item, indices: list[int], made: Item) -> str:
    holder = _item(outline, indices)
    if not is_group(holder):
        return ""
    holder["items"].append(made)
    return place([*indices, len(holder["items"]) - 1])


def _dragged(outline: Item, said: str) -> str:
    match = _DRAGGED.fullmatch(said)
    if match is None:
        return ROOT
    source, target = ([int(index) for index in place.split("-")[1:]] for place in match.group(1, 2))
    inside = target[: len(source)] == source
    if inside or _at(outline, source) is None or _at(outline, target) is None:
        return match[1] if _at(outline, source) is not None else ROOT
    item = _item(outline, source[:-1])["items"].pop(source[-1])
    at = len(source) - 1
    if len(target) > at and target[:at] == source[:at] and target[at] > source[at]:
        target[at] -= 1  # it stands one further up without what was taken out above it
    index = target[-1] + bool(match[3])
    _item(outline, target[:-1])["items"].insert(index, item)
    return place([*target[:-1], index])


def _add_rule(outline: Item, indices: list[int], parts: Parts) -> str:
    return _append(outline, indices, blank())


def _add_group(outline: Item, indices: list[int], parts: Parts) -> str:
    holder = _item(outline, indices)
    at = _append(outline, indices, group("any" if holder["kind"] == "all" else "all", [blank()]))
    return f"{at}-0" if at else ""


def _exclude(outline: Item, indices: list[int], parts: Parts) -> str:
    """People who… are left out of everybody that the rule finds: where any of its rules is enough, they become a group beside it."""
    if outline["kind"] == "any":
        inner = {key: outline[key] for key in ("kind", "nots", "items")}
        kept = [] if not inner["items"] else inner["items"] if len(inner["items"]) == 1 else [inner]
        outline |= {"kind": "all", "items": kept}
    outline.pop("bare", None)
    return f"{_append(outline, [], group('any', [blank()], nots=1))}-0"


def _remove(outline: Item, indices: list[int], parts: Parts) -> str:
    holder = _holder(outline, indices, parts)
    if holder is None:
        return ""
    items, index, at = holder
    if index >= len(items):
        return ""
    del items[index]
    return at(index - 1) if index else at(0) if items else place(indices[:-1] if not parts else indices)


def _duplicate(outline: Item, indices: list[int], parts: Parts) -> str:
    if not indices or parts:
        return ""
    items = _item(outline, indices[:-1])["items"]
    items.insert(indices[-1] + 1, copy.deepcopy(items[indices[-1]]))
    return place([*indices[:-1], indices[-1] + 1])


def _up(outline: Item, indices: list[int], parts: Parts) -> str:
    """Before what stands above it; from there into the end of a group, or out of its own."""
    return _moved(outline, indices, parts, -1)


def _down(outline: Item, indices: list[int], parts: Parts) -> str:
    return _moved(outline, indices, parts, 1)


def _moved(outline: Item, indices: list[int], parts: Parts, by: int) -> str:
    if parts:
        return _step_moved(outline, indices, parts, by)
    if not indices:
        return ""
    items, index = _item(outline, indices[:-1])["items"], indices[-1]
    other = index + by
    if 0 <= other < len(items):
        item = items.pop(index)
        if is_group(items[index - 1 if by < 0 else index]) and not is_group(item):
            beside = index - 1 if by < 0 else index
            inner = items[beside]["items"]
            to = len(inner) if by < 0 else 0
            inner.insert(to, item)
            return place([*indices[:-1], beside, to])
        items.insert(other, item)
        return place([*indices[:-1], other])
    if len(indices) == 1:
        return ""
    item, around = items.pop(index), _item(outline, indices[:-2])["items"]
    to = indices[-2] if by < 0 else indices[-2] + 1
    around.insert(to, item)
    return place([*indices[:-2], to])


def _step_moved(outline: Item, indices: list[int], parts: Parts, by: int) -> str:
    (word, index), steps = parts[0], _item(outline, indices).get("steps", [])
    if word != "step" or not (0 <= index < len(steps) and 0 <= index + by < len(steps)):
        return ""
    steps[index], steps[index + by] = steps[index + by], steps[index]
    return f"{place(indices)}.step{index + by}"


def _add_condition(outline: Item, indices: list[int], parts: Parts) -> str:
    row, at = _item(outline, indices), place(indices)
    if parts and parts[0][0] == "step":
        if parts[0][1] >= len(row.get("steps", ())):
            return ""
        row, at = row["steps"][parts[0][1]], f"{at}.step{parts[0][1]}"
    if "where" not in row:
        return ""
    row["where"].append(blank_condition())
    return f"{at}.where{len(row['where']) - 1}"


def _add_step(outline: Item, indices: list[int], parts: Parts) -> str:
    row = _item(outline, indices)
    if "steps" not in row:
        return ""
    row["steps"].append(blank_step())
    return f"{place(indices)}.step{len(row['steps']) - 1}"


def _holder(outline: Item, indices: list[int], parts: Parts) -> tuple[list[Item], int, Callable[[int], str]] | None:
    """The list that holds what stands at a place, its index there, and the place of another in the list."""
    if not parts:
        if not indices:
            return None
        return _item(outline, indices[:-1])["items"], indices[-1], lambda index: place([*indices[:-1], index])
    holder, at = _item(outline, indices), place(indices)
    for word, index in parts[:-1]:
        steps = holder.get("steps", [])
        if word != "step" or index >= len(steps):
            return None
        holder, at = steps[index], f"{at}.step{index}"
    word, index = parts[-1]
    return holder.get("steps" if word == "step" else "where", []), index, lambda other: f"{at}.{word}{other}"


DEEDS: dict[str, Deed] = {
    "add-rule": _add_rule,
    "add-group": _add_group,
    "exclude": _exclude,
    "remove": _remove,
    "duplicate": _duplicate,
    "up": _up,
    "down": _down,
    "add-condition": _add_condition,
    "add-step": _add_step,
}
