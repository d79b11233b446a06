"""The ledger of a mapping: what is wanted, write-ahead and settlement, each in one short transaction under the ledger row's lock.

How a call changes what is believed is transitions.py's, what to say next plan.py's. Nobody else writes the tables of
Ledger, Operation, Decision, Rejection and Removal. Every function takes `now`, so that a simulation can drive time.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from django.db import transaction
from django.db.models import F
from pyroaring import BitMap

from audiences.bitmaps import pack, unpack
from destinations import changes, errands, identities, leases, plan, records, rows, transitions
from destinations.leases import Lease, LeaseLost
from destinations.models import Decision, Ledger, Operation, Rejection
from destinations.models import Mapping as Connection
from destinations.plan import ADD, REMOVE, State, Step
from destinations.transitions import Book

REFUSED_AGAIN = timedelta(hours=1)  # of somebody who may be there from before
REMOVED_AGAIN = timedelta(minutes=15)  # of people some of whom could not be removed, and nobody says who


@dataclass(frozen=True, slots=True)
class View:
    """A mapping's ledger at one moment, for planning. What is acted on is looked at again under the lock."""

    state: State
    left: Mapping[str, BitMap]  # cause → identities that the latest decision took out
    entered: Mapping[str, BitMap]
    vetoed: BitMap
    refresh_id: int | None
    change_seq: int
    next_due_at: datetime | None  # when something unknown next falls due to be told again


class Decided(NamedTuple):
    """Somebody is in or out from the change `seq` on, until a count contains it. `at`: when it was accepted here; `there`: they are,
    or may be, on the platform."""

    identity_no: int
    seq: int
    wanted: bool
    cause: str
    at: datetime | None = None
    there: bool = False


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


class Guard(Protocol):
    """Whom an add must leave out at the moment it is prepared. Asked inside T1."""

    def leaves_out(self, ids: BitMap, profiles: Mapping[int, int]) -> BitMap: ...


@dataclass(slots=True)
class Watch:
    """A sync's guard: whom an add must leave out because something has happened to them since `mark`; `events`: names that matter (None: all)."""

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
            if change.kind == "merge":  # whoever lives on as both has done what either did
                self.stirred.add(int(change.name))
        self.mark = max(self.mark, final)

    def leaves_out(self, ids: BitMap, profiles: Mapping[int, int]) -> BitMap:
        self.look()
        return BitMap(number for number in ids if profiles[number] in self.stirred) if self.stirred else BitMap()


# --- What is wanted.


def rebase(lease: Lease, base: BitMap, *, refresh_id: int | None, change_seq: int, now: datetime) -> bool:
    """A new count is what is wanted; decisions up to its change-log mark are contained in it. False if a newer one is in force."""
    with transaction.atomic():
        row = rows.locked(lease.mapping_id)
        held = leases.hold(row, lease, now)
        if row.refresh_id is not None and refresh_id is not None and change_seq < row.change_seq:
            return False
        book = rows.book(row)
        if book.vetoed:
            _welcome(row, book, base - rows.intent(row), base, now)
        row.base, row.wanted_count = pack(base), len(base)
        row.refresh_id, row.change_seq = refresh_id, max(change_seq, row.change_seq)
        rows.save(row, book, "base", "wanted_count", "refresh", "change_seq", *held)
        there = book.present | book.unknown
        absorbed = Decision.objects.filter(mapping_id=lease.mapping_id, seq__lte=row.change_seq)
        # Kept is only why somebody has to be told of still. Of whoever is wanted again it says nothing about the next time.
        over = [
            pk
            for pk, number, inside in absorbed.values_list("pk", "identity_no", "wanted")
            if inside != (number in base) or (number in book.present if inside else number not in there)
        ]
        for start in range(0, len(over), 5_000):
            Decision.objects.filter(pk__in=over[start : start + 5_000]).delete()
        records.pointless(lease.mapping_id, there - rows.intent(row))
    return True


