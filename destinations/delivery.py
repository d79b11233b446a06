"""One sync of a mapping, from its count to its end. The calls are calls.py's, what to say plan.py's, what is believed ledger.py's."""

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from django.utils import timezone
from pyroaring import BitMap

from audiences import faults
from audiences.models import Refresh
from destinations import breakers, calls, identities, leases, ledger, plan, receipts, remotes, signals, wanted
from destinations.calls import Cancelled, Clock, Stopped, Sync
from destinations.connectors import registry
from destinations.connectors.base import Connector, ConnectorError, Misconfigured, OutcomeUnknown, Push, Retryable
from destinations.ledger import View, Watch
from destinations.models import Destination, Mapping, Run
from destinations.plan import ADD, REMOVE, Plan, Step, Stops

log = logging.getLogger(__name__)

PATIENCE = timedelta(seconds=20)  # how long a worker waits before it leaves a run to be taken up again
REMOVAL_FLOOR = 100  # so many removals need nobody's approval, whatever the share
ACTIVE = (Run.State.COUNTING, Run.State.DIFFING, Run.State.SENDING, Run.State.CONFIRMING)
YOUNG_AGAIN = timedelta(seconds=60)

Opener = Callable[[Destination], AbstractContextManager[Connector]]


def sync(
    run_id: int,
    *,
    now: Clock = timezone.now,
    sleep: Callable[[float], None] = time.sleep,
    patience: timedelta = PATIENCE,
    opener: Opener = registry.open,
    progress: Callable[[Run], None] = lambda run: None,
) -> datetime | None:
    """Bring the run to an end, or as far as it gets; its row says how. When to take the mapping up again, if something is left.

    Raises leases.Busy while another worker is syncing this mapping, and whatever a bug raises after having noted it.
    """
    run = Run.objects.select_related("mapping__audience", "mapping__destination").get(pk=run_id)
    mapping = run.mapping
    try:
        if run.cancel_requested:
            raise Cancelled
        if mapping.blocked_reason or mapping.lost:
            raise Stopped(mapping.blocked_reason)
        if not _begin(run, now()):
            raise leases.Busy(now())
        counted = None if mapping.state == Mapping.State.RETIRED else wanted.count(mapping)
        if run.rehearsal:
            _rehearse(run, counted, now=now, opener=opener)
            return None
        settle = timedelta(seconds=registry.named(mapping.destination.kind).capabilities.settle_seconds)
        lease = leases.claim(mapping.pk, leases.BULK, settle=settle, now=now())
        try:
            with opener(mapping.destination) as connector:
                work = Sync(
                    run=run,
                    mapping=mapping,
                    connector=connector,
                    lease=lease,
                    watch=Watch(0, counted.events if counted else frozenset()),
                    left_at=counted.as_of if counted else now(),
                    now=now,
                    sleep=sleep,
                    until=now() + patience,
                    progress=progress,
                    version_id=counted.refresh.version_id if counted else None,
                )
                _deliver(work, counted)
                return _end_well(work)
        finally:
            leases.release(lease)
    except leases.Busy:
        Run.objects.filter(pk=run.pk, state=Run.State.COUNTING, started_at=run.started_at).update(
            state=Run.State.QUEUED
        )
        raise
    except (wanted.CannotCount, signals.Objection, Cancelled, Stopped, ConnectorError, leases.LeaseLost) as error:
        return _end_badly(run, error, now())
    except Exception as error:
        words = f"A fault of ours ({type(error).__name__}); it is in the log."
        _note(run, state=Run.State.FAILED, error=words, finished_at=now())
        raise


def _begin(run: Run, now: datetime) -> bool:
    """Take the run, unless another worker has it."""
    waiting = (Run.State.QUEUED, Run.State.NEEDS_APPROVAL, Run.State.INTERRUPTED)
    fields = {"state": Run.State.COUNTING, "started_at": now, "error": "", "finished_at": None}
    taken = Run.objects.filter(pk=run.pk, state__in=waiting).update(**fields)
    for name, value in fields.items():
        setattr(run, name, value)
    return bool(taken)


