"""Make this person buy: a purchase by the real door, and both sides of what follows, over a real sandbox."""

import logging

import pytest
from django.urls import reverse

from audiences import jobs
from audiences.models import AuditEntry, Event
from audiences.people import biography
from destinations.services import Refused
from qa.sample import story
from tests import filled
from tests.audiences.people_in import identify, number, track
from tests.destinations import scene

pytestmark = pytest.mark.django_db(transaction=True)
CART = {
    "all": [
        {"event": "add_to_cart", "count": {"at_least": 1}, "within": "7d"},
        {"event": "purchase", "count": {"exactly": 0}, "within": "7d"},
    ]
}
BOUGHT = {"event": "purchase", "count": {"at_least": 1}, "within": "14d"}
BIG = {"event": "add_to_cart", "count": {"at_least": 1}}


@pytest.fixture
def shop(sandbox, account_number, settings):
    """Ann and cleo left a cart, bob has bought; retargeting (one whose rule mentions no purchase) and suppression, on one account."""
    settings.DEMO = True
    people = filled.users()
    for id in ("ann", "bob", "cleo", "dora"):
        identify(id, email=f"{id}@shop.example", phone="+4915112345678")
    for id in ("ann", "bob", "cleo"):
        track(id, "add_to_cart")
    track("bob", "purchase")
    bought = scene.audience("bought", BOUGHT, purpose="suppression")
    suppressed = scene.live(sandbox, account_number, bought)
    connections = {"bought": suppressed}
    for key, rule in (("cart", CART), ("touched", BIG)):
        made = scene.audience(key, rule)
        made.excluded_by.add(bought)
        connections[key] = scene.live(sandbox, account_number, made)
    for one in connections.values():
        assert one.sync().state == "done"
    return connections, people


def test_what_a_purchase_would_change(shop):
    seen = story.outlook(biography.of(number("ann")))
    # "touched" knows nothing of purchases, but leaves out whoever is in suppression.
    assert {row.audience.key for row in seen.leaves} == {"cart", "touched"}
    assert {row.audience.key for row in seen.joins} == {"bought"}
    assert story.outlook(biography.of(number("bob"))) == story.Outlook((), ())


def test_the_candidate_is_at_the_platform_and_would_leave(shop):
    assert story.candidate() in (number("ann"), number("cleo"))


def test_nobody_is_a_candidate_where_suppression_is_not_live(shop):
    connections, _ = shop
    suppressed = connections["bought"].mapping
    type(suppressed).objects.filter(pk=suppressed.pk).update(state="paused")
    assert story.candidate() is None


def test_a_purchase_goes_in_by_the_real_door_and_both_sides_follow(shop):
    connections, people = shop
    entry = story.buy(actor=people["marketer"], profile_no=number("ann"))

    event = Event.objects.get(name="purchase", profile_no=number("ann"))
    assert event.source == "track_v1" and event.received_us == entry.after["at_us"]
    started = story.tell(entry)
    assert not started.done and started.left == 3
    assert {line.connection.audience.key: line.account.there for line in started.lines} == {
        "cart": True, "touched": True, "bought": False,
    }  # fmt: skip

    jobs.run_due_here(["sync"])

    ended = story.tell(entry)
    assert ended.done and not ended.given_up
    for line in ended.lines:
        assert 0 <= line.counted <= line.told <= line.received
        assert line.account.there is not line.leaves
        assert line.request_id
    assert connections["cart"].emails() == {scene.sha("cleo@shop.example")}
    assert story.tell(entry).elapsed == ended.elapsed  # the clock stands still
    assert {call["op"] for call in connections["cart"].calls()} >= {"add", "remove"}


def test_only_connections_that_a_purchase_changes_are_synced(shop, sandbox, account_number):
    _, people = shop
    track("dora", "mail")
    fans = scene.audience("fans", {"event": "mail", "count": {"at_least": 1}}, purpose="suppression")
    other = scene.live(sandbox, f"8{account_number}", fans)
    jobs.run_due_here(["sync"])  # what going live has asked for
    before = other.mapping.runs.count()
    story.buy(actor=people["marketer"], profile_no=number("ann"))
    jobs.run_due_here(["sync"])
    assert other.mapping.runs.count() == before


