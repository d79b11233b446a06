"""Making the calls of a sync, one after the other: written ahead, called with no transaction open, settled whatever comes of it.

A call that failed is never made again as it was: its people are due again, and who is due is planned anew.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from django.db.models import F
from pyroaring import BitMap

from audiences import faults, jobs
from audiences.bitmaps import from_sorted, to_array
from audiences.models import Audience
from destinations import budget, eligibility, identities, leases, ledger, plan, transitions
from destinations.connectors.base import (
    Connector,
    Misconfigured,
    OutcomeUnknown,
    Push,
    Receipt,
    Rejected,
    Retryable,
)
from destinations.leases import Lease
from destinations.ledger import Guard, Outcome, Prepared, View, Watch
from destinations.models import Hold, Mapping, Operation, Run
from destinations.plan import ADD, REMOVE, Plan, Step, Stops

log = logging.getLogger(__name__)

HALVINGS = 200  # calls spent on finding bad rows in one run
POLL_AFTER = timedelta(seconds=2)
LEFT_OUT_AGAIN = timedelta(seconds=60)  # in suppression; elsewhere whoever was left out can wait for the next sync
NOTHING_TO_SEND = ("no_identifier", "None of the identifiers of this connection could be sent.")
VETOED = ("vetoed", "Shares an identifier with somebody who has bought, been erased or withdrawn consent.")
_KEEP = timedelta(seconds=10)  # of the lease, while waiting
_FRESH = timedelta(
    seconds=5
)  # how long after it was written ahead a call is made without asking whether the lease is still ours

Clock = Callable[[], datetime]
_Answer = TypeVar("_Answer")


class Cancelled(Exception):
    """A person asked the run to stop."""


class Stopped(Exception):
    """The run ends here, for a reason in words. `state`: how it ends; `again`: when it is worth taking up."""

    def __init__(self, words: str, state: str = Run.State.FAILED, again: datetime | None = None) -> None:
        super().__init__(words)
        self.state = state
        self.again = again


@dataclass(slots=True)
class Work:
    """What is carried along while calls are made. `run` None: it is said urgently, beside any sync."""

    run: Run | None
    mapping: Mapping
    connector: Connector
    lease: Lease
    watch: Guard
    left_at: datetime
    now: Clock
    sleep: Callable[[float], None]
    until: datetime  # waiting longer than this is left to a later run
    progress: Callable[[Run], None] = lambda run: None
    version_id: int | None = None
    failures: int = 0
    halvings: int = 0
    calls: int = 0
    put_off: BitMap = field(default_factory=BitMap)  # not to be told in this run
    put_off_words: str = ""
    again: datetime | None = None
    withdraw_kinds: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        return self.connector.capabilities.batch_size

    def come_back(self, moment: datetime) -> None:
        """There is something left to do then."""
        self.again = moment if self.again is None else min(self.again, moment)


@dataclass(slots=True)
class Sync(Work):
    """One sync's."""

    run: Run
    watch: Watch


def stops(mapping: Mapping, now: datetime) -> Stops:
    """What the mapping's state and its holds forbid at this moment."""
    adds = mapping.state in (Mapping.State.PAUSED, Mapping.State.RETIRED)
    compared_adds, removes = False, mapping.add_only and mapping.state != Mapping.State.RETIRED
    for hold in Hold.objects.filter(mapping=mapping, lifted_at__isnull=True):
        if (hold.until is None or hold.until > now) and mapping.state != Mapping.State.RETIRED:
            compared_adds = compared_adds or hold.direction in (Hold.Direction.ADDS, Hold.Direction.BOTH)
            removes = removes or hold.direction in (Hold.Direction.REMOVES, Hold.Direction.BOTH)
    frozen = mapping.state == Mapping.State.FROZEN and not (mapping.state_until and mapping.state_until <= now)
    everything = frozen or mapping.state == Mapping.State.REHEARSAL
    return Stops(adds=adds, compared_adds=compared_adds, compared_removes=removes, everything=everything)


