"""What happens to an incident: it opens, gets worse, is over; and what people do about it: acknowledge, let wait, take as usual, limits, mute.

Each is one transaction with its mail in it. Two that see the same thing at once make one incident: the database keeps it open once.
"""

from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from audiences import owners
from audiences.models import Audience, User
from audiences.services import trail
from destinations.models import Destination, Mapping
from qa import letters, limits, outbox
from qa.checks.facts import Finding, Reading
from qa.checks.registry import KINDS
from qa.models import Incident, Limits, Mail

LONGEST_SNOOZE, LONGEST_MUTE = timedelta(days=30), timedelta(days=90)


class AlertRefused(Exception):
    """It cannot be done, in words for a person."""


def open_(kind: str, reading: Reading, finding: Finding, *, muted: bool = False) -> Incident | None:
    """A new incident and its mail. None: another has opened it in the meantime."""
    try:
        with transaction.atomic():
            incident = Incident.objects.create(
                kind=kind,
                subject=reading.subject,
                audience=reading.audience,
                mapping=reading.mapping,
                destination=reading.destination,
                owner=owner_of(reading.audience, reading.destination),
                **_told(finding),
            )
            if not muted:
                mail(incident, "opened")
    except IntegrityError:
        if Incident.objects.filter(kind=kind, subject=reading.subject, recovered_at=None).exists():
            return None
        raise
    return incident


def worsen(incident: Incident, finding: Finding, *, muted: bool = False) -> bool:
    """From a warning to a problem: told anew, once, and nobody has taken it up any more."""
    with transaction.atomic():
        was = Incident.objects.filter(pk=incident.pk, recovered_at=None, severity=Incident.Severity.WARNING)
        told = {name: value for name, value in _told(finding).items() if name != "since"}
        if not was.update(**told, acknowledged_by=None, acknowledged_at=None, snoozed_until=None, snoozed_by=None):
            return False
        incident.refresh_from_db()
        if not muted:
            mail(incident, "worse")
    return True


def end(incident: Incident, words: str, *, what: str = "over", now: datetime | None = None) -> bool:
    """It is over: once, with a mail to whoever had one of its beginning."""
    with transaction.atomic():
        still = Incident.objects.filter(pk=incident.pk, recovered_at=None)
        if not still.update(recovered_at=now or timezone.now(), recovered_words=words[:300]):
            return False
        incident.refresh_from_db()
        if Mail.objects.filter(incident=incident).exists():
            mail(incident, what)
    return True


def mail(incident: Incident, what: str) -> Mail | None:
    """To its owner: the one who is now, else an admin. None where nobody could get it; the watch tries again."""
    to = (
        incident.owner
        if incident.owner and incident.owner.is_active
        else owner_of(_audience(incident), incident.destination)
    )
    if to is None:
        return None
    key = f"incident:{incident.pk}:{what}"
    if what == "still":
        key = f"{key}:{timezone.now():%Y%m%d%H%M}"
    return outbox.post(to=to, letter=letters.of_incident(incident, to, what), key=key, incident=incident)


def owner_of(audience: Audience | None, destination: Destination | None) -> User | None:
    """Who hears of it: the audience's; for an account whoever connected it, else who answers for most of what goes there; else an admin."""
    user = owners.alerted(audience) if audience is not None else None
    if user is None and destination is not None:
        user = (
            destination.credentials_by if destination.credentials_by and destination.credentials_by.is_active else None
        )
        user = user or _most(destination)
    return user or User.objects.filter(role=User.Role.ADMIN, is_active=True).order_by("pk").first()


def acknowledge(*, actor: User, incident: Incident) -> Incident:
    """Somebody is on it. Raises AlertRefused where it is over."""
    with transaction.atomic():
        row = _still_open(incident)
        if row.acknowledged_by_id != actor.pk:
            row.acknowledged_by, row.acknowledged_at = actor, timezone.now()
            row.save(update_fields=["acknowledged_by", "acknowledged_at"])
            _record(actor, "alert.acknowledged", row)
    return row


def unacknowledge(*, actor: User, incident: Incident) -> Incident:
    with transaction.atomic():
        row = _still_open(incident)
        if row.acknowledged_by_id is not None:
            row.acknowledged_by, row.acknowledged_at = None, None
            row.save(update_fields=["acknowledged_by", "acknowledged_at"])
            _record(actor, "alert.unacknowledged", row)
    return row


def snooze(*, actor: User, incident: Incident, until: datetime | None) -> Incident:
    """Let it wait: then there is one more mail if it is still so. `until` None: it does not wait any more. Raises AlertRefused."""
    now = timezone.now()
    if until is not None and not now < until <= now + LONGEST_SNOOZE:
        raise AlertRefused(f"It can wait until a moment within the next {LONGEST_SNOOZE.days} days.")
    with transaction.atomic():
        row = _still_open(incident)
        row.snoozed_until, row.snoozed_by = until, actor if until else None
        row.save(update_fields=["snoozed_until", "snoozed_by"])
        after = {"until": until.isoformat() if until else None}
        _record(actor, "alert.snoozed" if until else "alert.unsnoozed", row, after=after)
    return row


