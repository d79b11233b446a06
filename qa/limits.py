"""How far an audience's numbers may move before somebody is mailed: the usual, the limits, what a limit would have done. Pure, but for `of`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from statistics import median

from audiences import charts, queries
from audiences.models import Audience
from qa.models import Limits

SIZE_SHARE = queries.SWING  # lists draw their band and say their health by the same
SIZE_FROM = queries.SWING_FROM  # people; below so many a share is chance
ADDS_SHARE = 0.5
ADDS_FROM = 50  # people received in a usual day
LEAST, MOST = 0.05, 5.0
GROWN_BADLY = 1.0  # twice the usual is as bad as a drop

Days = Sequence[tuple[date, int]]
Stretch = tuple[date, date]


@dataclass(frozen=True, slots=True)
class Allowed:
    """What holds for one audience. `muted_until` in the future: nothing is mailed about its numbers."""

    size_share: float = SIZE_SHARE
    adds_share: float = ADDS_SHARE
    usual_from: datetime | None = None
    muted_until: datetime | None = None
    mute_reason: str = ""

    def muted(self, now: datetime) -> bool:
        return self.muted_until is not None and self.muted_until > now


def of(audience: Audience) -> Allowed:
    """As somebody has set it, else the usual."""
    return allowed(Limits.objects.filter(audience=audience).first())


def allowed(row: Limits | None) -> Allowed:
    if row is None:
        return Allowed()
    return Allowed(
        SIZE_SHARE if row.size_share is None else row.size_share,
        ADDS_SHARE if row.adds_share is None else row.adds_share,
        row.usual_from,
        row.muted_until,
        row.mute_reason,
    )


def usual(days: Days, *, before: date, apart: Iterable[Stretch] = (), since: date | None = None) -> float | None:
    """The median of the last seven daily counts before this day, without those in `apart`, such as earlier incidents, which would hide
    the next one, and without those before `since`. None where fewer than three are left: what is usual is not known yet."""
    apart = list(apart)
    held = [
        count
        for day, count in days
        if day < before and (since is None or day >= since) and not any(first <= day <= last for first, last in apart)
    ][-charts.USUAL_DAYS :]
    return median(held) if len(held) >= charts.USUAL_FEWEST else None


def moved(now: float, usual: float | None, share: float, least: float) -> float | None:
    """By which share it is off the usual, if that is more than it may; None: it is within, or there are too few to tell."""
    if usual is None or usual < least:
        return None
    off = (now - usual) / usual
    return off if abs(off) >= share else None


def firings(days: Days, share: float, *, least: float = SIZE_FROM) -> list[Stretch]:
    """The stretches in which this limit would have had something to say, by the same rule as the watch's: days that are off are no part of
    the usual, and one stretch is one alert."""
    found: list[Stretch] = []
    usable: list[int] = []
    open_since: date | None = None
    last = None
    for day, count in days:
        held = usable[-charts.USUAL_DAYS :]
        normal = median(held) if len(held) >= charts.USUAL_FEWEST else None
        if moved(count, normal, share, least) is None:
            if open_since is not None and last is not None:
                found.append((open_since, last))
            open_since = None
            usable.append(count)
        else:
            open_since = open_since or day
        last = day
    if open_since is not None and last is not None:
        found.append((open_since, last))
    return found
