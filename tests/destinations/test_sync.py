"""Syncs over real sockets: what the platform's own member set holds afterwards, identity by identity."""

import time
from dataclasses import replace
from datetime import timedelta

import pytest
from django.utils import timezone

from audiences.bitmaps import unpack
from audiences.models import Workspace
from audiences.services import audiences
from destinations import delivery, leases, signals
from destinations.connectors.meta import Meta
from destinations.models import Destination, Hold, Mapping, Operation, Rejection, Run
from destinations.services import Refused, destinations, holds, mappings, runs
from tests.audiences.people_in import identify, merge, track
from tests.destinations import scene
from tests.destinations.scene import hashes, sha

pytestmark = pytest.mark.django_db(transaction=True)  # marks of the change log are transactions on PostgreSQL


def person(*ids, **attributes):
    for id in ids:
        identify(id, **{"email": f"{id}@example.com", "in": "yes", **attributes})


@pytest.fixture
def cart(sandbox, account_number):
    scene.workspace()
    person("anna", "bert", "carl")
    track("zoe", "purchase")
    return scene.live(sandbox, account_number, scene.audience("cart", scene.NO_PURCHASE))


def test_a_first_sync_makes_the_audience_and_puts_everybody_in(cart):
    run = cart.sync()

    assert (run.state, run.error) == ("done", "")
    assert (run.planned_adds, run.planned_removes, run.added, run.removed) == (3, 0, 3, 0)
    assert cart.emails() == hashes("anna", "bert", "carl")
    assert [op.state for op in cart.operations()] == ["settled"]
    assert cart.mapping.remote_name == "cart"


def test_a_second_sync_with_nothing_new_sends_nothing(cart):
    cart.sync()
    before = len(cart.calls("add")) + len(cart.calls("remove"))

    run = cart.sync()

    assert (run.state, run.unchanged, run.planned_adds, run.planned_removes) == ("done", 3, 0, 0)
    assert len(cart.calls("add")) + len(cart.calls("remove")) == before


def test_a_purchase_takes_a_person_out_of_retargeting_and_into_suppression(cart, sandbox, account_number):
    bought = scene.audience("bought", {"event": "purchase", "count": {"at_least": 1}}, purpose="suppression")
    suppressed = scene.live(sandbox, account_number, bought)
    cart.sync()
    suppressed.sync()

    track("anna", "purchase")
    run = cart.sync()
    suppressed.sync()

    assert run.removed == 1
    assert cart.emails() == hashes("bert", "carl")
    assert suppressed.emails() == hashes("anna")
    assert [op.cause for op in cart.operations() if op.kind == "remove"] == ["purchase"]
    assert [op.cause for op in suppressed.operations()] == ["purchase"]


def test_people_come_and_go(cart):
    cart.sync()
    person("dora")
    identify("bert", **{"in": "no"})

    cart.sync()

    assert cart.emails() == hashes("anna", "carl", "dora")


def test_a_changed_email_leaves_and_the_new_one_enters(cart):
    cart.sync()
    identify("anna", email="anna.new@example.com")

    cart.sync()

    assert cart.emails() == hashes("bert", "carl") | {sha("anna.new@example.com")}


def test_a_changed_phone_that_is_not_sent_costs_no_call(cart):
    cart.sync()
    before = len(cart.calls())
    identify("anna", phone="+491701234567")

    run = cart.sync()

    assert (run.state, run.planned_adds, run.planned_removes) == ("done", 0, 0)
    assert len(cart.calls()) == before
    assert scene.identity_of("anna") in unpack(cart.ledger().present)


def test_an_identifier_stays_while_somebody_else_in_the_audience_carries_it(cart):
    scene.imported("eve", email="anna@example.com")
    cart.sync()
    identify("eve", **{"in": "no"})

    cart.sync()

    assert cart.emails() == hashes("anna", "bert", "carl")


def test_a_buyers_identifier_goes_even_if_somebody_else_carries_it(cart):
    scene.imported("eve", email="anna@example.com")
    cart.sync()
    track("eve", "purchase")

    cart.sync()

    assert cart.emails() == hashes("bert", "carl")
    mappings.resync(actor=None, mapping=cart.mapping)
    cart.sync()
    assert cart.emails() == hashes("bert", "carl")  # not even when everybody is told again


