"""Who is in two audiences at once: every pair of current memberships, counted. Reads stored bitmaps; draws nothing.

What may be done about a pair is exclusions.py's.
"""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pyroaring import BitMap

from audiences import bitmaps, owners
from audiences.models import Audience, Membership, User

_MIDDLING = (1 / 500, 1 / 16)  # 4,096 of a container's 65,536 is where Roaring itself changes to bits
_KEPT = 16  # matrices that a process remembers, by what the memberships hold
ORDERS = ("overlap", "size", "name")
COMBINED = 12  # audiences whose combinations are counted: of more there may be more combinations than people


@dataclass(frozen=True, slots=True)
class Choice:
    """An audience that may be compared. `count` None: it has not been counted yet."""

    key: str
    name: str
    purpose: str
    count: int | None
    owners: frozenset[int]


@dataclass(frozen=True, slots=True)
class Pair:
    """Two audiences that share people, the one that lies further inside the other first."""

    a: str
    b: str
    both: int
    share_of_a: float
    share_of_b: float


@dataclass(frozen=True, slots=True)
class Shared:
    """One of several audiences: so many of its `size` people are in another of them too."""

    key: str
    size: int
    shared: int

    @property
    def share(self) -> float | None:
        return self.shared / self.size if self.size else None


@dataclass(frozen=True, slots=True)
class Waste:
    """People who are in two or more of these audiences. `times[n]` people are in n or more of them, from n = 2."""

    people: int
    everybody: int
    times: tuple[tuple[int, int], ...]
    rows: tuple[Shared, ...]


@dataclass(frozen=True, slots=True)
class Combination:
    """So many people are in exactly these audiences and in none of the others; `width` is their bar's, of 1,000 units."""

    inside: tuple[bool, ...]
    people: int
    width: int


@dataclass(frozen=True, slots=True)
class Combinations:
    """The largest of them, largest first; `others` more hold `rest` people. Together they hold everybody, each person once."""

    keys: tuple[str, ...]
    sizes: tuple[int, ...]
    rows: tuple[Combination, ...]
    others: int
    rest: int
    everybody: int


@dataclass(frozen=True, slots=True)
class Matrix:
    """`counts[row][column]` people are in both; the diagonal holds the sizes. `as_of_us[i]` is the moment of audience i's count."""

    keys: tuple[str, ...]
    as_of_us: tuple[int, ...]
    counts: tuple[tuple[int, ...], ...]

    def share(self, row: int, column: int) -> float | None:
        """How much of the row's audience is also in the column's, 0…1; None for an empty audience."""
        size = self.counts[row][row]
        return self.counts[row][column] / size if size else None

    def pairs(self) -> list[Pair]:
        """Those that share anybody, by the larger share of the two."""
        found = []
        for row in range(len(self.keys)):
            for column in range(row + 1, len(self.keys)):
                if both := self.counts[row][column]:
                    small, large = sorted((row, column), key=lambda at: self.counts[at][at])
                    shares = both / self.counts[small][small], both / self.counts[large][large]
                    found.append(Pair(self.keys[small], self.keys[large], both, *shares))
        return sorted(found, key=lambda pair: (-pair.share_of_a, -pair.both, pair.a, pair.b))

    def arranged(self, order: str) -> "Matrix":
        """The same, by one of ORDERS: those that lie furthest inside another first, the largest first, or by key."""
        ranks: dict[str, list[tuple[float, ...]]] = {
            "overlap": [(-most, -both) for most, both in map(self._most, range(len(self.keys)))],
            "size": [(-self.counts[at][at],) for at in range(len(self.keys))],
        }
        rank = ranks.get(order) or [() for _ in self.keys]
        places = sorted(range(len(self.keys)), key=lambda at: (rank[at], self.keys[at]))
        return Matrix(
            keys=tuple(self.keys[at] for at in places),
            as_of_us=tuple(self.as_of_us[at] for at in places),
            counts=tuple(tuple(self.counts[row][column] for column in places) for row in places),
        )

    def _most(self, row: int) -> tuple[float, int]:
        """The largest share of this audience that another has too, and how many those are."""
        size = self.counts[row][row]
        both = max((count for at, count in enumerate(self.counts[row]) if at != row), default=0)
        return (both / size if size else 0.0), both


class NotCounted(Exception):
    """An audience that was asked for has no members on record; the words name it."""


def choices() -> list[Choice]:
    """Every audience that is not archived, by key. One query, whatever their number; no bitmap is read."""
    rows = Audience.objects.filter(archived_at=None).order_by("key")
    fields = "key", "name", "purpose", "membership__count", *(f"{role.field}_id" for role in owners.ROLES)
    return [
        Choice(key, name, purpose, count, frozenset(owner for owner in named if owner))
        for key, name, purpose, count, *named in rows.values_list(*fields)
    ]


def of(choices: Iterable[Choice], which: str, user: User | None = None) -> list[Choice]:
    """Those of one purpose, or `mine`, the user's own; of anything else, all."""
    if which == "mine":
        return [choice for choice in choices if user is not None and user.pk in choice.owners]
    if which in Audience.Purpose.values:
        return [choice for choice in choices if choice.purpose == which]
    return list(choices)


