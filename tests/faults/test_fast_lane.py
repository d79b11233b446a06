"""Faults on the way from an event to a platform (rows 5, 6, 36, 38 and 41 to 43 of the matrix): the real lane, real HTTP, and the sandbox's member set.

Where processes die or compete they are real ones.
"""

import threading
from dataclasses import replace
from datetime import timedelta

import numpy as np
import pytest
from django.utils import timezone

from audiences import clock
from audiences.bitmaps import unpack
from audiences.models import Event
from audiences.services import refreshes
from destinations.connectors.meta import Meta
from destinations.models import Operation
from tests.audiences.people_in import identify, number, track, until_counted
from tests.destinations import scene
from tests.destinations.pair import PEOPLE, made
from tests.destinations.scene import hashes, identity_of
from tests.faults.shop_at_work import BOUGHT, CART, ShopAtWork, eventually

here = pytest.mark.django_db(transaction=True)


@pytest.fixture
def pair(sandbox, account_number):
    return made(sandbox, account_number)


@pytest.fixture
def shop(tmp_path, sandbox, account_number):
    working = ShopAtWork(tmp_path / "var", sandbox, account_number)
    yield working
    working.remove()


@here
def test_fault_05_an_add_that_lands_after_the_removal_is_removed_again_once_nothing_can_land_any_more(pair, sandbox):
    identify("dora", email="dora@example.com", **{"in": "yes"})
    sandbox.dial("late", platform="meta", account=pair.cart.account, op="add", seconds=1)
    until_counted()
    pair.cart.sync(patience=timedelta(0))  # the add was sent, and nobody heard
    track("dora", "purchase")

    pair.happens()
    first = len(pair.cart.calls("remove"))
    eventually(lambda: "late" in {call["dial"] for call in pair.cart.calls("add")} and pair.cart.held())
    eventually(lambda: hashes("dora") <= pair.cart.emails())  # there it is, after all
    assert first == 1  # she might have been there, so she was taken out at once

    later = timezone.now() + timedelta(seconds=Meta.capabilities.settle_seconds + 1)
    pair.happens(now=lambda: later)

    assert pair.cart.emails() == hashes(*PEOPLE)
    assert len(pair.cart.calls("remove")) == 2
    assert not unpack(pair.cart.ledger().unknown)


_LATE_ADDS = """
from audiences import clock
from audiences.bitmaps import unpack
from audiences.models import Event, Identity
from destinations.models import Operation
bought = dict(Event.objects.filter(name="purchase").values_list("profile_no", "received_us"))
owner = dict(Identity.objects.values_list("identity_no", "profile_no"))
adds = Operation.objects.filter(kind="add", mapping__audience__key={audience!r})
print("late", sum(
    bought.get(owner[number], 2**62) < clock.to_us(operation.prepared_at)
    for operation in adds
    for number in unpack(operation.identities)
))
"""


@pytest.mark.slow
def test_fault_06_who_buys_after_a_crashed_add_is_in_no_add_that_is_made_after_it(shop):
    shop.fill(12_000)
    shop.sandbox.dial("hang", platform=shop.kind, account=shop.account, op="add", times=2, seconds=4, apply=True)
    shop.deployment.up()
    eventually(lambda: shop.deployment.query("SELECT 1 FROM destinations_operation WHERE kind = 'add' AND count > 1"))
    shop.deployment.kill_everything()
    buyers = [f"p{n}" for n in range(0, 12_000, 1_500)]
    script = f"from tests.audiences.people_in import track\nfor id in {buyers}: track(id, 'purchase')\nprint('did 1')"
    shop.deployment.shell_json(script, "did")

    shop.deployment.up()

    eventually(lambda: len(shop.emails(CART)) == 12_000 - len(buyers), within=90, every=0.5)
    eventually(lambda: shop.lacks(CART, *buyers) and shop.has(BOUGHT, *buyers))
    assert shop.deployment.shell_json(_LATE_ADDS.format(audience=CART), "late") == 0


