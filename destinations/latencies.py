"""How long people who must leave take to leave: from what made them leave to each platform's answer, and who is past their time. Reads only.

About those whom something that happened takes out; of those whom only a comparison of two counts finds gone, nobody knows when they left.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
from django.db.models import Count, Min, Q
from django.utils import timezone

from destinations import plan
from destinations.models import Removal

# What a removal may take: a buyer should not go on seeing the ad, a person who asked to be deleted has the law on their side.
DEADLINES = {plan.PURCHASE: timedelta(minutes=5)}
DEADLINE = timedelta(hours=24)
DAY, WEEK = timedelta(days=1), timedelta(days=7)
LOOKED_AT = 20_000  # removals, the newest
STAGES = ("sent", "received", "confirmed")

_Moments = Sequence[datetime | None]


@dataclass(frozen=True, slots=True)
class Took:
    """Seconds within which half and 95 of a hundred people got so far. `people` 0: nobody did, and neither is known."""

    people: int
    half: float | None = None
    most: float | None = None


@dataclass(frozen=True, slots=True)
class Stage:
    """One of: sent, received, confirmed."""

    name: str
    day: Took
    week: Took


@dataclass(frozen=True, slots=True)
class Waiting:
    """Who has left and is not known to be out there. `late`: past their time, `since` when the first of these left."""

    people: int
    oldest: datetime
    late: int
    since: datetime | None


@dataclass(frozen=True, slots=True)
class Latency:
    """Of one connection. `waiting` None: everybody is out."""

    stages: tuple[Stage, ...]
    waiting: Waiting | None

    @property
    def received(self) -> Stage:
        return self.stages[1]

    @property
    def known(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.stages[0].week.people or self.waiting)


def overdue(now: datetime) -> Q:
    """Removals that nobody has received in time."""
    late = Q(left_at__lt=now - DEADLINE)
    for cause, deadline in DEADLINES.items():
        late |= Q(cause=cause, left_at__lt=now - deadline)
    return Q(accepted_at=None) & late


def of(mapping_ids: Collection[int]) -> dict[int, Latency]:
    """By connection, in two queries."""
    now = timezone.now()
    caused = Removal.objects.filter(mapping__in=mapping_ids, cause__in=plan.EVENT_CAUSED)
    rows = (
        caused.filter(accepted_at=None)
        .values("mapping")
        .order_by()
        .annotate(
            people=Count("pk"),
            oldest=Min("left_at"),
            late=Count("pk", filter=overdue(now)),
            since=Min("left_at", filter=overdue(now)),
        )
    )
    waiting = {row["mapping"]: Waiting(row["people"], row["oldest"], row["late"], row["since"]) for row in rows}
    recent = caused.filter(accepted_at__gte=now - WEEK).order_by("-accepted_at")[:LOOKED_AT]
    moments: dict[int, list[_Moments]] = defaultdict(list)
    for pk, *life in recent.values_list("mapping", "left_at", "sent_at", "accepted_at", "confirmed_at"):
        moments[pk].append(life)
    return {pk: Latency(_stages(moments[pk], now), waiting.get(pk)) for pk in mapping_ids}


@dataclass(frozen=True, slots=True)
class Life:
    """One removal: why, when they left, and how many seconds later it was sent, received and confirmed. None: not yet, or nobody says."""

    why: str
    left_at: datetime
    sent: float | None
    received: float | None
    confirmed: float | None
    late: bool


def newest(mapping_id: int, limit: int) -> list[Life]:
    """The last removals that something which happened has caused, the newest first. Who it was is not in it."""
    now = timezone.now()
    caused = Removal.objects.filter(mapping=mapping_id, cause__in=plan.EVENT_CAUSED).order_by("-left_at", "-pk")
    return [
        Life(
            why=plan.WORDS[row.cause],
            left_at=row.left_at,
            sent=_after(row.left_at, row.sent_at),
            received=_after(row.left_at, row.accepted_at),
            confirmed=_after(row.left_at, row.confirmed_at),
            late=(row.accepted_at or now) - row.left_at > DEADLINES.get(row.cause, DEADLINE),
        )
        for row in caused[:limit]
    ]


def _after(left_at: datetime, moment: datetime | None) -> float | None:
    return (moment - left_at).total_seconds() if moment else None


def _stages(lives: Iterable[_Moments], now: datetime) -> tuple[Stage, ...]:
    """Each life is left, sent, received, confirmed."""
    of_day: dict[str, list[float]] = defaultdict(list)
    of_week: dict[str, list[float]] = defaultdict(list)
    for left_at, *reached in lives:
        assert left_at is not None
        for name, moment in zip(STAGES, reached, strict=True):
            if moment is not None:
                of_week[name].append((moment - left_at).total_seconds())
                if now - moment <= DAY:
                    of_day[name].append(of_week[name][-1])
    return tuple(Stage(name, _took(of_day[name]), _took(of_week[name])) for name in STAGES)


def _took(seconds: list[float]) -> Took:
    if not seconds:
        return Took(0)
    half, most = np.percentile(seconds, [50, 95])
    return Took(len(seconds), float(half), float(most))
