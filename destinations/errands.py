"""Rows that say for which connections something urgent has to be said, and when. Saying it is urgent.py's, deciding it fastlane.py's."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Case, F, Min, Value, When

from audiences import jobs
from destinations.models import Errand, Mapping

TASK = "destinations.urgent_delivery"
_SOONEST, _LONGEST = timedelta(seconds=1), timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Due:
    """An errand as it was found; what was asked for since then is another."""

    mapping_id: int
    asked: int
    failures: int


def send(mapping_ids: Collection[int], *, now: datetime) -> None:
    """Have it said at once, in the caller's transaction; asking again changes nothing. What failed waits for the end of its pause."""
    if not mapping_ids:
        return
    rows = Errand.objects.filter(mapping__in=mapping_ids)
    sooner = Case(When(failures__gt=0, due_at__isnull=False, then=F("due_at")), default=Value(now))
    if rows.update(due_at=sooner, asked=F("asked") + 1) < len(set(mapping_ids)):
        Errand.objects.bulk_create((Errand(mapping_id=pk) for pk in mapping_ids), ignore_conflicts=True)
        rows.update(due_at=sooner, asked=F("asked") + 1)
    for destination in sorted(set(Mapping.objects.filter(pk__in=mapping_ids).values_list("destination", flat=True))):
        jobs.ask(TASK, destination, queue="urgent")


def due(destination_id: int, now: datetime) -> list[Due]:
    """What is to be said at a destination now, the longest waiting first."""
    rows = Errand.objects.filter(mapping__destination=destination_id, due_at__lte=now).order_by("due_at", "pk")
    return [Due(*row) for row in rows.values_list("mapping_id", "asked", "failures")]


def done(errand: Due, *, again: datetime | None = None) -> None:
    """It was said, but for what is to be said at `again`. If it was sent once more meanwhile, it stays due."""
    mine = Errand.objects.filter(mapping=errand.mapping_id, asked=errand.asked)
    mine.update(due_at=again, failures=0)


def failed(errand: Due, *, now: datetime, after: timedelta | None = None) -> None:
    """It could not be said: again after this long, or after a pause that doubles each time."""
    pause = min(_SOONEST * 2 ** min(errand.failures, 10), _LONGEST) if after is None else after
    Errand.objects.filter(mapping=errand.mapping_id).update(due_at=now + pause, failures=F("failures") + 1)


def next_at(destination_id: int) -> datetime | None:
    """When something is next to be said at a destination."""
    rows = Errand.objects.filter(mapping__destination=destination_id, due_at__isnull=False)
    return rows.aggregate(soonest=Min("due_at"))["soonest"]
