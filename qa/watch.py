"""The watch: looks at everything every few seconds, opens what is wrong, ends what is right again, and lets a dead-man switch know that it lives."""

import logging
from datetime import datetime, timedelta
from typing import Any

import httpx
from django.conf import settings
from django.db.models import Q
from django.utils import timezone

from audiences import jobs
from audiences.models import Job
from qa import alerts, baseline, outbox, review_mail
from qa.checks import facts as loading
from qa.checks.facts import Facts, Reading
from qa.checks.registry import KINDS, Kind
from qa.models import Incident, Limits

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(seconds=15)
SLOW_EVERY = timedelta(minutes=10)
BEAT_EVERY = timedelta(minutes=1)
GRACE = timedelta(minutes=2)  # after a start: workers catch up with what became late meanwhile
_started = timezone.now()


def look(*, now: datetime | None = None, slow: bool = False, patient: bool = True) -> tuple[int, int]:
    """One look: how many incidents it opened and ended. `patient`: whether what is merely late may be told of already."""
    facts = loading.load(now, slow=slow)
    open_now = {(row.kind, row.subject): row for row in _open_rows()}
    opened = ended = 0
    for key, kind in KINDS.items():
        if kind.slow and not slow:
            continue
        seen: set[str] = set()
        for reading in kind.look(facts):
            seen.add(reading.subject)
            incident = open_now.get((key, reading.subject))
            if reading.finding is not None:
                opened += _wrong(facts, key, kind, reading, incident, patient)
            elif incident is not None:
                ended += _right(kind, reading, incident, facts.now)
        for (name, subject), incident in open_now.items():
            if name == key and subject not in seen:
                ended += alerts.end(
                    incident,
                    "It is not watched any more: archived, retired or taken off.",
                    what="closed",
                    now=facts.now,
                )
    _remind(facts)
    return opened, ended


@jobs.job("qa.watch", queue="sync")
def watch(claim: jobs.Claim) -> None:
    if Job.objects.filter(task="qa.fill_demo", lease_until__isnull=False).exists():
        return  # a sample shop in the making is in no state to be alarmed about
    now = timezone.now()
    look(now=now, patient=now - _started >= GRACE)
    claim.renew()
    baseline.freeze(now=now)
    review_mail.tell(now=now)
    outbox.ask_again()


@jobs.job("qa.watch_slow", queue="compute")
def watch_slow(claim: jobs.Claim) -> None:
    look(slow=True, patient=timezone.now() - _started >= GRACE)


@jobs.job("qa.heartbeat", queue="sync")
def heartbeat(claim: jobs.Claim) -> None:
    """Somebody outside waits for this call, and alarms when it stays away. It stays away when the watch does not look."""
    if not settings.HEARTBEAT_URL:
        jobs.stop_doing("qa.heartbeat", "")
        return
    lately = timezone.now() - 4 * LOOK_EVERY - timedelta(minutes=2)
    looked = Job.objects.filter(task="qa.watch", finished_at__gt=lately, error="").exists()
    if looked:
        beat(settings.HEARTBEAT_URL)


def beat(url: str) -> bool:
    """Whether it was heard. The address is a secret of its owner's, and is not logged."""
    try:
        response = httpx.get(url, timeout=5, follow_redirects=True)
        response.raise_for_status()
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        log.warning("heartbeat not heard", extra={"error": type(error).__name__})
        return False
    return True


def keep_watching() -> None:
    """A worker that starts makes sure that the standing jobs are asked for; asking again changes nothing."""
    global _started
    _started = timezone.now()
    jobs.keep_doing("qa.watch", "", every=LOOK_EVERY, queue="sync")
    jobs.keep_doing("qa.watch_slow", "", every=SLOW_EVERY, queue="compute")
    if settings.HEARTBEAT_URL:
        jobs.keep_doing("qa.heartbeat", "", every=BEAT_EVERY, queue="sync")
    outbox.ask_again()


def _wrong(facts: Facts, key: str, kind: Kind, reading: Reading, incident: Incident | None, patient: bool) -> int:
    finding = reading.finding
    assert finding is not None
    muted = kind.mutable and reading.audience is not None and facts.limits_of(reading.audience.pk).muted(facts.now)
    if incident is not None:
        if incident.clean_looks:
            Incident.objects.filter(pk=incident.pk).update(clean_looks=0, clean_at="")
        if finding.severity == Incident.Severity.CRITICAL and incident.severity == Incident.Severity.WARNING:
            alerts.worsen(incident, finding, muted=muted)
        return 0
    if kind.patient and not patient:
        return 0
    if kind.began is not None:
        finding = kind.began(facts, reading)
    return int(alerts.open_(key, reading, finding, muted=muted) is not None)


def _right(kind: Kind, reading: Reading, incident: Incident, now: datetime) -> int:
    """A clean look at new data counts; enough of them end it."""
    if not reading.at or reading.at == incident.clean_at:
        return 0
    looks = incident.clean_looks + 1
    if looks >= kind.clean:
        over = kind.over[0].upper() + kind.over[1:]
        return int(alerts.end(incident, f"{over}.", now=now))
    Incident.objects.filter(pk=incident.pk, recovered_at=None).update(clean_looks=looks, clean_at=reading.at)
    return 0


def _remind(facts: Facts) -> None:
    """One more mail where the waiting is over and it is still so; and the first one where a mute has ended, or nobody could get it."""
    rows = _open_rows()
    for incident in rows.filter(snoozed_until__lte=facts.now):
        if Incident.objects.filter(pk=incident.pk, snoozed_until=incident.snoozed_until).update(
            snoozed_until=None, snoozed_by=None
        ):
            alerts.mail(incident, "still")
    muted = set(Limits.objects.filter(muted_until__gt=facts.now).values_list("audience_id", flat=True))
    for incident in rows.filter(mails=None):
        kind = KINDS.get(incident.kind)
        audience = incident.audience_id or (incident.mapping.audience_id if incident.mapping else None)
        if kind is None or not kind.mutable or audience not in muted:
            alerts.mail(incident, "opened")


def _open_rows() -> Any:
    roles = ("definition_owner", "sync_owner", "alert_owner", "backup_owner")
    return Incident.objects.filter(Q(recovered_at=None)).select_related(
        "owner", "destination__credentials_by", "mapping__destination",
        *(f"audience__{role}" for role in roles), *(f"mapping__audience__{role}" for role in roles),
    )  # fmt: skip
