"""From something that happened to the platform without a sync: who leaves and who is suppressed, why, and what waits for the next count."""

import contextlib
import random
import threading
from datetime import timedelta

import psycopg
import pytest
from django.db import connection, transaction
from django.db.models import F
from django.utils import timezone
from pyroaring import BitMap

from audiences import clock, jobs
from audiences.bitmaps import pack, unpack
from audiences.models import Event
from audiences.people import intake, payloads, removal
from audiences.people.payloads import Context
from audiences.services import lists
from destinations import changes, fastlane, leases, ledger, plan, transitions, urgent, verdicts, wanted
from destinations.fastlane import FastLane
from destinations.ledger import Outcome, Watch
from destinations.models import Decision, Errand, Exclusion, Hold, Ledger, Mapping, Operation, Removal
from destinations.plan import Step
from destinations.services import mappings
from tests.audiences.people_in import erase, identify, merge, number, track, until_counted
from tests.destinations import scene
from tests.destinations.pair import BOUGHT, PEOPLE, made
from tests.destinations.scene import hashes, identity_of

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair(sandbox, account_number):
    return made(sandbox, account_number)


def test_a_purchase_takes_a_person_out_of_retargeting_and_into_suppression_without_a_count(pair):
    before = clock.from_us(clock.now_us())
    track("anna", "purchase")

    pair.happens()

    assert pair.cart.emails() == hashes("bert", "carl")
    assert pair.bought.emails() == hashes("zoe", "anna")
    assert pair.causes() == {("remove", "purchase"), ("add", "purchase")}
    kept = Removal.objects.get()
    assert kept.cause == "purchase"
    assert before <= kept.left_at <= kept.sent_at <= kept.accepted_at
    assert abs(kept.took_ms - (kept.accepted_at - kept.left_at) / timedelta(milliseconds=1)) <= 1
    assert not Errand.objects.exclude(due_at=None).exists()


def test_what_the_lane_has_said_the_next_sync_finds_done(pair):
    track("anna", "purchase")
    pair.happens()
    until_counted()

    runs = [pair.cart.sync(), pair.bought.sync()]

    assert [(run.state, run.planned_adds, run.planned_removes) for run in runs] == [("done", 0, 0)] * 2
    assert not Decision.objects.exists()  # the count contains them, and nobody is left to be told
    assert pair.cart.emails() == hashes("bert", "carl")


def test_a_buyer_who_has_other_identifiers_before_it_is_said_is_never_suppressed_under_the_old_ones(pair):
    track("anna", "purchase")
    FastLane().look()
    identify("anna", email="anna.new@example.com")
    urgent.deliver(pair.bought.mapping.destination_id)
    assert pair.bought.emails() == hashes("zoe")

    until_counted()
    pair.bought.sync()

    assert pair.bought.emails() == hashes("zoe", "anna.new")


def test_an_event_that_no_rule_names_decides_nothing(pair):
    track("anna", "page_view")

    pair.happens()

    assert not Decision.objects.exists()
    assert pair.causes() == set()


def test_who_was_never_sent_is_not_removed_but_is_suppressed(pair):
    identify("dora", email="dora@example.com")
    track("dora", "purchase")

    pair.happens()

    assert pair.causes() == {("add", "purchase")}
    assert pair.bought.emails() == hashes("zoe", "dora")


def test_whom_a_linked_suppression_audience_takes_in_leaves_though_the_rule_does_not_name_the_event(
    sandbox, account_number
):
    pair = made(sandbox, account_number, rule=scene.IN)
    track("anna", "purchase")

    pair.happens()

    assert pair.cart.emails() == hashes("bert", "carl")
    assert pair.bought.emails() == hashes("zoe", "anna")


