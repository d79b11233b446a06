"""The names that rules may use: what has been seen, which lists and audiences there are; and which names of a rule are not among them.

Reads only. Whether a rule is well formed is grammar.py's to say; this says whether it can be counted here.
"""

import difflib
import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from audiences.models import AttributeName, Audience, EventName, PersonList, PropertyName
from audiences.segments import grammar
from audiences.segments.tree import InAudience, Node, leaves


@dataclass(frozen=True, slots=True)
class Problem:
    """`path` is where, as in `all[1].where[0].property`; the words say what is wrong there and what might have been meant."""

    path: str
    words: str

    def __str__(self) -> str:
        return f"{self.path}: {self.words}" if self.path else self.words


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`audiences` are the keys with a live version; `archived` those that were and cannot be counted any more."""

    attributes: frozenset[str]
    events: frozenset[str]
    properties: Mapping[str, frozenset[str]]
    lists: frozenset[str]
    customerio_segments: frozenset[int]
    audiences: frozenset[str]
    unpublished: frozenset[str]
    archived: frozenset[str]

    def problems(self, tree: Node, also: Iterable[str] = ()) -> tuple[Problem, ...]:
        """What in the tree is unknown here. `also`: audience keys that will be live by the time it is counted."""
        named, found = grammar.names(tree), []
        found += [
            _unknown(at, "attribute", name, self.attributes)
            for name, at in named.attributes
            if name not in self.attributes
        ]
        found += [_unknown(at, "event", name, self.events) for name, at in named.events if name not in self.events]
        for event, name, at in named.properties:
            known = self.properties.get(event, frozenset())
            if event in self.events and name not in known:  # of an unknown event, saying that is enough
                found.append(_unknown(at, f'property of "{event}"', name, known))
        found += [_unknown(at, "list", key, self.lists) for key, at in named.lists if key not in self.lists]
        for number, at in named.customerio_segments:
            if number not in self.customerio_segments:
                found.append(Problem(at, f"no list has the Customer.io segment {number}"))
        live = self.audiences | set(also)
        found += [self._unusable(key, at, live) for key, at in named.audiences if key not in live]
        return tuple(found)

    def with_lists(self, keys: Iterable[str], customerio_segments: Iterable[int]) -> "Vocabulary":
        """As it will be once these lists are there."""
        return replace(
            self,
            lists=self.lists | set(keys),
            customerio_segments=self.customerio_segments | set(customerio_segments),
        )

    def _unusable(self, key: str, at: str, live: frozenset[str]) -> Problem:
        if key in self.archived:
            return Problem(at, f'audience "{key}" is archived')
        if key in self.unpublished:
            return Problem(at, f'audience "{key}" has no published rule yet')
        return _unknown(at, "audience", key, live)


def known() -> Vocabulary:
    """The names as of now: five queries."""
    properties: dict[str, set[str]] = {}
    for event, name in PropertyName.objects.values_list("event", "name"):
        properties.setdefault(event, set()).add(name)
    lists = list(PersonList.objects.values_list("key", "customerio_segment"))
    audiences = list(Audience.objects.values_list("key", "live_version_id", "archived_at"))
    return Vocabulary(
        attributes=frozenset(AttributeName.objects.values_list("name", flat=True)),
        events=frozenset(EventName.objects.values_list("name", flat=True)),
        properties={event: frozenset(names) for event, names in properties.items()},
        lists=frozenset(key for key, _ in lists),
        customerio_segments=frozenset(number for _, number in lists if number is not None),
        audiences=frozenset(key for key, live, archived in audiences if live and not archived),
        unpublished=frozenset(key for key, live, archived in audiences if not live and not archived),
        archived=frozenset(key for key, _, archived in audiences if archived),
    )


@functools.lru_cache(maxsize=2000)
def rule(text: str) -> Node:
    """The tree of a stored segment. Published text never changes, so each is parsed once a process."""
    return grammar.loads(text)


def live_rules() -> dict[str, Node]:
    """The live rule of every audience that can be referred to, by key."""
    rows = Audience.objects.filter(archived_at=None, live_version__isnull=False)
    return {key: rule(text) for key, text in rows.values_list("key", "live_version__segment")}


def resolved(tree: Node, key: str = "") -> Node:
    """Its references to audiences inlined, as if it were the live rule of the audience `key` itself. Raises grammar.Refused."""
    if not any(isinstance(leaf, InAudience) for _, leaf in leaves(tree)):
        return tree
    return grammar.resolve(tree, {**live_rules(), key: tree} if key else live_rules())


def _unknown(path: str, kind: str, name: str, known: Iterable[str]) -> Problem:
    """Names the nearest known names; a difference in case or spacing counts as very near."""
    shown = name if len(name) <= 80 else f"{name[:80]}…"
    by_fold = {candidate.casefold().replace(" ", "_").replace("-", "_"): candidate for candidate in known}
    fold = name[:200].casefold().replace(" ", "_").replace("-", "_")
    near = [by_fold[match] for match in difflib.get_close_matches(fold, by_fold, n=3, cutoff=0.6)]
    hint = '; nearest: "' + '", "'.join(near) + '"' if near else ""
    return Problem(path, f'no {kind} "{shown}" is known{hint}')