def _welcome(row: Ledger, book: Book, entered: BitMap, base: BitMap, now: datetime) -> None:
    """Whoever comes back vetoes nothing any more. What they took along and do not carry now is added again for those who do."""
    theirs = BitMap(number for number, _ in identities.of_profiles(list(identities.profiles_of(entered).values())))
    if over := book.vetoed & theirs - entered:
        kinds = Connection.objects.values_list("identifiers", flat=True).get(pk=row.mapping_id)
        book.pardon(over)
        if others := identities.sharers(over, kinds) & book.present & base:
            book.tell_again(others, now, uncertain=BitMap())


def decide(mapping_id: int, decisions: Iterable[tuple[int, int, bool, str] | Decided]) -> int:
    """Record what holds until a count contains it; how many. The latest seq of an identity counts. A removal's record begins here."""
    made = [Decided(*one) for one in decisions]
    for start in range(0, len(made), 5_000):
        Decision.objects.bulk_create(
            Decision(
                mapping_id=mapping_id,
                identity_no=one.identity_no,
                seq=one.seq,
                wanted=one.wanted,
                cause=one.cause,
                at=one.at,
            )
            for one in made[start : start + 5_000]
        )
    left = [(one.identity_no, one.cause, one.at) for one in made if one.there and not one.wanted and one.at]
    records.leaving(mapping_id, left)
    return len(made)


def look(mapping_id: int, *, now: datetime) -> View:
    """The ledger as of one moment, without holding anybody up."""
    with transaction.atomic(using="snapshot"):
        row = Ledger.objects.using("snapshot").get(mapping_id=mapping_id)
        book, intent = rows.book(row, using="snapshot"), rows.intent(row, using="snapshot")
        state = rows.state(row, book, intent, now, using="snapshot")
        left: dict[str, BitMap] = {}
        entered: dict[str, BitMap] = {}
        decisions = Decision.objects.using("snapshot").filter(mapping_id=mapping_id).order_by("seq", "pk")
        latest = {
            number: (wanted, cause) for number, wanted, cause in decisions.values_list("identity_no", "wanted", "cause")
        }
    for number, (wanted, cause) in latest.items():
        (entered if wanted else left).setdefault(cause, BitMap()).add(number)
    moments = [call.reassert_at for call in book.calls if call.reassert_at is not None and call.unsettled]
    moments = [moment for moment in moments if moment > now]
    return View(
        state=state,
        left=left,
        entered=entered,
        vetoed=book.vetoed,
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
    watch: Guard,
    remote_id: str,
    identifiers: Sequence[str],
    left_at: datetime,
    now: datetime,
    run_id: int | None = None,
    version_id: int | None = None,
) -> Prepared | None:
    """T1: commit that a call is about to be made, for those of `step` to whom it may still be said. None: nobody is left.

    `profiles` gives each identity's profile_no. Nobody is added whom `watch` leaves out. Raises LeaseLost.
    """
    with transaction.atomic():
        row = rows.locked(lease.mapping_id)
        held = leases.hold(row, lease, now)
        book, intent = rows.book(row), rows.intent(row)
        state = rows.state(row, book, intent, now)
        ids = plan.still_due(state, step.kind, step.cause, step.ids)
        left_out = watch.leaves_out(ids, profiles)
        if step.kind == ADD:
            ids = ids - left_out if _still_sent(row, identifiers) else BitMap()
        elif not set(row.withdraw_kinds) <= set(identifiers):  # some were told with more since the plan
            ids = BitMap()
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
        book.prepare(rows.as_call(operation), veto=step.cause in plan.VETOING)
        if late := ids & state.due:
            _tell_sharers(book, intent, step.kind, identities.sharers(late, identifiers), now)
        if step.kind == REMOVE and step.cause != plan.WITHDRAW:
            records.removing(lease.mapping_id, ids, step.cause, left_at, now)
        rows.save(row, book, *held)
    there = intent & (book.present | book.unknown)
    return Prepared(operation.pk, Step(step.kind, step.cause, ids), intent, there, book.vetoed)


def _still_sent(row: Ledger, identifiers: Sequence[str]) -> bool:
    """Whether an add carries what the connection is to send now: it may have been changed since the plan, and all are told again then."""
    return list(identifiers) == Connection.objects.values_list("identifiers", flat=True).get(pk=row.mapping_id)