@pytest.mark.parametrize(
    ("act", "cause"),
    [
        (lambda: identify("anna", consent_ad_user_data=False), "consent"),
        (lambda: delete("anna"), "erasure"),
        (lambda: erase("anna"), "erasure"),
        (lambda: track("anna", "unsubscribed"), "rule"),
    ],
)
def test_who_must_not_be_sent_any_more_leaves_at_once(sandbox, account_number, act, cause):
    track("bert", "unsubscribed", at=clock.now_us() - 9 * clock.DAY)
    rule = {"all": [scene.NO_PURCHASE, {"event": "unsubscribed", "count": {"exactly": 0}, "within": "8d"}]}
    pair = made(sandbox, account_number, rule=rule)
    act()

    pair.happens()

    assert pair.cart.emails() == hashes("bert", "carl")
    assert pair.causes() == {("remove", cause)}
    assert Removal.objects.get().cause == cause


def delete(id):
    with transaction.atomic():
        removal.delete(("id", id), at_us=clock.now_us())


def test_who_withdraws_consent_leaves_suppression_too_and_a_buyer_without_consent_is_not_added(pair):
    identify("zoe", consent_ad_user_data=False)
    identify("dora", email="dora@example.com", consent_ad_user_data=False)
    track("dora", "purchase")

    pair.happens()

    assert pair.bought.emails() == set()


def test_who_only_leaves_suppression_waits_for_a_count_and_its_limits(sandbox, account_number):
    pair = made(sandbox, account_number)
    versioned = {"all": [BOUGHT, {"event": "refund", "count": {"exactly": 0}}]}
    track("carl", "refund")
    scene.audience("bought_180d", versioned, "suppression")
    until_counted()
    pair.bought.sync()
    pair.happens()
    track("zoe", "refund")

    pair.happens()

    assert pair.bought.emails() == hashes("zoe")
    assert not Operation.objects.filter(lane=leases.URGENT).exists()
    until_counted()
    pair.bought.sync()
    assert pair.bought.emails() == set()


def test_whom_only_time_or_a_changed_attribute_takes_out_waits_for_the_count(sandbox, account_number):
    """Or a wiped attribute would empty an audience person by person, past the limit on removals."""
    rule = {"all": [scene.IN, {"event": "refund", "count": {"at_most": 3}}]}
    track("zoe", "refund")
    pair = made(sandbox, account_number, rule=rule)
    identify("anna", **{"in": "no"})
    track("anna", "refund")

    pair.happens()

    assert pair.cart.emails() == hashes(*PEOPLE)
    assert not Decision.objects.exists()


def test_whom_only_a_new_rule_takes_out_waits_for_the_count(pair):
    track("zoe", "refund")
    scene.audience(
        "cart",
        {"all": [{"attribute": "in", "op": "is", "value": "maybe"}, {"event": "refund", "count": {"exactly": 0}}]},
    )
    track("anna", "refund")

    pair.happens()

    assert pair.cart.emails() == hashes(*PEOPLE)


def test_every_identifier_ever_sent_of_a_buyer_goes(pair):
    identify("anna", email="anna.new@example.com")
    track("anna", "purchase")

    pair.happens()

    assert pair.cart.emails() == hashes("bert", "carl")
    assert pair.bought.emails() == hashes("zoe", "anna.new")


def test_an_identifier_that_is_shared_goes_with_a_buyer_and_stays_with_whoever_leaves_by_the_rule(
    sandbox, account_number
):
    """Row 34: intent of an identifier is what any of its people want, unless somebody vetoes it."""
    rule = {"all": [scene.NO_PURCHASE, {"event": "refund", "count": {"exactly": 0}}]}
    track("zoe", "refund")
    scene.imported("dora", email="anna@example.com")
    scene.imported("eric", email="bert@example.com")
    pair = made(sandbox, account_number, rule=rule)
    track("dora", "purchase")
    track("eric", "refund")

    pair.happens()

    assert pair.cart.emails() == hashes("bert", "carl")


def test_a_visitor_who_bought_and_then_says_who_they_are_leaves(pair):
    now = clock.now_us()
    body = {"name": "purchase", "data": {}, "anonymous_id": "device-1"}
    intake.accept([payloads.anonymous_event_v1(body, Context(now, "US"))], "track_v1", received_us=now)
    pair.happens()
    assert pair.cart.emails() == hashes(*PEOPLE)

    identify("anna", anonymous_id="device-1")
    pair.happens()

    assert pair.cart.emails() == hashes("bert", "carl")
    assert pair.bought.emails() == hashes("zoe", "anna")


