"""What the monitors look at, loaded for every audience and connection at once by a fixed number of queries, and what a monitor hands back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import Count, Exists, F, Min, OuterRef, Q, QuerySet, Subquery, Sum, TextField
from django.db.models.functions import Cast
from django.utils import timezone

from audiences import owners
from audiences.models import Audience, PrivacyRequest, Refresh, Replacement, Workspace
from audiences.people import backlog
from audiences.people.backlog import Backlog
from destinations import latencies
from destinations.models import ENDED, TELLS, Destination, Hold, Operation, Removal, Run
from destinations.models import Mapping as Connection
from qa import gates, limits, privacy
from qa.limits import Allowed, Stretch
from qa.models import Incident, Limits

DAY = timedelta(days=1)
WINDOWS = 8  # the last 24 hours, and the seven before
UNANSWERED = timedelta(minutes=30)  # a removal that was sent, and whose outcome is still not known
ENDED_LATELY = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Finding:
    """Something is wrong. `figure` ends a mail's subject; `facts` are label → words; `causes` the likeliest first."""

    severity: str
    since: datetime
    sentence: str
    remedy: str
    figure: str
    facts: Mapping[str, str] = field(default_factory=dict)
    causes: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What one look said of one subject. `at` names the data looked at: two clean looks at the same data are one. Without finding and
    `at`: it could not be told."""

    subject: str
    at: str
    finding: Finding | None = None
    audience: Audience | None = None
    mapping: Connection | None = None
    destination: Destination | None = None


@dataclass(frozen=True, slots=True)
class Waiting:
    """Removals past their deadline, of one connection."""

    people: int
    since: datetime


@dataclass(frozen=True, slots=True)
class LateRequests:
    """Privacy requests that have taken longer than they may; `since`: when the first of them was taken in."""

    number: int
    since: datetime | None
    past_law: int


@dataclass(frozen=True, slots=True)
class Facts:
    """`audiences` are those that are counted, `mappings` those that send, with what `load` annotates."""

    now: datetime
    zone: Any
    audiences: Sequence[Any]
    mappings: Sequence[Any]
    destinations: Sequence[Destination]
    holds: Mapping[int, Sequence[Hold]]
    approvals: Mapping[int, Run]
    overdue: Mapping[int, Waiting]
    unsuppressed: frozenset[int]
    apart: Mapping[int, Sequence[Stretch]]  # audience → days inside earlier incidents of its size
    received: Mapping[int, Sequence[int | None]]  # connection → people received in each window, the latest first
    allowed: Mapping[int, Allowed]
    replacements: Sequence[Replacement]  # whose old audience was to retire by now
    backlog: Backlog
    late_requests: LateRequests

    def limits_of(self, audience_id: int) -> Allowed:
        return self.allowed.get(audience_id) or Allowed()

    def when(self, moment: datetime) -> str:
        """09:00 today, else Sun 22 Nov 09:00, in the workspace's zone."""
        local, today = moment.astimezone(self.zone), self.now.astimezone(self.zone).date()
        return f"{local:%H:%M}" if local.date() == today else f"{local:%a} {local.day} {local:%b %H:%M}"

    @property
    def minute(self) -> str:
        """The data of what only time can tell."""
        return f"{self.now:%Y-%m-%dT%H:%M}"


def load(now: datetime | None = None, *, slow: bool = False) -> Facts:
    """Seventeen queries, whatever the number of audiences. `slow`: also what was received in each of the last days, which reads many runs."""
    now = now or timezone.now()
    workspace = Workspace.objects.first()
    audiences, mappings = list(_audiences()), list(_mappings())
    held: dict[int, list[Hold]] = {}
    for hold in (
        Hold.objects.filter(Q(until=None) | Q(until__gt=now), lifted_at=None).exclude(rule="person").order_by("pk")
    ):
        held.setdefault(hold.mapping_id, []).append(hold)
    waiting = Run.objects.filter(state=Run.State.NEEDS_APPROVAL, approved_at=None).order_by("pk")
    told = [
        row
        for row in mappings
        if row.audience.purpose == Audience.Purpose.RETARGETING and row.state != Connection.State.PAUSED
    ]
    suppressed = gates.suppressed_among(told)
    bare = frozenset(row.pk for row in told if row.pk not in suppressed and not gates.excepted(row))
    rows = {row.audience_id: row for row in Limits.objects.all()}
    return Facts(
        now,
        ZoneInfo(workspace.timezone if workspace and workspace.timezone else "UTC"),
        audiences,
        mappings,
        list(Destination.objects.defer("credentials").select_related("credentials_by")),
        held,
        {run.mapping_id: run for run in waiting},
        _overdue(now),
        bare,
        _apart(rows, now),
        _received(mappings, now) if slow else {},
        {pk: limits.allowed(row) for pk, row in rows.items()},
        list(_replacements(now)),
        backlog.look(),
        _late_requests(now),
    )


def days_of(audience: Any) -> list[tuple[date, int]]:
    """Its daily counts, oldest first."""
    return [(date.fromisoformat(day), count) for day, count in json.loads(audience.daily or "[]")]