def planned(work: Work, view: View) -> Plan:
    """What is to be said now, without those who were put off."""
    found = plan.plan(view.state, view.left, view.entered, stops(work.mapping, work.now()))
    steps = (Step(step.kind, step.cause, step.ids - work.put_off) for step in found.steps)
    return Plan(tuple(step for step in steps if step.ids), found.unchanged)


def say_everything(work: Sync) -> View:
    """Plan and say, until there is nothing left to say now; the ledger as it was found then."""
    while True:
        view = ledger.look(work.mapping.pk, now=work.now())
        before, left = work.calls, 0
        for step in planned(work, view).batches(work.size):
            say(work, step)
            if left := _take_in(work, view):
                break  # somebody has left meanwhile: removals go first
        if work.calls == before and not left:
            return view


def say(work: Work, step: Step) -> None:
    """Tell the platform one step, in as many calls as a bad row in it makes necessary."""
    pieces = [step]
    while pieces:
        pieces.extend(reversed(_say_once(work, pieces.pop())))


def patiently(work: Work, ask: Callable[[], _Answer]) -> _Answer:
    """Ask the platform something that changes nobody's membership; where it asks for a pause, after that."""
    while True:
        _token(work, REMOVE)
        try:
            answer = ask()
        except Retryable as error:
            _failed(work, error)
        except OutcomeUnknown as error:
            if rest := budget.failed(work.mapping.destination.account_id, str(error), now=work.now()):
                raise Stopped(str(error), again=rest) from error
            raise
        else:
            _answered(work)
            return answer


def wait(work: Work, length: timedelta, words: str) -> None:
    """Wait, keeping the lease, as long as patience lasts; else the run stops here and is taken up again then."""
    end = work.now() + length
    if end > work.until:
        raise Stopped(words, Run.State.INTERRUPTED, end)
    while (left := end - work.now()) > timedelta(0):
        check_cancelled(work)
        work.sleep(min(left, _KEEP).total_seconds())
        leases.renew(work.lease, now=work.now())


def check_cancelled(work: Work) -> None:
    """Raises Cancelled where somebody has asked for it, and Stopped where this worker is asked to end."""
    if jobs.stopping():
        raise Stopped("Its worker was asked to stop; it is taken up again.", Run.State.INTERRUPTED, work.now())
    if work.run is not None and Run.objects.filter(pk=work.run.pk, cancel_requested=True).exists():
        raise Cancelled


def _say_once(work: Work, step: Step) -> list[Step]:
    """One call. The pieces in which its people are to be told after all, where it was refused as a whole."""
    check_cancelled(work)
    _token(work, step.kind)
    stopped = _stops_now(work)
    if stopped.forbids(step):
        return []
    kinds = _kinds(work, step)
    found = identities.rows(step.ids, kinds)
    written = work.now()
    prepared = ledger.prepare(
        work.lease,
        step,
        profiles=found.profiles,
        watch=work.watch,
        remote_id=work.mapping.remote_id,
        identifiers=kinds,
        left_at=work.left_at,
        now=written,
        run_id=work.run.pk if work.run else None,
        version_id=work.version_id,
    )
    left_out = prepared is None or len(prepared.step.ids) < len(step.ids)
    if left_out and work.mapping.audience.purpose == Audience.Purpose.SUPPRESSION:
        work.come_back(work.now() + LEFT_OUT_AGAIN)
    if prepared is None:
        return []
    faults.point("after_prepare")
    work.calls += 1
    if len(prepared.step.ids) < len(step.ids):
        found = identities.rows(prepared.step.ids, kinds)
    return _make(work, prepared, found, kinds, written)