def test_people_who_turn_out_to_be_one_and_are_wanted_wait_for_the_count(pair):
    merge("anna", "bert")

    pair.happens()

    assert not Decision.objects.exists()


# --- What states and stops let pass.


def test_a_paused_connection_removes_and_does_not_add(pair):
    mappings.pause(actor=None, mapping=pair.cart.mapping)
    mappings.pause(actor=None, mapping=pair.bought.mapping)
    track("anna", "purchase")

    pair.happens()

    assert pair.cart.emails() == hashes("bert", "carl")
    assert pair.bought.emails() == hashes("zoe")


def test_a_frozen_connection_says_nothing_and_shows_who_should_have_left(pair):
    tomorrow = timezone.now() + timedelta(days=1)
    mappings.freeze(actor=None, mapping=pair.cart.mapping, reason="audit", until=tomorrow)
    track("anna", "purchase")

    pair.happens()

    assert pair.cart.emails() == hashes(*PEOPLE)
    waiting = Removal.objects.get()
    assert (waiting.cause, waiting.sent_at, waiting.accepted_at) == ("purchase", None, None)

    mappings.resume(actor=None, mapping=pair.cart.mapping)
    until_counted()
    pair.cart.sync()
    assert pair.cart.emails() == hashes("bert", "carl")
    assert Removal.objects.get().left_at == waiting.left_at  # when they bought, not when it was thawed
    assert Removal.objects.get().accepted_at is not None


@pytest.mark.parametrize("direction", Hold.Direction.values)
def test_a_hold_lets_what_people_did_themselves_pass(pair, direction):
    for one in (pair.cart, pair.bought):
        Hold.objects.create(mapping=one.mapping, direction=direction, rule="person", reason="for the test")
    track("anna", "purchase")

    pair.happens()

    assert pair.cart.emails() == hashes("bert", "carl")
    assert pair.bought.emails() == hashes("zoe", "anna")


def test_a_blocked_connection_is_not_called_and_catches_up_when_it_may(pair):
    Mapping.objects.filter(pk=pair.cart.mapping.pk).update(blocked_reason="The token was revoked.")
    track("anna", "purchase")
    calls = len(pair.cart.calls())

    pair.happens()
    assert len(pair.cart.calls("remove")) == 0
    assert len(pair.cart.calls()) == calls + 1  # the suppression add
    assert Removal.objects.get().accepted_at is None

    mappings.unblock(actor=None, mapping=pair.cart.mapping)
    until_counted()
    pair.cart.sync()
    assert pair.cart.emails() == hashes("bert", "carl")
    assert Removal.objects.get().accepted_at is not None


def test_a_trial_suppresses_its_sample_alone(pair):
    percent = 50
    Mapping.objects.filter(pk=pair.bought.mapping.pk).update(state="trial", trial_percent=percent)
    ids = [f"q{n}" for n in range(12)]
    scene.imported(*ids)
    for id in ids:
        track(id, "purchase")

    pair.happens()

    chosen = plan.sampled(BitMap(number(id) for id in ids), percent)
    assert 0 < len(chosen) < len(ids)
    assert pair.bought.emails() - hashes("zoe") == hashes(*(id for id in ids if number(id) in chosen))


def test_people_on_an_exclusion_list_stay_out_whatever_the_rule_says(pair):
    staff = lists.change(lists.make("staff", "Staff", None), None, add=[number("anna")])
    Exclusion.objects.create(person_list=staff)
    track("zoe", "refund")
    track("anna", "purchase")

    pair.happens()

    assert pair.cart.emails() == hashes("bert", "carl")


# --- Beside a sync, and after a fault.