def test_a_second_click_shows_the_first_story(shop):
    _, people = shop
    first = story.buy(actor=people["marketer"], profile_no=number("ann"))
    assert story.buy(actor=people["marketer"], profile_no=number("ann")) == first
    assert Event.objects.filter(name="purchase", profile_no=number("ann")).count() == 1


def test_whom_no_ad_is_shown_buys_nothing(shop):
    _, people = shop
    with pytest.raises(Refused, match="No live audience"):
        story.buy(actor=people["marketer"], profile_no=number("dora"))
    assert not Event.objects.filter(name="purchase", profile_no=number("dora")).exists()


def test_a_sandbox_that_does_not_answer_leaves_its_side_unknown(shop):
    connections, people = shop
    entry = story.buy(actor=people["marketer"], profile_no=number("ann"))
    target = connections["cart"].mapping.destination
    type(target).objects.filter(pk=target.pk).update(base_url="http://127.0.0.1:9")
    assert {line.account.there for line in story.tell(entry).lines} == {None}


# --- The pages


def test_from_the_button_to_the_end(client, shop):
    _, people = shop
    client.force_login(people["marketer"])
    person = client.get(reverse("audiences:person", args=[number("ann")])).content.decode()
    assert reverse("qa:make-buy", args=[number("ann")]) in person
    before = client.get(reverse("qa:story-before", args=[number("ann")])).content.decode()
    assert "out of" in before and "into" in before

    answer = client.post(reverse("qa:make-buy", args=[number("ann")]))
    going = client.get(answer.url, headers={"HX-Request": "true"})
    assert going.status_code == 200 and "Telling 3 of 3" in going.content.decode()
    jobs.run_due_here(["sync"])
    over = client.get(answer.url, headers={"HX-Request": "true"})
    assert over.status_code == 286
    assert "Both sides agree." in over.content.decode()
    assert "hx-trigger" not in over.content.decode()
    assert "Both sides agree." in client.get(answer.url).content.decode()


def test_somebody_else_is_offered(client, shop):
    _, people = shop
    client.force_login(people["operator"])
    answer = client.post(reverse("qa:make-buy", args=[number("dora")]), follow=True)
    text = answer.content.decode()
    assert "Nothing was bought." in text
    assert f"Try Person {'ann' if story.candidate() == number('ann') else 'cleo'}" in text


def test_there_is_none_of_it_outside_the_demo(client, shop, settings):
    _, people = shop
    entry = story.buy(actor=people["marketer"], profile_no=number("ann"))
    settings.DEMO = False
    client.force_login(people["admin"])
    assert client.post(reverse("qa:make-buy", args=[number("cleo")])).status_code == 404
    assert client.get(reverse("qa:story-before", args=[number("cleo")])).status_code == 404
    assert client.get(reverse("qa:story", args=[number("ann"), entry.pk])).status_code == 404
    assert "Make this person buy" not in client.get(reverse("audiences:person", args=[number("cleo")])).content.decode()


def test_forged_stories_and_buyers_are_turned_away(client, shop):
    _, people = shop
    entry = story.buy(actor=people["marketer"], profile_no=number("ann"))
    client.force_login(people["marketer"])
    assert client.get(reverse("qa:story", args=[number("cleo"), entry.pk])).status_code == 404
    assert client.get(reverse("qa:story", args=[number("ann"), 10**30])).status_code == 404
    assert client.get(reverse("qa:story-before", args=[10**30])).status_code == 404
    assert client.get(reverse("qa:make-buy", args=[number("cleo")])).status_code == 405
    client.force_login(people["buyer"])
    assert client.post(reverse("qa:make-buy", args=[number("cleo")])).status_code == 403
    assert client.get(reverse("qa:story", args=[number("ann"), entry.pk])).status_code == 403


def test_nothing_personal_is_shown_kept_or_logged(client, shop, caplog):
    _, people = shop
    caplog.set_level(logging.DEBUG)
    client.force_login(people["marketer"])
    answer = client.post(reverse("qa:make-buy", args=[number("ann")]))
    jobs.run_due_here(["sync"])
    text = client.get(answer.url).content.decode()
    trail = str(list(AuditEntry.objects.values()))
    whole = {scene.sha("ann@shop.example"), scene.sha("4915112345678")}
    for place in (text, trail, caplog.text, answer.url):
        assert "shop.example" not in place and "15112345678" not in place
        assert not any(digest in place for digest in whole)
