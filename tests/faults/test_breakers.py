"""Faults of what feeds the rules (rows 27 to 32 of the matrix): what a connection must not send then, and what goes all the same.

Each row is forced for real, and held against the sandbox's own member set.
"""

from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone

from audiences import clock
from audiences.models import AttributeName, AuditEntry, Event, EventName, User
from audiences.people import engines, feeds
from audiences.services import feeds as feed_settings
from audiences.services import versions
from destinations import queries
from destinations.models import Hold, Operation, Run
from destinations.services import Refused, holds, runs
from tests.audiences.people_in import identify, track
from tests.destinations import scene
from tests.destinations.scene import hashes

pytestmark = pytest.mark.django_db(transaction=True)

CART = {
    "all": [
        {"event": "add_to_cart", "count": {"at_least": 1}, "within": "24h"},
        {"event": "purchase", "count": {"exactly": 0}, "within": "3d"},
    ]
}
BOUGHT = {"event": "purchase", "count": {"at_least": 1}, "within": "7d"}
HOUR = 3600


def people(many):
    names = [f"person{n:03}" for n in range(many)]
    scene.imported(*names)
    return names


def silent(event, hours, *, allowed=1):
    """The feed of this event stopped so many hours ago: no more came in, and those that had are as old."""
    feed_settings.allow_silence(actor=None, name=event, hours=allowed)
    EventName.objects.filter(pk=event).update(last_seen_us=clock.now_us() - hours * clock.HOUR)


def standing(mapping):
    return {(hold.rule, hold.direction) for hold in Hold.objects.filter(mapping=mapping, lifted_at=None)}


def removed_by_comparison(mapping):
    return [op for op in Operation.objects.filter(mapping=mapping, kind="remove") if op.cause in ("diff", "resync")]


@pytest.fixture
def carts(sandbox, account_number):
    """Thirty people with a cart, live."""
    scene.workspace()
    names = people(30)
    for name in names:
        track(name, "add_to_cart")
    track("elsewhere", "purchase")
    connected = scene.live(sandbox, account_number, scene.audience("carts", CART))
    connected.sync()
    assert connected.emails() == hashes(*names)
    return connected


@pytest.fixture
def buyers(sandbox, account_number):
    """Thirty people who bought, in suppression, live."""
    scene.workspace()
    names = people(30)
    for name in names:
        track(name, "purchase")
    connected = scene.live(sandbox, account_number, scene.audience("bought", BOUGHT, purpose="suppression"))
    connected.sync()
    assert connected.emails() == hashes(*names)
    return connected


def forget_events(name):
    """The history of one event is gone, as after a source was emptied."""
    Event.objects.filter(name=name).delete()
    engines.close()  # another process, which remembers nothing of them


def test_fault_27_while_the_feed_of_a_suppression_audience_is_silent_nobody_is_removed_by_comparison(buyers):
    forget_events("purchase")
    silent("purchase", 6)

    run = buyers.sync()

    assert len(buyers.emails()) == 30
    assert removed_by_comparison(buyers.mapping) == []
    assert ("silent-entry", "removes") in standing(buyers.mapping)
    assert run.state == "done"


def test_fault_27_a_hold_lifts_itself_when_the_feed_is_back_and_says_so_on_the_trail(buyers):
    silent("purchase", 6)
    buyers.sync()
    assert standing(buyers.mapping) == {("silent-entry", "removes")}

    track("elsewhere", "purchase")
    buyers.sync()

    assert standing(buyers.mapping) == set()
    lifted = AuditEntry.objects.filter(verb="hold.lifted").latest("pk")
    assert (lifted.actor, lifted.reason) == (None, "What set it is over.")


def test_fault_27_a_segment_that_evaluates_to_nobody_removes_nobody_until_a_person_takes_it_on(buyers):
    forget_events("purchase")

    buyers.sync()

    hold = Hold.objects.get(mapping=buyers.mapping, lifted_at=None)
    assert (hold.rule, hold.direction, hold.people) == ("zero", "removes", 30)
    assert len(buyers.emails()) == 30
    with pytest.raises(Refused, match="Say why"):
        holds.lift(actor=scene.workspace(), hold=hold)

    holds.lift(actor=scene.workspace(), hold=hold, reason="The season is over")
    run = buyers.sync()

    assert (run.state, buyers.emails()) == ("done", set())
    assert standing(buyers.mapping) == set()