def test_withdrawn_consent_takes_a_person_out(cart):
    cart.sync()
    identify("anna", consent_ad_user_data=False)

    cart.sync()

    assert cart.emails() == hashes("bert", "carl")
    assert [op.cause for op in cart.operations() if op.kind == "remove"] == ["consent"]


def test_a_merge_leaves_one_of_two(cart):
    cart.sync()
    merge("anna", "bert")

    cart.sync()

    assert cart.emails() == hashes("anna", "carl")


# --- What goes wrong at the platform.


def test_a_refused_row_is_found_by_halving_and_set_aside(cart, sandbox):
    scene.imported(*(f"p{number}" for number in range(200)))
    bad = scene.sha("p77@example.com")
    sandbox.dial("poison", platform="meta", account=cart.account, op="add", times=None, values=[bad])

    run = cart.sync()

    assert run.state == "partial"
    assert cart.emails() == hashes("anna", "bert", "carl", *(f"p{n}" for n in range(200) if n != 77))
    refused = Rejection.objects.get()
    assert refused.identity_no == scene.identity_of("p77")
    assert refused.retry_at > timezone.now()
    assert len(cart.calls("add")) <= 1 + 2 * 8 + 2
    assert run.rejected == 1
    calls = len(cart.calls("add"))
    assert cart.sync().planned_adds == 0  # not before its time
    assert len(cart.calls("add")) == calls


def test_refused_people_can_be_tried_again_by_hand(cart, sandbox):
    sandbox.dial(
        "poison", platform="meta", account=cart.account, op="add", times=None, values=[scene.sha("bert@example.com")]
    )
    cart.sync()
    sandbox.clear_dials()

    run = runs.retry_failed(actor=None, mapping=cart.mapping, start=False)
    run = runs.run_to_end(run)

    assert (run.state, run.added) == ("done", 1)
    assert cart.emails() == hashes("anna", "bert", "carl")
    assert not Rejection.objects.exists()


def test_rows_refused_without_a_name_are_counted(cart, sandbox):
    sandbox.dial("partial", platform="meta", account=cart.account, op="add", rows=[0])

    run = cart.sync()

    assert (run.state, run.added, run.rejected) == ("partial", 2, 1)
    operation = cart.operations()[0]
    assert operation.accepted + operation.rejected == operation.count


def test_a_throttled_account_pauses_for_everybody_and_the_run_goes_on(cart, sandbox):
    sandbox.dial("throttle", platform="meta", account=cart.account, op="add", retry_after="seconds", seconds=2)
    waits = []

    run = cart.sync(sleep=lambda seconds: waits.append(seconds) or time.sleep(seconds))

    assert run.state == "done"
    assert sum(waits) >= 2
    assert cart.emails() == hashes("anna", "bert", "carl")
    assert [op.state for op in cart.operations()] == ["unapplied", "settled"]
    assert Destination.objects.get().account.pause_reason


def test_a_worker_does_not_wait_for_a_long_pause(cart, sandbox):
    sandbox.dial("throttle", platform="meta", account=cart.account, op="add", retry_after="seconds", seconds=600)
    run = runs.request(actor=None, mapping=cart.mapping, start=False)

    again = delivery.sync(run.pk)

    run.refresh_from_db()
    assert run.state == "interrupted"
    assert again > timezone.now() + timedelta(minutes=9)
    assert not leases.holds(cart.mapping.pk, leases.BULK, now=timezone.now())


@pytest.mark.parametrize("applied", [True, False])
def test_an_outcome_that_is_not_known_is_told_again_by_what_is_wanted_then(cart, sandbox, applied):
    action, params = ("drop", {}) if applied else ("error", {"status": 500})
    sandbox.dial(action, platform="meta", account=cart.account, op="add", **params)
    run = cart.sync(patience=timedelta(seconds=1))
    assert (run.state, run.unknown) == ("partial", 3)
    track("anna", "purchase")
    Operation.objects.update(reassert_at=timezone.now())

    run = cart.sync(patience=timedelta(seconds=1))

    assert cart.emails() == hashes("bert", "carl")
    assert run.state == "done"
    assert not Operation.objects.filter(open=True).exists()


