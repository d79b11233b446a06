"""The ledger of a mapping: leases, write-ahead and settlement, each in one short transaction under the ledger row's lock.

How a call changes what is believed is transitions.py's, what to say next plan.py's. Nobody else writes the tables of
Ledger, Operation, Decision, Rejection and Removal. Every function takes `now`, so that a simulation can drive time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F, QuerySet
from pyroaring import BitMap

from audiences.bitmaps import pack, unpack
from audiences.people import bulk
from destinations import changes, holders, plan, records, transitions
from destinations.models import Decision, Ledger, Operation, Rejection
from destinations.plan import ADD, REMOVE, State, Step
from destinations.transitions import Book, Call

LEASE = timedelta(seconds=60)
REFUSED_AGAIN = timedelta(hours=1)  # of somebody who may be there from before
URGENT, BULK = Operation.Lane.URGENT.value, Operation.Lane.BULK.value


class Busy(Exception):
    """Another worker holds this mapping's lease. `until`: when it would run out."""

    def __init__(self, until: datetime) -> None:
        super().__init__(f"another worker has this until {until:%H:%M:%S} UTC")
        self.until = until


class LeaseLost(Exception):
    """Another worker has taken over: stop, and write nothing more."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to prepare and settle calls of one lane of one mapping. `settle`: how long a late effect may take to land."""

    mapping_id: int
    lane: str
    fence: int
    settle: timedelta


@dataclass(frozen=True, slots=True)
class View:
    """A mapping's ledger at one moment, for planning. What is acted on is looked at again under the lock."""

    state: State
    left: Mapping[str, BitMap]  # cause → identities that the latest decision took out
    entered: Mapping[str, BitMap]
    vetoed: BitMap
    withdraw_kinds: tuple[str, ...]
    refresh_id: int | None
    change_seq: int
    next_due_at: datetime | None  # when something unknown is next told again


@dataclass(frozen=True, slots=True)
class Prepared:
    """A call that is written ahead and must now be made, and settled whatever comes of it."""

    operation_id: int
    step: Step
    intent: BitMap = field(repr=False)
    there: BitMap = field(repr=False)  # wanted, and present or perhaps so: what they carry must stay
    vetoed: BitMap = field(repr=False)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call. verdict: transitions.SETTLED, SUBMITTED (a receipt is to come), UNAPPLIED or UNKNOWN."""

    verdict: str
    rejected: Mapping[int, tuple[str, str]] = field(default_factory=dict)  # identity_no → (code, words)
    rejected_unnamed: int = 0
    request_id: str = ""
    http_status: int | None = None
    words: str = ""
    poll_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Count:
    """How many people of a call went which way."""

    accepted: int = 0
    rejected: int = 0
    unknown: int = 0


@dataclass(slots=True)
class Watch:
    """Whom an add must leave out because something has happened to them since `mark`; `events`: names that matter (None: all)."""

    mark: int
    events: frozenset[str] | None
    stirred: BitMap = field(default_factory=BitMap)  # profile_no
    news: list[changes.Change] = field(default_factory=list)

    def look(self) -> None:
        """Read on. Inside T1 this sees whatever was committed before the call was prepared."""
        final = changes.final_mark()
        for change in changes.since(self.mark, self.events):
            if change.profile_no not in self.stirred or change.kind != "event":
                self.news.append(change)
            self.stirred.add(change.profile_no)
        self.mark = max(self.mark, final)


# --- Leases.


def claim(mapping_id: int, lane: str, *, settle: timedelta, now: datetime) -> Lease:
    """Take the lane's lease; the fence rises, and calls that an older holder left in flight become unknown. Raises Busy."""
    with transaction.atomic():
        row = _locked(mapping_id)
        until, holder = getattr(row, f"{lane}_until"), getattr(row, f"{lane}_holder")
        if until is not None and until > now and not holders.is_dead(holder):
            raise Busy(until)
        fence = getattr(row, f"{lane}_fence") + 1
        _set_lease(row, lane, fence, now + LEASE, holders.me())
        book = _book(row)
        if book.abandon(lane, fence, now, settle):
            _save(row, book)
        row.save(update_fields=[f"{lane}_fence", f"{lane}_until", f"{lane}_holder"])
    return Lease(mapping_id, lane, fence, settle)


