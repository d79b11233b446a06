"""The ledger's rows: leases and fences, what a late or missing answer does, and that what is written is never contradictory."""

import threading
from datetime import timedelta

import pytest
from django.db import connection
from django.utils import timezone
from pyroaring import BitMap

from audiences.bitmaps import pack, unpack
from audiences.models import Audience, ChangeLog
from destinations import holders, leases, ledger, plan, transitions
from destinations.ledger import Outcome, Watch
from destinations.models import Account, Decision, Destination, Ledger, Mapping, Operation, Rejection, Removal
from destinations.plan import ADD, REMOVE, Step

pytestmark = pytest.mark.django_db
SETTLE = timedelta(seconds=30)
NOW = timezone.now()
PEOPLE = BitMap(range(1, 11))
PROFILES = {number: number + 100 for number in PEOPLE}


def connected():
    audience = Audience.objects.create(key="cart", name="cart", purpose="retargeting")
    account = Account.objects.create(key="meta:1")
    destination = Destination.objects.create(key="meta", name="meta", kind="meta", account=account)
    made = Mapping.objects.create(audience=audience, destination=destination, identifiers=["email"], state="live")
    Ledger.objects.create(mapping=made, base=pack(BitMap(PEOPLE)))
    return made


@pytest.fixture
def mapping():
    return connected()


def claim(mapping, now=NOW, lane=leases.BULK):
    return leases.claim(mapping.pk, lane, settle=SETTLE, now=now)


def prepare(lease, step, now=NOW, watch=None, identifiers=("email",)):
    return ledger.prepare(
        lease,
        step,
        profiles=PROFILES,
        watch=watch or Watch(0, frozenset()),
        remote_id="1",
        identifiers=identifiers,
        left_at=now,
        now=now,
    )


def state(mapping, now=NOW):
    return ledger.look(mapping.pk, now=now).state


def add(ids=PEOPLE, cause=plan.DIFF):
    return Step(ADD, cause, BitMap(ids))


def remove(ids, cause=plan.DIFF):
    return Step(REMOVE, cause, BitMap(ids))


def put_there(mapping, lease, ids=PEOPLE):
    prepared = prepare(lease, add(ids))
    ledger.settle(lease, prepared.operation_id, Outcome(transitions.SETTLED), now=NOW)


def test_whoever_is_in_a_call_is_unknown_from_before_it_is_made(mapping):
    lease = claim(mapping)

    prepared = prepare(lease, add({1, 2, 3}))

    row = Ledger.objects.get()
    assert unpack(row.unknown) == BitMap([1, 2, 3])
    assert unpack(row.ever_sent) == BitMap([1, 2, 3])
    operation = Operation.objects.get(pk=prepared.operation_id)
    assert (operation.state, operation.count, operation.fence, operation.open) == ("prepared", 3, lease.fence, True)
    assert prepare(lease, add({1, 2, 3})) is None  # nobody is told twice


def test_what_was_accepted_is_there_and_a_refused_row_has_its_reason(mapping):
    lease = claim(mapping)
    prepared = prepare(lease, add({1, 2, 3}))

    count = ledger.settle(
        lease, prepared.operation_id, Outcome(transitions.SETTLED, {2: ("bad", "Not an e-mail")}), now=NOW
    )

    assert (count.accepted, count.rejected, count.unknown) == (2, 1, 0)
    found = state(mapping)
    assert (found.present, found.rejected, found.unknown) == (BitMap([1, 3]), BitMap([2]), BitMap())
    assert Rejection.objects.get().retry_at == NOW + timedelta(hours=1)
    assert state(mapping, NOW + timedelta(hours=1)).retry == BitMap([2])


def test_each_refusal_makes_the_next_attempt_wait_longer(mapping):
    lease, now = claim(mapping), NOW
    for _ in range(2):
        prepared = prepare(lease, add({2}, plan.DIFF), now)
        ledger.settle(lease, prepared.operation_id, Outcome(transitions.SETTLED, {2: ("bad", "No")}), now=now)
        now = Rejection.objects.get().retry_at

    assert Rejection.objects.get().attempts == 2
    assert Rejection.objects.get().retry_at == NOW + timedelta(hours=1) + timedelta(hours=6)


def test_a_refused_removal_is_still_there_and_tried_again(mapping):
    lease = claim(mapping)
    put_there(mapping, lease)
    ledger.decide(mapping.pk, [(1, 5, False, plan.PURCHASE)])
    prepared = prepare(lease, remove({1}, plan.PURCHASE))

    ledger.settle(lease, prepared.operation_id, Outcome(transitions.SETTLED, {1: ("small", "Too few left")}), now=NOW)

    assert 1 in state(mapping).present
    assert plan.plan(state(mapping)).count(REMOVE) == 0
    assert plan.plan(state(mapping, NOW + timedelta(minutes=16))).count(REMOVE) == 1


