"""The algebra of rules: given each leaf's people, who is in and how many pass each rule. Pure; engines answer the leaves.

NOT is the complement against the universe (the live people), so nothing is ever "unknown".
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import reduce

from pyroaring import BitMap

from audiences.people.engines.base import Engine, Pinned, Stop
from audiences.segments.judge import list_key as list_key
from audiences.segments.tree import All, Any, InAudience, InCustomerioSegment, InList, Leaf, Node, Not, leaves


@dataclass(frozen=True, slots=True)
class Computed:
    """An audience's people, and how many people each rule and group has by itself, by its path in the tree (the root's is empty)."""

    members: BitMap
    rule_counts: dict[str, int]


class Unanswerable(ValueError):
    """A rule names a list that was not given, or an audience (grammar.resolve puts those in place)."""


def compute(
    trees: Mapping[str, Node], pin: Pinned, engine: Engine, lists: Mapping[str, BitMap], stop: Stop | None = None
) -> dict[str, Computed]:
    """Many audiences at once: a leaf that several share is answered once, and all leaves go to the engine together.

    `trees` are resolved. `lists` are keyed as judge.list_key says. Raises Unanswerable, and whatever the engine raises: Stopped, once `stop`
    was told so.
    """
    universe = engine.universe(pin)
    answers: dict[Leaf, BitMap] = {}
    asked: dict[Leaf, None] = {}
    for tree in trees.values():
        for _, leaf in leaves(tree):
            if isinstance(leaf, InList | InCustomerioSegment):
                answers[leaf] = listed(leaf, lists)
            elif isinstance(leaf, InAudience):
                raise Unanswerable(f"the audience {leaf.key} was not put in its place")
            else:
                asked[leaf] = None
    answers |= engine.members(asked, pin, stop)
    return computed(trees, universe, answers)


def computed(trees: Mapping[str, Node], universe: BitMap, answers: Mapping[Leaf, BitMap]) -> dict[str, Computed]:
    """The same from answers that are there already. They may hold people outside the universe; the result does not."""
    algebra = _Algebra(universe, answers)
    return {
        key: Computed(BitMap(algebra.of(tree)), {path: len(algebra.of(node)) for path, node in every(tree)})
        for key, tree in trees.items()
    }


def listed(leaf: InList | InCustomerioSegment, lists: Mapping[str, BitMap]) -> BitMap:
    """Who is on it, of the lists that were given. Raises Unanswerable."""
    try:
        return lists[list_key(leaf)]
    except KeyError:
        raise Unanswerable(f"there is no list {list_key(leaf)}") from None


def members(node: Node, universe: BitMap, answers: Mapping[Leaf, BitMap]) -> BitMap:
    """The people for whom a rule holds. `answers` may hold people outside the universe; the result does not."""
    return BitMap(_Algebra(universe, answers).of(node))


def counts(node: Node, universe: BitMap, answers: Mapping[Leaf, BitMap]) -> dict[str, int]:
    """How many people each rule and group has, by path."""
    algebra = _Algebra(universe, answers)
    return {path: len(algebra.of(part)) for path, part in every(node)}


def every(node: Node, path: str = "") -> Iterator[tuple[str, Node]]:
    """Every rule and group with its path, parents first; leaves have the paths that tree.leaves gives them."""
    yield path, node
    dot = "." if path else ""
    match node:
        case All(items) | Any(items):
            word = "all" if isinstance(node, All) else "any"
            for index, item in enumerate(items):
                yield from every(item, f"{path}{dot}{word}[{index}]")
        case Not(item):
            yield from every(item, f"{path}{dot}not")


class _Algebra:
    """Remembers what it worked out: a subtree that stands in many audiences is worked out once."""

    def __init__(self, universe: BitMap, answers: Mapping[Leaf, BitMap]) -> None:
        self._universe = universe
        self._answers = answers
        self._known: dict[Node, BitMap] = {}

    def of(self, node: Node) -> BitMap:
        """Not to be changed: it is remembered."""
        if node not in self._known:
            self._known[node] = self._work_out(node)
        return self._known[node]

    def _work_out(self, node: Node) -> BitMap:
        match node:
            case All(items):
                return reduce(BitMap.__and__, (self.of(item) for item in items), self._universe)
            case Any(items):
                return reduce(BitMap.__or__, (self.of(item) for item in items), BitMap())
            case Not(item):
                return self._universe - self.of(item)
            case _:
                return self._answers[node] & self._universe
