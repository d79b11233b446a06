"""What was accepted and is not stored away yet: hot events that no file of the lake holds, and files that wait to be read. Reads only.

None of it is lost and all of it counts; it is read from the database, which grows by it.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, Min

from audiences import clock
from audiences.models import Event, ImportFile, Job

LATE = timedelta(minutes=5)  # a flush comes every ten seconds and takes what is a minute old


@dataclass(frozen=True, slots=True)
class Backlog:
    """events: how many wait; `since`: when the first of them was accepted. files: how many imports wait for a worker.

    why: what the last attempt to store them broke off with, as a kind and a place; empty if it did not.
    """

    events: int
    since: datetime | None
    files: int
    why: str = ""

    def late(self, now: datetime) -> bool:
        """Whether they wait longer than they should."""
        return self.since is not None and now - self.since > LATE


def look() -> Backlog:
    """As it is now. Three queries."""
    hot = Event.objects.aggregate(events=Count("pk"), oldest=Min("received_us"))
    failed = Job.objects.filter(task="audiences.flush", attempts__gt=0).values_list("error", flat=True).first()
    return Backlog(
        hot["events"],
        None if hot["oldest"] is None else clock.from_us(hot["oldest"]),
        ImportFile.objects.filter(state=ImportFile.State.WAITING).count(),
        failed or "",
    )