def test_a_late_add_is_put_right_after_the_settle_time(cart, sandbox):
    sandbox.dial("late", platform="meta", account=cart.account, op="add", seconds=2)
    cart.sync(patience=timedelta(0))
    track("anna", "purchase")
    cart.sync(patience=timedelta(0))  # taken out at once, and again when nothing can land late any more
    deadline = timezone.now() + timedelta(seconds=10)
    while cart.emails() != hashes("anna", "bert", "carl") and timezone.now() < deadline:
        time.sleep(0.2)
    assert cart.emails() == hashes("anna", "bert", "carl")  # the late add has landed
    Operation.objects.filter(open=True).update(reassert_at=timezone.now())

    cart.sync(patience=timedelta(0))

    assert cart.emails() == hashes("bert", "carl")


def test_an_answer_that_cannot_be_understood_is_no_success(cart, sandbox):
    sandbox.dial("garbled", platform="meta", account=cart.account, op="add", apply=True)

    run = cart.sync(patience=timedelta(0))

    assert (run.unknown, len(unpack(cart.ledger().present))) == (3, 0)


def test_refused_credentials_stop_the_connection_until_somebody_has_acted(cart, sandbox):
    cart.sync()
    person("dora")
    sandbox.dial("refuse", platform="meta", account=cart.account, op="add", why="expired")

    run = cart.sync()

    assert run.state == "failed"
    cart.mapping.refresh_from_db()
    assert "Reconnect" in cart.mapping.blocked_reason
    with pytest.raises(Refused, match="stopped"):
        runs.request(actor=None, mapping=cart.mapping, start=False)
    destinations.change(actor=None, destination=cart.mapping.destination, credentials={"access_token": "a-new-token"})
    assert cart.sync().state == "done"
    assert cart.emails() == hashes("anna", "bert", "carl", "dora")


def test_an_account_that_is_found_in_order_again_lets_its_connections_go_on(cart, sandbox):
    cart.sync()
    person("dora")
    sandbox.dial("refuse", platform="meta", account=cart.account, op="add", why="expired")
    cart.sync()
    target = cart.mapping.destination
    Destination.objects.filter(pk=target.pk).update(state="refused")

    assert destinations.check(actor=None, destination=target).state == "connected"

    cart.mapping.refresh_from_db()
    assert cart.mapping.blocked_reason == ""
    assert cart.sync().state == "done"
    assert cart.emails() == hashes("anna", "bert", "carl", "dora")


def test_an_audience_that_is_gone_at_the_platform_is_not_made_again(cart, sandbox):
    cart.sync()
    person("dora")
    sandbox.delete_audience("meta", Run.objects.latest("pk").mapping.remote_id)

    run = cart.sync()

    assert run.state == "failed"
    assert len(cart.calls("create")) == 1
    cart.mapping.refresh_from_db()
    assert cart.mapping.blocked_reason


# --- What people do.


def test_a_rehearsal_sends_nothing_and_shows_the_first_call(sandbox, account_number):
    scene.workspace()
    person("anna", "bert")
    track("zoe", "purchase")
    made = scene.audience("cart", scene.NO_PURCHASE)
    mapping = mappings.create(
        actor=None, audience=made, destination=scene.destination(sandbox, account_number), identifiers=["email"]
    )

    run = runs.run_to_end(runs.rehearse(actor=None, mapping=mapping, start=False))

    assert (run.state, run.planned_adds, run.planned_removes, run.batches_planned) == ("done", 2, 0, 1)
    assert "EMAIL" in run.sample_payload
    assert scene.sha("anna@example.com") not in run.sample_payload
    assert sandbox.calls("meta", account_number) == []
    with pytest.raises(Refused):
        runs.request(actor=None, mapping=mapping, start=False)