def test_known_not_to_have_been_applied_puts_everybody_back(mapping):
    lease = claim(mapping)
    put_there(mapping, lease, {1, 2})
    ledger.decide(mapping.pk, [(1, 5, False, plan.RULE)])
    adding, removing = prepare(lease, add({3})), prepare(lease, remove({1}, plan.RULE))

    for prepared in (adding, removing):
        ledger.settle(lease, prepared.operation_id, Outcome(transitions.UNAPPLIED), now=NOW)

    found = state(mapping)
    assert (found.present, found.unknown, found.rejected) == (BitMap([1, 2]), BitMap(), BitMap())
    assert not Operation.objects.filter(open=True).exists()


def test_an_unknown_outcome_is_told_again_only_after_its_settle_time(mapping):
    lease = claim(mapping)
    prepared = prepare(lease, add({1}))
    ledger.settle(lease, prepared.operation_id, Outcome(transitions.UNKNOWN), now=NOW)

    assert plan.plan(state(mapping)).steps[-1].ids == PEOPLE - BitMap([1])
    assert prepare(lease, add({1}, plan.REASSERT)) is None
    later = NOW + SETTLE
    assert prepare(lease, add({1}, plan.REASSERT), later) is not None


def test_one_lane_has_one_holder_and_a_rising_fence(mapping):
    first = claim(mapping)
    with pytest.raises(leases.Busy):
        claim(mapping)
    urgent = claim(mapping, lane=leases.URGENT)  # the other lane is free
    leases.release(first)

    second = claim(mapping)

    assert (first.fence, second.fence, urgent.fence) == (1, 2, 1)


def test_a_lease_runs_out_and_what_was_in_flight_becomes_unknown(mapping):
    old = claim(mapping)
    prepared = prepare(old, add({1, 2}))
    later = NOW + leases.LEASE + timedelta(seconds=1)

    claim(mapping, later)

    operation = Operation.objects.get(pk=prepared.operation_id)
    assert (operation.state, operation.reassert_at) == ("unknown", later + SETTLE)
    assert state(mapping, later).lost == BitMap([1, 2])  # told at once, and again when nothing can land late


def test_an_answer_that_comes_after_the_lease_was_lost_changes_only_the_log(mapping):
    old = claim(mapping)
    prepared = prepare(old, add({1, 2}))
    new = claim(mapping, NOW + leases.LEASE + timedelta(seconds=1))
    before = bytes(Ledger.objects.get().unknown)

    with pytest.raises(leases.LeaseLost):
        ledger.settle(old, prepared.operation_id, Outcome(transitions.SETTLED, request_id="r-1"), now=NOW)

    operation = Operation.objects.get(pk=prepared.operation_id)
    assert (operation.state, operation.request_id) == ("unknown", "r-1")
    assert bytes(Ledger.objects.get().unknown) == before
    with pytest.raises(leases.LeaseLost):
        prepare(old, add({3}))
    with pytest.raises(leases.LeaseLost):
        leases.renew(old, now=NOW)
    leases.release(old)  # does not take it from the new holder
    leases.renew(new, now=NOW)


def test_a_dead_process_need_not_be_waited_for(mapping):
    lease = claim(mapping)
    me = holders.me()
    host, space, _, started = me.split(":")
    Ledger.objects.update(bulk_holder=f"{host}:{space}:4194300:{started}")

    assert claim(mapping).fence == lease.fence + 1
    Ledger.objects.update(bulk_holder=f"elsewhere:{space}:4194300:{started}")
    with pytest.raises(leases.Busy):
        claim(mapping)
    assert not holders.is_dead(me)


def test_nobody_is_added_to_whom_something_happened_since_the_count(mapping):
    ChangeLog.objects.create(profile_no=PROFILES[1], kind="event", name="purchase", at_us=0)
    ChangeLog.objects.create(profile_no=PROFILES[2], kind="event", name="page", at_us=0)
    ChangeLog.objects.create(profile_no=PROFILES[3], kind="erasure", at_us=0)
    lease = claim(mapping)

    prepared = prepare(lease, add(), watch=Watch(0, frozenset({"purchase"})))

    assert prepared.step.ids == PEOPLE - BitMap([1, 3])


def test_nobody_is_removed_with_fewer_kinds_than_are_being_taken_back(mapping):
    """The connection was changed after the call was planned: what was sent with the dropped kind must go too."""
    lease = claim(mapping)
    put_there(mapping, lease)
    Ledger.objects.update(base=pack(BitMap()))
    ledger.withdraw(mapping.pk, ["phone"], now=NOW)

    assert prepare(lease, remove(PEOPLE)) is None
    assert prepare(lease, remove(PEOPLE), identifiers=("email", "phone")) is not None


