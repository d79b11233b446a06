"""Who is in two audiences at once: every pair of current memberships, counted. Reads stored bitmaps; draws nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from pyroaring import BitMap

from audiences import bitmaps
from audiences.models import Membership


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
    """How many are in both, for every pair; symmetric."""
    size = len(members)
    counts = [[0] * size for _ in range(size)]
    for row, left in enumerate(members):
        counts[row][row] = len(left)
        for column in range(row + 1, size):
            counts[row][column] = counts[column][row] = left.intersection_cardinality(members[column])
    return tuple(map(tuple, counts))
