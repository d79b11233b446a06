"""What home says: what needs somebody now, in sentences, what ran lately, what became of the audiences one follows. A fixed number of queries."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import Count, F, Q, Sum
from django.urls import reverse
from django.utils import timezone

from audiences import access
from audiences.models import Audience, AuditEntry, Refresh, SegmentVersion, User
from audiences.services import gate
from destinations.models import ENDED, Destination, Hold, Mapping, Run
from qa import incidents
from qa.models import Incident, Mail, SetUp, SpotCheck

DAY = timedelta(days=1)
SHOWN = 12  # of each list; the pages behind have all
FOLLOWED = 6


@dataclass(frozen=True, slots=True)
class Item:
    """One thing that needs somebody. `mine`: the reader is the one. `note` says who else, or what was done about it."""

    tone: str  # bad, watch, accent
    symbol: str
    title: str
    url: str
    sentence: str
    since: datetime
    mine: bool
    action: str = ""
    note: str = ""
    mail: Mail | None = None
    mono: bool = False


@dataclass(frozen=True, slots=True)
class Lately:
    """The last 24 hours. `counts` and `syncs` that ended; people told to platforms."""

    counts: int
    counts_failed: int
    syncs: int
    syncs_failed: int
    added: int
    removed: int
    refused: int


@dataclass(frozen=True, slots=True)
class Agenda:
    mine: tuple[Item, ...]
    others: tuple[Item, ...]
    quiet: tuple[Item, ...]  # somebody has acknowledged them, or let them wait
    lately: Lately
    followed: tuple[AuditEntry, ...]
    follows: int
    audiences: int
    connections: int  # that send
    destinations: int


def of(user: User) -> Agenda:
    """The reader's."""
    now = timezone.now()
    loud: list[Item] = []
    quiet: list[Item] = []
    for item, hushed in _incidents(user, now):
        (quiet if hushed else loud).append(item)
    loud += [*_runs(user), *_holds(user, now), *_versions(user), *_spot_checks(user), *_set_ups(user)]
    followed = dict(user.follows.values_list("key", "name"))
    counted = Audience.objects.filter(archived_at=None).aggregate(
        all=Count("pk", distinct=True),
        sending=Count("mappings", filter=Q(mappings__state__in=(Mapping.State.LIVE, Mapping.State.TRIAL))),
    )
    return Agenda(
        tuple(item for item in loud if item.mine),
        tuple(item for item in loud if not item.mine),
        tuple(quiet),
        _lately(now),
        tuple(_news(list(followed), now)),
        len(followed),
        counted["all"],
        counted["sending"],
        Destination.objects.count(),
    )


def _incidents(user: User, now: datetime) -> Iterable[tuple[Item, bool]]:
    """Open ones, the worst first; beside each whether somebody has taken it up."""
    found = Incident.objects.filter(recovered_at=None).select_related(
        "audience", "destination", "owner", "acknowledged_by", "mapping__destination", "mapping__audience"
    )
    rows = sorted(found, key=lambda row: (row.severity != Incident.Severity.CRITICAL, row.since))
    mails = incidents.mails(rows)
    for row in rows:
        snoozed = row.snoozed_until is not None and row.snoozed_until > now
        about = row.audience or (row.mapping.audience if row.mapping else None)
        note = ""
        if row.acknowledged_by:
            note = f"{row.acknowledged_by} is on it."
        elif snoozed:
            note = "Snoozed."
        mine = user.pk in _owners(row) or (about is None and access.may(user, "destination.edit"))
        bad = row.severity == Incident.Severity.CRITICAL
        item = Item(
            "bad" if bad else "watch",
            "problem" if bad else "watch",
            incidents.name(row),
            reverse("qa:alert", args=[row.pk]),
            row.sentence,
            row.since,
            mine,
            "Look into it",
            note,
            mails.get(row.pk),
            mono=about is not None,
        )
        yield item, snoozed or row.acknowledged_at is not None


def _owners(row: Incident) -> set[int | None]:
    """Whom it concerns: who was mailed, and who answers for the audience."""
    audience = row.audience or (row.mapping.audience if row.mapping else None)
    answers = (audience.definition_owner_id, audience.sync_owner_id, audience.alert_owner_id) if audience else ()
    return {row.owner_id, *answers}


def _runs(user: User) -> Iterable[Item]:
    """Runs that would remove more than their connection lets them."""
    may = access.may(user, "run.approve")
    rows = Run.objects.filter(state=Run.State.NEEDS_APPROVAL).select_related(
        "mapping__audience", "mapping__destination"
    )
    for row in rows.order_by("pk")[:SHOWN]:
        removes = "people" if row.planned_removes is None else f"{row.planned_removes:,} people"
        yield Item(
            "watch",
            "runs",
            row.mapping.audience.name,
            reverse("destinations:run", args=[row.pk]),
            f"A sync would remove {removes} from {row.mapping.destination.name}, more than it may by itself.",
            row.created_at,
            may,
            "Approve or cancel" if may else "See it",
            "" if may else f"Waits for an {access.who_may('run.approve')}.",
            mono=True,
        )