def test_nothing_is_sent_before_the_consent_policy_is_answered(cart):
    Workspace.objects.update(consent_policy=None)

    run = cart.sync()

    assert run.state == "failed"
    assert "consent policy" in run.error
    assert cart.calls() == []


def test_under_opt_in_only_people_who_said_yes_are_sent(cart):
    scene.workspace(default="opt_in")
    identify("anna", consent_ad_user_data=True, consent_ad_personalization=True)
    identify("bert", consent_ad_user_data=True)

    cart.sync()

    assert cart.emails() == hashes("anna")


def test_a_linked_suppression_audience_keeps_its_members_out(cart, sandbox, account_number):
    identify("bert", vip="1")
    vip = scene.audience("vip", {"attribute": "vip", "op": "is", "value": "1"}, purpose="suppression")
    audiences.set_excluded_by(actor=None, audience=cart.mapping.audience, suppressions=[vip])

    cart.sync()

    assert cart.emails() == hashes("anna", "carl")


def test_paused_adds_stop_and_removals_go_on(cart):
    cart.sync()
    mappings.pause(actor=None, mapping=cart.mapping)
    person("dora")
    identify("anna", **{"in": "no"})

    cart.sync()
    assert cart.emails() == hashes("bert", "carl")

    mappings.resume(actor=None, mapping=cart.mapping)
    cart.sync()
    assert cart.emails() == hashes("bert", "carl", "dora")


def test_a_freeze_stops_everything_until_its_end(cart):
    cart.sync()
    with pytest.raises(Refused):
        mappings.freeze(actor=None, mapping=cart.mapping, reason="", until=timezone.now() + timedelta(hours=1))
    mappings.freeze(actor=None, mapping=cart.mapping, reason="A test", until=timezone.now() + timedelta(hours=1))
    track("anna", "purchase")
    cart.mapping.refresh_from_db()
    with pytest.raises(Refused, match="frozen"):
        runs.request(actor=None, mapping=cart.mapping, start=False)

    assert mappings.thaw(now=timezone.now() + timedelta(hours=2)) == 1
    cart.sync()

    assert cart.emails() == hashes("bert", "carl")


def test_a_hold_on_removals_lets_a_buyer_leave_and_keeps_the_others(cart):
    cart.sync()
    hold = holds.set_hold(actor=None, mapping=cart.mapping, direction=Hold.Direction.REMOVES, reason="The feed is late")
    track("anna", "purchase")
    identify("bert", **{"in": "no"})
    person("dora")

    cart.sync()
    assert cart.emails() == hashes("bert", "carl", "dora")

    holds.lift(actor=scene.workspace(), hold=hold, reason="it is back")
    cart.sync()
    assert cart.emails() == hashes("carl", "dora")


def test_retiring_empties_the_audience_first(cart):
    cart.sync()

    mappings.retire(actor=None, mapping=cart.mapping, reason="The campaign is over")
    run = cart.sync()

    assert run.state == "done"
    assert cart.emails() == set()
    assert runs.is_empty(cart.mapping)


def test_a_run_that_would_remove_too_many_waits_for_a_named_approval(cart):
    everybody = [f"p{number}" for number in range(150)]
    scene.imported(*everybody)
    cart.sync()
    scene.imported(*everybody, **{"in": "no"})
    track("anna", "purchase")

    run = cart.sync()

    assert run.state == "approval"
    assert cart.emails() == hashes("bert", "carl", *everybody)  # a buyer need not wait
    operator = scene.workspace()
    run = runs.run_to_end(runs.approve(actor=operator, run=run, start=False))
    assert (run.state, run.approved_by) == ("done", operator)
    assert cart.emails() == hashes("bert", "carl")


def test_a_trial_sends_a_sample_and_going_live_the_rest(sandbox, account_number):
    scene.workspace()
    everybody = [f"p{number}" for number in range(100)]
    scene.imported(*everybody)
    mapping = mappings.create(
        actor=None,
        audience=scene.audience("all", scene.IN),
        destination=scene.destination(sandbox, account_number),
        identifiers=["email"],
        trial_percent=10,
    )
    trial = scene.Scene(sandbox, mappings.start_trial(actor=None, mapping=scene.allowed(mapping)), account_number)
    trial.sync()
    sample = trial.emails()
    assert 1 <= len(sample) <= 25

    mappings.go_live(actor=None, mapping=mapping)
    trial.sync()

    assert trial.emails() == hashes(*everybody)


