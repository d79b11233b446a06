"""Incidents as pages and commands read them: open ones by audience, lists, how many. Writes are alerts.py's (people) and watch.py's (the watch)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Case, IntegerField, Q, QuerySet, Value, When

from audiences.models import Audience, User
from qa import troubles
from qa.checks.registry import KINDS
from qa.models import Incident, Mail

open_for = troubles.open_for
STATES = ("open", "waiting", "past", "all")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the address of the list asks for."""

    state: str = ""
    kind: str = ""
    owner: str = ""
    audience: str = ""

    @property
    def any(self) -> bool:
        return bool(self.kind or self.owner or self.audience)


@dataclass(frozen=True, slots=True)
class Choice:
    value: str
    label: str


def open_count() -> int:
    """How many are open. One query."""
    return Incident.objects.filter(recovered_at=None).count()


def recent(limit: int = 20) -> list[Incident]:
    """The last, open or over. One query."""
    return list(_rows().order_by("-opened_at", "-pk")[:limit])


def for_audience(audience: Audience, limit: int = 20) -> list[Incident]:
    """Those of an audience and of its connections, open first, then the latest. One query."""
    mine = _rows().filter(Q(audience=audience) | Q(mapping__audience=audience))
    return list(mine.order_by(_open_first(), "-since", "-pk")[:limit])


def found(wish: Wish, now: datetime) -> QuerySet[Incident]:
    """What the list shows: open first, the worst first, then the latest."""
    rows = _rows()
    if wish.state == "open":
        rows = rows.filter(recovered_at=None)
    elif wish.state == "waiting":
        rows = rows.filter(recovered_at=None).filter(Q(acknowledged_by__isnull=False) | Q(snoozed_until__gt=now))
    elif wish.state == "past":
        rows = rows.filter(recovered_at__isnull=False)
    if wish.kind:
        rows = rows.filter(kind=wish.kind)
    if wish.owner:
        rows = (
            rows.filter(owner=int(wish.owner))
            if wish.owner.isascii() and wish.owner.isdigit() and len(wish.owner) < 15
            else rows.none()
        )
    if wish.audience:
        rows = rows.filter(Q(audience__key=wish.audience) | Q(mapping__audience__key=wish.audience))
    worst = Case(
        When(severity=Incident.Severity.CRITICAL, then=Value(0)), default=Value(1), output_field=IntegerField()
    )
    return rows.order_by(_open_first(), Case(When(recovered_at=None, then=worst), default=Value(2)), "-since", "-pk")


def counts(now: datetime) -> dict[str, int]:
    """For the chips above the list. Two queries."""
    still = list(Incident.objects.filter(recovered_at=None).values_list("acknowledged_by", "snoozed_until"))
    waiting = sum(1 for taken, until in still if taken is not None or (until is not None and until > now))
    return {"open": len(still), "waiting": waiting, "past": Incident.objects.filter(recovered_at__isnull=False).count()}


def kinds() -> list[Choice]:
    """The kinds that occur. One query."""
    there = set(Incident.objects.order_by().values_list("kind", flat=True).distinct())
    return [Choice(key, kind.label) for key, kind in KINDS.items() if key in there]


def who() -> list[Choice]:
    """Whose they are. One query."""
    rows = User.objects.filter(pk__in=Incident.objects.order_by().values("owner")).order_by("name", "email")
    return [Choice(str(user.pk), str(user)) for user in rows]


def label(kind: str) -> str:
    return KINDS[kind].label if kind in KINDS else kind.replace("_", " ").capitalize()


def name(incident: Incident) -> str:
    """What it is about, as mails and lists call it."""
    if incident.audience is not None:
        return incident.audience.name
    if incident.mapping is not None:
        return incident.mapping.audience.name
    return incident.destination.name if incident.destination is not None else "Rollcall"


def place(incident: Incident) -> str:
    """The destination that it concerns, for one of a connection."""
    return incident.mapping.destination.name if incident.mapping is not None else ""


def mails(incidents: Sequence[Incident]) -> dict[int, Mail]:
    """Incident → the first mail that went out about it. One query."""
    found: dict[int, Mail] = {}
    for mail in Mail.objects.filter(incident__in=[row.pk for row in incidents]).defer("text", "html").order_by("pk"):
        found.setdefault(mail.incident_id or 0, mail)
    return found


def as_values(incidents: Iterable[Incident]) -> list[dict[str, Any]]:
    """For machines."""
    return [
        {
            "id": row.pk,
            "kind": row.kind,
            "severity": row.severity,
            "about": name(row),
            "audience": _audience_key(row),
            "destination": row.destination.key
            if row.destination
            else row.mapping.destination.key
            if row.mapping
            else None,
            "sentence": row.sentence,
            "remedy": row.remedy,
            "facts": row.facts,
            "causes": row.causes,
            "since": row.since.isoformat(),
            "opened_at": row.opened_at.isoformat(),
            "recovered_at": row.recovered_at.isoformat() if row.recovered_at else None,
            "owner": row.owner.email if row.owner else None,
            "acknowledged_by": row.acknowledged_by.email if row.acknowledged_by else None,
            "snoozed_until": row.snoozed_until.isoformat() if row.snoozed_until else None,
        }
        for row in incidents
    ]


def _audience_key(row: Incident) -> str | None:
    audience = row.audience or (row.mapping.audience if row.mapping else None)
    return audience.key if audience else None


def _rows() -> QuerySet[Incident]:
    return Incident.objects.select_related(
        "audience", "destination", "owner", "acknowledged_by", "snoozed_by", "mapping__audience", "mapping__destination"
    ).defer("destination__credentials", "mapping__destination__credentials")


def _open_first() -> Case:
    return Case(When(recovered_at=None, then=Value(0)), default=Value(1), output_field=IntegerField())