def matrix(keys: Sequence[str] | None = None) -> Matrix:
    """Of these audiences in this order, or of every one that has been counted and not archived, by key. Raises NotCounted."""
    memberships = Membership.objects.select_related("audience", "refresh").only(
        "members", "audience__key", "refresh__as_of_us"
    )
    if keys is None:
        rows = list(memberships.filter(audience__archived_at=None).order_by("audience__key"))
    else:
        found = {row.audience.key: row for row in memberships.filter(audience__key__in=keys)}
        missing = [key for key in keys if key not in found]
        if missing:
            raise NotCounted(f"Not counted yet, or no such audience: {', '.join(missing)}")
        rows = [found[key] for key in dict.fromkeys(keys)]
    return Matrix(
        keys=tuple(row.audience.key for row in rows),
        as_of_us=tuple(row.refresh.as_of_us for row in rows),
        counts=_remembered([bytes(row.members) for row in rows]),
    )


def waste(keys: Sequence[str]) -> Waste:
    """Of these audiences, as far as they have been counted: who is in more than one of them. One query."""
    rows = Membership.objects.filter(audience__key__in=keys, audience__archived_at=None)
    members = {key: bitmaps.unpack(packed) for key, packed in rows.values_list("audience__key", "members")}
    levels = list(_levels(members.values()))  # levels[n]: people who are in more than n of them
    twice = levels[1] if len(levels) > 1 else BitMap()
    shared = [Shared(key, len(people), people.intersection_cardinality(twice)) for key, people in members.items()]
    return Waste(
        people=len(twice),
        everybody=len(levels[0]) if levels else 0,
        times=tuple((number + 1, len(level)) for number, level in enumerate(levels) if number and level),
        rows=tuple(sorted(shared, key=lambda row: (-row.shared, row.key))),
    )


def combinations(keys: Sequence[str], *, most: int = 20) -> Combinations:
    """Who is in exactly which of these audiences, at most COMBINED, in this order. One query; those not counted are left out."""
    rows = Membership.objects.filter(audience__key__in=keys[:COMBINED], audience__archived_at=None)
    packed = dict(rows.values_list("audience__key", "members"))
    members = {key: bitmaps.unpack(packed[key]) for key in keys[:COMBINED] if key in packed}
    found = parted(list(members.values()))
    largest = found[0][1] if found else 1
    return Combinations(
        keys=tuple(members),
        sizes=tuple(len(people) for people in members.values()),
        rows=tuple(Combination(inside, count, max(2, round(count / largest * 1000))) for inside, count in found[:most]),
        others=len(found[most:]),
        rest=sum(count for _, count in found[most:]),
        everybody=sum(count for _, count in found),
    )


def parted(members: Sequence[BitMap]) -> list[tuple[tuple[bool, ...], int]]:
    """How many are in exactly which of the sets, largest first: every one of them is counted once."""
    everybody = BitMap().union(*members) if members else BitMap()
    parts: list[tuple[tuple[bool, ...], BitMap]] = [((), everybody)]
    for people in members:
        halves = ((inside, part & people, part - people) for inside, part in parts)
        parts = [
            half for inside, yes, no in halves for half in (((*inside, True), yes), ((*inside, False), no)) if half[1]
        ]
    return sorted(((inside, len(part)) for inside, part in parts if part), key=lambda one: (-one[1], one[0]))


def _levels(members: Iterable[BitMap]) -> Iterator[BitMap]:
    """Who is in at least one, in at least two, … of the sets."""
    levels: list[BitMap] = []
    for people in members:
        carried = BitMap(people)
        for number, level in enumerate(levels):
            levels[number], carried = level | carried, level & carried
            if not carried:
                break
        if carried:
            levels.append(carried)
    return iter(levels)


_memory: OrderedDict[tuple[bytes, ...], tuple[tuple[int, ...], ...]] = OrderedDict()
_memory_lock = threading.Lock()


def _remembered(packed: Sequence[bytes]) -> tuple[tuple[int, ...], ...]:
    """`pairs` of these stored sets. While they hold the same people, they are not counted again: what they hold is the key,
    for a merge or a removal changes a membership without a new count."""
    key = tuple(hashlib.sha256(data).digest() for data in packed)
    with _memory_lock:
        if key in _memory:
            _memory.move_to_end(key)
            return _memory[key]
    counts = pairs([bitmaps.unpack(data) for data in packed])
    with _memory_lock:
        _memory[key] = counts
        while len(_memory) > _KEPT:
            _memory.popitem(last=False)
    return counts


def pairs(members: Sequence[BitMap]) -> tuple[tuple[int, ...], ...]:
    """How many are in both, for every pair; symmetric.

    Roaring keeps sets of middling density as sorted arrays, whose merging is most of the work. Their complements are dense and kept
    as bits, which are intersected many times faster; |A ∩ B| follows from the complement's intersection.
    """
    everybody = max((people.max() for people in members if people), default=-1) + 1
    sizes = [len(people) for people in members]
    turned = [_MIDDLING[0] * everybody <= count < _MIDDLING[1] * everybody for count in sizes]
    forms = [people.flip(0, everybody) if turn else people for people, turn in zip(members, turned, strict=True)]
    counts = [[0] * len(members) for _ in members]
    for row, left in enumerate(forms):
        counts[row][row] = sizes[row]
        for column in range(row + 1, len(forms)):
            both = left.intersection_cardinality(forms[column])
            if turned[row] and turned[column]:
                both += sizes[row] + sizes[column] - everybody
            elif turned[row]:
                both = sizes[column] - both
            elif turned[column]:
                both = sizes[row] - both
            counts[row][column] = counts[column][row] = both
    return tuple(map(tuple, counts))