def renew(lease: Lease, *, now: datetime) -> None:
    """Hold on. Raises LeaseLost."""
    renewed = Ledger.objects.filter(
        mapping_id=lease.mapping_id, **{f"{lease.lane}_fence": lease.fence, f"{lease.lane}_until__isnull": False}
    ).update(**{f"{lease.lane}_until": now + LEASE})
    if not renewed:
        raise LeaseLost


def release(lease: Lease) -> None:
    """Let others have it. Does nothing if it is no longer ours."""
    Ledger.objects.filter(mapping_id=lease.mapping_id, **{f"{lease.lane}_fence": lease.fence}).update(
        **{f"{lease.lane}_until": None, f"{lease.lane}_holder": ""}
    )


def holds(mapping_id: int, lane: str, *, now: datetime) -> bool:
    """Whether a live worker has the lane at this moment."""
    row = Ledger.objects.filter(mapping_id=mapping_id).values(f"{lane}_until", f"{lane}_holder").first()
    if row is None or row[f"{lane}_until"] is None:
        return False
    return bool(row[f"{lane}_until"] > now and not holders.is_dead(row[f"{lane}_holder"]))


# --- What is wanted.


def rebase(lease: Lease, base: BitMap, *, refresh_id: int | None, change_seq: int, now: datetime) -> bool:
    """A new count is what is wanted; decisions up to its change-log mark are contained in it. False if a newer one is in force."""
    with transaction.atomic():
        row = _locked(lease.mapping_id)
        _assert_mine(row, lease)
        if row.refresh_id is not None and refresh_id is not None and change_seq < row.change_seq:
            return False
        row.base, row.refresh_id, row.change_seq = pack(base), refresh_id, max(change_seq, row.change_seq)
        _set_lease(row, lease.lane, lease.fence, now + LEASE, holders.me())
        row.save(update_fields=["base", "refresh", "change_seq", f"{lease.lane}_until", f"{lease.lane}_holder"])
        over = [
            number for (number,) in _outs(lease.mapping_id, row.change_seq).values_list("identity_no") if number in base
        ]
        if over:  # wanted again: why they once left says nothing about the next time
            chosen, values = bulk.among("identity_no", over)
            bulk.execute(
                f"DELETE FROM destinations_decision WHERE mapping_id = %s AND seq <= %s AND {chosen}",  # noqa: S608
                [lease.mapping_id, row.change_seq, *values],
            )
    return True


def decide(mapping_id: int, decisions: Iterable[tuple[int, int, bool, str]]) -> int:
    """Record (identity_no, seq, wanted, cause) that hold until a count contains them; how many. The latest seq of an identity counts."""
    rows = [Decision(mapping_id=mapping_id, identity_no=i, seq=s, wanted=w, cause=c) for i, s, w, c in decisions]
    for start in range(0, len(rows), 5_000):
        Decision.objects.bulk_create(rows[start : start + 5_000])
    return len(rows)


def look(mapping_id: int, *, now: datetime) -> View:
    """The ledger as of one moment, without holding anybody up."""
    with transaction.atomic(using="snapshot"):
        row = Ledger.objects.using("snapshot").get(mapping_id=mapping_id)
        book, intent = _book(row, using="snapshot"), _intent(row, using="snapshot")
        state = _state(row, book, intent, now, using="snapshot")
        left: dict[str, BitMap] = {}
        entered: dict[str, BitMap] = {}
        decisions = Decision.objects.using("snapshot").filter(mapping_id=mapping_id).order_by("seq", "pk")
        latest = {
            number: (wanted, cause) for number, wanted, cause in decisions.values_list("identity_no", "wanted", "cause")
        }
    for number, (wanted, cause) in latest.items():
        (entered if wanted else left).setdefault(cause, BitMap()).add(number)
    moments = [call.reassert_at for call in book.calls if call.reassert_at is not None and call.unsettled]
    return View(
        state=state,
        left=left,
        entered=entered,
        vetoed=book.vetoed,
        withdraw_kinds=tuple(row.withdraw_kinds),
        refresh_id=row.refresh_id,
        change_seq=row.change_seq,
        next_due_at=min(moments, default=None),
    )