def in_flight(pair, *ids):
    """A call of a sync that has been written ahead and not answered yet, adding these people to retargeting."""
    lease = leases.claim(pair.cart.mapping.pk, leases.BULK, settle=timedelta(seconds=60), now=timezone.now())
    profiles = {identity_of(id): number(id) for id in ids}
    prepared = ledger.prepare(
        lease,
        Step(plan.ADD, plan.DIFF, BitMap(profiles)),
        profiles=profiles,
        watch=Watch(changes.final_mark(), None),
        remote_id=pair.cart.mapping.remote_id,
        identifiers=("email",),
        left_at=timezone.now(),
        now=timezone.now(),
    )
    return lease, prepared.operation_id


@pytest.mark.parametrize(
    ("verdict", "removed"), [(transitions.SETTLED, {("remove", "purchase")}), (transitions.UNAPPLIED, set())]
)
def test_who_buys_while_in_a_call_is_taken_at_its_outcome(pair, verdict, removed):
    identify("dora", email="dora@example.com", **{"in": "yes"})
    until_counted()
    base = unpack(pair.cart.ledger().base) | BitMap([identity_of("dora")])
    Ledger.objects.filter(mapping=pair.cart.mapping).update(base=pack(base))
    lease, operation = in_flight(pair, "dora")
    track("dora", "purchase")

    pair.happens()
    assert ("remove", "purchase") not in pair.causes()  # hands off while nobody knows what comes of the call
    assert Removal.objects.get().sent_at is None

    ledger.settle(lease, operation, Outcome(verdict), now=timezone.now())
    leases.release(lease)
    pair.happens()

    assert {said for said in pair.causes() if said[0] == "remove"} == removed
    assert Removal.objects.filter(accepted_at=None).count() == 0  # removed, or never there


def test_a_purchase_whose_sync_has_counted_before_it_is_not_undone_by_that_count(pair):
    """The count is taken, then somebody buys, then the count becomes what is wanted: only what its pin contains is absorbed."""
    until_counted()
    counted = wanted.count(pair.cart.mapping)
    assert identity_of("anna") in counted.base
    track("anna", "purchase")
    pair.happens()

    rebased(pair, counted)
    assert identity_of("anna") not in intent(pair)
    assert Decision.objects.filter(mapping=pair.cart.mapping).count() == 1

    until_counted()
    rebased(pair, wanted.count(pair.cart.mapping))
    assert identity_of("anna") not in intent(pair)
    assert not Decision.objects.filter(mapping=pair.cart.mapping).exists()


def rebased(pair, counted):
    lease = leases.claim(pair.cart.mapping.pk, leases.BULK, settle=timedelta(seconds=60), now=timezone.now())
    refresh = counted.refresh
    ledger.rebase(lease, counted.base, refresh_id=refresh.pk, change_seq=refresh.change_seq, now=timezone.now())
    leases.release(lease)


def intent(pair):
    return ledger.look(pair.cart.mapping.pk, now=timezone.now()).state.intent


def test_a_platform_that_asks_for_a_pause_is_told_when_it_is_over(pair, sandbox):
    sandbox.dial("throttle", platform="meta", account=pair.cart.account, op="remove", seconds=20)
    track("anna", "purchase")

    pair.happens()

    assert pair.cart.emails() == hashes(*PEOPLE)
    errand = Errand.objects.get(mapping=pair.cart.mapping)
    assert errand.failures == 1
    assert timezone.now() + timedelta(seconds=10) < errand.due_at < timezone.now() + timedelta(seconds=30)
    track("bert", "purchase")
    pair.lane.look()
    assert Errand.objects.get(mapping=pair.cart.mapping).due_at == errand.due_at  # nobody makes it call sooner
    urgent.deliver(pair.cart.mapping.destination_id, now=lambda: timezone.now() + timedelta(minutes=1))
    assert pair.cart.emails() == hashes("carl")
    assert pair.bought.emails() == hashes("zoe", "anna", "bert")
    assert not Errand.objects.exclude(due_at=None).exists()