def _make(
    work: Work, prepared: Prepared, found: identities.Rows, kinds: tuple[str, ...], written: datetime
) -> list[Step]:
    step = prepared.step
    if step.kind == ADD:
        parcel = identities.addition(found, prepared.vetoed, prepared.intent)
        empty = {n: VETOED if n in parcel.vetoed else NOTHING_TO_SEND for n in parcel.empty}
    else:
        spare = step.cause not in plan.VETOING and step.cause != plan.WITHDRAW
        parcel, empty = identities.removal(found, prepared.there if spare else None, work.mapping.identifiers), {}
    push = Push(step.kind, work.mapping.remote_id, prepared.operation_id, parcel.people, kinds)
    faults.point("before_call")
    if work.now() - written > _FRESH:  # we may have been stopped, and others may have told these people since
        leases.renew(work.lease, now=work.now())
    try:
        receipt = work.connector.push(push) if parcel.people.num_rows else Receipt(accepted=True, received=0)
    except Retryable as error:
        _settle(work, prepared, Outcome(transitions.UNAPPLIED, http_status=error.http_status, words=str(error)))
        if not error.throttled and error.after is not None and work.now() + timedelta(seconds=error.after) > work.until:
            work.put_off |= step.ids  # this cannot be said yet; other things can
            work.put_off_words = str(error)
            work.come_back(work.now() + timedelta(seconds=error.after))
            return []
        _failed(work, error)
        return []
    except Rejected as error:
        return _refused(work, prepared, error)
    except Misconfigured as error:
        _settle(work, prepared, Outcome(transitions.UNAPPLIED, http_status=error.http_status, words=str(error)))
        raise
    except OutcomeUnknown as error:
        _settle(work, prepared, Outcome(transitions.UNKNOWN, http_status=error.http_status, words=str(error)))
        if until := budget.failed(work.mapping.destination.account_id, str(error), now=work.now()):
            raise Stopped(str(error), again=max(until, work.now() + work.lease.settle)) from error
        return []
    except Exception as error:  # a bug: whether the call was applied is not known, and a person must look
        words = f"A fault of ours ({type(error).__name__}); whether it was applied is not known."
        _settle(work, prepared, Outcome(transitions.UNKNOWN, words=words))
        raise
    faults.point("after_call_before_settle")
    _settle(work, prepared, _understood(work, receipt, step, empty))
    _answered(work)
    faults.point("after_settle")
    return []


def _understood(work: Work, receipt: Receipt, step: Step, empty: dict[int, tuple[str, str]]) -> Outcome:
    if receipt.pending:
        verdict = transitions.SUBMITTED
    else:
        verdict = transitions.SETTLED if receipt.accepted else transitions.UNKNOWN
    words = "; ".join(receipt.warnings)
    if receipt.rejected_unnamed:
        words = f"{receipt.rejected_unnamed} refused without saying which. {words}".strip()
    return Outcome(
        verdict,
        rejected={**{n: said for n, said in receipt.rejected.items() if n in step.ids}, **empty},
        rejected_unnamed=receipt.rejected_unnamed,
        request_id=receipt.request_id,
        http_status=receipt.http_status,
        words=words,
        poll_at=work.now() + POLL_AFTER if receipt.pending else None,
    )


def _refused(work: Work, prepared: Prepared, error: Rejected) -> list[Step]:
    """The platform refused the content: the bad row is on record if it is known or alone, else the call is halved."""
    step = prepared.step
    if not error.whole:
        _settle(work, prepared, Outcome(transitions.UNKNOWN, http_status=error.http_status, words=str(error)))
        return []
    named = {number: said for number, said in error.rows.items() if number in step.ids}
    if len(step.ids) == 1:
        named = named or {step.ids[0]: (error.code or "refused", str(error))}
    _settle(work, prepared, Outcome(transitions.UNAPPLIED, named, http_status=error.http_status, words=str(error)))
    rest = step.ids - BitMap(named)
    if not rest:
        return []
    work.halvings += 1
    if work.halvings > HALVINGS:
        raise Stopped(f"Too many rows are refused to find them one by one. {error}")
    if named:
        return [Step(step.kind, step.cause, rest)]
    numbers = to_array(rest)
    middle = (len(numbers) + 1) // 2
    return [Step(step.kind, step.cause, from_sorted(half)) for half in (numbers[:middle], numbers[middle:])]


