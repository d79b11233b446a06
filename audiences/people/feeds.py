"""How long each event may be silent before its feed counts as stopped. By arrival, not by the time an event bears: a daily file is no outage.

What a stopped feed means for a connection is decided on the floor above.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from audiences import clock
from audiences.clock import DAY, HOUR
from audiences.models import EventName

LEAST = HOUR
TIMES_USUAL = 2
LEARNING = 3 * DAY
FADES_OVER = 28  # a silence is forgotten after so many times its length, unless it comes again


@dataclass(frozen=True, slots=True)
class Feed:
    """One event as it arrives. `allowed_us` None: never counts as stopped, or (`learning`) it is too early to say."""

    name: str
    last_us: int
    usual_us: int
    allowed_us: int | None
    learning: bool
    by_hand: bool

    def stopped(self, now_us: int) -> bool:
        """Whether it has been silent for longer than it may."""
        return self.allowed_us is not None and now_us - self.last_us > self.allowed_us

    @property
    def last(self) -> datetime:
        return clock.from_us(self.last_us)

    @property
    def usual_seconds(self) -> int:
        return self.usual_us // clock.SECOND

    @property
    def allowed_seconds(self) -> int | None:
        return None if self.allowed_us is None else self.allowed_us // clock.SECOND


def of(event: EventName, now_us: int) -> Feed:
    """As the event's row says."""
    by_hand = event.allowed_silence_seconds is not None
    learning = not by_hand and (now_us - event.first_seen_us < LEARNING or not event.usual_silence_us)
    if by_hand:
        allowed = (event.allowed_silence_seconds or 0) * clock.SECOND or None
    else:
        allowed = None if learning else _usually(event)
    return Feed(event.name, event.last_seen_us, event.usual_silence_us, allowed, learning, by_hand)


def everything(now_us: int) -> list[Feed]:
    """Every event that was ever seen, by name."""
    return [of(event, now_us) for event in EventName.objects.order_by("name")]


def stopped(names: Collection[str], now_us: int) -> list[Feed]:
    """Those of these events whose feed has stopped, the longest silent first."""
    found = (of(event, now_us) for event in EventName.objects.filter(name__in=sorted(names)).order_by("last_seen_us"))
    return [feed for feed in found if feed.stopped(now_us)]


def learnt(event: EventName, silence_us: int) -> int:
    """What is usual after a silence of this length has ended. An outage is not learnt from."""
    if not of(event, event.last_seen_us + silence_us).stopped(event.last_seen_us + silence_us):
        return max(silence_us, event.usual_silence_us - silence_us // FADES_OVER)
    return event.usual_silence_us


def _usually(event: EventName) -> int:
    return max(LEAST, TIMES_USUAL * event.usual_silence_us)