# --- Write ahead (T1) and settle (T2).


def prepare(
    lease: Lease,
    step: Step,
    *,
    profiles: Mapping[int, int],
    watch: Watch,
    remote_id: str,
    identifiers: Sequence[str],
    left_at: datetime,
    now: datetime,
    run_id: int | None = None,
    version_id: int | None = None,
) -> Prepared | None:
    """T1: commit that a call is about to be made, for those of `step` to whom it may still be said. None: nobody is left.

    `profiles` gives each identity's profile_no. Nobody is added to whom something has happened since the count: the next
    count decides. Raises LeaseLost.
    """
    with transaction.atomic():
        row = _locked(lease.mapping_id)
        _assert_mine(row, lease)
        book, intent = _book(row), _intent(row)
        state = _state(row, book, intent, now)
        ids = plan.still_due(state, step.kind, step.cause, step.ids)
        watch.look()
        if step.kind == ADD and watch.stirred and ids:
            ids = ids - BitMap(number for number in ids if profiles[number] in watch.stirred)
        if not ids:
            return None
        operation = Operation.objects.create(
            mapping_id=lease.mapping_id,
            run_id=run_id,
            lane=lease.lane,
            kind=step.kind,
            cause=step.cause,
            fence=lease.fence,
            epoch=row.epoch,
            version_id=version_id,
            remote_id=remote_id,
            identifiers=list(identifiers),
            identities=pack(ids),
            unsettled=pack(ids),
            count=len(ids),
            prepared_at=now,
        )
        book.prepare(_call(operation), veto=step.cause in plan.VETOING)
        if step.kind == REMOVE and step.cause != plan.WITHDRAW:
            records.removing(lease.mapping_id, ids, step.cause, left_at, now)
        _set_lease(row, lease.lane, lease.fence, now + LEASE, holders.me())
        _save(row, book, lease.lane)
    there = intent & (book.present | book.unknown)
    return Prepared(operation.pk, Step(step.kind, step.cause, ids), intent, there, book.vetoed)


def settle(lease: Lease, operation_id: int, outcome: Outcome, *, now: datetime) -> Count:
    """T2: commit what came of a call. An outcome that comes after the lease was lost changes only the operation's log: LeaseLost."""
    with transaction.atomic():
        row = _locked(lease.mapping_id)
        if getattr(row, f"{lease.lane}_fence") != lease.fence:
            Operation.objects.filter(pk=operation_id).update(
                request_id=outcome.request_id,
                http_status=outcome.http_status,
                error=outcome.words or "Answered too late",
            )
            lost = True
        else:
            lost = False
            count = _settle(row, lease, operation_id, outcome, now)
    if lost:
        raise LeaseLost
    return count


def _settle(row: Ledger, lease: Lease, operation_id: int, outcome: Outcome, now: datetime) -> Count:
    book = _book(row)
    call = next(call for call in book.calls if call.id == operation_id)
    ids, refused = call.unsettled, BitMap(outcome.rejected) & call.unsettled
    unnamed = min(outcome.rejected_unnamed, len(ids - refused))
    if outcome.verdict == transitions.UNKNOWN:
        book.lose_track(call, now, lease.settle)
        count = Count(unknown=len(ids))
    elif outcome.verdict == transitions.UNAPPLIED:
        book.take_back(call, records.refused(row.mapping_id, ADD) if call.kind == ADD else BitMap())
        book.refuse(call.kind, refused)
        records.refuse(row.mapping_id, call.kind, {i: outcome.rejected[i] for i in refused}, call.id, now)
        count = Count(rejected=len(ids))
    else:
        pending = outcome.verdict == transitions.SUBMITTED
        book.accept(call, refused, pending=pending, again=now + max(lease.settle, REFUSED_AGAIN))
        count = Count(accepted=len(ids) - len(refused) - unnamed, rejected=len(refused) + unnamed)
        records.accepted(row.mapping_id, call.kind, ids - refused, now)
        records.refuse(row.mapping_id, call.kind, {i: outcome.rejected[i] for i in refused}, call.id, now)
        if call.cause == plan.WITHDRAW or row.withdraw:
            row.withdraw_kinds = row.withdraw_kinds if book.withdraw else []
    Operation.objects.filter(pk=operation_id).update(
        accepted=count.accepted,
        rejected=count.rejected,
        request_id=outcome.request_id[:200],
        http_status=outcome.http_status,
        error=outcome.words,
        poll_at=outcome.poll_at,
        sent_at=F("prepared_at"),
        finished_at=now,
    )
    _set_lease(row, lease.lane, lease.fence, now + LEASE, holders.me())
    _save(row, book, lease.lane)
    return count