@pytest.mark.slow
def test_fault_36_the_same_purchase_a_hundred_times_has_one_effect(shop):
    shop.fill(50)
    shop.deployment.up()
    eventually(lambda: shop.has(CART, "p0") and shop.has(BOUGHT, "zoe"))
    body = {"id": "01HB4HBDKTFWYZCK01DMRSWRFD", "timestamp": clock.now_us() // clock.SECOND}

    threads = [threading.Thread(target=lambda: [shop.act("p0", **body) for _ in range(5)]) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    eventually(lambda: shop.lacks(CART, "p0") and shop.has(BOUGHT, "p0"))

    events = shop.deployment.query(
        "SELECT count(*) FROM audiences_changelog WHERE kind = 'event' AND name = 'purchase'"
    )
    assert events == [(2,)]  # zoe's, and this one
    decided = shop.deployment.query("SELECT mapping_id, wanted, count(*) FROM destinations_decision GROUP BY 1, 2")
    assert [many for *_, many in decided if many > 1] == []
    assert len(shop.calls(CART, "remove")) == 1
    assert len(shop.calls(BOUGHT, "add")) == 2  # zoe's, and this one


@here
@pytest.mark.parametrize(("days", "leaves"), [(3, True), (9, False)])
def test_fault_38_an_event_that_comes_days_late_has_the_effect_it_would_have_had(sandbox, account_number, days, leaves):
    rule = {"all": [scene.IN, {"event": "purchase", "count": {"exactly": 0}, "within": "8d"}]}
    pair = made(sandbox, account_number, rule=rule)
    pair.cart.mapping.audience.excluded_by.clear()
    happened = clock.now_us() - days * clock.DAY

    track("anna", "purchase", at=happened)
    pair.happens()

    stays = {"bert", "carl"} | (set() if leaves else {"anna"})
    assert pair.cart.emails() == hashes(*stays)
    assert pair.bought.emails() == hashes("zoe", "anna")
    # Had it come on time, a count as of this moment would say the same.
    Event.objects.update(received_us=happened)
    until_counted()
    audience = pair.cart.mapping.audience
    on_time = refreshes.compute_as_of([audience], clock.now_us())[audience.key].members
    assert set(on_time) == {number(id) for id in stays}


@pytest.mark.slow
def test_fault_41_whoever_buys_while_everybody_is_being_added_leaves_ahead_of_them(shop):
    shop.fill(30_000)
    slow = shop.sandbox.dial(
        "hang", platform=shop.kind, account=shop.account, op="add", times=None, seconds=3, apply=True
    )
    shop.deployment.up()
    eventually(lambda: len(shop.emails(CART)) >= 5_000 and shop.has(BOUGHT, "zoe"), every=0.2)
    there = shop.emails(CART)
    buyers = [f"p{n}" for n in range(30_000) if hashes(f"p{n}") <= there][:20]

    for id in buyers:
        shop.act(id)
    assert len(shop.emails(CART)) < 25_000  # most are still to be added
    eventually(lambda: shop.lacks(CART, *buyers) and shop.has(BOUGHT, *buyers), within=30)
    assert len(shop.emails(CART)) < 30_000 - len(buyers)
    shop.sandbox.clear_dials(slow)

    eventually(lambda: len(shop.emails(CART)) == 30_000 - len(buyers), within=90, every=0.5)
    assert shop.lacks(CART, *buyers)
    took = [row[0] for row in shop.deployment.query("SELECT took_ms FROM destinations_removal")]
    assert len(took) == len(buyers)
    assert np.percentile(took, 95) <= 30_000


@here
def test_fault_42_a_refund_or_a_new_cart_within_the_rest_after_a_purchase_brings_nobody_back(sandbox, account_number):
    rule = {
        "all": [
            {"event": "add_to_cart", "count": {"at_least": 1}, "within": "1d"},
            {"event": "purchase", "count": {"exactly": 0}, "within": "3d"},
        ]
    }
    for id in PEOPLE:
        track(id, "add_to_cart")
    pair = made(sandbox, account_number, rule=rule)
    track("anna", "purchase")
    pair.happens()
    assert pair.cart.emails() == hashes("bert", "carl")

    for name in ("refund", "add_to_cart"):
        track("anna", name)
        pair.happens()
        until_counted()
        pair.cart.sync()
        pair.bought.sync()

    assert pair.cart.emails() == hashes("bert", "carl")
    assert pair.bought.emails() == hashes("zoe", "anna")
    added = Operation.objects.filter(mapping=pair.cart.mapping, kind="add")
    assert sum(identity_of("anna") in unpack(packed) for packed in added.values_list("identities", flat=True)) == 1


@here
def test_fault_43_no_call_is_prepared_with_anybody_who_has_withdrawn_consent_before(
    sandbox, account_number, monkeypatch
):
    monkeypatch.setattr(Meta, "capabilities", replace(Meta.capabilities, batch_size=1, calls_per_minute=100_000))
    pair = made(sandbox, account_number)
    scene.imported("dora", "eric", "finn")
    until_counted()
    withdrawn = {}

    def withdraws(run):
        if run.added == 1:  # between the plan and the next batch
            left = {"dora", "eric", "finn"} - {
                id for id in ("dora", "eric", "finn") if hashes(id) <= pair.cart.emails()
            }
            id = min(left)
            withdrawn.setdefault(id, timezone.now())
            identify(id, consent_ad_personalization=False)

    pair.cart.sync(progress=withdraws)
    track("anna", "purchase")
    pair.lane.look()  # decided: out of retargeting, into suppression
    withdrawn["anna"] = timezone.now()
    identify("anna", consent_ad_user_data=False)
    pair.happens()

    assert len(withdrawn) == 2
    assert pair.bought.emails() == hashes("zoe")
    assert not pair.cart.emails() & hashes(*withdrawn)
    numbers = {identity_of(id): at for id, at in withdrawn.items()}
    for operation in Operation.objects.filter(kind="add"):
        for identity in unpack(operation.identities):
            assert identity not in numbers or operation.prepared_at < numbers[identity]
