"""What workers of this floor do: find due work, and call one service with an id. The work itself is in services and delivery.py."""

import logging
import time
from datetime import datetime, timedelta
from typing import Any

from celery.signals import worker_ready
from django.db.models import Exists, F, OuterRef, Q
from django.utils import timezone

from audiences import jobs
from audiences.models import Refresh, Replacement
from destinations import drift, errands, fastlane, leases, receipts, remotes, urgent
from destinations.connectors import registry
from destinations.connectors.base import ConnectorError
from destinations.models import AT_WORK, Decision, Destination, Mapping, Operation, Run
from destinations.record import tasks as record
from destinations.services import mappings, removals, replacements, runs

log = logging.getLogger(__name__)

LOOK_EVERY = timedelta(seconds=5)
LANE_LEASE = timedelta(seconds=10)  # so long the fast lane stands still when its process is killed
LANE_TURN = 300.0  # seconds, then another thread or worker may have it
BUSY_AGAIN = timedelta(seconds=5)
COUNTED_TOO_LONG = timedelta(minutes=30)
DECISIONS_KEPT = timedelta(days=7)


@jobs.job(mappings.TASK, queue="sync")
def sync(claim: jobs.Claim) -> None:
    """Sync the mapping whose id is the key."""
    mapping = Mapping.objects.select_related("audience", "destination").filter(pk=int(claim.key)).first()
    if mapping is None:
        jobs.stop_doing(mappings.TASK, claim.key)
        return
    try:
        again = runs.perform(mapping)
    except leases.Busy:
        jobs.ask(mappings.TASK, claim.key, queue="sync", after=BUSY_AGAIN)
        return
    if mapping.state == Mapping.State.RETIRED and runs.is_empty(mapping):
        jobs.stop_doing(mappings.TASK, claim.key)
    elif again is not None:
        jobs.ask(mappings.TASK, claim.key, queue="sync", after=max(again - timezone.now(), timedelta(seconds=1)))


@jobs.job(remotes.LOOK, queue="sync")
def look_there(claim: jobs.Claim) -> None:
    """See what became of the remote audience of the mapping whose id is the key, though there may be nobody to send."""
    mapping = Mapping.objects.select_related("audience", "destination").filter(pk=int(claim.key)).first()
    if mapping is None or not mapping.remote_id or mapping.state not in AT_WORK:
        return
    if again := remotes.see(mapping):
        jobs.ask(remotes.LOOK, claim.key, queue="sync", after=again)


@jobs.job(fastlane.TASK, queue="urgent", lease=LANE_LEASE)
def read_changes(claim: jobs.Claim) -> None:
    """The fast lane: decide about what has just happened, for as long as this worker serves."""
    ends, serving = time.monotonic() + LANE_TURN, jobs.go_on()
    fastlane.run(claim, on=lambda: jobs.go_on() and time.monotonic() < ends)
    if serving:
        jobs.ask(fastlane.TASK, claim.key, queue="urgent")


@jobs.job(errands.TASK, queue="urgent", lease=LANE_LEASE)
def deliver_urgently(claim: jobs.Claim) -> None:
    """Say what is urgent at the destination whose id is the key."""
    if not Destination.objects.filter(pk=int(claim.key)).exists():
        return
    if again := urgent.deliver(int(claim.key)):
        jobs.ask(errands.TASK, claim.key, queue="urgent", after=max(again - timezone.now(), timedelta(0)))


@jobs.job("destinations.receipts", queue="sync")
def fetch_receipts(claim: jobs.Claim) -> None:
    """Ask platforms what became of calls whose outcome comes later."""
    due = Operation.objects.filter(state=Operation.State.SUBMITTED, poll_at__lte=timezone.now())
    for operation in due.select_related("mapping__destination").order_by("poll_at")[:200]:
        destination = operation.mapping.destination
        try:
            with registry.open(destination) as connector:
                settle = timedelta(seconds=connector.capabilities.settle_seconds)
                receipts.ask(operation, connector, settle=settle, now=timezone.now())
        except ConnectorError:  # nothing can be asked there; the destination's check says why
            Operation.objects.filter(pk=operation.pk).update(poll_at=timezone.now() + receipts.LONGEST)
        claim.renew()