def _tell_sharers(book: Book, intent: BitMap, kind: str, sharers: BitMap, now: datetime) -> None:
    """An earlier call may have had its effect after calls about others who share an identifier with its people: what it took
    away from those who are wanted is added again, and what it brought back of those who left for good is removed again."""
    others = sharers & book.present & intent if kind == REMOVE else sharers & (book.vetoed - intent)
    if others:
        book.tell_again(others, now, uncertain=BitMap())


def settle(lease: Lease, operation_id: int, outcome: Outcome, *, now: datetime) -> Count:
    """T2: commit what came of a call. An outcome that comes after the lease was lost changes only the operation's log: LeaseLost."""
    with transaction.atomic():
        row = rows.locked(lease.mapping_id)
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
    book = rows.book(row)
    call = next(call for call in book.calls if call.id == operation_id)
    ids, refused = call.unsettled, BitMap(outcome.rejected) & call.unsettled
    unnamed = min(outcome.rejected_unnamed, len(ids - refused))
    unsure = ids - refused if call.kind == REMOVE and unnamed else BitMap()  # any of them may still be there
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
        again = now + max(lease.settle, REFUSED_AGAIN if call.kind == ADD else REMOVED_AGAIN)
        book.accept(call, refused, unsure, pending=pending, again=again)
        count = Count(accepted=len(ids) - len(refused) - unnamed, rejected=len(refused) + unnamed)
        records.accepted(row.mapping_id, call.kind, ids - refused - unsure, now)
        records.refuse(row.mapping_id, call.kind, {i: outcome.rejected[i] for i in refused}, call.id, now)
        if call.cause == plan.WITHDRAW or row.withdraw:
            row.withdraw_kinds = row.withdraw_kinds if book.withdraw else []
    _take_up(row, book, lease, call.kind, ids, now)
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
    rows.save(row, book, "withdraw_kinds", *leases.hold(row, lease, now))
    return count


def _take_up(row: Ledger, book: Book, lease: Lease, kind: str, ids: BitMap, now: datetime) -> None:
    """Who left while an add of them was in flight is removed at its outcome, at once; if they did not get there, there is nothing to remove."""
    if kind != ADD:
        return
    there = ids & (book.present | book.unknown)
    if len(there) < len(ids):
        records.pointless(row.mapping_id, there, among=ids)
    if lease.lane == leases.BULK and there - rows.intent(row):
        errands.send([row.mapping_id], now=now)


def receive(operation_id: int, outcome: Outcome, *, settle: timedelta, now: datetime) -> Count | None:
    """Commit a submitted call's receipt. None if somebody else already has, or if it is still to come (`poll_at` moves)."""
    mapping_id = Operation.objects.values_list("mapping_id", flat=True).get(pk=operation_id)
    with transaction.atomic():
        row = rows.locked(mapping_id)
        book = rows.book(row)
        call = next((c for c in book.calls if c.id == operation_id and c.state == transitions.SUBMITTED), None)
        if call is None:
            return None
        operation = Operation.objects.get(pk=operation_id)
        if outcome.verdict == transitions.SUBMITTED:
            Operation.objects.filter(pk=operation_id).update(poll_at=outcome.poll_at)
            return None
        ids, refused = call.unsettled, BitMap(outcome.rejected) & call.unsettled
        if outcome.verdict == transitions.SETTLED:
            told_since = BitMap()
            for packed in Operation.objects.filter(mapping_id=mapping_id, pk__gt=operation_id).values_list(
                "identities", flat=True
            ):
                told_since |= unpack(packed)
            later = told_since & ids
            unnamed = min(outcome.rejected_unnamed, operation.accepted - len(refused))
            unsure = ids - refused if call.kind == REMOVE and unnamed else BitMap()
            book.receive(call, refused, unsure, later, now=now, again=now + max(settle, REMOVED_AGAIN))
            if told_since:
                sharers = identities.sharers(ids, operation.identifiers) & told_since
                _tell_sharers(book, rows.intent(row), call.kind, sharers, now)
            bad = len(refused) + unnamed
            count = Count(accepted=operation.accepted - bad, rejected=operation.rejected + bad)
            records.refuse(mapping_id, call.kind, {i: outcome.rejected[i] for i in refused - later}, call.id, now)
            if call.kind == REMOVE:
                records.confirmed(mapping_id, ids - refused - unsure, now)
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
        rows.save(row, book)
    return count


