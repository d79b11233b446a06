"""One audience as its page shows it: how it is, what it means, where it goes, who answers for it, what happened. Reads only, a fixed number of queries."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from django.urls import Resolver404, resolve
from django.utils import timezone

from audiences import access, charts, owners, queries, replacements, vocabulary
from audiences.models import Audience, AuditEntry, Job, Refresh, Replacement, SegmentVersion, TestLock, User
from audiences.queries import Health
from audiences.segments import exits
from audiences.services import locks
from audiences.services import naming as naming_service
from destinations import latencies, placements
from destinations import queries as destinations
from destinations.models import Run
from destinations.replacements import Hindrance
from destinations.services.mappings import TASK as SYNC
from qa import baseline, catalog, checklist, incidents, limits, pairs, replacing, spot_check
from qa.catalog import There
from qa.models import Incident, Mail

DAYS = 90


@dataclass(frozen=True, slots=True)
class Trouble:
    """An open incident, and the mail that went out about it."""

    incident: Incident
    mail: Mail | None

    @property
    def bad(self) -> bool:
        return self.incident.severity == Incident.Severity.CRITICAL


@dataclass(frozen=True, slots=True)
class Connected:
    """A connection: what was told there, who is really sent, what an ad set there must name."""

    seen: destinations.Seen
    there: There
    latency: latencies.Latency


@dataclass(frozen=True, slots=True)
class Day:
    """A line of the table under the curve. `alerts`: what was wrong on that day, in words."""

    day: date
    count: int
    version: int | None
    alerts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Numbers:
    """What moves while a count runs. `next_sync` None: nothing is planned."""

    row: queries.Row
    counts: tuple[Refresh, ...]
    moved: tuple[int, int] | None
    connected: tuple[Connected, ...]
    next_sync: datetime | None

    @property
    def running(self) -> bool:
        return bool(self.counts) and self.counts[0].state == Refresh.State.RUNNING

    @property
    def rates(self) -> list[Connected]:
        """Those whose platform says how many it matched."""
        return [one for one in self.connected if one.there.placement.match_rate]

    @property
    def silent(self) -> list[Connected]:
        """Those that have been sent people and do not say."""
        return [one for one in self.connected if one.there.placement.received and not one.there.placement.match_rate]


@dataclass(frozen=True, slots=True)
class Portrait:
    numbers: Numbers
    health: Health
    troubles: tuple[Trouble, ...]
    chart: charts.SizeChart | None
    narrow_chart: charts.SizeChart | None
    days: tuple[Day, ...]
    rule: str
    entering: tuple[str, ...]
    leaving: tuple[str, ...]
    partners: tuple[Audience, ...]
    excludes: tuple[Audience, ...]
    referring: tuple[Audience, ...]
    holdings: tuple[owners.Holding, ...]
    lock: TestLock | None
    broken: TestLock | None
    followed: bool
    checklist: tuple[checklist.Item, ...]
    baselines: tuple[baseline.Compared, ...]
    spot_check: str
    runs: tuple[Run, ...]
    versions: tuple[SegmentVersion, ...]
    activity: tuple[AuditEntry, ...]
    replacement: Replacement | None  # what takes its place on a date; else whose place it takes
    hindrances: tuple[Hindrance, ...]

    @property
    def row(self) -> queries.Row:
        return self.numbers.row

    @property
    def synced_at(self) -> datetime | None:
        moments = [one.there.placement.synced_at for one in self.numbers.connected]
        return max((moment for moment in moments if moment), default=None)

    @property
    def unguarded(self) -> bool:
        return self.row.audience.purpose == Audience.Purpose.RETARGETING and not self.partners

    @property
    def done(self) -> int:
        return sum(item.done is True for item in self.checklist)


def numbers(key: str, zone: ZoneInfo) -> Numbers | None:
    """None: there is no such audience. Today begins at midnight in this zone."""
    row = queries.row(key)
    if row is None:
        return None
    convention = naming_service.current()
    partners = pairs.partners([row.audience.pk]).get(row.audience.pk, [])
    there = placements.of({row.audience.pk, *(partner.pk for partner in partners)}, convention)
    places = {placement.mapping.pk: placement for placement in there.get(row.audience.pk, ())}
    took = latencies.of(list(places))
    connected = [
        Connected(
            seen,
            There(places[seen.mapping.pk], catalog.beside(places[seen.mapping.pk], partners, there)),
            took[seen.mapping.pk],
        )
        for seen in destinations.connections(audience=row.audience)
        if seen.mapping.pk in places
    ]
    midnight = datetime.combine(timezone.now().astimezone(zone).date(), time(), tzinfo=zone)
    due = Job.objects.filter(task=SYNC, key__in=[str(pk) for pk in places], due_at__isnull=False).order_by("due_at")
    return Numbers(
        row,
        tuple(queries.counts(row.audience, limit=6)),
        queries.moved_since(row.audience, midnight),
        tuple(connected),
        due.values_list("due_at", flat=True).first(),
    )


def of(user: User, key: str, zone: ZoneInfo) -> Portrait | None:
    """None: there is no such audience."""
    now = numbers(key, zone)
    if now is None:
        return None
    row = now.row
    audience = row.audience
    open_now, past = _incidents(audience, now.connected)
    mails = incidents.mails(open_now)
    published = queries.published(audience)
    alerts = _alerts(past, zone)
    allowed = limits.of(audience)
    band = queries.band(row.days, allowed.size_share, allowed.usual_from.date() if allowed.usual_from else None)
    rule = queries.rule_as_json(audience)
    tree = vocabulary.rule(rule) if rule else None
    standing = replacements.standing(audience)
    replacement = standing.by or standing.of
    return Portrait(
        numbers=now,
        health=catalog.health(row, next(iter(open_now), None), [one.there.placement.trouble for one in now.connected]),
        troubles=tuple(Trouble(incident, mails.get(incident.pk)) for incident in open_now),
        chart=queries.size_chart(row.days, published, alerts, band),
        narrow_chart=queries.size_chart(row.days, published, alerts, band, narrow=True),
        days=tuple(_days(row.days, published, past, zone)),
        rule=rule,
        entering=tuple(way.words for way in exits.entering(tree)) if tree else (),
        leaving=tuple(way.words for way in exits.leaving(tree)) if tree else (),
        partners=tuple(pairs.partners([audience.pk]).get(audience.pk, ())),
        excludes=tuple(audience.excludes.filter(archived_at=None).only("key", "name").order_by("name")),
        referring=tuple(queries.referring(key)),
        holdings=owners.holdings(audience),
        lock=locks.current(audience),
        broken=locks.last_broken(audience),
        followed=user.follows.filter(pk=audience.pk).exists(),
        checklist=tuple(_for(user, item) for item in checklist.of(audience)),
        baselines=tuple(baseline.of(audience)),
        spot_check=spot_check.standing(audience),
        runs=tuple(destinations.runs(audience=key)[:6]),
        versions=tuple(queries.versions(audience)[:5]),
        activity=tuple(queries.activity("audience", key, limit=6)),
        replacement=replacement,
        hindrances=replacing.hindrances(replacement) if replacement else (),
    )


def _for(user: User, item: checklist.Item) -> checklist.Item:
    """Without its link where that leads to a page that is not for this role."""
    try:
        permission = getattr(resolve(item.url.partition("?")[0]).func, "permission", "")
    except Resolver404:
        permission = ""
    return item if permission and access.may(user, permission) else replace(item, url="")


def _incidents(audience: Audience, connected: Iterable[Connected]) -> tuple[list[Incident], list[Incident]]:
    """Those that are open, the worst first, of the accounts too that it is sent to; and all of its own in the days that the curve shows."""
    rows = incidents.for_audience(audience, limit=100)
    sent_to = [one.seen.mapping.destination_id for one in connected if one.there.placement.sends]
    accounts = list(
        Incident.objects.filter(recovered_at=None, audience=None, mapping=None, destination__in=sent_to).select_related(
            "owner", "acknowledged_by"
        )
    )
    since = timezone.now() - timedelta(days=DAYS)
    still = sorted(
        (row for row in [*rows, *accounts] if row.recovered_at is None),
        key=lambda row: (row.severity != Incident.Severity.CRITICAL, row.since),
    )
    return still, [row for row in rows if row.since > since]


def _alerts(rows: Iterable[Incident], zone: ZoneInfo) -> list[charts.Alert]:
    return [
        charts.Alert(row.since.astimezone(zone).date(), row.sentence, row.severity == Incident.Severity.CRITICAL)
        for row in rows
    ]


def _days(
    days: Sequence[charts.Point], published: Sequence[SegmentVersion], rows: Iterable[Incident], zone: ZoneInfo
) -> Iterable[Day]:
    """The last day first; days without a count are left out."""
    wrong: dict[date, list[str]] = {}
    for row in rows:
        wrong.setdefault(row.since.astimezone(zone).date(), []).append(row.sentence)
    live = [(version.published_at.date(), version.number) for version in published if version.published_at]
    for day, count in reversed(days):
        if count is not None:
            number = next((number for at, number in reversed(live) if at <= day), None)
            yield Day(day, count, number, tuple(wrong.get(day, ())))