def test_fault_27_a_rule_that_a_person_has_taken_on_may_trip_again_once_it_was_over(buyers):
    silent("purchase", 6)
    buyers.sync()
    holds.lift(actor=scene.workspace(), hold=Hold.objects.get(lifted_at=None), reason="known")
    buyers.sync()
    assert standing(buyers.mapping) == set()

    track("elsewhere", "purchase")
    buyers.sync()
    silent("purchase", 6)
    buyers.sync()

    assert standing(buyers.mapping) == {("silent-entry", "removes")}


def test_fault_28_while_purchases_are_silent_nobody_is_added_to_retargeting_and_a_buyer_still_leaves(carts):
    silent("purchase", 6)
    scene.imported("late")
    track("late", "add_to_cart")

    carts.sync()

    assert ("silent-exit", "adds") in standing(carts.mapping)
    assert not hashes("late") & carts.emails()

    track("person001", "purchase")  # one came in: the feed is back
    carts.sync()

    assert not hashes("person001") & carts.emails()
    assert hashes("late") <= carts.emails()
    assert standing(carts.mapping) == set()


def test_fault_28_a_hold_on_adds_lets_a_buyer_out_and_a_hold_on_suppression_lets_a_buyer_in(carts, sandbox, account_number):  # fmt: skip
    bought = scene.live(sandbox, account_number, scene.audience("bought", BOUGHT, purpose="suppression"))
    bought.sync()
    for connected in (carts, bought):
        holds.set_hold(actor=None, mapping=connected.mapping, direction="both", reason="for the test")

    track("person001", "purchase")
    carts.sync()
    bought.sync()

    assert not hashes("person001") & carts.emails()
    assert hashes("person001") <= bought.emails()


def test_fault_29_suppression_that_would_lose_more_than_a_twentieth_waits_for_a_name(sandbox, account_number):
    operator = scene.workspace()
    names = people(2_200)
    for name in names:
        identify(name, **{"in": "yes"}) if name < "person005" else None
    kept = scene.audience("kept", {"attribute": "in", "op": "is", "value": "yes"}, purpose="suppression")
    connected = scene.live(sandbox, account_number, kept)
    connected.sync()
    before = len(connected.emails())
    scene.imported(*names[:150], **{"in": "no"})

    run = connected.sync()

    assert (run.state, run.planned_removes) == ("approval", 150)
    assert len(connected.emails()) == before
    sample = queries.leaving(connected.mapping)
    assert len(sample) == 5
    assert all("person" not in leaver.title or "•" in leaver.title for leaver in sample)

    runs.approve(actor=operator, run=run, reason="they asked for it", start=False)
    done = runs.run_to_end(run)

    assert (done.state, done.approved_by, done.refresh_id is not None) == ("done", operator, True)
    assert len(connected.emails()) == before - 150


def test_fault_30_every_call_names_the_version_it_was_made_under_and_no_version_changes_once_used(carts):
    first = carts.mapping.audience.live_version
    draft = versions.save_draft(actor=None, audience=carts.mapping.audience, segment={"all": [CART["all"][0]]})
    versions.publish(actor=None, version=draft, reason="wider", override="for the test")
    scene.imported("late")
    track("late", "add_to_cart")
    carts.sync()

    under = [op.version_id for op in carts.operations()]
    assert None not in under
    assert (under[0], under[-1]) == (first.pk, draft.pk)
    first.segment = {"all": []}
    with pytest.raises(Exception, match=r"immutable|published|never"):
        first.save()


def test_fault_31_a_count_that_fails_plans_nothing_and_holds_both_directions(carts, monkeypatch):
    from audiences.people.engines import duckdb

    def broken(*args, **kwargs):
        raise RuntimeError("statement timeout")

    with monkeypatch.context() as patch:
        patch.setattr(duckdb.DuckDB, "members", broken)
        before = len(carts.operations())
        run = carts.sync()
        assert run.state == "failed"
        assert len(carts.operations()) == before
        assert standing(carts.mapping) == {("not-counted", "both")}

    carts.sync()

    assert standing(carts.mapping) == set()
    assert len(carts.emails()) == 30


def test_fault_32_a_field_that_has_vanished_makes_the_rule_invalid_and_never_false(sandbox, account_number):
    scene.workspace()
    names = people(30)
    connected = scene.live(sandbox, account_number, scene.audience("has", scene.IN))
    connected.sync()
    AttributeName.objects.filter(name="in").delete()

    run = connected.sync()

    assert run.state == "failed"
    assert connected.emails() == hashes(*names)
    assert removed_by_comparison(connected.mapping) == []
    assert standing(connected.mapping) == {("not-counted", "both")}
    assert "in" in Hold.objects.get().reason


