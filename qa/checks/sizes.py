"""Monitors of numbers: the size of an audience, and what platforms received of it, down or up against the usual."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from statistics import median
from typing import Any

from audiences import clock
from audiences.models import ImportFile, Refresh, SegmentVersion
from destinations.models import Run
from qa import limits
from qa.checks.facts import Facts, Finding, Reading, days_of
from qa.models import Incident

BAD, WATCH = Incident.Severity.CRITICAL.value, Incident.Severity.WARNING.value
SHORTLY = timedelta(hours=30)  # a version this long before a change of size is its likely cause
FEWEST_WINDOWS = 3
RECENT = timedelta(days=8)  # days before are filled in by tens, the oldest first


@dataclass(frozen=True, slots=True)
class Move:
    """How far a count is off the usual; `off` −0.41: two fifths smaller."""

    count: int
    usual: float
    off: float
    share: float

    def sentence(self, since: str, after: str = "") -> str:
        verb = "Dropped" if self.off < 0 else "Grew"
        return (
            f"{verb} {abs(self.off):.0%} since {since}{after}: {self.count:,} people, where {self.usual:,.0f} is usual."
        )

    @property
    def signed(self) -> str:
        return f"{'−' if self.off < 0 else '+'}{abs(self.off):.0%}"


def size(facts: Facts) -> Iterator[Reading]:
    """The count now against the median of the last seven daily counts, days inside earlier incidents left out."""
    for audience in facts.audiences:
        membership, usual = getattr(audience, "membership", None), _usual(facts, audience)
        subject = f"audience:{audience.pk}"
        if membership is None or usual is None:
            yield Reading(subject, "", audience=audience)
            continue
        at, move = f"refresh:{membership.refresh_id}", _move(facts, audience, membership.count, usual)
        since = clock.from_us(membership.refresh.as_of_us)
        yield Reading(subject, at, _finding(facts, move, since) if move else None, audience)


def _usual(facts: Facts, audience: Any, at: datetime | None = None) -> float | None:
    """On the day of its last count, or of another moment. None too where the last days are missing, as while the past of a new audience is
    being filled in, from its beginning on: what was usual long ago says nothing about now."""
    membership, allowed = getattr(audience, "membership", None), facts.limits_of(audience.pk)
    if membership is None:
        return None
    before, days = (at or clock.from_us(membership.refresh.as_of_us)).date(), days_of(audience)
    newest = max((day for day, _ in days if day < before), default=None)
    if newest is None or before - newest > max(RECENT, 2 * timedelta(seconds=audience.cadence_seconds)):
        return None
    return limits.usual(
        days,
        before=before,
        apart=facts.apart.get(audience.pk, ()),
        since=allowed.usual_from.date() if allowed.usual_from else None,
    )


def _move(facts: Facts, audience: Any, count: int, usual: float) -> Move | None:
    share = facts.limits_of(audience.pk).size_share
    off = limits.moved(count, usual, share, limits.SIZE_FROM)
    return None if off is None else Move(count, usual, off, share)


def _finding(facts: Facts, move: Move, since: datetime) -> Finding:
    low, high = max(0.0, move.usual * (1 - move.share)), move.usual * (1 + move.share)
    return Finding(
        BAD if move.off < 0 or move.off >= limits.GROWN_BADLY else WATCH,
        since,
        move.sentence(facts.when(since)),
        "If the change is meant, take it as the new usual. If not, go back to the version before, or mend what feeds the rule.",
        f"size {move.signed}",
        {
            "Now": f"{move.count:,} people",
            "Usual": f"{move.usual:,.0f} people, the median of the last seven days",
            "Change": f"{move.signed}; alerts begin below {low:,.0f} and above {high:,.0f}",
        },
    )


def began(facts: Facts, reading: Reading) -> Finding:
    """Called once, when it opens: since which count, after which version or import."""
    finding, audience = reading.finding, reading.audience
    assert finding is not None and audience is not None
    usual = _usual(facts, audience)
    move = _move(facts, audience, audience.membership.count, usual) if usual is not None else None
    first, before = _first_off(facts, audience, usual)
    if first is None or move is None:
        return replace(finding, causes=_otherwise([]))
    since = clock.from_us(first.as_of_us)
    # Noticed late: what happened is told, not what is left of it, and against what was usual before it.
    before_it = _usual(facts, audience, since)
    then = _move(facts, audience, first.count or 0, before_it) if before_it is not None else None
    if then is not None and abs(then.off) > abs(move.off):
        move = then
    finding = _finding(facts, move, since)
    causes, known, after = [], dict(finding.facts), ""
    version = _version_before(audience, since)
    if version is not None and (before is None or first.version_id != before.version_id):
        who = f" by {version.published_by}" if version.published_by else ""
        after = f", after v{version.number}{who}"
        why = f": “{version.reason[:200]}”" if version.reason else ""
        causes.append(f"Version {version.number} was published{who} {_apart_words(version.published_at, since)}{why}")
    live = audience.live_version
    if live is not None and live.published_at is not None:
        who = f" by {live.published_by}" if live.published_by else ""
        known["Rule last changed"] = f"v{live.number}, {facts.when(live.published_at)}{who}"
    run = Run.objects.filter(mapping__audience=audience, rehearsal=False).order_by("-pk").first()
    if run is not None:
        known["Last sync"] = f"{run.get_state_display()}, {facts.when(run.finished_at or run.created_at)}"
    file = _import_before(since)
    if file is not None and file.finished_at is not None:
        refused = f", {file.rows_refused:,} rows refused" if file.rows_refused else ""
        causes.append(f"An import of {file.kind} ended {_apart_words(file.finished_at, since)}{refused}")
    sentence = move.sentence(facts.when(since), after)
    return replace(finding, since=since, sentence=sentence, facts=known, causes=_otherwise(causes))


def _version_before(audience: Any, moment: datetime) -> SegmentVersion | None:
    rows = SegmentVersion.objects.filter(
        audience=audience, published_at__lte=moment + timedelta(hours=1), published_at__gt=moment - SHORTLY
    )
    return rows.select_related("published_by").defer("segment").order_by("-published_at").first()


def _import_before(moment: datetime) -> ImportFile | None:
    rows = ImportFile.objects.filter(
        finished_at__lte=moment + timedelta(minutes=5), finished_at__gt=moment - timedelta(hours=2)
    )
    return rows.order_by("-finished_at").first()


def _otherwise(causes: list[str]) -> tuple[str, ...]:
    """What remains to be looked at, when what is known does not explain it."""
    return (
        *causes,
        "Events that the rule needs arrive late, or stopped: see Imports, and whoever calls the Track API",
        "Attributes that the rule tests were changed at their source",
    )


def _first_off(facts: Facts, audience: Any, usual: float | None) -> tuple[Refresh | None, Refresh | None]:
    """The first count of the stretch that is off, and the one before it."""
    first: Refresh | None = None
    rows = Refresh.objects.filter(
        audience=audience, state=Refresh.State.DONE, as_of_us__gte=clock.to_us(facts.now - timedelta(days=8))
    ).order_by("-as_of_us", "-id")
    for row in rows.only("as_of_us", "count", "version_id", "audience_id").iterator(chunk_size=200):
        if row.count is None or usual is None or _move(facts, audience, row.count, usual) is None:
            return first, row
        first = row
    return first, None


def _apart_words(before: datetime | None, after: datetime) -> str:
    if before is None:
        return "at a time not on record"
    minutes = round((after - before).total_seconds() / 60)
    if abs(minutes) < 2:
        return "at that moment"
    words = f"{abs(minutes)} min" if abs(minutes) < 90 else f"{abs(minutes) / 60:.0f} h"
    return f"{words} before" if minutes > 0 else f"{words} after"


def adds(facts: Facts) -> Iterator[Reading]:
    """People whom a platform received in the last 24 hours against the median of the seven days before. Whole days: no hour of the day, and
    no cadence, looks like a drop."""
    for mapping in facts.mappings:
        windows = facts.received.get(mapping.pk)
        subject = f"mapping:{mapping.pk}"
        if windows is None or mapping.state == mapping.State.PAUSED or mapping.destination.state == "refused":
            yield Reading(subject, "", mapping=mapping, audience=mapping.audience)
            continue
        known = [number for number in windows[1:] if number is not None]
        now, usual = windows[0], median(known) if len(known) >= FEWEST_WINDOWS else None
        at = f"hour:{facts.now:%Y-%m-%dT%H}"
        if now is None or usual is None:
            yield Reading(subject, "", mapping=mapping, audience=mapping.audience)
            continue
        share = facts.limits_of(mapping.audience_id).adds_share
        off = limits.moved(now, usual, share, limits.ADDS_FROM)
        finding = None if off is None else _adds(facts, mapping, now, usual, off, share)
        yield Reading(subject, at, finding, mapping.audience, mapping)


def _adds(facts: Facts, mapping: Any, now: int, usual: float, off: float, share: float) -> Finding:
    words = f"{abs(off):.0%}"
    place = mapping.destination.name
    fell = off < 0
    since = facts.now - timedelta(days=1)
    nobody = f"{place} received nobody new" if now == 0 else f"{place} received {now:,} new people"
    moved = f"{words} fewer" if fell else f"{words} more"
    return Finding(
        BAD if fell and off <= -0.9 else WATCH,
        since,
        f"{nobody} in the last 24 hours, {moved} than the usual {usual:,.0f} a day.",
        "Look at the last syncs for refused people, and at whether events still arrive as they did.",
        f"received adds {'−' if fell else '+'}{words}",
        {
            "Received in 24 h": f"{now:,} people",
            "Usual": f"{usual:,.0f} people a day, the median of the seven days before",
            "Change": f"{'−' if fell else '+'}{words}; alerts begin at {share:.0%}",
        },
        (
            "Fewer people enter the audience: events are late, or the rule was changed",
            f"{place} refuses more of those who are sent: see the last syncs",
        )
        if fell
        else (
            "The rule, or an attribute it tests, takes in more people than it did",
            "Many people were told again after a resync or a change of identifiers",
        ),
    )
