"""Places in a rule as the way to them, one index a level: what stands there in words, and the rule with something else there. Pure."""

from collections.abc import Callable
from typing import TypeAlias

from audiences.segments.literals import join
from audiences.segments.tree import All, Any, KnownFor, Node, Not, Occurred

Place: TypeAlias = tuple[int, ...]


def node_at(tree: Node, place: Place) -> Node:
    for index in place:
        match tree:
            case All(items) | Any(items):
                tree = items[index]
            case Not(item):
                tree = item
    return tree


def at(tree: Node, place: Place) -> str:
    """The path as grammar.py writes it: `all[1].not`. Empty: the whole rule."""
    path = ""
    for index in place:
        match tree:
            case All((Occurred(), KnownFor()) as items):  # written as one rule
                path, tree = (join(path, "known_for") if index else path), items[index]
            case All(items) | Any(items):
                path, tree = f"{join(path, 'all' if isinstance(tree, All) else 'any')}[{index}]", items[index]
            case Not(item):
                path, tree = join(path, "not"), item
    return path


def replaced(tree: Node, place: Place, node: Node) -> Node:
    """The rule with this one there."""
    changed = _changed(tree, place, lambda _: node)
    assert changed is not None
    return changed


def removed(tree: Node, place: Place) -> Node | None:
    """The rule without what stands there; of a group of two, the other one stays. None: nothing is left."""
    return _changed(tree, place, lambda _: None)


def _changed(tree: Node, place: Place, change: Callable[[Node], Node | None]) -> Node | None:
    if not place:
        return change(tree)
    index, *rest = place
    match tree:
        case All(items) | Any(items):
            new = _changed(items[index], tuple(rest), change)
            kept = (*items[:index], *([new] if new is not None else []), *items[index + 1 :])
            if len(kept) < len(items) and len(kept) < 2:
                return kept[0] if kept else None
            return type(tree)(kept)
        case Not(item):
            new = _changed(item, tuple(rest), change)
            return Not(new) if new is not None else None
        case _:
            return tree