def take_as_usual(*, actor: User, incident: Incident, reason: str) -> Incident:
    """The change is meant: from its beginning on is what is usual. The incident is over. Raises AlertRefused."""
    reason = _reason(reason)
    with transaction.atomic():
        row = _still_open(incident)
        if row.kind != "size" or row.audience is None:
            raise AlertRefused("Only a change of size can be taken as usual.")
        held, _ = Limits.objects.select_for_update().get_or_create(audience=row.audience)
        held.usual_from, held.changed_by = row.since, actor
        held.save(update_fields=["usual_from", "changed_by"])
        _record(actor, "alert.taken_as_usual", row, reason=reason)
        end(row, f"{actor} takes the new size as usual: {reason}")
    return row


def set_limit(*, actor: User, audience: Audience, field: str, share: float | None, reason: str = "") -> Limits:
    """How far a number may move. None: the usual again. Raises AlertRefused."""
    if field not in ("size_share", "adds_share"):
        raise AlertRefused("There is no such limit.")
    if share is not None and not limits.LEAST <= share <= limits.MOST:
        raise AlertRefused(f"A limit is from {limits.LEAST:.0%} to {limits.MOST:.0%}.")
    with transaction.atomic():
        row, _ = Limits.objects.select_for_update().get_or_create(audience=audience)
        before = {field: getattr(row, field)}
        if before[field] != share:
            setattr(row, field, share)
            row.changed_by = actor
            row.save(update_fields=[field, "changed_by"])
            trail.record(
                actor, "alert.limit_set", "audience", audience.key, before=before, after={field: share}, reason=reason
            )
    return row


def mute(*, actor: User, audience: Audience, until: datetime | None, reason: str) -> Limits:
    """No mail about its numbers and syncs until then; what happens still shows. None: mails again. Raises AlertRefused."""
    now = timezone.now()
    if until is not None:
        reason = _reason(reason)
        if not now < until <= now + LONGEST_MUTE:
            raise AlertRefused(f"The end must be within the next {LONGEST_MUTE.days} days.")
    with transaction.atomic():
        row, _ = Limits.objects.select_for_update().get_or_create(audience=audience)
        before = {"until": row.muted_until.isoformat() if row.muted_until else None}
        row.muted_until, row.mute_reason, row.changed_by = until, reason if until else "", actor
        row.save(update_fields=["muted_until", "mute_reason", "changed_by"])
        after = {"until": until.isoformat() if until else None}
        verb = "alert.muted" if until else "alert.unmuted"
        trail.record(actor, verb, "audience", audience.key, before=before, after=after, reason=reason)
    return row


def send_test(*, actor: User) -> Mail:
    """A mail to oneself, as alerts come; pressed twice within a minute it is one."""
    key = f"test:{actor.pk}:{timezone.now():%Y%m%d%H%M}"
    return outbox.post(to=actor, letter=letters.of_test(actor), key=key)


def _told(finding: Finding) -> dict[str, Any]:
    return {
        "severity": finding.severity,
        "since": finding.since,
        "sentence": finding.sentence,
        "remedy": finding.remedy,
        "figure": finding.figure[:60],
        "facts": dict(finding.facts),
        "causes": list(finding.causes),
    }


def _audience(incident: Incident) -> Audience | None:
    return incident.audience or (incident.mapping.audience if incident.mapping else None)


def _most(destination: Destination) -> User | None:
    """Who is alerted about most of the audiences that go there."""
    found: dict[int, tuple[int, User]] = {}
    rows = Mapping.objects.filter(destination=destination, audience__archived_at=None).select_related(
        *(f"audience__{role.field}" for role in owners.ROLES)
    )
    for row in rows.order_by("pk"):
        user = owners.alerted(row.audience)
        if user is not None:
            found[user.pk] = (found.get(user.pk, (0, user))[0] + 1, user)
    return max(found.values(), key=lambda pair: (pair[0], -pair[1].pk))[1] if found else None


def _still_open(incident: Incident) -> Incident:
    row = (
        Incident.objects.select_for_update(of=("self",))
        .select_related("audience", "mapping__audience", "destination")
        .get(pk=incident.pk)
    )
    if row.recovered_at is not None:
        raise AlertRefused("It is over already.")
    return row


def _reason(reason: str) -> str:
    reason = reason.replace("\0", "").strip()
    if not reason:
        raise AlertRefused("Say why, in a few words.")
    if len(reason) > 300:
        raise AlertRefused("The reason may have 300 characters.")
    return reason


def _record(actor: User, verb: str, incident: Incident, *, after: Any = None, reason: str = "") -> None:
    audience = _audience(incident)
    label = KINDS[incident.kind].label if incident.kind in KINDS else incident.kind
    told = {"alert": incident.pk, "kind": label, **(after or {})}
    if audience is not None:
        trail.record(actor, verb, "audience", audience.key, after=told, reason=reason)
    else:
        trail.record(
            actor,
            verb,
            "destination",
            incident.destination.key if incident.destination else "",
            after=told,
            reason=reason,
        )
