"""Runs: asked for, rehearsed, brought to an end, cancelled, approved."""

import logging
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone
from structlog.contextvars import bound_contextvars

from audiences import jobs
from audiences.models import User
from audiences.services import trail
from destinations import delivery, leases, ledger
from destinations.models import ENDED, TELLS, Mapping, Run
from destinations.services import refuse
from destinations.services.mappings import TASK, name_of

log = logging.getLogger(__name__)

ACTIVE = delivery.ACTIVE
OPEN = (Run.State.QUEUED, Run.State.NEEDS_APPROVAL)
SENDS = (*TELLS, Mapping.State.RETIRED)
_LOOK_EVERY = 0.25


def request(*, actor: User | None, mapping: Mapping, trigger: str = Run.Trigger.PERSON, start: bool = True) -> Run:
    """A sync, soon; the one that is waiting already if there is one. `start` false: the caller brings it to its end itself.

    Raises Refused where the connection's state sends nothing.
    """
    if mapping.state not in SENDS:
        raise refuse(f"The connection is {mapping.get_state_display().lower()}: nothing is sent.")
    if mapping.blocked_reason:
        raise refuse(f"The connection is stopped: {mapping.blocked_reason}")
    with transaction.atomic():
        Mapping.objects.select_for_update().get(pk=mapping.pk)
        run = Run.objects.filter(mapping=mapping, state=Run.State.QUEUED, rehearsal=False).order_by("pk").first()
        if run is None:
            run = Run.objects.create(mapping=mapping, trigger=trigger, requested_by=actor)
            if actor is not None:
                trail.record(actor, "run.requested", "mapping", name_of(mapping), after={"run": run.pk})
    if start:
        jobs.ask(TASK, mapping.pk, queue="sync")
    return run


def rehearse(*, actor: User | None, mapping: Mapping, trigger: str = Run.Trigger.PERSON, start: bool = True) -> Run:
    """Count and plan as if live, and show the first call's body; nothing is sent. The one that is waiting already, if there is one."""
    with transaction.atomic():
        Mapping.objects.select_for_update().get(pk=mapping.pk)
        run = Run.objects.filter(mapping=mapping, state=Run.State.QUEUED, rehearsal=True).order_by("pk").first()
        if run is None:
            run = Run.objects.create(mapping=mapping, trigger=trigger, requested_by=actor, rehearsal=True)
            if actor is not None:
                trail.record(actor, "run.rehearsed", "mapping", name_of(mapping), after={"run": run.pk})
    if start:
        jobs.ask(TASK, mapping.pk, queue="sync")
    return run


def cancel(*, actor: User | None, run: Run) -> Run:
    """Stop it before its next call. What has been sent stays sent. Raises Refused where it has ended."""
    with transaction.atomic():
        row = Run.objects.select_for_update().get(pk=run.pk)
        if row.state in ENDED:
            raise refuse("The run has ended already.")
        row.cancel_requested = True
        fields = ["cancel_requested"]
        if row.state in OPEN:
            row.state, row.finished_at, row.error = (
                Run.State.CANCELLED,
                timezone.now(),
                "Stopped by hand before it began.",
            )
            fields += ["state", "finished_at", "error"]
        row.save(update_fields=fields)
        trail.record(actor, "run.cancelled", "mapping", name_of(row.mapping), after={"run": row.pk})
    return row


def approve(*, actor: User, run: Run, reason: str = "", start: bool = True) -> Run:
    """Let a run remove as many people as it said it would. Raises Refused where nothing waits for that."""
    with transaction.atomic():
        row = Run.objects.select_for_update().get(pk=run.pk)
        if row.state != Run.State.NEEDS_APPROVAL:
            raise refuse("The run does not wait for an approval.")
        row.approved_by, row.approved_at, row.state = actor, timezone.now(), Run.State.QUEUED
        row.save(update_fields=["approved_by", "approved_at", "state"])
        after = {"run": row.pk, "removes": row.planned_removes, "refresh": row.refresh_id}
        trail.record(actor, "run.approved", "mapping", name_of(row.mapping), after=after, reason=reason)
    if start:
        jobs.ask(TASK, row.mapping_id, queue="sync")
    return row


def retry_failed(*, actor: User | None, mapping: Mapping, start: bool = True) -> Run:
    """Try refused people again now, whatever their time."""
    tried = ledger.forget_rejections(mapping.pk, now=timezone.now())
    run = request(actor=actor, mapping=mapping, trigger=Run.Trigger.RETRY, start=start)
    trail.record(actor, "run.retried", "mapping", name_of(mapping), after={"run": run.pk, "people": tried})
    return run


def run_to_end(
    run: Run,
    *,
    patience: timedelta = timedelta(minutes=3),
    sleep: Callable[[float], None] = time.sleep,
    progress: Callable[[Run], None] = lambda run: None,
) -> Run:
    """Bring a run to its end in this process, waiting for pauses, receipts and other workers as long as patience lasts.

    Safe beside workers: whoever has the lease syncs. The run's row says how it ended.
    """
    deadline = timezone.now() + patience
    while True:
        run.refresh_from_db()
        if run.state in ENDED or (run.state == Run.State.NEEDS_APPROVAL and not run.approved_at):
            return run
        try:
            again = _sync(run.pk, sleep=sleep, patience=deadline - timezone.now(), progress=progress)
        except leases.Busy:
            if timezone.now() > deadline:
                return run
            sleep(_LOOK_EVERY)
            continue
        if again is not None:
            jobs.ask(TASK, run.mapping_id, queue="sync", after=max(again - timezone.now(), timedelta(0)))


def perform(mapping: Mapping) -> datetime | None:
    """What a worker does when a sync is due: bring the waiting runs to an end, or make one. When to come back, if early."""
    again: list[datetime] = []
    rehearsals = Run.objects.filter(mapping=mapping, state=Run.State.QUEUED, rehearsal=True).order_by("pk")
    for pk in list(rehearsals.values_list("pk", flat=True)):
        _sync(pk, sleep=jobs.nap)
    if mapping.state in SENDS and not mapping.blocked_reason:
        waiting = Run.objects.filter(mapping=mapping, state__in=OPEN, rehearsal=False).order_by("pk").first()
        run = waiting or Run.objects.create(mapping=mapping, trigger=Run.Trigger.SCHEDULE)
        moment = _sync(run.pk, sleep=jobs.nap)
        if moment is not None:
            again.append(moment)
    return min(again, default=None)


def is_empty(mapping: Mapping) -> bool:
    """Whether nobody is left at the platform, and nobody's removal is unknown."""
    state = ledger.look(mapping.pk, now=timezone.now()).state
    return not (state.present or state.unknown or state.due or state.waiting)


def _sync(run_id: int, **options: Any) -> datetime | None:
    """As delivery.sync, and what is logged meanwhile names the run."""
    with bound_contextvars(run=run_id):
        again = delivery.sync(run_id, **options)
        fields = ("mapping", "state", "added", "removed", "rejected", "unknown", "batches_done")
        log.info("run ended", extra=Run.objects.values(*fields).get(pk=run_id))
    return again