def swap(lease: Lease, pairs: Sequence[tuple[int, int]], *, now: datetime) -> int:
    """Let changed identities that carry the same identifiers here take their forerunners' places, without a call; how many."""
    with transaction.atomic():
        row = rows.locked(lease.mapping_id)
        held = leases.hold(row, lease, now)
        book, intent = rows.book(row), rows.intent(row)
        state, done = rows.state(row, book, intent, now), 0
        submitted = BitMap()
        for call in book.calls:
            submitted |= call.unsettled
        for old, new in pairs:
            if old not in submitted and new not in submitted and plan.may_swap(state, old, new):
                book.swap(old, new)
                done += 1
        if done:
            rows.save(row, book, *held)
    return done


# --- Acts of people, and of the sweeper.


def tell_again(
    mapping_id: int, choose: Callable[[Book, BitMap], tuple[BitMap, BitMap]], *, now: datetime, epoch: bool = False
) -> int:
    """Have people told again by intent; how many. `choose(book, intent)` gives whom, and of whom nothing is known any more."""
    with transaction.atomic():
        row = rows.locked(mapping_id)
        book = rows.book(row)
        ids, uncertain = choose(book, rows.intent(row))
        book.tell_again(ids, now, uncertain=uncertain & (ids | book.unknown))
        if epoch:
            row.epoch += 1
            row.save(update_fields=["epoch"])
        rows.save(row, book)
    return len(ids)


def withdraw_kinds(mapping_id: int) -> tuple[str, ...]:
    """The identifier kinds that are being taken back there."""
    return tuple(Ledger.objects.values_list("withdraw_kinds", flat=True).get(mapping_id=mapping_id))


def withdraw(mapping_id: int, kinds: Sequence[str], *, now: datetime) -> None:
    """Everything sent with these identifier kinds is taken back, and all who are there are told again."""
    with transaction.atomic():
        row = rows.locked(mapping_id)
        book = rows.book(row)
        everyone = book.present | book.unknown
        book.tell_again(everyone, now, uncertain=BitMap())
        if kinds:
            book._set(withdraw=book.withdraw | everyone)
            row.withdraw_kinds = [*row.withdraw_kinds, *(kind for kind in kinds if kind not in row.withdraw_kinds)]
            row.save(update_fields=["withdraw_kinds"])
        rows.save(row, book)


def start_anew(mapping_id: int, *, wanted: bool, now: datetime) -> int:
    """The remote audience is no more, and nobody is in it: all are untold, no call about it is open; how many were believed there.

    Whoever still held a lease has lost it. Removals that were on their way are none any more: there is nothing to be removed from.
    `wanted` false: nobody is wanted there any more either.
    """
    with transaction.atomic():
        row = rows.locked(mapping_id)
        book = rows.book(row)
        believed = book.present | book.unknown
        book.forget()
        if not wanted:
            row.base, row.wanted_count = pack(BitMap()), 0
        row.epoch, row.withdraw_kinds = row.epoch + 1, []
        row.urgent_fence, row.bulk_fence = row.urgent_fence + 1, row.bulk_fence + 1
        row.urgent_until = row.bulk_until = None
        rows.save(
            row, book, "base", "wanted_count", "epoch", "withdraw_kinds", "urgent_fence", "bulk_fence", "urgent_until", "bulk_until"
        )  # fmt: skip
        words = "The audience was deleted there."
        operations = Operation.objects.filter(mapping_id=mapping_id)
        operations.filter(state=transitions.SUBMITTED).update(state=transitions.UNKNOWN, accepted=0, rejected=0)
        operations.filter(open=True).update(
            state=transitions.UNKNOWN, unsettled=b"", open=False, reassert_at=None, poll_at=None, error=words
        )
        Rejection.objects.filter(mapping_id=mapping_id).delete()
        records.pointless(mapping_id, BitMap())
        if not wanted:
            Decision.objects.filter(mapping_id=mapping_id).delete()
    return len(believed)


def forget_rejections(mapping_id: int, *, now: datetime) -> int:
    """Try refused people again at once; how many."""
    return Rejection.objects.filter(mapping_id=mapping_id).update(retry_at=now)
