"""What pages read of audiences: rows with size and health in words, curves, counts, versions. Frozen values, fixed numbers of queries."""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from statistics import median
from typing import Any

from django.db.models import Count, Exists, F, Min, OuterRef, QuerySet, Subquery, TextField
from django.db.models.functions import Cast
from django.utils import timezone

from audiences import charts, clock, owners
from audiences.models import Audience, AuditEntry, ImportFile, Job, Refresh, RefusedRow, Review, SegmentVersion

# A size this far from the median of the week before is worth a look; below so many people it is chance.
SWING = 0.3
SWING_FROM = 100
# Counted later than this many cadences, an audience is stale.
LATE = 3
LATE_AT_LEAST = timedelta(minutes=15)
BY_TROUBLE = {"Problem": 0, "Watch": 1, "Not counted": 2, "Counting": 3, "Healthy": 4, "Paused": 5}

# A catalogue of 500 audiences is read in one go, so only what it shows is.
_SHOWN = (
    "key", "name", "name_tokens", "name_reason", "description", "purpose", "cadence_seconds", "invalid_reason", "archived_at",
    "created_at", "refresh_due_at",
    *(role.field for role in owners.ROLES),
    "live_version__number", "live_version__sentence", "live_version__published_at",
)  # fmt: skip
_RECENT = 9  # days that health looks at


@dataclass(frozen=True, slots=True)
class Health:
    """`word` is one of HEALTH in templatetags/rollcall.py; `why` a sentence, with what to do where there is something to do."""

    word: str
    why: str


@dataclass(frozen=True, slots=True)
class Row:
    """An audience as lists show it. `size` None: never counted. `change` None: there is no count of seven days ago."""

    audience: Audience
    size: int | None
    counted_at_us: int | None
    change: int | None
    health: Health
    daily: str = field(repr=False)  # Membership.daily as JSON text: only what is drawn is read whole

    @property
    def days(self) -> tuple[charts.Point, ...]:
        """The last 90 days, one by one; nothing before the first count."""
        return self.last(90)

    def last(self, days: int) -> tuple[charts.Point, ...]:
        known = [(date.fromisoformat(day), count) for day, count in json.loads(self.daily or "[]")[-days:]]
        if not known:
            return ()
        return tuple(charts.every_day(known, max(timezone.now().date(), known[-1][0]), days=days))

    def spark(self, share: float = SWING, since: date | None = None) -> charts.Spark:
        """The last 30 days, in the band that they may move in: what is usual is known from the weeks before."""
        days = self.last(30 + 3 * charts.USUAL_DAYS)
        return charts.sparkline([count for _, count in days[-30:]], band(days, share, since)[-30:])

    @property
    def sentence(self) -> str:
        version = self.audience.live_version
        return version.sentence if version else ""


@dataclass(frozen=True, slots=True)
class Refusal:
    """So many rows were refused for one reason; `line` is the first of them."""

    field: str
    reason: str
    count: int
    line: int | None


@dataclass(frozen=True, slots=True)
class Work:
    """Something that goes on in the background, in words, and how much of it is done."""

    words: str
    percent: int


def rows() -> list[Row]:
    """Every audience, archived ones too, without the rows of their owners. One query, whatever their number."""
    now = timezone.now()
    return [_row(audience, now) for audience in _audiences()]


def row(key: str) -> Row | None:
    """One audience as lists show it, with its owners."""
    roles = [role.field for role in owners.ROLES]
    shown = (*_SHOWN, *(f"{role}__{part}" for role in roles for part in ("name", "email", "is_active")))
    audience = _audiences().select_related("live_version", *roles).only(*shown).filter(key=key).first()
    return _row(audience, timezone.now()) if audience else None


