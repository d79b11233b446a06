"""Monitors of counting: whether an audience's count is fresh, and whether it could be made at all."""

from collections.abc import Iterator
from datetime import timedelta

from audiences import clock, queries
from audiences.models import Refresh
from qa.checks.facts import Facts, Finding, Reading
from qa.models import Incident

BAD, WATCH = Incident.Severity.CRITICAL.value, Incident.Severity.WARNING.value


def count(facts: Facts) -> Iterator[Reading]:
    """The last count failed, or the rule cannot be counted."""
    for audience in facts.audiences:
        subject, at = f"audience:{audience.pk}", f"refresh:{audience.last_id}"
        failed = audience.last_state == Refresh.State.FAILED
        if not failed and not audience.invalid_reason:
            told = at if audience.last_state == Refresh.State.DONE else ""
            yield Reading(subject, told, audience=audience)
            continue
        since = audience.last_at or facts.now
        membership = getattr(audience, "membership", None)
        older = " The size shown, and what is sent, is that of the count before." if membership else ""
        why = audience.invalid_reason or audience.last_error or "No reason was kept"
        finding = Finding(
            BAD,
            since,
            f"It could not be counted at {facts.when(since)}.{older}",
            "Change the rule and publish it, or put right what it names."
            if audience.invalid_reason
            else "Count it again; if it fails again, the reason below says where to look.",
            "count failed",
            {
                "Last count that was made": facts.when(clock.from_us(membership.refresh.as_of_us))
                if membership
                else "None yet"
            },
            (why[:300],),
        )
        yield Reading(subject, at, finding, audience)


def stale(facts: Facts) -> Iterator[Reading]:
    """Counted later than three of its cadences."""
    for audience in facts.audiences:
        subject, membership = f"audience:{audience.pk}", getattr(audience, "membership", None)
        if membership is None or audience.invalid_reason:
            yield Reading(subject, "", audience=audience)
            continue
        counted = clock.from_us(membership.refresh.as_of_us)
        patience = max(queries.LATE * timedelta(seconds=audience.cadence_seconds), queries.LATE_AT_LEAST)
        if facts.now - counted <= patience:
            yield Reading(subject, f"refresh:{membership.refresh_id}", audience=audience)
            continue
        every = queries.span(audience.cadence_seconds)
        age = facts.now - counted
        words = (
            f"{age.days} days"
            if age.days > 1
            else f"{age.total_seconds() / 3600:.0f} hours"
            if age > timedelta(hours=2)
            else f"{age.total_seconds() / 60:.0f} minutes"
        )
        finding = Finding(
            WATCH,
            counted + timedelta(seconds=audience.cadence_seconds),
            f"Not counted since {facts.when(counted)}, though it should be every {every}. Platforms are told by a count that is {words} old.",
            "Count it now. If that helps only once, see Background work in Settings: is a worker running?",
            "count is old",
            {"Last counted": facts.when(counted), "Due every": every, "Size then": f"{membership.count:,} people"},
            (
                *(["Its counts were taken off the schedule"] if audience.refresh_due_at is None else []),
                "No worker is running, or all are busy",
                "The last counts took longer than the time between two",
            ),
        )
        yield Reading(subject, f"refresh:{membership.refresh_id}", finding, audience)
