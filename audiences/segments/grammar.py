"""The door to rules as JSON: text in and out, the canonical form, what a rule names, and audiences written out in full.

The forms themselves are read in reading.py and written in writing.py. Equal rules make equal trees and equal text.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from hashlib import sha256 as _sha256

from audiences.segments.literals import Refused, clip, join
from audiences.segments.reading import ANY_EVENT, MAX_RULES, Twice, parse
from audiences.segments.tree import (
    All,
    Any,
    Attribute,
    Condition,
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
)
from audiences.segments.writing import to_json

__all__ = ["Names", "Refused", "canonical", "loads", "names", "parse", "resolve", "sha256", "to_json"]

MAX_BYTES = 4_000_000
MAX_RESOLVED_RULES = 10 * MAX_RULES
MAX_REFERENCES = 10
_MAX_BRACKETS = 450  # deeper than any rule may be, shallower than the JSON reader's own recursion


@dataclass(slots=True)
class Names:
    """What a rule mentions, each with the path where it stands, in order; the same name may come more than once."""

    attributes: list[tuple[str, str]] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)
    properties: list[tuple[str, str, str]] = field(default_factory=list)  # event, property, path
    audiences: list[tuple[str, str]] = field(default_factory=list)
    lists: list[tuple[str, str]] = field(default_factory=list)
    customerio_segments: list[tuple[int, str]] = field(default_factory=list)


def loads(text: str | bytes) -> Node:
    """The tree of a JSON text (UTF-8 if bytes). Raises Refused, for text that is no JSON, too."""
    if len(text) > MAX_BYTES:
        raise Refused("", f"is longer than {MAX_BYTES // 1_000_000} MB")
    try:
        if isinstance(text, bytes):
            text = text.decode()
        _refuse_deep_nesting(text)
        data = json.loads(
            text, object_pairs_hook=_object, parse_int=_whole, parse_float=_decimal, parse_constant=Decimal
        )
    except UnicodeDecodeError as error:
        raise Refused("", f"is not UTF-8 at byte {error.start:,}") from error
    except json.JSONDecodeError as error:
        raise Refused("", f"is not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error
    return parse(data)


def canonical(node: Node) -> str:
    """The rule's one text: keys sorted, no spaces. Equal trees, and only they, have equal texts."""
    return json.dumps(to_json(node), ensure_ascii=False, allow_nan=False, sort_keys=True, separators=(",", ":"))


def sha256(node: Node) -> str:
    """The hex SHA-256 of the canonical text, which identifies a rule."""
    return _sha256(canonical(node).encode()).hexdigest()


def names(node: Node) -> Names:
    """The names that must be known for the rule to mean something, with their paths in `to_json(node)`. "*" is not a name."""
    found = Names()
    _note(node, "", found)
    return found


def resolve(node: Node, trees: Mapping[str, Node]) -> Node:
    """The rule with every {"audience"} replaced by that audience's own rule, itself resolved.

    `trees` are the live rules by audience key. Raises Refused, with the path in `node`, for a key that is not there, for audiences
    that refer back to themselves and for more than 10 references in a chain or 4,000 rules in all.
    """
    resolved, _ = _inline(node, "", (), trees, {})
    return resolved


def _inline(
    node: Node, path: str, chain: tuple[str, ...], trees: Mapping[str, Node], done: dict[str, tuple[Node, int]]
) -> tuple[Node, int]:
    """The node without references, and how many rules it has. `chain` is the keys on the way from the root."""
    match node:
        case All(items) | Any(items):
            word = "all" if isinstance(node, All) else "any"
            parts = [
                _inline(item, path if chain else f"{join(path, word)}[{index}]", chain, trees, done)
                for index, item in enumerate(items)
            ]
            rules = sum(count for _, count in parts)
            if rules > MAX_RESOLVED_RULES:
                raise Refused(
                    path, f"comes to {rules:,} rules with its audiences written out; the most is {MAX_RESOLVED_RULES:,}"
                )
            return type(node)(tuple(part for part, _ in parts)), rules
        case Not(item):
            part, rules = _inline(item, path if chain else join(path, "not"), chain, trees, done)
            return Not(part), rules
        case InAudience(key):
            if key in chain:
                raise Refused(
                    path, "audiences refer to each other in a circle: " + " → ".join(map(clip, (*chain, key)))
                )
            if key not in trees:
                raise Refused(path, f"there is no live audience with the key {clip(key)}")
            if len(chain) == MAX_REFERENCES:
                raise Refused(path, f"goes through more than {MAX_REFERENCES} audiences, one referring to the next")
            if key not in done:
                done[key] = _inline(trees[key], path, (*chain, key), trees, done)
            return done[key]
        case _:
            return node, 1


def _note(node: Node, path: str, found: Names) -> None:
    match node:
        case All((Occurred() as occurred, KnownFor())):  # written as one rule
            _note(occurred, path, found)
        case All(items) | Any(items):
            word = "all" if isinstance(node, All) else "any"
            for index, item in enumerate(items):
                _note(item, f"{join(path, word)}[{index}]", found)
        case Not(item):
            _note(item, join(path, "not"), found)
        case Attribute(condition):
            found.attributes.append((condition.name, join(path, "attribute")))
        case Occurred(event, where=where) | Moment(event, where=where):
            _note_event(event, where, path, found)
        case Measured(event, measure, name, where=where):
            _note_event(event, where, path, found)
            found.properties.append((event, name, join(path, measure)))
        case Sequence(steps):
            for index, step in enumerate(steps):
                _note_event(step.event, step.where, f"{join(path, 'sequence')}[{index}]", found)
        case InAudience(key):
            found.audiences.append((key, join(path, "audience")))
        case InList(key):
            found.lists.append((key, join(path, "list")))
        case InCustomerioSegment(number):
            found.customerio_segments.append((number, join(path, "customerio_segment")))


def _note_event(event: str, where: tuple[Condition, ...], path: str, found: Names) -> None:
    if event == ANY_EVENT:
        return
    found.events.append((event, join(path, "event")))
    for index, condition in enumerate(where):
        found.properties.append((event, condition.name, f"{join(path, 'where')}[{index}].property"))


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    made = dict(pairs)
    if len(made) == len(pairs):
        return made
    twice = Twice(made)
    seen: set[str] = set()
    for key, _ in pairs:
        if key in seen:
            twice.key = key
            break
        seen.add(key)
    return twice


def _whole(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= 1_000 else Decimal("Infinity")  # refused where it stands, with its path


def _decimal(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:  # an exponent beyond all bounds
        return Decimal("Infinity")


_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]', re.DOTALL)


def _refuse_deep_nesting(text: str) -> None:
    """Before the JSON reader meets it, which would run out of stack."""
    depth = 0
    for token in _TOKEN.finditer(text):
        match token[0]:
            case "[" | "{":
                depth += 1
                if depth > _MAX_BRACKETS:
                    raise Refused("", f"nests more than {_MAX_BRACKETS} brackets deep at character {token.start():,}")
            case "]" | "}":
                depth -= 1