def _holds(user: User, now: datetime) -> Iterable[Item]:
    may = access.may(user, "hold.lift")
    rows = Hold.objects.filter(Q(until=None) | Q(until__gt=now), lifted_at=None)
    for row in rows.select_related("mapping__audience", "mapping__destination").order_by("pk")[:SHOWN]:
        yield Item(
            "watch",
            "paused",
            row.mapping.audience.name,
            reverse("destinations:connection", args=[row.mapping_id]),
            f"{row.get_direction_display()} to {row.mapping.destination.name} stopped for safety. {row.reason}",
            row.created_at,
            may and user.role in (row.lift_roles or [user.role]),
            "See why",
            mono=True,
        )


def _versions(user: User) -> Iterable[Item]:
    """Versions that wait for the end of a test, or for a second person."""
    may = access.may(user, "audience.publish")
    alone = may and not gate.approvers(user.pk).exists()
    rows = SegmentVersion.objects.filter(state=SegmentVersion.State.IN_REVIEW, audience__archived_at=None)
    for row in rows.select_related("audience", "author").defer("segment").order_by("pk")[:SHOWN]:
        if row.publish_at:
            day = timezone.localtime(row.publish_at)
            url = reverse("audiences:version", args=[row.audience.key, row.number])
            sentence = f"Version {row.number} waits for the end of a test and goes live on {day:%A} {day.day} {day:%B}."
        else:
            url = f"{reverse('qa:review', args=[row.audience.key])}?version={row.number}"
            sentence = f"Version {row.number} is in review: a second person looks at it before it goes live."
        yield Item(
            "accent",
            "clock",
            row.audience.name,
            url,
            sentence,
            row.created_at,
            may and row.publish_at is None and (row.author_id != user.pk or alone),
            "Read it" if row.publish_at else "Review it",
            mono=True,
        )


def _spot_checks(user: User) -> Iterable[Item]:
    if not access.may(user, "spot_check.view"):
        return
    rows = SpotCheck.objects.filter(state=SpotCheck.State.READY).select_related("audience", "version", "asked_by")
    in_force = Q(version=F("audience__live_version")) | Q(
        audience__live_version=None
    )  # of an older one nothing can be signed
    for row in rows.filter(in_force).order_by("pk")[:SHOWN]:
        yield Item(
            "accent",
            "eye",
            row.audience.name,
            reverse("qa:spot-check", args=[row.audience.key, row.pk]),
            f"A spot check of version {row.version.number} is drawn: look at the people and sign it.",
            row.drawn_at or row.created_at,
            row.asked_by_id in (user.pk, None),
            "Check and sign",
            "" if row.asked_by_id in (user.pk, None) else f"{row.asked_by} asked for it.",
            mono=True,
        )


def _set_ups(user: User) -> Iterable[Item]:
    if not access.may(user, "setup.edit"):
        return
    rows = SetUp.objects.filter(finished_at=None).select_related("audience", "destination", "started_by")
    for row in rows.order_by("pk")[:SHOWN]:
        if row.audience:
            title, url = row.audience.name, reverse("qa:setup", args=[row.audience.key])
        else:
            purpose = Audience.Purpose(row.purpose).label if row.purpose else "A new audience"
            title = f"{purpose} on {row.destination.name}" if row.destination else purpose
            step = "segment" if "identifiers" in row.answers else "identity" if row.purpose else "destination"
            url = reverse("qa:setup-step", args=[row.pk, step])
        yield Item(
            "accent",
            "setup",
            title,
            url,
            "Its set-up is not finished: it goes on where it was left.",
            row.created_at,
            row.started_by_id == user.pk,
            "Go on",
            "" if row.started_by_id == user.pk else f"{row.started_by} began it." if row.started_by else "",
            mono=row.audience is not None,
        )


def _lately(now: datetime) -> Lately:
    counts = Refresh.objects.filter(started_at__gt=now - DAY).exclude(cause=Refresh.Cause.BACKFILL)
    counted = counts.aggregate(
        done=Count("pk", filter=Q(state=Refresh.State.DONE)), failed=Count("pk", filter=Q(state=Refresh.State.FAILED))
    )
    runs = Run.objects.filter(created_at__gt=now - DAY, rehearsal=False, state__in=ENDED)
    ran = runs.aggregate(
        all=Count("pk"),
        failed=Count("pk", filter=Q(state__in=(Run.State.FAILED, Run.State.INTERRUPTED))),
        added=Sum("added"),
        removed=Sum("removed"),
        rejected=Sum("rejected"),
    )
    return Lately(
        counted["done"],
        counted["failed"],
        ran["all"],
        ran["failed"],
        ran["added"] or 0,
        ran["removed"] or 0,
        ran["rejected"] or 0,
    )


def _news(keys: list[str], now: datetime) -> Iterable[AuditEntry]:
    rows = AuditEntry.objects.filter(object_type="audience", object_key__in=keys, at__gt=now - 30 * DAY)
    return rows.exclude(verb__in=("audience.drafted", "audience.refresh_asked")).order_by("-at", "-id")[:FOLLOWED]