def test_decisions_overlay_a_count_until_one_contains_them(mapping):
    ledger.decide(
        mapping.pk,
        [(1, 5, False, plan.PURCHASE), (1, 7, True, plan.RULE), (2, 6, False, plan.CONSENT), (50, 8, True, plan.RULE)],
    )
    lease = claim(mapping)

    assert state(mapping).intent == (PEOPLE - BitMap([2])) | BitMap([50])
    assert ledger.look(mapping.pk, now=NOW).left == {plan.CONSENT: BitMap([2])}

    ledger.rebase(lease, BitMap([1, 2, 3]), refresh_id=None, change_seq=6, now=NOW)
    assert state(mapping).intent == BitMap([1, 2, 3, 50])
    assert not Decision.objects.filter(identity_no=2).exists()  # wanted again: why it once left says nothing any more


def test_a_removal_keeps_when_it_was_sent_and_accepted(mapping):
    lease = claim(mapping)
    put_there(mapping, lease)
    ledger.decide(mapping.pk, [(1, 5, False, plan.PURCHASE)])

    prepared = prepare(lease, remove({1}, plan.PURCHASE), NOW + timedelta(seconds=1))
    assert Removal.objects.get().accepted_at is None
    ledger.settle(lease, prepared.operation_id, Outcome(transitions.SETTLED), now=NOW + timedelta(seconds=2))

    removal = Removal.objects.get()
    assert (removal.cause, removal.sent_at, removal.accepted_at) == (
        "purchase",
        NOW + timedelta(seconds=1),
        NOW + timedelta(seconds=2),
    )
    assert unpack(Ledger.objects.get().vetoed) == BitMap([1])


def test_a_receipt_confirms_or_takes_back(mapping):
    lease = claim(mapping)
    good, bad = prepare(lease, add({1, 2})), prepare(lease, add({3}))
    for prepared in (good, bad):
        ledger.settle(
            lease, prepared.operation_id, Outcome(transitions.SUBMITTED, request_id="r", poll_at=NOW), now=NOW
        )
    assert state(mapping).present == BitMap([1, 2, 3])

    ledger.receive(good.operation_id, Outcome(transitions.SETTLED, {2: ("bad", "No")}), settle=SETTLE, now=NOW)
    ledger.receive(bad.operation_id, Outcome(transitions.UNAPPLIED), settle=SETTLE, now=NOW)

    found = state(mapping, NOW + SETTLE)
    assert (found.present, found.rejected, found.unknown, found.due) == (
        BitMap([1]),
        BitMap([2]),
        BitMap([3]),
        BitMap([3]),
    )
    first = Operation.objects.get(pk=good.operation_id)
    assert (first.state, first.accepted, first.rejected) == ("settled", 1, 1)
    assert ledger.receive(good.operation_id, Outcome(transitions.SETTLED), settle=SETTLE, now=NOW) is None  # only once


def test_a_removal_does_not_wait_for_an_adds_receipt_and_is_told_again_after_it(mapping):
    lease = claim(mapping)
    adding = prepare(lease, add({1}))
    ledger.settle(lease, adding.operation_id, Outcome(transitions.SUBMITTED, request_id="a", poll_at=NOW), now=NOW)
    ledger.decide(mapping.pk, [(1, 5, False, plan.PURCHASE)])
    removing = prepare(lease, remove({1}, plan.PURCHASE))
    ledger.settle(lease, removing.operation_id, Outcome(transitions.SETTLED), now=NOW)
    assert 1 not in state(mapping).due

    ledger.receive(adding.operation_id, Outcome(transitions.SETTLED), settle=SETTLE, now=NOW)

    assert state(mapping).due == BitMap([1])
    assert plan.plan(state(mapping)).steps[0] == Step(REMOVE, plan.REASSERT, BitMap([1]))


def test_a_changed_identity_with_the_same_identifiers_takes_its_forerunners_place(mapping):
    lease = claim(mapping)
    put_there(mapping, lease, {1, 2})
    ledger.rebase(lease, BitMap([2, 11, 12]), refresh_id=None, change_seq=1, now=NOW)

    assert ledger.swap(lease, [(1, 11), (2, 12)], now=NOW) == 1  # the second is still wanted itself

    assert state(mapping).present == BitMap([2, 11])


def test_a_state_that_contradicts_itself_is_not_written(mapping):
    lease = claim(mapping)
    Ledger.objects.update(present=pack(BitMap([1])), rejected=pack(BitMap([1])))

    with pytest.raises(AssertionError, match="overlap"):
        prepare(lease, add({2}))

    assert not Operation.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_of_twenty_workers_that_start_at_once_one_gets_the_lease():
    made = connected()
    got, start = [], threading.Barrier(20)

    def work():
        start.wait()
        try:
            got.append(leases.claim(made.pk, leases.BULK, settle=SETTLE, now=timezone.now()).fence)
        except leases.Busy:
            got.append(None)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(got, key=str) == [1] + [None] * 19
