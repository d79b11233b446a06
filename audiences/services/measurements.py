"""What publishing a version would do, for pages: counted at once where that takes no longer than a moment, else in the background.

What was counted in the background holds for ten minutes, also for whoever decides on it. What a change does is audiences/impact.py's.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone
from pyroaring import BitMap

from audiences import bitmaps, clock, impact, jobs, vocabulary
from audiences.impact import Impact, Unmeasured
from audiences.models import Measurement, SegmentVersion
from audiences.people import lake
from audiences.people.engines.base import Pinned, Stop, Stopped

TASK = "audiences.measure"
MOMENT = 2.5  # seconds that a page waits
DECIDING = 20.0  # seconds that whoever has decided waits
FRESH = timedelta(minutes=10)
AGAIN = timedelta(minutes=1)  # after trouble
HOLD = timedelta(minutes=30)  # how long the files are kept that a count in the background needs
LATE = "it takes too long to be waited for"
BROKEN_OFF = "The count broke off; the log has the details. Look again in a minute, and it is tried anew."


@dataclass(frozen=True, slots=True)
class Measured:
    """`impact`, or since when it is `counting` in the background, or what the `trouble` is."""

    impact: Impact | None = None
    counting: datetime | None = None
    trouble: str = ""


def look(version: SegmentVersion) -> Measured:
    """For a page. Counts for a moment; what is left is asked of a job, once."""
    kept = _kept(version)
    if kept is not None:
        return kept
    try:
        return Measured(_count(version, MOMENT, lambda pin: _hand_over(version, pin)))
    except Unmeasured as unmeasured:
        return Measured(trouble=str(unmeasured))
    except Stopped:
        return Measured(counting=timezone.now())


def deciding(version: SegmentVersion) -> Impact | None:
    """For whoever has decided: what the background has counted lately, else counted now. None: it cannot be counted, or takes too long."""
    kept = _kept(version)
    if kept is not None and kept.impact is not None:
        return kept.impact
    try:
        return _count(version, DECIDING, lake.let_go)
    except (Unmeasured, Stopped):
        return None


def waiting(version_id: int) -> Measurement | None:
    """What a job is to count: None where the rule is another by now, or the version is not open, or it has been counted."""
    row = Measurement.objects.select_related("version__audience").filter(version=version_id, as_of_us=None).first()
    states = (SegmentVersion.State.DRAFT, SegmentVersion.State.IN_REVIEW)
    if row is None or row.trouble or row.version.state not in states or row.sha256 != row.version.sha256:
        return None
    return row


def pin_of(row: Measurement) -> Pinned:
    """The data that the count began on, held for as long again; that of now, where it has been let go."""
    try:
        if row.pin_id is not None:
            return lake.repin(row.pin_id, hold=HOLD)
    except lake.SnapshotGone:
        pass
    return lake.pin(clock.now_us(), hold=HOLD)


def settle(row: Measurement, pin: Pinned, *, members: BitMap | None = None, trouble: str = "") -> None:
    """It has been counted, or there is trouble. Whatever was asked meanwhile of another rule stays as it is."""
    mine = Measurement.objects.filter(pk=row.pk, sha256=row.sha256, asked_at=row.asked_at)
    found = {"as_of_us": pin.as_of_us, "members": bitmaps.pack(members)} if members is not None else {}
    mine.update(trouble=trouble, pin=None, **found)
    lake.let_go(pin)


def _kept(version: SegmentVersion) -> Measured | None:
    """What is known of it from the background; None: nothing that still holds."""
    row = Measurement.objects.filter(version=version, sha256=version.sha256).first()
    if row is None:
        return None
    now = timezone.now()
    if row.members is not None and row.as_of_us is not None:
        if clock.from_us(row.as_of_us) < now - FRESH:
            return None
        found = impact.of_members(version.audience, row.sha256, bitmaps.unpack(row.members), row.as_of_us)
        return Measured(found)
    if row.trouble:
        return Measured(trouble=row.trouble) if row.asked_at > now - AGAIN else None
    return Measured(counting=row.asked_at) if row.asked_at > now - HOLD else None


def _count(version: SegmentVersion, seconds: float, late: Callable[[Pinned], object]) -> Impact:
    """Raises Unmeasured, and Stopped where it took longer; then `late` has the pin."""
    pin, stop = lake.pin(clock.now_us(), hold=HOLD), Stop()
    try:
        with stop.after(seconds, LATE):
            found = impact.measure(version.audience, vocabulary.rule(version.segment), pin=pin, stop=stop)
    except Stopped:
        late(pin)
        raise
    except BaseException:
        lake.let_go(pin)
        raise
    lake.let_go(pin)
    return found


def _hand_over(version: SegmentVersion, pin: Pinned) -> None:
    values = {
        "sha256": version.sha256,
        "pin_id": pin.pin_id,
        "asked_at": timezone.now(),
        "as_of_us": None,
        "members": None,
        "trouble": "",
    }
    Measurement.objects.update_or_create(version=version, defaults=values)
    jobs.ask(TASK, version.pk)