def _deliver(work: Sync, counted: wanted.Wanted | None) -> None:
    run, mapping = work.run, work.mapping
    # Whoever is beyond counting held the lease that is ours now. Who is still counting may live, and will find us at it.
    Run.objects.filter(mapping=mapping, state__in=ACTIVE[1:], rehearsal=False).exclude(pk=run.pk).update(
        state=Run.State.INTERRUPTED, error="Its worker stopped; a later run went on.", finished_at=work.now()
    )
    _note(run, state=Run.State.DIFFING, refresh=counted.refresh if counted else None)
    before = ledger.look(mapping.pk, now=work.now())
    if counted is not None:
        breakers.look(mapping, counted, before, work.now())
    view = _rebase(work, counted, before)
    faults.point("mid_plan")
    work.watch.mark = view.change_seq
    planned = calls.planned(work, view)
    _approve(work, planned, view)
    if planned.steps:
        signals.preflight.send(sender=Mapping, mapping=mapping, run=run, plan=planned)
    _ready_audience(work, planned)
    _note(run, state=Run.State.SENDING)
    calls.say_everything(work)
    _note(run, state=Run.State.CONFIRMING)
    _confirm(work)


def _rebase(work: Sync, counted: wanted.Wanted | None, before: View) -> View:
    """Make the new count what is wanted, with the reasons of those whom something that happened took out."""
    mapping, lease, now = work.mapping, work.lease, work.now
    if counted is None:
        ledger.rebase(lease, BitMap(), refresh_id=before.refresh_id, change_seq=before.change_seq, now=now())
        return ledger.look(mapping.pk, now=now())
    if before.refresh_id is not None:
        told = before.state.intent | before.state.present | before.state.unknown
        version = Refresh.objects.values_list("version_id", flat=True).get(pk=before.refresh_id)
        why = wanted.reasons(
            mapping,
            told - counted.base - BitMap().union(*before.left.values()),
            counted.base - before.state.intent,
            since=before.change_seq,
            same_rule=counted.refresh.version_id == version,
        )
        ledger.decide(
            mapping.pk, [(number, counted.refresh.change_seq, inside, cause) for number, inside, cause in why]
        )
    ledger.rebase(lease, counted.base, refresh_id=counted.refresh.pk, change_seq=counted.refresh.change_seq, now=now())
    state = ledger.look(mapping.pk, now=now()).state
    for piece in plan.cut(Step(REMOVE, plan.IDENTITY, state.present - state.intent), 10_000):
        pairs = identities.forerunners(identities.rows(piece.ids, mapping.identifiers), mapping.identifiers)
        if pairs:
            ledger.swap(lease, pairs, now=now())
    return ledger.look(mapping.pk, now=now())


def _approve(work: Sync, planned: Plan, view: View) -> None:
    """A run that would remove too many waits for a named person; what people themselves caused goes all the same."""
    run, mapping = work.run, work.mapping
    approved = (run.planned_removes or 0) * 1.05 if run.approved_at else 0
    _note(
        run,
        planned_adds=planned.count(ADD),
        planned_removes=planned.count(REMOVE),
        unchanged=planned.unchanged,
        batches_planned=_calls_of(planned, work.size),
        batches_done=0,
    )
    approved = max(approved, breakers.taken_on(mapping) * 1.05)
    limit = mapping.removal_limit
    over = plan.over_limit(planned, view.state, limit, REMOVAL_FLOOR)
    if not over or over <= approved or mapping.state == Mapping.State.RETIRED:
        return
    own_acts = Plan(tuple(s for s in planned.steps if s.kind == REMOVE and s.cause not in plan.LIMITED), 0)
    if own_acts.steps:
        _ready_audience(work, own_acts)
        for step in own_acts.batches(work.size):
            calls.say(work, step)
    _note(run, approved_by=None, approved_at=None)  # an approval is for the number that was shown
    share = f"more than {limit} % of who is there"
    raise Stopped(f"It would remove {over:,} people, {share}. Somebody must approve it.", Run.State.NEEDS_APPROVAL)


def _ready_audience(work: Sync, planned: Plan) -> None:
    """Have a remote audience of the right name, or say why not. Nothing is called where there is nothing to say."""
    mapping = work.mapping
    ask = partial(calls.patiently, work)
    if not mapping.remote_id:
        if planned.steps:
            remotes.make(mapping, work.connector, ask)
    elif planned.steps or remotes.differs(mapping):
        remotes.look(mapping, work.connector, ask)
        remotes.agree(mapping, work.connector, ask)


def _confirm(work: Sync) -> None:
    """Fetch receipts, and tell again whom a settle time has passed for, as long as patience lasts."""
    while True:
        now = work.now()
        for operation in calls.open_receipts(work.mapping.pk):
            if operation.poll_at is None or operation.poll_at <= now:
                receipts.ask(operation, work.connector, settle=work.lease.settle, now=work.now())
                leases.renew(work.lease, now=work.now())
        view = calls.say_everything(work)
        moments = [o.poll_at for o in calls.open_receipts(work.mapping.pk) if o.poll_at]
        # Where it is known by now who is there, putting a late effect right can wait for a later run.
        if view.next_due_at is not None and view.state.unknown:
            moments.append(view.next_due_at)
        if not moments:
            return
        soonest = min(moments)
        if soonest > work.until:
            work.come_back(soonest)
            return
        calls.wait(work, soonest - work.now(), "")


