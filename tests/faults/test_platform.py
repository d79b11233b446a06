"""Faults of platforms (rows 4, 16 to 21 and 23 to 26 of the matrix), dialled at the sandbox and held against its own member set."""

import threading
import time
from datetime import timedelta
from itertools import pairwise

import pytest
from django.db import connection
from django.urls import reverse
from django.utils import timezone

from audiences import jobs
from audiences.bitmaps import unpack
from destinations import budget, delivery
from destinations.models import Account, Destination, Mapping, Operation, Rejection, Removal, Run
from destinations.services import mappings, runs
from qa.checks import deliveries, facts
from tests.audiences.people_in import identify, track
from tests.destinations import scene
from tests.destinations.scene import hashes, sha

pytestmark = pytest.mark.django_db(transaction=True)

NONE = timedelta(0)
BOUGHT = {"event": "purchase", "count": {"at_least": 1}}


def leave(*ids):
    for id in ids:
        identify(id, **{"in": "no"})


def nothing_falls_under_the_table(connected):
    """Row 19: of every call that has ended, accepted, rejected and unknown make up what was sent."""
    for call in connected.operations():
        if call.state == "settled":
            assert call.accepted + call.rejected == call.count
        assert call.accepted + call.rejected <= call.count


def later(connected):
    """The settle time of whatever is not known has passed."""
    Operation.objects.filter(mapping=connected.mapping, open=True).update(reassert_at=timezone.now())


def test_fault_04_a_call_that_timed_out_is_neither_failed_nor_done_and_is_put_right(cart, sandbox):
    sandbox.dial("drop", platform="meta", account=cart.account, op="add")

    cart.sync(patience=NONE)

    assert cart.emails() == hashes("anna", "bert", "carl")  # it was applied, and nobody heard
    call = cart.operations()[0]
    assert (call.state, call.accepted, call.rejected) == ("unknown", 0, 0)
    assert len(unpack(cart.ledger().unknown)) == 3
    later(cart)
    assert cart.sync(patience=NONE).state == "done"
    assert len(unpack(cart.ledger().present)) == 3


