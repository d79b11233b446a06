"""Whom a change of an audience's rule reaches besides its people: where it is sent, who builds on it, which tests it would disturb.
How many people it moves is audiences/impact.py's. Reads only, a fixed number of queries."""

from dataclasses import dataclass

from audiences import queries
from audiences.models import Audience, TestLock
from audiences.services import locks
from destinations.models import Mapping


@dataclass(frozen=True, slots=True)
class Test:
    """A test that goes on. `blocks`: the change waits for its end; else whoever reads it should know. `because`: how it is touched."""

    audience: Audience
    lock: TestLock
    blocks: bool
    because: str


@dataclass(frozen=True, slots=True)
class Reach:
    connections: tuple[Mapping, ...]  # of this audience
    others: tuple[Mapping, ...]  # of those whose people change with it
    referring: tuple[Audience, ...]  # their rules name it
    excluding: tuple[Audience, ...]  # they send nobody who is in it
    suppressed_by: tuple[Audience, ...]  # it sends nobody who is in these
    tests: tuple[Test, ...]

    @property
    def destinations(self) -> int:
        """How many accounts it reaches."""
        return len({row.destination_id for row in (*self.connections, *self.others)})


def of(audience: Audience) -> Reach:
    referring = queries.referring(audience.key)
    excluding = list(audience.excludes.filter(archived_at=None).order_by("key"))
    suppressed_by = list(audience.excluded_by.filter(archived_at=None).order_by("key"))
    because: dict[int, tuple[Audience, str]] = {audience.pk: (audience, "its own rule changes")}
    for words, rows in (
        ("its rule names this audience", referring),
        ("it sends nobody who is in this audience", excluding),
        ("its people are taken out of this audience", suppressed_by),
    ):
        for row in rows:
            because.setdefault(row.pk, (row, words))
    moved = [row.pk for row in (*referring, *excluding)]
    going = Mapping.objects.filter(audience__in=[audience.pk, *moved]).exclude(state=Mapping.State.RETIRED)
    going_to = list(going.select_related("audience", "destination").order_by("destination__name", "audience__key"))
    held = locks.locked_among(because)
    return Reach(
        connections=tuple(one for one in going_to if one.audience_id == audience.pk),
        others=tuple(one for one in going_to if one.audience_id != audience.pk),
        referring=tuple(referring),
        excluding=tuple(excluding),
        suppressed_by=tuple(suppressed_by),
        tests=tuple(
            Test(row, held[pk], pk == audience.pk, words) for pk, (row, words) in because.items() if pk in held
        ),
    )