def health_of(
    audience: Audience, size: int | None, recent: Mapping[str, int], counted_at_us: int | None, now: datetime
) -> Health:
    """What is so, since when, and what to do."""
    state = getattr(audience, "last_state", None)
    if audience.archived_at:
        return Health("Paused", "Archived: it is not counted any more.")
    if audience.live_version is None:
        return Health("Not counted", "No rule is published yet.")
    if audience.invalid_reason:
        return Health("Problem", f"It cannot be counted: {audience.invalid_reason}. Change the rule and publish it.")
    if state == Refresh.State.FAILED:
        older = " The count shown is the one before." if size is not None else ""
        return Health(
            "Problem",
            f"The last count failed: {_end(getattr(audience, 'last_error', '') or 'no reason was kept')}{older}",
        )
    if counted_at_us is None or size is None:
        return Health("Counting", "It is being counted for the first time.")
    counted = clock.from_us(counted_at_us)
    late = max(LATE * timedelta(seconds=audience.cadence_seconds), LATE_AT_LEAST)
    usual = _usual(recent, now)
    if usual and usual >= SWING_FROM and abs(size - usual) / usual >= SWING:
        share = abs(size - usual) / usual
        since = _since_version(audience, now)
        if size < usual:
            return Health(
                "Problem", f"Dropped {share:.0%} against its usual {charts.short(usual)} of the week before{since}."
            )
        return Health("Watch", f"Grew {share:.0%} against its usual {charts.short(usual)} of the week before{since}.")
    if now - counted > late:
        return Health("Watch", f"The count is old: it should be made every {span(audience.cadence_seconds)}.")
    return Health("Healthy", "")


def published(audience: Audience) -> list[SegmentVersion]:
    """The versions that were ever live, oldest first, without their rules."""
    rows = SegmentVersion.objects.filter(audience=audience, published_at__isnull=False)
    return list(rows.only("number", "published_at", "reason").order_by("published_at"))


def band(days: Sequence[charts.Point], share: float = SWING, since: date | None = None) -> list[charts.Limits | None]:
    """What each day's count may be before somebody is alerted: this share above and below the usual, as it is reckoned since then."""
    start = next((index for index, (day, _) in enumerate(days) if since is not None and day >= since), 0)
    return charts.limits([count for _, count in days], share, least=SWING_FROM, start=start)


def size_chart(
    days: Sequence[charts.Point],
    versions: Sequence[SegmentVersion],
    alerts: Sequence[charts.Alert] = (),
    allowed: Sequence[charts.Limits | None] = (),
    *,
    narrow: bool = False,
) -> charts.SizeChart | None:
    """The curve of these days, a mark for each version that went live in them, a dot for each alert, and the band without alerts."""
    marks = [
        (
            timezone.localtime(version.published_at).date(),
            f"v{version.number}",
            f"Version {version.number} published: {version.reason}",
        )
        for version in versions
        if version.published_at
    ]
    width, height = (400, 220) if narrow else (720, 270)
    return charts.size_chart(days, marks, alerts, allowed, width=width, height=height)


def rule_as_json(audience: Audience) -> str:
    """The live rule as a file would have it, indented."""
    if audience.live_version_id is None:
        return ""
    text = SegmentVersion.objects.filter(pk=audience.live_version_id).values_list("segment", flat=True).first()
    return json.dumps(json.loads(text), indent=2, ensure_ascii=False) if text else ""


def versions(audience: Audience) -> QuerySet[SegmentVersion]:
    """Newest first; `self_approved` says whether its author alone stood for it."""
    by_itself = Review.objects.filter(version=OuterRef("pk"), state=Review.State.APPROVED, self_approved=True)
    rows = audience.versions.select_related("author", "published_by").annotate(self_approved=Exists(by_itself))
    return rows.order_by("-number")


def referring(key: str) -> list[Audience]:
    """Audiences whose live rule names this one."""
    names = json.dumps({"audience": key}, separators=(",", ":"), ensure_ascii=False)
    rows = Audience.objects.filter(live_version__segment__contains=names, archived_at=None)
    return list(rows.only("key", "name").order_by("key"))


def counts(audience: Audience, *, limit: int = 12) -> list[Refresh]:
    """The last counts that were made for now; those computed afterwards for the past days are the curve's alone."""
    rows = Refresh.objects.filter(audience=audience).exclude(cause=Refresh.Cause.BACKFILL).select_related("version")
    return list(rows.defer("keyframe", "entered", "left", "rule_counts").order_by("-id")[:limit])