def test_a_hold_is_shown_with_what_waits_why_since_when_what_its_end_does_and_who_may_lift_it(buyers, client):
    forget_events("purchase")
    buyers.sync()
    buyer = User.objects.create_user("buyer@example.com", "a long password 1", role="buyer")
    client.force_login(buyer)

    page = client.get(reverse("destinations:connection", args=[buyers.mapping.pk])).content.decode()

    assert "Removals by comparison stopped for safety" in page
    assert "The count came to nobody, and 30 people are there." in page
    assert "It lifts itself as soon as anybody is counted." in page
    assert "May be lifted by: admin, operator." in page


def test_how_long_a_feed_is_usually_silent_is_learnt_and_an_outage_is_not_learnt_from():
    start = clock.now_us() - 40 * clock.DAY
    event = EventName(name="e", first_seen_us=start, last_seen_us=start)
    for _ in range(20):  # a file a day
        event.usual_silence_us = feeds.learnt(event, clock.DAY)
        event.last_seen_us += clock.DAY
    assert event.usual_silence_us == clock.DAY
    assert feeds.of(event, event.last_seen_us).allowed_us == 2 * clock.DAY
    assert not feeds.of(event, event.last_seen_us + 47 * clock.HOUR).stopped(event.last_seen_us + 47 * clock.HOUR)
    assert feeds.of(event, event.last_seen_us + 49 * clock.HOUR).stopped(event.last_seen_us + 49 * clock.HOUR)
    assert feeds.learnt(event, 5 * clock.DAY) == clock.DAY


def test_a_feed_of_which_too_little_is_known_never_counts_as_stopped():
    now = clock.now_us()
    event = EventName(name="e", first_seen_us=now - clock.DAY, last_seen_us=now - clock.DAY)
    assert feeds.of(event, now).learning
    assert not feeds.of(event, now).stopped(now)


def test_an_operator_sets_how_long_a_feed_may_be_silent_and_it_is_on_the_trail(buyers, client):
    client.force_login(scene.workspace())
    assert "purchase" in client.get("/settings/feeds/").content.decode()

    client.post("/settings/feeds/silence/", {"event": "purchase", "hours": "5"})

    assert EventName.objects.get(pk="purchase").allowed_silence_seconds == 5 * HOUR
    assert AuditEntry.objects.filter(verb="feed.changed", object_key="purchase").exists()
    answer = client.post("/settings/feeds/silence/", {"event": "purchase", "hours": "-1"}, follow=True)
    assert "greater than or equal to 0" in answer.content.decode()
    assert EventName.objects.get(pk="purchase").allowed_silence_seconds == 5 * HOUR
    client.post("/settings/feeds/silence/", {"event": "purchase", "hours": ""})
    assert EventName.objects.get(pk="purchase").allowed_silence_seconds is None


def test_retiring_empties_the_platform_whatever_holds(carts):
    from destinations.services import mappings

    holds.set_hold(actor=None, mapping=carts.mapping, direction="both", reason="for the test")
    mappings.retire(actor=None, mapping=carts.mapping, reason="the end")
    carts.mapping.refresh_from_db()
    run = Run.objects.create(mapping=carts.mapping, trigger="person")
    runs.run_to_end(run)

    assert carts.emails() == set()


def test_pause_lets_removals_go_on_and_freeze_lets_nothing_pass(carts):
    from destinations.services import mappings

    mappings.pause(actor=None, mapping=carts.mapping, reason="a rest")
    scene.imported("late")
    track("late", "add_to_cart")
    track("person001", "purchase")
    carts.sync()
    assert not hashes("late", "person001") & carts.emails()

    carts.mapping.refresh_from_db()
    mappings.freeze(actor=None, mapping=carts.mapping, reason="a look", until=timezone.now() + timedelta(hours=1))
    track("person002", "purchase")
    with pytest.raises(Refused, match="frozen"):
        carts.sync()
    assert hashes("person002") <= carts.emails()

    carts.mapping.refresh_from_db()
    mappings.thaw(now=timezone.now() + timedelta(hours=2))
    carts.mapping.refresh_from_db()
    assert carts.mapping.state == "paused"
    carts.sync()
    assert not hashes("person002") & carts.emails()