def receive(operation_id: int, outcome: Outcome, *, settle: timedelta, now: datetime) -> Count | None:
    """Commit a submitted call's receipt. None if somebody else already has, or if it is still to come (`poll_at` moves)."""
    mapping_id = Operation.objects.values_list("mapping_id", flat=True).get(pk=operation_id)
    with transaction.atomic():
        row = _locked(mapping_id)
        book = _book(row)
        call = next((c for c in book.calls if c.id == operation_id and c.state == transitions.SUBMITTED), None)
        if call is None:
            return None
        operation = Operation.objects.get(pk=operation_id)
        if outcome.verdict == transitions.SUBMITTED:
            Operation.objects.filter(pk=operation_id).update(poll_at=outcome.poll_at)
            return None
        ids, refused = call.unsettled, BitMap(outcome.rejected) & call.unsettled
        if outcome.verdict == transitions.SETTLED:
            later = BitMap()
            for packed in Operation.objects.filter(mapping_id=mapping_id, pk__gt=operation_id).values_list(
                "identities", flat=True
            ):
                later |= unpack(packed) & ids
            book.receive(call, refused, later, now)
            unnamed = min(outcome.rejected_unnamed, operation.accepted - len(refused))
            bad = len(refused) + unnamed
            count = Count(accepted=operation.accepted - bad, rejected=operation.rejected + bad)
            records.refuse(mapping_id, call.kind, {i: outcome.rejected[i] for i in refused - later}, call.id, now)
            if call.kind == REMOVE:
                records.confirmed(mapping_id, ids - refused, now)
        else:
            book.disown(call, now + settle)
            count = (
                Count(rejected=operation.count)
                if outcome.verdict == transitions.UNAPPLIED
                else Count(unknown=operation.count)
            )
        Operation.objects.filter(pk=operation_id).update(
            accepted=count.accepted,
            rejected=count.rejected,
            error=outcome.words or operation.error,
            poll_at=None,
            finished_at=now,
        )
        _save(row, book)
    return count


def swap(lease: Lease, pairs: Sequence[tuple[int, int]], *, now: datetime) -> int:
    """Let changed identities that carry the same identifiers here take their forerunners' places, without a call; how many."""
    with transaction.atomic():
        row = _locked(lease.mapping_id)
        _assert_mine(row, lease)
        book, intent = _book(row), _intent(row)
        state, done = _state(row, book, intent, now), 0
        submitted = BitMap()
        for call in book.calls:
            submitted |= call.unsettled
        for old, new in pairs:
            if old not in submitted and new not in submitted and plan.may_swap(state, old, new):
                book.swap(old, new)
                done += 1
        if done:
            _save(row, book, lease.lane)
    return done


# --- Acts of people, and of the sweeper.


def tell_again(
    mapping_id: int, choose: Callable[[Book, BitMap], tuple[BitMap, BitMap]], *, now: datetime, epoch: bool = False
) -> int:
    """Have people told again by intent; how many. `choose(book, intent)` gives whom, and of whom nothing is known any more."""
    with transaction.atomic():
        row = _locked(mapping_id)
        book = _book(row)
        ids, uncertain = choose(book, _intent(row))
        book.tell_again(ids, now, uncertain=uncertain & (ids | book.unknown))
        if epoch:
            row.epoch += 1
            row.save(update_fields=["epoch"])
        _save(row, book)
    return len(ids)


def withdraw(mapping_id: int, kinds: Sequence[str], *, now: datetime) -> None:
    """Everything sent with these identifier kinds is taken back, and all who are there are told again."""
    with transaction.atomic():
        row = _locked(mapping_id)
        book = _book(row)
        everyone = book.present | book.unknown
        book.tell_again(everyone, now, uncertain=BitMap())
        if kinds:
            book._set(withdraw=book.withdraw | everyone)
            row.withdraw_kinds = [*row.withdraw_kinds, *(kind for kind in kinds if kind not in row.withdraw_kinds)]
            row.save(update_fields=["withdraw_kinds"])
        _save(row, book)