@pytest.mark.parametrize("way", ["seconds", "date", "absent", "absurd"])
def test_fault_16_nobody_calls_an_account_that_asked_for_a_pause(cart, sandbox, way):
    """Eight workers at once, and a platform that says 429 in each of its ways."""
    sandbox.dial("throttle", platform="meta", account=cart.account, op="add", times=None, retry_after=way, seconds=3)
    made = [runs.request(actor=None, mapping=cart.mapping, start=False)]

    def work():
        try:
            runs.run_to_end(made[0], patience=timedelta(seconds=1), sleep=lambda seconds: time.sleep(min(seconds, 0.1)))
        finally:
            connection.close()

    workers = [threading.Thread(target=work) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()

    account = Account.objects.get(destinations=cart.mapping.destination)
    least = {"seconds": 2, "date": 1, "absent": 1, "absurd": 3500}[way]
    assert timedelta(seconds=least) < account.paused_until - timezone.now() + timedelta(seconds=2)
    assert account.paused_until <= timezone.now() + timedelta(hours=1)
    adds = cart.calls("add")
    pauses = {"seconds": 3, "date": 2, "absent": 2, "absurd": 3600}[way]
    assert all(after["at"] - before["at"] >= pauses * 0.95 for before, after in pairwise(adds))
    assert {call.state for call in cart.operations()} == {"unapplied"}


def test_fault_17_in_a_storm_that_lasts_hours_removals_get_the_tokens_first(sandbox, account_number):
    """One call a minute for both connections of the account, on a clock of the test's own."""
    scene.workspace()
    scene.imported(*(f"p{n}" for n in range(10)))
    connected = scene.live(sandbox, account_number, scene.audience("cart", scene.IN))
    account = connected.mapping.destination.account_id
    now, adds, removes, waited = timezone.now(), 0, 0, 0
    due = [now + timedelta(minutes=n) for n in range(0, 60, 6)]  # ten removals, one every six minutes
    for _ in range(60 * 60):
        now += timedelta(seconds=1)
        removal_due = removes < len(due) and due[removes] <= now
        if removal_due:
            if budget.take(account, "remove", 1, now=now):
                waited += 1
            else:
                removes += 1
        if not budget.take(account, "add", 1, now=now):
            still_due = removes < len(due) and due[removes] <= now
            assert not still_due, "an add left while a removal of its account was waiting"
            adds += 1
    assert removes == 10
    assert adds > 20


def test_fault_18_a_platform_that_only_fails_is_asked_ever_less_and_others_are_not_kept_waiting(cart, sandbox):
    scene.imported("dora")
    other = scene.live(sandbox, f"{cart.account}0", scene.audience("others", scene.IN))
    sandbox.dial("error", platform="meta", account=cart.account, times=None, status=503)
    now = timezone.now()
    ticks = [now]

    def tick(seconds):
        ticks[0] += timedelta(seconds=seconds)

    for _ in range(30):  # half an hour: a worker comes by once a minute
        run = runs.request(actor=None, mapping=cart.mapping, start=False)
        delivery.sync(run.pk, now=lambda: ticks[0], sleep=tick, patience=timedelta(seconds=5))
        tick(60)

    made = len(cart.calls())
    assert 4 <= made <= 14, made  # four before it opens, then one a rest that doubles up to ten minutes
    assert Account.objects.get(destinations=cart.mapping.destination).failures >= 4
    assert other.sync().state == "done"
    sandbox.clear_dials()
    tick(700)
    later(cart)
    run = runs.request(actor=None, mapping=cart.mapping, start=False)
    delivery.sync(run.pk, now=lambda: ticks[0], sleep=tick, patience=timedelta(minutes=5))
    assert cart.emails() == hashes("anna", "bert", "carl", "dora")
    assert Account.objects.get(destinations=cart.mapping.destination).failures == 0


def test_fault_18_a_platform_that_is_not_there_is_certainly_not_told(cart):
    Destination.objects.filter(pk=cart.mapping.destination_id).update(base_url="http://127.0.0.1:9")

    run = cart.sync(patience=NONE)

    assert run.state == "interrupted"
    assert not unpack(cart.ledger().present) and not unpack(cart.ledger().unknown)


@pytest.mark.parametrize("kind", ["meta", "google", "openlist"])
def test_fault_19_rows_refused_inside_a_success_are_counted_one_by_one(sandbox, account_number, kind):
    scene.workspace()
    scene.imported(*(f"p{n}" for n in range(1_000)))
    connected = scene.live(sandbox, account_number, scene.audience("many", scene.IN), kind=kind)
    sandbox.dial("partial", platform=kind, account=connected.account, op="add", rows=[0, 500, 999])

    connected.sync()

    call = next(call for call in connected.operations() if call.kind == "add")
    assert (call.accepted, call.rejected, call.count) == (997, 3, 1_000)
    nothing_falls_under_the_table(connected)
    assert len(connected.held()) == 997


def test_fault_20_a_success_that_cannot_be_read_makes_nobody_present(cart, sandbox):
    sandbox.dial("garbled", platform="meta", account=cart.account, op="add", apply=False)

    cart.sync(patience=NONE)

    assert (len(unpack(cart.ledger().present)), len(unpack(cart.ledger().unknown))) == (0, 3)
    later(cart)
    cart.sync(patience=NONE)
    assert cart.emails() == hashes("anna", "bert", "carl")


def test_fault_21_one_bad_row_of_ten_thousand_is_set_aside_by_itself(sandbox, account_number):
    scene.workspace()
    scene.imported(*(f"p{n}" for n in range(10_000)))
    connected = scene.live(sandbox, account_number, scene.audience("many", scene.IN))
    sandbox.dial(
        "poison", platform="meta", account=connected.account, op="add", times=None, values=[sha("p7777@example.com")]
    )

    connected.sync()

    assert len(connected.emails()) == 9_999
    assert len(connected.calls("add")) <= 1 + 2 * 14 + 2
    refused = Rejection.objects.get()
    assert refused.identity_no == scene.identity_of("p7777") and refused.reason
    nothing_falls_under_the_table(connected)


def test_fault_23_a_blocked_connection_makes_no_call_and_keeps_its_ledger(cart, sandbox):
    cart.sync()
    leave("anna")
    sandbox.dial("refuse", platform="meta", account=cart.account, op="remove", times=None, why="revoked")
    cart.sync()
    before = len(cart.calls())

    cart.mapping.refresh_from_db()
    assert "Reconnect" in cart.mapping.blocked_reason
    assert runs.perform(cart.mapping) is None

    assert len(cart.calls()) == before
    kept = unpack(cart.ledger().present) | unpack(cart.ledger().unknown)
    assert set(kept) == {scene.identity_of(id) for id in ("anna", "bert", "carl")}
    open_removal = Removal.objects.get()
    assert open_removal.accepted_at is None  # the deadline of what waits is watched by qa/checks/deliveries.py


def test_fault_24_nothing_is_called_at_an_audience_that_is_gone_and_none_is_made_in_its_place(cart, sandbox):
    cart.sync()
    cart.mapping.refresh_from_db()
    sandbox.delete_audience("meta", cart.mapping.remote_id)
    scene.imported("dora")
    cart.sync()
    before = len(cart.calls())

    cart.mapping.refresh_from_db()
    assert cart.mapping.blocked_reason
    for _ in range(3):
        runs.perform(cart.mapping)

    assert len(cart.calls()) == before
    assert len(cart.calls("create")) == 1


def test_fault_25_only_whom_this_ledger_ever_added_is_removed(sandbox, account_number):
    scene.workspace()
    scene.imported(*(f"p{n}" for n in range(60)))
    connected = scene.live(sandbox, account_number, scene.audience("cart", scene.IN))
    connected.sync()
    connected.mapping.refresh_from_db()
    strangers = {sha(f"stranger{n}@example.com") for n in range(20)}
    sandbox.put("meta", connected.mapping.remote_id, [{"email": value} for value in sorted(strangers)])
    sandbox.forget("meta", connected.mapping.remote_id, 30)
    leave(*(f"p{n}" for n in range(10)))

    connected.sync()

    assert not hashes(*(f"p{n}" for n in range(10))) & connected.emails()
    ever = unpack(connected.ledger().ever_sent)
    for call in connected.operations():
        if call.kind == "remove":
            assert unpack(call.identities) <= ever
    sent = {value for call in connected.operations() if call.kind == "remove" for value in unpack(call.identities)}
    assert sent <= {scene.identity_of(f"p{n}") for n in range(60)}


def test_fault_25_what_a_readable_platform_holds_is_compared_shown_and_put_right_by_nobody_but_a_person(
    sandbox, account_number, client
):
    operator = scene.workspace()
    scene.imported(*(f"p{n}" for n in range(60)))
    made = scene.audience("cart", scene.IN, purpose="suppression")
    connected = scene.live(sandbox, account_number, made, ["external_id"], kind="openlist")
    connected.sync()
    remote = Mapping.objects.get().remote_id
    jobs.keep_doing("destinations.compare", "", every=timedelta(hours=1), queue="sync")
    jobs.run_now("destinations.compare", "")
    connected.mapping.refresh_from_db()
    assert (connected.mapping.drift_missing, connected.mapping.drift_left, connected.mapping.drift_foreign) == (0, 0, 0)

    leave("p0")
    connected.sync()
    sandbox.put("openlist", remote, [{"external_id": "stranger"}, {"external_id": "p0"}])
    sandbox.forget("openlist", remote, 30)
    Mapping.objects.update(drift_at=timezone.now() - timedelta(days=2))
    jobs.run_now("destinations.compare", "")

    connected.mapping.refresh_from_db()
    seen = connected.mapping
    assert seen.drift_foreign + seen.drift_left in (1, 2) and seen.drift_missing >= 28
    calls = len(connected.calls("add")) + len(connected.calls("remove"))
    connected.sync()
    assert len(connected.calls("add")) + len(connected.calls("remove")) == calls  # nothing is repaired in silence
    found = [reading.finding for reading in deliveries.drift(facts.load()) if reading.finding]
    assert len(found) == 1 and found[0].severity == "critical"
    client.force_login(operator)
    page = client.get(reverse("destinations:connection", args=[seen.pk])).content.decode()
    assert "who should be there are missing" in page

    mappings.resync(actor=operator, mapping=seen, reason="somebody edited it")
    connected.sync()
    Mapping.objects.update(drift_at=None)
    jobs.run_now("destinations.compare", "")
    seen.refresh_from_db()
    assert (seen.drift_missing, seen.drift_left) == (0, 0)


def test_fault_26_a_removal_refused_because_the_audience_is_small_is_not_done_and_suppression_has_them(
    cart, sandbox, account_number
):
    bought = scene.live(sandbox, account_number, scene.audience("bought", BOUGHT, purpose="suppression"))
    cart.sync()
    bought.sync()
    cart.mapping.refresh_from_db()
    sandbox.dial("small_removals", platform="meta", audience=cart.mapping.remote_id, times=None, below=100)
    track("anna", "purchase")

    run = cart.sync(patience=timedelta(seconds=1))
    bought.sync()

    assert hashes("anna") <= cart.emails()
    assert run.state != "done"
    anna = scene.identity_of("anna")
    ledger = cart.ledger()
    assert anna in unpack(ledger.present) | unpack(ledger.unknown)
    assert Removal.objects.get(mapping=cart.mapping, identity_no=anna).accepted_at is None
    assert hashes("anna") <= bought.emails()  # so nobody advertises to her

    sandbox.clear_dials()
    Rejection.objects.update(retry_at=timezone.now())
    later(cart)
    cart.sync()
    assert not hashes("anna") & cart.emails()


def test_fault_19_no_run_ends_before_what_it_began_is_accounted_for(cart, sandbox):
    for action, params in (("drop", {}), ("partial", {"rows": [0]}), ("garbled", {"apply": True})):
        sandbox.dial(action, platform="meta", account=cart.account, op="add", **params)
        scene.imported(f"new-{action}")
        cart.sync(patience=NONE)
        nothing_falls_under_the_table(cart)
    assert not Run.objects.filter(state__in=("counting", "diffing", "sending", "confirming")).exists()