def test_a_removal_whose_answer_was_lost_is_said_again_when_nothing_can_land_any_more(pair, sandbox):
    sandbox.dial("drop", platform="meta", account=pair.cart.account, op="remove")
    track("anna", "purchase")

    pair.happens()
    again = Errand.objects.get(mapping=pair.cart.mapping).due_at
    assert timezone.now() + timedelta(seconds=50) < again < timezone.now() + timedelta(seconds=70)

    urgent.deliver(pair.cart.mapping.destination_id, now=lambda: again + timedelta(seconds=1))
    assert [call["status"] for call in pair.cart.calls("remove")] == [0, 200]
    assert Removal.objects.get().accepted_at is not None


def test_a_lane_that_died_before_it_had_written_down_begins_where_the_last_one_stopped(pair):
    track("anna", "purchase")
    lost = FastLane(guard=_taken_over)
    with pytest.raises(jobs.LeaseLost):
        lost.look()
    assert not Decision.objects.filter(identity_no=identity_of("anna")).exists()

    pair.lane = FastLane()
    pair.happens()
    pair.lane = FastLane()
    pair.happens()  # reads some of it once more

    assert pair.cart.emails() == hashes("bert", "carl")
    assert len(pair.cart.calls("remove")) == 1


def _server():
    at = connection.settings_dict
    return {
        "host": at["HOST"],
        "port": at["PORT"],
        "user": at["USER"],
        "password": at["PASSWORD"],
        "dbname": at["NAME"],
    }


def _taken_over():
    raise jobs.LeaseLost


def test_a_long_transaction_keeps_nobody_waiting_and_nothing_is_decided_twice(pair):
    """On PostgreSQL nothing is final while an older transaction is under way; what is committed is decided all the same."""
    with contextlib.ExitStack() as stack:
        if connection.vendor == "postgresql":
            other = stack.enter_context(psycopg.connect(**_server()))
            other.execute("SELECT pg_current_xact_id()")
        track("anna", "purchase")
        pair.happens()
        assert pair.cart.emails() == hashes("bert", "carl")
        assert pair.lane.look() == 0
        track("bert", "purchase")
        pair.happens()
        assert pair.cart.emails() == hashes("carl")
    pair.happens()

    assert Decision.objects.filter(mapping=pair.cart.mapping).count() == 2
    assert len(pair.cart.calls("remove")) == 2


def test_a_purchase_that_is_committed_after_a_later_one_is_not_left_out(pair):
    """Row 40: of two transactions the one that began first may be committed last."""
    began, go_on = threading.Event(), threading.Event()

    def slowly():
        try:
            with transaction.atomic():
                track("anna", "purchase")
                began.set()
                go_on.wait(10)
        finally:
            connection.close()

    slow = threading.Thread(target=slowly)
    if connection.vendor == "postgresql":
        slow.start()
        began.wait(10)
        track("bert", "purchase")
        pair.happens()
        assert pair.cart.emails() == hashes("anna", "carl")
        go_on.set()
    else:  # there the second one waits for the first, so nothing is ever out of order
        track("bert", "purchase")
        go_on.set()
        slow.start()
    slow.join()

    pair.happens()

    assert pair.cart.emails() == hashes("carl")
    assert pair.bought.emails() == hashes("zoe", "anna", "bert")


def test_one_person_whose_data_breaks_the_judge_stops_nobody_else(pair, monkeypatch):
    judge = verdicts.judge

    def breaks(tree, person, as_of_us):
        if person.profile_no == number("bert"):
            raise RecursionError
        return judge(tree, person, as_of_us)

    monkeypatch.setattr(verdicts, "judge", breaks)
    for id in PEOPLE:
        track(id, "purchase")

    pair.happens()

    assert pair.cart.emails() == hashes("bert")
    assert pair.bought.emails() == hashes("zoe", "anna", "carl")