def moved_since(audience: Audience, since: datetime) -> tuple[int, int] | None:
    """How many entered and left in the counts since then; None where there was none. A person who came and went counts in both."""
    rows = (
        Refresh.objects.filter(audience=audience, state=Refresh.State.DONE, as_of_us__gte=clock.to_us(since))
        .exclude(cause=Refresh.Cause.BACKFILL)
        .values_list("entered_count", "left_count")
    )
    pairs = [(entered, left) for entered, left in rows if entered is not None and left is not None]
    return (sum(entered for entered, _ in pairs), sum(left for _, left in pairs)) if pairs else None


def refused_by_reason(import_file: ImportFile, *, limit: int = 20) -> list[Refusal]:
    """The reasons, most frequent first, each with the first line it stands for."""
    rows = (
        RefusedRow.objects.filter(import_file=import_file)
        .values("field", "reason")
        .annotate(number=Count("pk"), first=Min("line"))
        .order_by("-number", "field", "reason")
    )
    return [Refusal(row["field"], row["reason"], row["number"], row["first"]) for row in rows[:limit]]


def working() -> Work | None:
    """Long work that tells everybody how far it is: a running job whose progress has `step` and `percent`."""
    job = Job.objects.filter(lease_until__isnull=False, progress__has_key="percent").order_by("started_at").first()
    return Work(str(job.progress.get("step", "")), int(job.progress["percent"])) if job else None


def activity(object_type: str, object_key: str = "", *, limit: int = 20) -> list[AuditEntry]:
    """The last lines of the audit trail about one object, or about all of its kind."""
    about = {"object_type": object_type, **({"object_key": object_key} if object_key else {})}
    return list(AuditEntry.objects.filter(**about).order_by("-at", "-id")[:limit])


def _audiences() -> QuerySet[Audience]:
    latest = Refresh.objects.filter(audience=OuterRef("pk")).exclude(cause=Refresh.Cause.BACKFILL).order_by("-id")
    return (
        Audience.objects.select_related("live_version")
        .only(*_SHOWN)
        .annotate(
            size=F("membership__count"),
            counted_at_us=F("membership__refresh__as_of_us"),
            last_state=Subquery(latest.values("state")[:1]),
            last_error=Subquery(latest.values("error")[:1]),
            daily=Cast("membership__daily", TextField()),
        )
    )


def _row(audience: Any, now: datetime) -> Row:
    size, counted_at_us = audience.size, audience.counted_at_us
    if size is None:
        return Row(audience, None, None, None, health_of(audience, None, {}, None, now), "")
    recent = _recent(audience.daily or "[]")
    before = recent.get(_days_before(now.date())[-1])
    return Row(
        audience,
        size,
        counted_at_us,
        None if before is None else size - before,
        health_of(audience, size, recent, counted_at_us, now),
        audience.daily or "",
    )


def _recent(daily: str) -> dict[str, int]:
    """The last days of Membership.daily, each as it is written there, without reading the others."""
    start = len(daily)
    for _ in range(_RECENT):
        start = daily.rfind("[", 1, start)
        if start < 0:
            return dict(json.loads(daily))
    return dict(json.loads(f"[{daily[start:]}"))


@functools.lru_cache(maxsize=4)
def _days_before(today: date) -> tuple[str, ...]:
    """The seven days before today, yesterday first."""
    return tuple((today - timedelta(days=back)).isoformat() for back in range(1, 8))


def _usual(recent: Mapping[str, int], now: datetime) -> float | None:
    """The median of the seven days before today, where at least three are known."""
    before = [recent[day] for day in _days_before(now.date()) if day in recent]
    return median(before) if len(before) >= 3 else None


def _since_version(audience: Audience, now: datetime) -> str:
    version = audience.live_version
    if version is None or version.published_at is None or now - version.published_at > timedelta(days=7):
        return ""
    return f", after v{version.number} was published"


def span(seconds: int) -> str:
    """`15 minutes`, `day`, as in "every …"."""
    for size, word in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size and seconds % size == 0:
            number = seconds // size
            return word if number == 1 else f"{number} {word}s"
    return f"{seconds} seconds"


def _end(words: str) -> str:
    return words if words.endswith((".", "!", "?")) else f"{words}."
