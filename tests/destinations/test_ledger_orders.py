"""What a platform may have done in another order than it was told: late effects, receipts, rows refused without a name, shared identifiers."""

from datetime import timedelta

import pytest
from pyroaring import BitMap

from audiences.models import ChangeLog, Identity
from destinations import ledger, plan, transitions
from destinations.ledger import Outcome, Watch
from destinations.models import Mapping, Operation, Removal
from destinations.plan import ADD, REMOVE
from tests.destinations.test_ledger import NOW, SETTLE, add, claim, connected, prepare, put_there, remove, state

pytestmark = pytest.mark.django_db


@pytest.fixture
def mapping():
    return connected()


def identity(number, email, profile=None, **fields):
    return Identity.objects.create(
        identity_no=number, profile_no=profile or number + 100, email=email, external_id=f"id-{number}", **fields
    )


def settle(lease, prepared, verdict=transitions.SETTLED, now=NOW, **fields):
    return ledger.settle(lease, prepared.operation_id, Outcome(verdict, **fields), now=now)


def test_a_removal_of_which_some_were_refused_without_a_name_is_not_believed_and_told_again(mapping):
    lease = claim(mapping)
    put_there(mapping, lease)
    ledger.decide(mapping.pk, [(1, 5, False, plan.RULE), (2, 5, False, plan.RULE)])

    count = settle(lease, prepare(lease, remove({1, 2}, plan.RULE)), rejected_unnamed=1)

    assert (count.accepted, count.rejected, count.unknown) == (1, 1, 0)
    assert state(mapping).unknown == BitMap([1, 2])  # either of them may still be there
    assert not Removal.objects.exclude(accepted_at=None).exists()
    assert plan.plan(state(mapping)).count(REMOVE) == 0
    later = NOW + timedelta(minutes=16)
    assert plan.plan(state(mapping, later)).count(REMOVE) == 2

    settle(lease, prepare(lease, remove({1, 2}, plan.REASSERT), later), now=later)

    assert not state(mapping, later).unknown and not Operation.objects.filter(open=True).exists()


def test_a_receipt_that_leaves_some_of_a_removal_out_without_a_name_makes_all_of_it_unknown(mapping):
    lease = claim(mapping)
    put_there(mapping, lease)
    ledger.decide(mapping.pk, [(1, 5, False, plan.RULE), (2, 5, False, plan.RULE)])
    removing = prepare(lease, remove({1, 2}, plan.RULE))
    settle(lease, removing, transitions.SUBMITTED, request_id="a", poll_at=NOW)

    ledger.receive(removing.operation_id, Outcome(transitions.SETTLED, rejected_unnamed=1), settle=SETTLE, now=NOW)

    assert state(mapping).unknown == BitMap([1, 2])
    assert plan.plan(state(mapping, NOW + timedelta(minutes=16))).count(REMOVE) == 2


def test_who_falls_due_is_told_again_though_a_later_call_about_them_is_still_waited_for(mapping):
    lease = claim(mapping)
    settle(lease, prepare(lease, add({1})), transitions.UNKNOWN)  # due after the settle time
    ledger.decide(mapping.pk, [(1, 5, False, plan.RULE)])
    settle(lease, prepare(lease, remove({1}, plan.RULE)), rejected_unnamed=1)  # due after a quarter of an hour

    assert plan.plan(state(mapping, NOW + SETTLE)).count(REMOVE) == 1


def test_whoever_lives_on_as_two_people_is_not_added_before_the_next_count(mapping):
    lease = claim(mapping)
    ChangeLog.objects.create(profile_no=105, kind="merge", name="101", at_us=1)

    prepared = prepare(lease, add({1, 2}), watch=Watch(0, frozenset()))

    assert prepared.step.ids == BitMap([2])


def test_an_add_with_identifiers_that_are_sent_no_more_is_not_prepared(mapping):
    lease = claim(mapping)
    Mapping.objects.update(identifiers=["email", "phone"])

    assert prepare(lease, add({1})) is None


def test_what_an_unknown_removal_took_from_somebody_who_shares_it_is_added_again(mapping):
    """A phone number is changed, the removal of the old one comes late: it takes the e-mail along, which the new one has too."""
    identity(1, "a@example.com"), identity(2, "a@example.com")
    lease = claim(mapping)
    put_there(mapping, lease, {1})
    ledger.decide(mapping.pk, [(1, 5, False, plan.IDENTITY)])
    settle(lease, prepare(lease, remove({1}, plan.IDENTITY)), transitions.UNKNOWN)
    put_there(mapping, lease, {2})
    later = NOW + SETTLE
    assert 2 in state(mapping, later).present

    settle(lease, prepare(lease, remove({1}, plan.IDENTITY), later), now=later)

    steps = plan.plan(state(mapping, later)).steps
    assert [(step.kind, step.ids) for step in steps if step.cause == plan.RESYNC] == [(ADD, BitMap([2]))]


def test_what_an_unknown_add_brought_back_of_somebody_who_left_for_good_is_removed_again(mapping):
    identity(1, "a@example.com"), identity(2, "a@example.com")
    lease = claim(mapping)
    put_there(mapping, lease, {2})
    settle(lease, prepare(lease, add({1})), transitions.UNKNOWN)
    ledger.decide(mapping.pk, [(2, 5, False, plan.PURCHASE)])
    settle(lease, prepare(lease, remove({2}, plan.PURCHASE)))
    later = NOW + SETTLE

    prepare(lease, add({1}, plan.REASSERT), later)

    assert 2 in state(mapping, later).again
    assert plan.plan(state(mapping, later), {plan.PURCHASE: BitMap([2])}).steps[0].ids == BitMap([2])


def test_a_removals_receipt_has_those_told_again_who_share_an_identifier_and_were_added_since(mapping):
    identity(1, "a@example.com"), identity(2, "a@example.com")
    lease = claim(mapping)
    put_there(mapping, lease, {1})
    ledger.decide(mapping.pk, [(1, 5, False, plan.IDENTITY)])
    removing = prepare(lease, remove({1}, plan.IDENTITY))
    settle(lease, removing, transitions.SUBMITTED, request_id="a", poll_at=NOW)
    put_there(mapping, lease, {2})

    ledger.receive(removing.operation_id, Outcome(transitions.SETTLED), settle=SETTLE, now=NOW)

    assert state(mapping).again == BitMap([2])


def test_whoever_comes_back_under_other_identifiers_gives_the_old_ones_back_to_others(mapping):
    identity(1, "a@example.com", profile=101, replaced_at=NOW), identity(2, "a@example.com")
    lease = claim(mapping)
    put_there(mapping, lease, {1, 2})
    ledger.decide(mapping.pk, [(1, 5, False, plan.PURCHASE)])
    settle(lease, prepare(lease, remove({1}, plan.PURCHASE)))  # the e-mail goes, though 2 has it too
    identity(11, "b@example.com", profile=101)

    ledger.rebase(lease, BitMap([2, 11]), refresh_id=None, change_seq=9, now=NOW)

    found = ledger.look(mapping.pk, now=NOW)
    assert not found.vetoed and found.state.again == BitMap([2])