def test_an_adopted_audience_is_replaced_as_far_as_people_are_known_here(cart, sandbox, account_number):
    cart.sync()
    remote = Mapping.objects.get(pk=cart.mapping.pk).remote_id
    identify("anna", who="anna")
    other = scene.audience("only_anna", {"attribute": "who", "op": "is", "value": "anna"})
    mapping = mappings.create(actor=None, audience=other, destination=cart.mapping.destination, identifiers=["email"])
    mapping = mappings.adopt(actor=None, mapping=mapping, remote_id=remote)
    adopted = scene.Scene(sandbox, mappings.go_live(actor=None, mapping=scene.allowed(mapping)), account_number)

    adopted.sync()

    assert adopted.emails() == hashes("anna")


def test_dropped_identifier_kinds_are_taken_back(cart):
    identify("anna", phone="+491701234567")
    mappings.change(actor=None, mapping=cart.mapping, identifiers=["email", "phone"])
    cart.sync()
    assert {kind for kind, _ in cart.held()} == {"email", "phone"}

    mappings.change(actor=None, mapping=cart.mapping, identifiers=["email"])
    cart.sync()

    assert {kind for kind, _ in cart.held()} == {"email"}
    assert cart.emails() == hashes("anna", "bert", "carl")
    assert not cart.ledger().withdraw
    assert cart.ledger().withdraw_kinds == []


def test_a_cancelled_run_keeps_what_it_has_sent_and_the_next_one_goes_on(cart, monkeypatch):
    monkeypatch.setattr("destinations.connectors.meta.Meta.capabilities", _small(1))
    run = runs.request(actor=None, mapping=cart.mapping, start=False)

    run = runs.run_to_end(run, progress=lambda row: runs.cancel(actor=None, run=row))

    assert run.state == "cancelled"
    assert len(cart.emails()) == 1
    assert cart.sync().state == "done"
    assert cart.emails() == hashes("anna", "bert", "carl")


def test_nobody_is_added_who_left_after_the_count(cart, monkeypatch):
    monkeypatch.setattr("destinations.connectors.meta.Meta.capabilities", _small(1))
    gone = []

    def leave(run):
        if not gone:
            gone.append(
                next(id for id in ("anna", "bert", "carl") if scene.sha(f"{id}@example.com") not in cart.emails())
            )
            track(gone[0], "purchase")

    run = runs.request(actor=None, mapping=cart.mapping, start=False)
    runs.run_to_end(run, progress=leave)

    assert cart.emails() == hashes("anna", "bert", "carl") - hashes(*gone)
    assert len(cart.calls("add")) == 2


def test_consent_withdrawn_during_a_run_takes_out_whom_it_had_sent(cart, monkeypatch):
    monkeypatch.setattr("destinations.connectors.meta.Meta.capabilities", _small(1))
    said = []

    def withdraw(run):
        if not said:
            said.append(next(id for id in ("anna", "bert", "carl") if scene.sha(f"{id}@example.com") in cart.emails()))
            identify(said[0], consent_ad_user_data=False)

    run = runs.request(actor=None, mapping=cart.mapping, start=False)
    runs.run_to_end(run, progress=withdraw)

    assert cart.emails() == hashes("anna", "bert", "carl") - hashes(*said)


def test_an_objection_at_preflight_stops_the_push(cart):
    def object_to_it(sender, **_):
        raise signals.Objection("The spot check has failed.")

    signals.preflight.connect(object_to_it)
    try:
        run = cart.sync()
    finally:
        signals.preflight.disconnect(object_to_it)

    assert (run.state, run.error) == ("failed", "The spot check has failed.")
    assert cart.calls() == []


def _small(size):
    return replace(Meta.capabilities, batch_size=size, calls_per_minute=100_000)