def _end_well(work: Sync) -> datetime | None:
    mapping, now = work.mapping, work.now()
    if mapping.remote_id and (
        work.calls or mapping.matched_at is None or mapping.matched_at < now - remotes.LOOKED_AT_EVERY
    ):
        _ask_size(work)
    work.run.refresh_from_db(fields=["rejected"])
    view = ledger.look(mapping.pk, now=now)
    unknown = len(view.state.unknown)
    clean = not (work.run.rejected or unknown or work.put_off)
    _note(
        work.run,
        state=Run.State.DONE if clean else Run.State.PARTIAL,
        unknown=unknown,
        error=work.put_off_words,
        finished_at=now,
    )
    if view.next_due_at is not None:
        work.come_back(view.next_due_at)
    return work.again


def _ask_size(work: Sync) -> None:
    """How many the platform matched, where it says; not knowing stops nothing."""
    with suppress(Retryable):
        remotes.look(work.mapping, work.connector, lambda ask: ask())


def _end_badly(run: Run, error: Exception, now: datetime) -> datetime | None:
    state, again, words = Run.State.FAILED.value, None, str(error)
    if isinstance(error, Cancelled):
        state, words = Run.State.CANCELLED, "Stopped by hand. What had been sent stays sent."
    elif isinstance(error, Stopped):
        state, again = error.state, error.again
    elif isinstance(error, leases.LeaseLost):
        state, words = Run.State.INTERRUPTED, "Another worker has taken over."
    elif isinstance(error, Retryable | OutcomeUnknown):  # of a question: what changes anything settles its own outcome
        after = error.after if isinstance(error, Retryable) else None
        again = now + timedelta(seconds=60 if after is None else after)
    elif isinstance(error, wanted.CannotCount):
        if not run.rehearsal:
            breakers.not_counted(run.mapping, words)
    elif isinstance(error, Misconfigured):
        if error.code == "audience_gone" and remotes.is_young(run.mapping, now):
            again, words = (
                now + YOUNG_AGAIN,
                f"It was made a moment ago, and is not known everywhere there yet. {words}",
            )
        elif remotes.stop(run.mapping, error, now=now):
            state, words = Run.State.DONE.value, "The audience is gone there, and everybody in it with it."
    _note(run, state=state, error=words, finished_at=None if state == Run.State.NEEDS_APPROVAL else now)
    return again


def _rehearse(run: Run, counted: wanted.Wanted | None, *, now: Clock, opener: Opener) -> None:
    """Plan as if live, and show the first call; nothing is sent that would be applied."""
    mapping = run.mapping
    view = ledger.look(mapping.pk, now=now())
    base = counted.base if counted else BitMap()
    planned = plan.plan(
        replace(view.state, intent=base), view.left, view.entered, Stops(compared_removes=mapping.add_only)
    )
    with opener(mapping.destination) as connector:
        size = connector.capabilities.batch_size
        step = next(planned.batches(size), None)
        payload, refused = "", 0
        if step is not None:
            found = identities.rows(step.ids, mapping.identifiers)
            parcel = (
                identities.addition(found, view.vetoed, base) if step.kind == ADD else identities.removal(found, None)
            )
            push = Push(step.kind, mapping.remote_id or "0", 0, parcel.people, tuple(mapping.identifiers))
            payload = connector.masked_payload(push)
            if connector.capabilities.can_validate and mapping.remote_id and parcel.people.num_rows:
                refused = len(connector.push(replace(push, validate_only=True)).rejected)
    _note(
        run,
        state=Run.State.DONE,
        refresh=counted.refresh if counted else None,
        planned_adds=planned.count(ADD),
        planned_removes=planned.count(REMOVE),
        unchanged=planned.unchanged,
        batches_planned=_calls_of(planned, size),
        rejected=refused,
        sample_payload=payload,
        finished_at=now(),
    )


def _calls_of(planned: Plan, size: int) -> int:
    return sum(-(-len(step.ids) // size) for step in planned.steps)


def _note(run: Run, **fields: Any) -> None:
    """Let everybody see how far the run is."""
    for name, value in fields.items():
        setattr(run, name, value)
    run.save(update_fields=list(fields))
