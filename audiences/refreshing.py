"""Counting in the background: what is due is counted together, and a new audience gets its 90 past days. The counting is services/refreshes.py's."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

from django.db import transaction
from django.db.models import Min
from django.utils import timezone
from pyroaring import BitMap

from audiences import clock, history, jobs
from audiences.models import Audience, Event, LakeFile, Membership, Refresh
from audiences.people import engines
from audiences.segments import evaluate
from audiences.segments.evaluate import Computed
from audiences.services import refreshes

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(seconds=15)
BACKFILL_DAYS = 90
DAYS_A_WRITE = 10


def keep_counting() -> None:
    """Have due audiences counted from now on. Workers call it when they start; calling it again changes nothing."""
    jobs.keep_doing("audiences.refresh_due", "all", every=LOOK_EVERY, queue="compute")
    jobs.keep_doing("audiences.backfill", "all", every=timedelta(hours=1), queue="compute")


@jobs.job("audiences.refresh_due", queue="compute")
def refresh_due(claim: jobs.Claim) -> None:
    """Count every audience whose time has come, by one pin for each cause."""
    refreshes.give_up_abandoned()
    due = Audience.objects.filter(refresh_due_at__lte=timezone.now(), archived_at=None, live_version__isnull=False)
    by_cause: dict[str, list[Audience]] = {}
    for audience in due:
        by_cause.setdefault(audience.refresh_cause, []).append(audience)
    for cause, audiences in by_cause.items():
        claim.renew()
        refreshes.refresh(audiences, cause=cause)


@jobs.job("audiences.backfill", queue="compute")
def backfill(claim: jobs.Claim) -> None:
    """Compute the past days of every audience that was first published since. Killed at any point, it goes on where it stopped."""
    fill_in(claim)


def fill_in(claim: jobs.Claim) -> None:
    """What `backfill` does, for whoever holds the claim."""
    waiting = list(
        Audience.objects.filter(backfill_until_us__isnull=False, archived_at=None, live_version__isnull=False)
        .select_related("live_version")
        .order_by("key")
    )
    if not waiting:
        return
    rules = refreshes.rules_of(waiting)
    ready = [audience for audience in waiting if audience.key in rules.trees]
    end = max((audience.backfill_until_us or 0 for audience in ready), default=0)
    first = _first_event_us()
    days = [] if first is None else midnights(max(first, end - BACKFILL_DAYS * clock.DAY), end)
    pending = {audience.key: _Past(audience) for audience in ready}
    engine, lists = engines.current(), refreshes.lists_of(rules.trees.values())
    # One snapshot for all days: what does not depend on the moment is answered once.
    with refreshes.pinned(clock.now_us()) as pin:
        for done, day in enumerate(days):
            claim.renew()
            refreshes.hold(pin)
            claim.progress(done=done, of=len(days), audiences=len(pending))
            trees = {key: rules.trees[key] for key, past in pending.items() if past.wants(day)}
            computed = evaluate.compute(trees, replace(pin, as_of_us=day), engine, lists) if trees else {}
            for key, result in computed.items():
                pending[key].add(day, result)
    for past in pending.values():
        past.finish()
    claim.progress(every=0, done=len(days), of=len(days), audiences=len(pending))


def midnights(start_us: int, end_us: int) -> Sequence[int]:
    """Every UTC midnight in (start, end]."""
    return range((start_us // clock.DAY + 1) * clock.DAY, end_us + 1, clock.DAY)


def _first_event_us() -> int | None:
    """When the first event on record happened; None if there is none."""
    kept = LakeFile.objects.filter(kind=LakeFile.Kind.EVENTS, dead_manifest=None).aggregate(first=Min("min_time_us"))
    hot = Event.objects.aggregate(first=Min("time_us"))
    moments = [moment for moment in (kept["first"], hot["first"]) if moment is not None]
    return min(moments) if moments else None


class _Past:
    """The past days of one audience, written a few at a time, in order, after those that an earlier attempt has written."""

    def __init__(self, audience: Audience) -> None:
        self._audience = audience
        self._until = audience.backfill_until_us or 0
        backfilled = Refresh.objects.filter(audience=audience, cause=Refresh.Cause.BACKFILL)
        # Another version went live before the first one's past was complete: a curve of both would mislead.
        backfilled.exclude(version=audience.live_version).delete()
        last = backfilled.order_by("-as_of_us").first()
        self._last_us = last.as_of_us if last else 0
        self._members: BitMap | None = history.members_at(last) if last else None
        self._number = backfilled.count()
        self._unsaved: list[Refresh] = []

    def wants(self, day: int) -> bool:
        return max(self._last_us, self._until - BACKFILL_DAYS * clock.DAY) < day <= self._until

    def add(self, day: int, computed: Computed) -> None:
        counting = Refresh(
            audience=self._audience, version=self._audience.live_version, cause=Refresh.Cause.BACKFILL, as_of_us=day
        )
        keyframe = self._number % refreshes.KEYFRAME_EVERY == 0
        refreshes.fill(counting, computed.members, self._members, keyframe=keyframe)
        self._members, self._number = computed.members, self._number + 1
        self._unsaved.append(counting)
        if len(self._unsaved) >= DAYS_A_WRITE:
            self._save()

    def finish(self) -> None:
        """If another version went live meanwhile, it stays to be done, for that one."""
        self._save()
        mine = Audience.objects.filter(pk=self._audience.pk, live_version=self._audience.live_version)
        mine.update(backfill_until_us=None)

    def _save(self) -> None:
        if not self._unsaved:
            return
        with transaction.atomic():
            Refresh.objects.bulk_create(self._unsaved)
            membership = Membership.objects.select_for_update().filter(audience=self._audience).first()
            if membership is not None:
                membership.daily = refreshes.with_days(membership.daily, self._unsaved, earlier=True)
                membership.save(update_fields=["daily"])
        self._unsaved = []
