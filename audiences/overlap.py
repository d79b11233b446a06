"""Who is in two audiences at once: every pair of current memberships, counted. Reads stored bitmaps; draws nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from pyroaring import BitMap

from audiences import bitmaps
from audiences.models import Membership

_MIDDLING = (1 / 500, 1 / 16)  # 4,096 of a container's 65,536 is where Roaring itself changes to bits


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


class NotCounted(Exception):
    """An audience that was asked for has no members on record; the words name it."""


def matrix(keys: Sequence[str] | None = None) -> Matrix:
    """Of these audiences in this order, or of every one that has been counted and not archived, by key. Raises NotCounted."""
    memberships = Membership.objects.select_related("audience", "refresh").defer(
        "refresh__keyframe", "refresh__entered"
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
        counts=pairs([bitmaps.unpack(row.members) for row in rows]),
    )


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