def forget_rejections(mapping_id: int, *, now: datetime) -> int:
    """Try refused people again at once; how many."""
    return Rejection.objects.filter(mapping_id=mapping_id).update(retry_at=now)


def reap(mapping_id: int, lane: str, *, settle: timedelta, now: datetime) -> bool:
    """Take the lease only to see to what a dead worker left in flight. False while a live one has it."""
    try:
        release(claim(mapping_id, lane, settle=settle, now=now))
    except Busy:
        return False
    return True


# --- Rows.


def _locked(mapping_id: int) -> Ledger:
    return Ledger.objects.select_for_update().get(mapping_id=mapping_id)


def _assert_mine(row: Ledger, lease: Lease) -> None:
    if getattr(row, f"{lease.lane}_fence") != lease.fence:
        raise LeaseLost


def _set_lease(row: Ledger, lane: str, fence: int, until: datetime, holder: str) -> None:
    setattr(row, f"{lane}_fence", fence)
    setattr(row, f"{lane}_until", until)
    setattr(row, f"{lane}_holder", holder)


def _call(operation: Operation) -> Call:
    return Call(
        id=operation.pk,
        kind=operation.kind,
        cause=operation.cause,
        lane=operation.lane,
        fence=operation.fence,
        state=operation.state,
        unsettled=unpack(operation.unsettled),
        prepared_at=operation.prepared_at,
        reassert_at=operation.reassert_at,
        lost=operation.state == transitions.UNKNOWN and operation.finished_at is None,
    )


def _book(row: Ledger, using: str = "default") -> Book:
    operations = Operation.objects.using(using).filter(mapping_id=row.mapping_id, open=True).order_by("pk")
    return Book(
        present=unpack(row.present),
        unknown=unpack(row.unknown),
        rejected=unpack(row.rejected),
        ever_sent=unpack(row.ever_sent),
        reassert=unpack(row.reassert),
        withdraw=unpack(row.withdraw),
        vetoed=unpack(row.vetoed),
        reassert_since=row.reassert_since,
        calls=[_call(operation) for operation in operations],
    )


def _save(row: Ledger, book: Book, lane: str | None = None) -> None:
    book.check()
    for name in book.changed:
        setattr(row, name, pack(getattr(book, name)))
    row.reassert_since = book.reassert_since
    fields = [*book.changed, "reassert_since", "withdraw_kinds"]
    row.save(update_fields=fields + ([f"{lane}_until", f"{lane}_holder"] if lane else []))
    for call in book.calls:
        if call.changed:
            Operation.objects.filter(pk=call.id).update(
                state=call.state,
                unsettled=pack(call.unsettled),
                open=bool(call.unsettled),
                reassert_at=call.reassert_at if call.unsettled else None,
            )


def _outs(mapping_id: int, upto: int) -> QuerySet[Decision]:
    return Decision.objects.filter(mapping_id=mapping_id, seq__lte=upto, wanted=False)


def _intent(row: Ledger, using: str = "default") -> BitMap:
    intent = unpack(row.base)
    later = Decision.objects.using(using).filter(mapping_id=row.mapping_id, seq__gt=row.change_seq)
    for number, wanted in later.order_by("seq", "pk").values_list("identity_no", "wanted"):
        if wanted:
            intent.add(number)
        else:
            intent.discard(number)
    return intent


def _state(row: Ledger, book: Book, intent: BitMap, now: datetime, using: str = "default") -> State:
    rows = Rejection.objects.using(using).filter(mapping_id=row.mapping_id)
    retry = rows.filter(kind=ADD, retry_at__lte=now) if book.rejected else rows.none()
    refused = rows.filter(kind=REMOVE, retry_at__gt=now)
    return book.state(
        intent,
        now,
        retry=BitMap(retry.values_list("identity_no", flat=True)) & book.rejected,
        refused=BitMap(refused.values_list("identity_no", flat=True)),
    )