@jobs.job("destinations.look", queue="sync")
def look(claim: jobs.Claim) -> None:
    """Find what is due and nobody has asked for: dead workers' calls, unknown outcomes, fresh counts, ended freezes."""
    now = timezone.now()
    mappings.thaw(now=now)
    _see_to_the_dead()
    sends = Mapping.objects.filter(state__in=runs.SENDS, blocked_reason="")
    said = Run.objects.filter(  # what a run has found due and could not say is held or put off: it waits for what changes that
        mapping=OuterRef("mapping"),
        state__in=(Run.State.DONE, Run.State.PARTIAL),
        rehearsal=False,
        started_at__gte=OuterRef("reassert_at"),
    )
    unknown = Operation.objects.filter(mapping=OuterRef("pk"), open=True, reassert_at__lte=now).exclude(Exists(said))
    counted = Refresh.objects.filter(
        audience=OuterRef("audience"),
        state=Refresh.State.DONE,
        cause__in=(Refresh.Cause.SCHEDULE, Refresh.Cause.PUBLISH, Refresh.Cause.MANUAL),
        pk__gt=OuterRef("ledger__refresh"),
    )
    running = Run.objects.filter(mapping=OuterRef("pk"), state__in=runs.ACTIVE)
    unseen = Q(seen_at=None) | Q(seen_at__lt=now - remotes.LOOKED_AT_EVERY)
    there = Mapping.objects.filter(unseen, state__in=AT_WORK).exclude(remote_id="").exclude(Exists(running))
    for pk in there.exclude(destination__state=Destination.State.REFUSED).values_list("pk", flat=True):
        jobs.ask(remotes.LOOK, pk, queue="sync")
    due = sends.filter(Exists(unknown) | Exists(counted)).exclude(Exists(running)).values_list("pk", flat=True)
    for pk in due:
        jobs.ask(mappings.TASK, pk, queue="sync")
    Decision.objects.filter(created_at__lt=now - DECISIONS_KEPT, seq__lte=F("mapping__ledger__change_seq")).delete()


@jobs.job(replacements.TASK, queue="sync")
def replace(claim: jobs.Claim) -> None:
    """Give audiences that were published beside others their connections, and let the others retire whose date has come."""
    new = Replacement.objects.filter(connected_at=None, new__archived_at=None)
    for row in new.select_related("old", "new").order_by("pk"):
        replacements.connect(row)
        claim.renew()
    due = Replacement.objects.filter(retires_at__lte=timezone.now(), old__archived_at=None)
    for row in due.select_related("old", "new").order_by("pk"):
        replacements.carry_out(row)
        claim.renew()


@jobs.job("destinations.compare", queue="sync")
def compare(claim: jobs.Claim) -> None:
    """Read what platforms hold, where they let us, and compare it with what they were told."""
    for mapping in drift.due(timezone.now()):
        try:
            with registry.open(mapping.destination) as connector:
                drift.compare(mapping, connector, timezone.now())
        except ConnectorError as error:  # its next run says so; it is compared another day
            log.warning("not compared", extra={"mapping": mapping.pk, "verdict": type(error).__name__})
        claim.renew()


@jobs.job("destinations.forget", queue="sync")
def forget(claim: jobs.Claim) -> None:
    """Forget the identifiers of removed people of whom no platform has to be told any more."""
    removals.forget()


def _see_to_the_dead() -> None:
    """Runs whose worker has died are interrupted, and what it left in flight becomes unknown."""
    now = timezone.now()
    active = Q(state__in=runs.ACTIVE, rehearsal=False)
    for run in Run.objects.filter(active).select_related("mapping__destination"):
        if run.state == Run.State.COUNTING and not _counts_no_more(run, now):
            continue
        if not leases.holds(run.mapping_id, leases.BULK, now=now):
            words = "Its worker stopped; it is taken up again."
            ended = Run.objects.filter(active, pk=run.pk, started_at=run.started_at)
            ended.update(state=Run.State.INTERRUPTED, error=words, finished_at=now)
            if run.mapping.state in runs.SENDS:
                jobs.ask(mappings.TASK, run.mapping_id, queue="sync")
    prepared = Operation.objects.filter(state=Operation.State.PREPARED).values(
        "mapping_id", "lane", "mapping__destination__kind"
    )
    for row in prepared.distinct():
        if (
            not leases.holds(row["mapping_id"], row["lane"], now=now)
            and row["mapping__destination__kind"] in registry.CONNECTORS
        ):
            settle = registry.CONNECTORS[row["mapping__destination__kind"]].capabilities.settle_seconds
            leases.reap(row["mapping_id"], row["lane"], settle=timedelta(seconds=settle), now=now)


def _counts_no_more(run: Run, now: datetime) -> bool:
    """Nobody has a lease while counting: who takes too long is dead, and so is whom a later run has come and gone beside."""
    if run.started_at is None or run.started_at <= now - COUNTED_TOO_LONG:
        return True
    later = Run.objects.filter(mapping=run.mapping_id, rehearsal=False, started_at__gt=run.started_at)
    return later.filter(finished_at__isnull=False).exists()


@worker_ready.connect
def keep_going(**_: Any) -> None:
    """A worker that starts makes sure that the standing jobs are asked for; asking again changes nothing."""
    jobs.keep_doing(fastlane.TASK, "", every=LOOK_EVERY, queue="urgent")
    jobs.keep_doing("destinations.look", "", every=LOOK_EVERY, queue="sync")
    jobs.keep_doing("destinations.receipts", "", every=LOOK_EVERY, queue="sync")
    jobs.keep_doing(replacements.TASK, "", every=LOOK_EVERY, queue="sync")
    jobs.keep_doing("destinations.compare", "", every=timedelta(hours=1), queue="sync")
    record.keep_going()
    jobs.keep_doing("destinations.forget", "", every=timedelta(hours=1), queue="sync")
