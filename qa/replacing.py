"""A replacement as pages show it: both audiences, their connections, and what hinders the old one from retiring. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass

from django.utils import timezone

from audiences.models import Audience, Replacement
from destinations import replacements
from destinations.replacements import Hindrance, Pair


@dataclass(frozen=True, slots=True)
class Shown:
    """`hindrances`: what is in the way now; where its connections have ended already, what was found lately."""

    row: Replacement
    pairs: tuple[Pair, ...]
    hindrances: tuple[Hindrance, ...]

    @property
    def due(self) -> bool:
        """Whether its date has come."""
        return self.row.retires_at is not None and self.row.retires_at <= timezone.now()

    @property
    def open(self) -> bool:
        """Whether the date may still be moved, or both be kept."""
        return self.row.begun_at is None and self.row.old.archived_at is None

    @property
    def kept(self) -> bool:
        return self.row.retires_at is None

    @property
    def connecting(self) -> bool:
        return self.row.connected_at is None and self.row.new.archived_at is None


def shown(audience: Audience, rows: Sequence[Replacement]) -> Shown | None:
    """Of these, the one that matters most to this audience: what replaces it, else what it replaces. None: there is none."""
    row = next((row for row in rows if row.old_id == audience.pk and row.retires_at is not None), None)
    row = row or next((row for row in rows if row.new_id == audience.pk), None) or next(iter(rows), None)
    return of(row) if row is not None else None


def of(row: Replacement) -> Shown:
    """About twenty queries."""
    return Shown(row, tuple(replacements.pairs(row)), hindrances(row))


def hindrances(row: Replacement) -> tuple[Hindrance, ...]:
    """What is in the way of the old one's end; once that has begun, what was found lately."""
    if row.retires_at is None or row.old.archived_at is not None:
        return ()
    if row.begun_at is None:
        return tuple(replacements.hindrances(row))
    return tuple(Hindrance(words, "", "") for words in row.hindered)
