"""Circuit breakers: which direction a connection must not send in just now, and why. They set holds and lift them again; calls.py obeys.

They stop only what comparing two counts would say: what people did themselves goes on. A run that would remove too many waits
for a named approval besides (delivery.py); a hold stands until its cause is over or a person takes it on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from audiences import clock
from audiences.models import Audience
from audiences.people import feeds
from audiences.people.feeds import Feed
from audiences.segments import exits
from destinations.ledger import View
from destinations.models import Hold, Mapping
from destinations.services import holds
from destinations.wanted import Wanted

SILENT_IN = "silent-entry"  # the events that bring people in have stopped
SILENT_OUT = "silent-exit"  # the events that take people out have stopped: who has bought is not known
ZERO = "zero"
NOT_COUNTED = "not-counted"
RULES = (SILENT_IN, SILENT_OUT, ZERO, NOT_COUNTED)
ZERO_FROM = 20  # people there; fewer may all leave on one day


@dataclass(frozen=True, slots=True)
class Trip:
    """A rule that is tripped. `people`: how many removals wait because of it, where that is known."""

    rule: str
    direction: str
    reason: str
    on_release: str
    people: int | None = None


def look(mapping: Mapping, counted: Wanted, view: View, now: datetime) -> None:
    """Before anything is said of a fresh count: hold what must wait, and let go of what need not wait any more.

    `view`: the ledger before the count became what is wanted.
    """
    _keep(mapping, [*_silent(mapping, counted, now), *_zero(counted, view)])


def not_counted(mapping: Mapping, words: str) -> None:
    """It could not be counted, so that nothing is known of who should be there now."""
    reason = f"It could not be counted: {words}"
    released = (
        "The next count that succeeds lifts this by itself. Lifting it by hand sends nothing that was not counted."
    )
    _keep(mapping, [Trip(NOT_COUNTED, Hold.Direction.BOTH, reason, released)], only=(NOT_COUNTED,))


def taken_on(mapping: Mapping) -> int:
    """How many removals a person has taken on by lifting a hold that named their number."""
    lifted = Hold.objects.filter(mapping=mapping, excused=True, people__isnull=False)
    return max((people or 0 for people in lifted.values_list("people", flat=True)), default=0)


def _silent(mapping: Mapping, counted: Wanted, now: datetime) -> Iterable[Trip]:
    bring_in, take_out = frozenset[str](), frozenset[str]()
    for key, rule in counted.rules.items():
        if key == mapping.audience.key:
            bring_in, take_out = exits.brought_in_by(rule), take_out | exits.by_deed(rule)
        else:  # whom these take in is left out here
            take_out |= exits.brought_in_by(rule)
    now_us = clock.to_us(now)
    if stopped := feeds.stopped(bring_in, now_us):
        reason = f"{_words(stopped, now_us)} People would be removed only because nothing new is known of them."
        released = "It lifts itself as soon as one comes in. Lifted by hand, everybody who is no longer counted is removed with the next sync."
        yield Trip(SILENT_IN, Hold.Direction.REMOVES, reason, released)
    if mapping.audience.purpose == Audience.Purpose.SUPPRESSION:
        return
    if stopped := feeds.stopped(take_out - bring_in, now_us):
        reason = f"{_words(stopped, now_us)} Whoever would be added may have done it already."
        released = "It lifts itself as soon as one comes in. Lifted by hand, everybody who is counted is added with the next sync."
        yield Trip(SILENT_OUT, Hold.Direction.ADDS, reason, released)


def _zero(counted: Wanted, view: View) -> Iterable[Trip]:
    there = len(view.state.present | view.state.doubtful)
    if counted.base or there < ZERO_FROM:
        return
    reason = f"The count came to nobody, and {there:,} people are there. That is more often a fault of a source than the truth."
    released = f"It lifts itself as soon as anybody is counted. Lifted by hand, up to {there:,} people are removed with the next sync."
    yield Trip(ZERO, Hold.Direction.REMOVES, reason, released, there)


def _keep(mapping: Mapping, trips: Sequence[Trip], only: Sequence[str] = RULES) -> None:
    """Hold for each trip, unless a person has taken it on; the other rules' holds are over."""
    tripped = {trip.rule for trip in trips}
    holds.over(mapping, [rule for rule in only if rule not in tripped])
    for trip in trips:
        if not Hold.objects.filter(mapping=mapping, rule=trip.rule, excused=True).exists():
            holds.set_hold(
                actor=None,
                mapping=mapping,
                direction=trip.direction,
                reason=trip.reason,
                rule=trip.rule,
                on_release=trip.on_release,
                people=trip.people,
            )


def _words(stopped: Sequence[Feed], now_us: int) -> str:
    first = stopped[0]
    more = f" (and {len(stopped) - 1} more)" if len(stopped) > 1 else ""
    assert first.allowed_us is not None
    return f"No “{first.name[:60]}”{more} has come in for {_span(now_us - first.last_us)}; {_span(first.allowed_us)} is the most that counts as usual."


def _span(us: int) -> str:
    for unit, word in ((clock.DAY, "day"), (clock.HOUR, "hour"), (clock.MINUTE, "minute")):
        if us >= unit:
            many = us // unit
            return f"{many} {word}{'' if many == 1 else 's'}"
    return "a moment"
