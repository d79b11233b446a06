"""What was: an audience's members at a past count, when one person entered and left, and the curve of its size.

Counts are ordered by (as_of_us, id). Each holds who entered and left since the one before; keyframes hold everybody.
Reads only: services/refreshes.py writes.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from django.db.models import Q, QuerySet
from pyroaring import BitMap

from audiences import bitmaps, clock
from audiences.models import Alias, Audience, Refresh, SegmentVersion


@dataclass(frozen=True, slots=True)
class Stay:
    """One stretch of membership, by the counts that saw it. `left_us` None: still in.

    since_before: they were in at the first count on record, so when they entered is not known.
    by_new_version: the count was the first of a version, so that the rule may have moved them and not what they did.
    backfilled: computed afterwards from past events and today's attributes.
    """

    entered_us: int
    entered_version: int
    since_before: bool
    entered_by_new_version: bool
    entered_backfilled: bool
    left_us: int | None = None
    left_version: int | None = None
    left_by_new_version: bool = False


@dataclass(frozen=True, slots=True)
class Point:
    at_us: int
    count: int
    backfilled: bool


@dataclass(frozen=True, slots=True)
class Mark:
    """A version went live."""

    at_us: int
    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class Curve:
    points: tuple[Point, ...]
    marks: tuple[Mark, ...]


def members_at(refresh: Refresh) -> BitMap:
    """Everybody whom this finished count holds. Raises LookupError if its history has no keyframe."""
    if refresh.keyframe is not None:
        return bitmaps.unpack(refresh.keyframe)
    done = _done(refresh.audience_id).filter(_up_to(refresh))
    start = done.filter(keyframe__isnull=False).order_by("-as_of_us", "-id").first()
    if start is None:
        raise LookupError(f"count {refresh.pk} has no keyframe before it")
    later = Q(as_of_us__gt=start.as_of_us) | Q(as_of_us=start.as_of_us, id__gt=start.pk)
    changes = done.filter(later).order_by("as_of_us", "id").values_list("entered", "left")
    return bitmaps.replay(
        bitmaps.unpack(start.keyframe),
        ((bitmaps.unpack(entered), bitmaps.unpack(left)) for entered, left in changes.iterator(chunk_size=50)),
    )


def refresh_at(audience: Audience, as_of_us: int) -> Refresh | None:
    """The last finished count at or before this moment."""
    return _done(audience.pk).filter(as_of_us__lte=as_of_us).order_by("-as_of_us", "-id").first()


def stays(audience: Audience, profile_no: int) -> list[Stay]:
    """When this person was in, oldest first. Counts made before a merge knew them under their old numbers; those count too."""
    numbers = BitMap([profile_no, *Alias.objects.filter(survivor_no=profile_no).values_list("old_no", flat=True)])
    found: list[Stay] = []
    present = BitMap()
    version: int | None = None
    first = True
    for row in _changes(audience):
        was_in = bool(present)
        if row.keyframe is not None:
            present = bitmaps.unpack(row.keyframe) & numbers
        else:
            present |= bitmaps.unpack(row.entered) & numbers
            present -= bitmaps.unpack(row.left)
        new_version = version is not None and row.version.number != version
        if present and not was_in:
            backfilled = row.cause == Refresh.Cause.BACKFILL
            found.append(Stay(row.as_of_us, row.version.number, first, new_version, backfilled))
        elif was_in and not present:
            last = found[-1]
            found[-1] = Stay(
                last.entered_us,
                last.entered_version,
                last.since_before,
                last.entered_by_new_version,
                last.entered_backfilled,
                row.as_of_us,
                row.version.number,
                new_version,
            )
        version, first = row.version.number, False
    return found


def curve(audience: Audience, days: int = 90, *, now_us: int | None = None) -> Curve:
    """The last count of each UTC day, oldest first, and when which version went live."""
    since = (clock.now_us() if now_us is None else now_us) - days * clock.DAY
    rows = (
        _done(audience.pk)
        .filter(as_of_us__gte=since)
        .order_by("as_of_us", "id")
        .values_list("as_of_us", "count", "cause")
    )
    last_of_day = {
        at // clock.DAY: Point(at, count, cause == Refresh.Cause.BACKFILL)
        for at, count, cause in rows
        if count is not None
    }
    published = (
        SegmentVersion.objects.filter(audience=audience, published_at__gte=clock.from_us(since))
        .order_by("published_at")
        .values_list("published_at", "number", "reason")
    )
    return Curve(
        points=tuple(last_of_day.values()),
        marks=tuple(Mark(clock.to_us(at), number, reason) for at, number, reason in published if at),
    )


def _done(audience_id: int) -> QuerySet[Refresh]:
    return Refresh.objects.filter(audience_id=audience_id, state=Refresh.State.DONE)


def _up_to(refresh: Refresh) -> Q:
    return Q(as_of_us__lt=refresh.as_of_us) | Q(as_of_us=refresh.as_of_us, id__lte=refresh.pk)


def _changes(audience: Audience) -> Iterator[Refresh]:
    rows = _done(audience.pk).select_related("version").order_by("as_of_us", "id")
    return rows.only("as_of_us", "cause", "keyframe", "entered", "left", "version__number", "audience_id").iterator(
        chunk_size=50
    )