def test_many_lines_are_read_in_turns_and_none_is_left_out(pair, monkeypatch):
    monkeypatch.setattr(fastlane, "AT_ONCE", 3)
    ids = [f"q{n}" for n in range(20)]
    scene.imported(*ids)
    for id in ids:
        track(id, "purchase")
        track(id, "page_view")

    for _ in range(20):
        pair.lane.look()

    suppressed = Decision.objects.filter(mapping=pair.bought.mapping, wanted=True)
    assert set(suppressed.values_list("identity_no", flat=True)) == {identity_of(id) for id in ids}


# --- The law: what is decided is what a count at the same moment says, no more and no less.

RULES = [
    scene.NO_PURCHASE,
    {"all": [scene.IN, {"event": "cart", "count": {"at_least": 1}, "within": "30d"}, {"event": "purchase", "count": {"at_most": 1}}]},
    {"any": [{"event": "purchase", "sum": "value", "op": "lt", "value": 100, "within": "90d"}, {"event": "refund", "count": {"between": [1, 2]}}]},
    {"not": {"sequence": [{"event": "cart"}, {"event": "purchase", "within": "3d"}]}},
    {"all": [{"event": "*", "count": {"at_most": 4}, "within": "60d"}, {"not": {"event": "refund", "last": "occurrence", "op": "within_last", "value": "10d"}}]},
    {"all": [{"event": "purchase", "count": {"at_least": 1}, "within": "60d", "where": [{"property": "value", "op": "lt", "value": 50}]},
             {"event": "purchase", "max": "value", "op": "lt", "value": 60}]},
]  # fmt: skip
SUPPRESSING = {"event": "purchase", "count": {"at_least": 2}, "within": "90d"}


@pytest.mark.parametrize("seed", range(6))
def test_what_is_decided_is_what_a_count_says(seed, sandbox, account_number):
    dice = random.Random(seed)
    scene.workspace()
    ids = [f"p{n}" for n in range(40)]
    scene.imported(*ids)
    acts(dice, ids, 120)
    suppression = scene.audience("suppressing", SUPPRESSING, "suppression")
    made = [suppression]
    for at, rule in enumerate(RULES):
        audience = scene.audience(f"rule_{at}", rule)
        if at % 2:
            audience.excluded_by.add(suppression)
        made.append(audience)
    connected = [scene.live(sandbox, account_number, audience).mapping for audience in made]
    lane = FastLane()
    lane.look()
    for _ in range(3):
        Event.objects.update(received_us=F("received_us") - clock.HOUR)  # all of it was there long ago
        until_counted()
        before = {mapping.pk: counted_as_told(mapping) for mapping in connected}
        Decision.objects.all().delete()
        acts(dice, ids, 25, now=True)

        lane.look()

        until_counted()
        for mapping in connected:
            after, decided = (
                wanted.count(mapping).base,
                dict(Decision.objects.filter(mapping=mapping).values_list("identity_no", "wanted")),
            )
            out = {no for no, inside in decided.items() if not inside}
            into = {no for no, inside in decided.items() if inside}
            if mapping.audience_id == suppression.pk:
                assert (out, set(after - before[mapping.pk])) == (set(), into & set(after - before[mapping.pk]))
                assert into <= set(after)
            else:
                assert (out, into) == (set(before[mapping.pk] - after), set()), mapping.audience.key


def acts(dice, ids, many, *, now=False):
    for _ in range(many):
        age = dice.choice((0, 0, 0, 1, 5, 20, 50, 80)) if not now else dice.choice((0, 0, 0, 0, 4, 40))
        name = dice.choice(("purchase", "purchase", "cart", "refund", "view"))
        at = clock.now_us() - age * clock.DAY - dice.randrange(3_600) * clock.SECOND
        track(dice.choice(ids), name, at=at, value=dice.choice((5, 45, 55, 120)))


def counted_as_told(mapping):
    """As if its first sync had told everybody: what the lane decides is about whoever is there."""
    counted = wanted.count(mapping)
    packed, refresh = pack(counted.base), counted.refresh
    Ledger.objects.filter(mapping=mapping).update(
        base=packed, present=packed, ever_sent=packed, refresh=refresh, change_seq=refresh.change_seq
    )
    return counted.base