def _settle(work: Work, prepared: Prepared, outcome: Outcome) -> None:
    count = ledger.settle(work.lease, prepared.operation_id, outcome, now=work.now())
    if work.run is None:
        return
    applied = outcome.verdict != transitions.UNAPPLIED
    Run.objects.filter(pk=work.run.pk).update(
        added=F("added") + (count.accepted if prepared.step.kind == ADD else 0),
        removed=F("removed") + (count.accepted if prepared.step.kind == REMOVE else 0),
        rejected=F("rejected") + (count.rejected if applied else len(outcome.rejected)),
        unknown=F("unknown") + count.unknown,
        batches_done=F("batches_done") + 1,
    )
    work.run.refresh_from_db()
    work.progress(work.run)


def _failed(work: Work, error: Retryable) -> None:
    """Known not to have been applied: wait as the platform asks, or ever longer, or give up for now."""
    work.failures += 1
    if error.throttled:
        until = budget.pause(
            work.mapping.destination.account_id, error.after, str(error), now=work.now(), attempt=work.failures
        )
        wait(work, until - work.now(), str(error))
        return
    if rest := budget.failed(work.mapping.destination.account_id, str(error), now=work.now()):
        raise Stopped(str(error), again=rest)
    wait(work, timedelta(seconds=error.after if error.after is not None else 2.0**work.failures / 2), str(error))


def _answered(work: Work) -> None:
    work.failures = 0
    budget.answered(work.mapping.destination.account_id)


def _token(work: Work, kind: str) -> None:
    """One of the account's tokens. What is urgent may take those that are reserved, an add into suppression too."""
    account_id, rate = work.mapping.destination.account_id, work.connector.capabilities.calls_per_minute
    kind = REMOVE if work.lease.lane == leases.URGENT else kind
    while length := budget.take(account_id, kind, rate, now=work.now()):
        wait(work, length, "The account's rate budget is used up; it goes on by itself.")


def _stops_now(work: Work) -> Stops:
    """What is forbidden now; what the connection sends, and takes back, is as it is now from here on."""
    work.mapping.refresh_from_db(fields=["state", "state_until", "add_only", "blocked_reason", "lost", "identifiers"])
    if work.mapping.lost:
        raise Stopped(work.mapping.blocked_reason)
    found = stops(work.mapping, work.now())
    work.withdraw_kinds = ledger.withdraw_kinds(work.mapping.pk)
    if found.everything:
        raise Stopped(f"The connection is {work.mapping.get_state_display().lower()}.", Run.State.INTERRUPTED)
    return found


def _kinds(work: Work, step: Step) -> tuple[str, ...]:
    own = tuple(work.mapping.identifiers)
    if step.cause == plan.WITHDRAW:
        return work.withdraw_kinds
    if step.kind == REMOVE:
        return (*own, *(kind for kind in work.withdraw_kinds if kind not in own))
    return own


def _take_in(work: Sync, view: View) -> int:
    """Decide about people who have withdrawn consent or were removed since the count; how many identities leave."""
    news = [change for change in work.watch.news if change.kind != "event"]
    work.watch.news.clear()
    people = BitMap(change.profile_no for change in news)
    if not people:
        return 0
    mark = max(change.mark for change in news)
    removed, merged = eligibility.gone(people), eligibility.merged(people)
    barred = eligibility.without_consent(people, eligibility.consents_needed(work.mapping.audience.purpose))
    state = view.state
    concerned = state.intent | state.present | state.unknown
    decisions = []
    for number, profile in identities.of_profiles(list(people)):
        if number in concerned and (profile in removed or profile in barred):
            cause = plan.IDENTITY if profile in merged else plan.ERASURE if profile in removed else plan.CONSENT
            decisions.append((number, mark, False, cause))
    return ledger.decide(work.mapping.pk, decisions)


def open_receipts(mapping_id: int) -> list[Operation]:
    """Submitted operations whose receipt is to come, the next one to be asked for first."""
    return list(
        Operation.objects.filter(mapping_id=mapping_id, state=Operation.State.SUBMITTED).order_by("poll_at", "pk")
    )
