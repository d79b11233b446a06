"""Tests that must not be disturbed: an audience is locked until a date, and publishing waits for its end or an admin breaks the lock.

Whoever changes a lock moves what waits for its end (services/versions.py) with it.
"""

from collections.abc import Iterable
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import QuerySet
from django.utils import timezone

from audiences import jobs
from audiences.models import Audience, SegmentVersion, TestLock, User
from audiences.services import audiences, trail
from audiences.services.audiences import AudienceRefused
from audiences.vocabulary import Problem

LONGEST = timedelta(days=180)
TASK = "audiences.publish_waiting"


def current(audience: Audience) -> TestLock | None:
    """The lock that holds now."""
    return _holding().filter(audience=audience).first()


def locked_among(audience_ids: Iterable[int]) -> dict[int, TestLock]:
    """The locks that hold now, by audience. One query."""
    return {lock.audience_id: lock for lock in _holding().filter(audience__in=list(audience_ids))}


def set_lock(*, actor: User | None, audience: Audience, until: datetime, note: str) -> TestLock:
    """In test until then; a lock that holds already is moved. Raises AudienceRefused for a moment that has passed or is more than 180 days
    away, and where somebody else's test would end sooner."""
    now, note = timezone.now(), note.strip()
    if until <= now:
        raise AudienceRefused(Problem("until", "must be in the future"))
    if until > now + LONGEST:
        raise AudienceRefused(Problem("until", f"must be at most {LONGEST.days} days from now"))
    if len(note) > 300 or "\0" in note:
        raise AudienceRefused(Problem("note", "must have at most 300 characters"))
    with transaction.atomic():
        audience = audiences.held(audience)
        audiences.not_archived(audience)
        lock = current(audience)
        if lock is None:
            lock = TestLock.objects.create(audience=audience, until=until, note=note, set_by=actor)
            after = {"until": until.isoformat(), "note": note}
            trail.record(actor, "audience.test_locked", "audience", audience.key, after=after, reason=note)
        elif (lock.until, lock.note) != (until, note):
            if until < lock.until and not may_end(actor, lock):
                raise AudienceRefused(
                    Problem(
                        "until", f"{lock.set_by or 'Somebody else'} set this test: it may be made longer, not shorter"
                    )
                )
            before = {"until": lock.until.isoformat(), "note": lock.note}
            lock.until, lock.note = until, note
            lock.save(update_fields=["until", "note"])
            after = {"until": until.isoformat(), "note": note}
            trail.record(
                actor, "audience.test_moved", "audience", audience.key, before=before, after=after, reason=note
            )
        _move(audience, until)
    return lock


def end_lock(*, actor: User | None, audience: Audience) -> None:
    """The test is over before its time, says who set it. What waits is published. Raises AudienceRefused for anybody else."""
    with transaction.atomic():
        audience = audiences.held(audience)
        lock = current(audience)
        if lock is None:
            return
        if not may_end(actor, lock):
            raise AudienceRefused(
                Problem("", f"only {lock.set_by or 'who set it'} ends this test; an admin may break it, with a reason")
            )
        before, lock.until = {"until": lock.until.isoformat()}, timezone.now()
        lock.save(update_fields=["until"])
        trail.record(actor, "audience.test_ended", "audience", audience.key, before=before)
        _move(audience, lock.until)


def break_lock(*, actor: User | None, audience: Audience, reason: str) -> TestLock:
    """The test is disturbed, on record: the reason shows wherever the audience does. What waits is published. Raises AudienceRefused."""
    reason = audiences.needs_reason(reason)
    with transaction.atomic():
        audience = audiences.held(audience)
        lock = current(audience)
        if lock is None:
            raise AudienceRefused(Problem("", f'"{audience.key}" is not in test'))
        lock.broken_at, lock.broken_by, lock.broken_reason = timezone.now(), actor, reason
        lock.save(update_fields=["broken_at", "broken_by", "broken_reason"])
        before = {"until": lock.until.isoformat(), "note": lock.note}
        trail.record(actor, "audience.test_broken", "audience", audience.key, before=before, reason=reason)
        _move(audience, lock.broken_at)
    return lock


def last_broken(audience: Audience) -> TestLock | None:
    """The lock that was broken last, while its test would still be going on."""
    broken = TestLock.objects.filter(audience=audience, broken_at__isnull=False, until__gt=timezone.now())
    return broken.select_related("set_by", "broken_by").order_by("-broken_at").first()


def may_end(user: User | None, lock: TestLock) -> bool:
    """Who set it; the system; anybody, where who set it is gone."""
    return user is None or lock.set_by is None or not lock.set_by.is_active or lock.set_by_id == user.pk


def _holding() -> QuerySet[TestLock]:
    rows = TestLock.objects.filter(until__gt=timezone.now(), broken_at=None)
    return rows.select_related("set_by").order_by("pk")


def _move(audience: Audience, until: datetime) -> None:
    """What waits for the end waits for the new one."""
    waiting = SegmentVersion.objects.filter(audience=audience, publish_at__isnull=False)
    if waiting.update(publish_at=until):
        jobs.ask(TASK, audience.pk, after=max(until - timezone.now(), timedelta(0)))