def _replacements(now: datetime) -> QuerySet[Replacement]:
    """A week longer than they could be hindered, so that what is right again is seen to be."""
    rows = Replacement.objects.filter(retires_at__lte=now)
    rows = rows.filter(Q(old__archived_at=None) | Q(old__archived_at__gt=now - ENDED_LATELY))
    return rows.select_related("new", *(f"old__{role.field}" for role in owners.ROLES)).order_by("pk")


def _audiences() -> QuerySet[Audience]:
    latest = Refresh.objects.filter(audience=OuterRef("pk")).exclude(cause=Refresh.Cause.BACKFILL).order_by("-id")
    return (
        Audience.objects.filter(archived_at=None, live_version__isnull=False)
        .select_related(
            "live_version__published_by", "membership__refresh", *(role.field for role in owners.ROLES)
        )
        .defer(
            "live_version__segment", "membership__members", "membership__daily",
            "membership__refresh__keyframe", "membership__refresh__entered", "membership__refresh__left",
            "membership__refresh__rule_counts",
        )
        .annotate(
            last_id=Subquery(latest.values("pk")[:1]),
            last_state=Subquery(latest.values("state")[:1]),
            last_error=Subquery(latest.values("error")[:1]),
            last_at=Subquery(latest.values("started_at")[:1]),
            daily=Cast("membership__daily", TextField()),
        )
        .order_by("pk")
    )  # fmt: skip


def _mappings() -> QuerySet[Connection]:
    runs = Run.objects.filter(mapping=OuterRef("pk"), rehearsal=False)
    ended = runs.filter(state__in=ENDED).exclude(state=Run.State.CANCELLED).order_by("-pk")
    return (
        Connection.objects.filter(state__in=TELLS, audience__archived_at=None)
        .select_related("destination", "audience__live_version", *(f"audience__{role.field}" for role in owners.ROLES))
        .defer("destination__credentials", "audience__live_version__segment")
        .annotate(
            run_id=Subquery(ended.values("pk")[:1]),
            run_state=Subquery(ended.values("state")[:1]),
            run_error=Subquery(ended.values("error")[:1]),
            run_ended=Subquery(ended.values("finished_at")[:1]),
            under_way=Exists(runs.exclude(state__in=ENDED)),
            told_again=F("ledger__reassert_since"),
        )
        .order_by("pk")
    )


def _overdue(now: datetime) -> dict[int, Waiting]:
    """Removals that nobody has received in time, and removals that were sent and not answered. Two queries."""
    rows = (
        Removal.objects.filter(latencies.overdue(now)).values("mapping").annotate(n=Count("pk"), first=Min("left_at"))
    )
    found = {row["mapping"]: Waiting(row["n"], row["first"]) for row in rows}
    unsure = Operation.objects.filter(open=True, kind=Operation.Kind.REMOVE, prepared_at__lt=now - UNANSWERED).values(
        "mapping"
    )
    for row in unsure.annotate(n=Sum("count"), first=Min("prepared_at")):
        before = found.get(row["mapping"])
        people, since = row["n"] + (before.people if before else 0), row["first"]
        found[row["mapping"]] = Waiting(people, min(since, before.since) if before else since)
    return found


def _late_requests(now: datetime) -> LateRequests:
    past_law = Count("pk", filter=Q(due_at__lt=now))
    found = PrivacyRequest.objects.filter(privacy.late(now)).aggregate(
        n=Count("pk"), first=Min("created_at"), law=past_law
    )
    return LateRequests(found["n"], found["first"], found["law"])


def _apart(rows: Mapping[int, Limits], now: datetime) -> dict[int, list[Stretch]]:
    """The days of incidents of size in the last quarter; not those that somebody has taken as usual."""
    found: dict[int, list[Stretch]] = {}
    past = Incident.objects.filter(Q(recovered_at=None) | Q(recovered_at__gt=now - 100 * DAY), kind="size")
    for pk, since, recovered in past.values_list("audience_id", "since", "recovered_at"):
        row = rows.get(pk)
        if row is None or row.usual_from is None or since > row.usual_from:
            last = (recovered - DAY if recovered else now).date()  # on the day it recovered its count was right again
            found.setdefault(pk, []).append((since.date(), last))
    return found


def _received(mappings: Sequence[Any], now: datetime) -> dict[int, list[int | None]]:
    """People whom platforms received as adds by syncs, in each of the last days of 24 hours; None where the connection was not live yet,
    or had just gone live, when everybody is new. One query."""
    sums = {
        f"w{n}": Sum("added", filter=Q(finished_at__gt=now - (n + 1) * DAY, finished_at__lte=now - n * DAY), default=0)
        for n in range(WINDOWS)
    }
    runs = Run.objects.filter(
        created_at__gt=now - (WINDOWS + 1) * DAY, rehearsal=False, state__in=(Run.State.DONE, Run.State.PARTIAL)
    )
    rows = {row["mapping"]: row for row in runs.values("mapping").annotate(**sums)}
    found: dict[int, list[int | None]] = {}
    for mapping in mappings:
        began = max((moment for moment in (mapping.first_live_at, mapping.told_again) if moment), default=None)
        if began is None:
            continue
        row: Any = rows.get(mapping.pk, {})
        found[mapping.pk] = [
            row.get(f"w{n}", 0) if now - (n + 1) * DAY >= began + timedelta(hours=1) else None for n in range(WINDOWS)
        ]
    return found
