"""The overlap page, one pair of it, and excluding one audience from another, as a browser without scripts sees them."""

import csv
import io
import re
from collections import Counter
from datetime import timedelta

import pytest
from django.urls import reverse
from django.utils import timezone
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from audiences import bitmaps, overlap, spreadsheets, vocabulary
from audiences.models import Audience, AuditEntry, Membership, Refresh, SegmentVersion
from audiences.services import locks, refreshes, versions
from tests import filled
from tests.audiences.people_in import identify, track
from tests.filled import as_

pytestmark = pytest.mark.django_db
COUNTED = pytest.mark.django_db(transaction=True)  # a count takes in what is committed
VIEWED = {"event": "product_viewed", "count": {"at_least": 1}, "within": "7d"}


@pytest.fixture
def world() -> filled.Filled:
    return filled.fill()


@pytest.fixture
def views(world) -> Audience:
    """Ann and Cleo have looked at something; Ann is in the cart audience as well."""
    identify("cleo", email="cleo@shop.example")
    for who in ("ann", "cleo"):
        track(who, "product_viewed", product="Oilskin jacket")
    made = filled.audience("meta_views_7d", VIEWED, world.users["marketer"])
    refreshes.refresh([made], cause=Refresh.Cause.MANUAL)
    return made


def text(response) -> str:
    """What it says, without markup and doubled spaces."""
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode())).replace(" ;", ";")


def counted(key: str, people: BitMap, purpose: str = "retargeting") -> Audience:
    audience = Audience.objects.create(key=key, name=key, purpose=purpose)
    version = SegmentVersion.objects.create(
        audience=audience, number=1, state="published", segment='{"list":"staff"}', sha256=key, sentence="Staff."
    )
    Audience.objects.filter(pk=audience.pk).update(live_version=version)
    done = Refresh.objects.create(
        audience=audience,
        version=version,
        state="done",
        cause="manual",
        as_of_us=1_700_000_000_000_000,
        count=len(people),
    )
    packed = bitmaps.pack(people)
    Membership.objects.create(audience=audience, refresh=done, members=packed, count=len(people))
    return audience


def count_again(*audiences_: Audience) -> None:
    refreshes.refresh(audiences_, cause=Refresh.Cause.PUBLISH)


# --- The table.


@COUNTED
def test_each_cell_is_the_share_of_its_row_and_leads_to_the_pair(world, views):
    page = as_(world, "buyer").get("/overlap/")
    body = page.content.decode()
    assert page.status_code == 200
    assert '<td class="h4"><a href="/overlap/meta_views_7d/meta_cart_24h/">50%<i>1</i></a></td>' in body
    assert '<td class="h5"><a href="/overlap/meta_cart_24h/meta_views_7d/">100%<i>1</i></a></td>' in body
    assert "not_yet" in text(page)
    assert "Not counted yet, so in no number here" in text(page)
    assert page.context["matrix"].keys[0] == "meta_cart_24h", "what lies furthest inside another comes first"


def test_a_choice_and_a_preset_are_in_the_address(world, views):
    client = as_(world, "marketer")
    chosen = client.get("/overlap/?a=meta_views_7d&a=meta_buyers_7d&a=gone&a=not_yet")
    assert sorted(chosen.context["matrix"].keys) == ["meta_buyers_7d", "meta_views_7d"]
    assert "There is no audience gone" in text(chosen)
    assert chosen.context["selection"].uncounted == ["not_yet"]
    only = client.get("/overlap/?only=retargeting&sort=name")
    assert only.context["matrix"].keys == ("meta_cart_24h", "meta_views_7d")
    mine = client.get("/overlap/?only=mine")
    assert len(mine.context["matrix"].keys) == 3
    assert as_(world, "buyer").get("/overlap/?only=mine").context.get("matrix") is None


def test_fewer_than_two_counted_audiences_is_said_and_not_drawn(world):
    client = as_(world, "buyer")
    one = client.get("/overlap/?a=meta_cart_24h&a=not_yet")
    assert "Fewer than two of these have been counted" in text(one)
    assert "<td" not in one.content.decode()
    Membership.objects.all().delete()
    assert "Fewer than two audiences have been counted" in text(client.get("/overlap/"))
    assert client.get("/overlap/?tab=waste").status_code == 200


def test_hostile_addresses_get_a_clear_answer(world, views):
    client = as_(world, "admin")
    for address in (
        "/overlap/?a=%3Cimg%20src=x%20onerror=alert(1)%3E&a=%00&only=nonsense&sort=%27&tab=x",
        "/overlap/?" + "&".join(f"a={n}{'x' * 300}" for n in range(300)),
        "/overlap/pairs.csv?a=%3Cx%3E&a=meta_cart_24h",
    ):
        page = client.get(address)
        assert page.status_code == 200, address
    assert "<img" not in client.get("/overlap/?a=%3Cimg%20src=x%3E").content.decode()
    for address in (
        "/overlap/meta_cart_24h/gone/",
        "/overlap/meta_cart_24h/meta_cart_24h/",
        "/overlap/gone/gone2/exclude/",
    ):
        assert client.get(address).status_code in (404, 405), address
    assert client.post("/overlap/meta_cart_24h/gone/exclude/").status_code == 404
    assert client.post("/overlap/meta_cart_24h/meta_cart_24h/undo/").status_code == 404


def test_the_page_takes_the_same_queries_for_many_audiences(world, views, django_assert_num_queries):
    client = as_(world, "buyer")
    client.get("/overlap/")
    with django_assert_num_queries(5):
        client.get("/overlap/")
    for number in range(30):
        counted(f"more_{number}", BitMap(range(number, 100 + number)))
    with django_assert_num_queries(5):
        assert len(client.get("/overlap/").context["matrix"].keys) == 33
    with django_assert_num_queries(6):
        client.get("/overlap/?tab=waste")


def test_of_many_audiences_the_largest_are_drawn_and_the_file_holds_all(world):
    for number in range(102):
        counted(f"a{number:03}", BitMap(range(number + 10)))
    client = as_(world, "buyer")
    page = client.get("/overlap/?only=retargeting")
    assert len(page.context["matrix"].keys) == 100
    assert "a101" in page.context["matrix"].keys
    assert "a000" not in page.context["matrix"].keys
    assert "The 100 largest of 103" in text(page)
    lines = b"".join(client.get("/overlap/pairs.csv?only=retargeting").streaming_content).decode().splitlines()
    assert len(lines) == 1 + 103 * 102 // 2


def test_a_membership_that_a_merge_has_changed_is_counted_anew():
    counted("one", BitMap(range(10)))
    counted("two", BitMap(range(5, 15)))
    assert overlap.matrix().counts[0][1] == 5
    Membership.objects.filter(audience__key="two").update(members=bitmaps.pack(BitMap(range(8, 18))))
    assert overlap.matrix().counts[0][1] == 2


@COUNTED
def test_the_file_holds_every_pair_and_no_formula(world, views):
    response = as_(world, "buyer").get("/overlap/pairs.csv")
    rows = list(csv.DictReader(io.StringIO(b"".join(response.streaming_content).decode())))
    found = {(row["audience"], row["other"]): row for row in rows}
    pair = found["meta_cart_24h", "meta_views_7d"]
    assert (pair["people_in_both"], pair["size"], pair["size_of_other"], pair["share"]) == ("1", "1", "2", "1.0")
    assert len(rows) == 3
    for start in "=+-@\t\r\0":
        assert spreadsheets.inert(f"{start}1") == f"'{start}1"


# --- Waste.


def test_waste_counts_people_who_are_in_two_retargeting_audiences_or_more():
    counted("r1", BitMap(range(100)))
    counted("r2", BitMap(range(50, 150)))
    counted("r3", BitMap(range(90, 110)))
    found = overlap.waste(["r1", "r2", "r3", "not_there"])
    assert found.everybody == 150
    assert found.people == 60
    assert found.times == ((2, 60), (3, 10))
    assert [(row.key, row.shared) for row in found.rows] == [("r2", 60), ("r1", 50), ("r3", 20)]


def test_the_waste_tab_says_it_in_words_and_leaves_suppression_out(world):
    counted("r1", BitMap(range(2000)))
    counted("r2", BitMap(range(796, 2000)))
    counted("s1", BitMap(range(5000)), "suppression")
    page = as_(world, "buyer").get("/overlap/?tab=waste&a=r1&a=r2&a=s1")
    assert "1,204 people are in 2 or more retargeting audiences; each may be bid for twice" in text(page)
    assert "s1" not in [row.key for row in page.context["waste"].rows]


# --- Combinations.


@given(st.lists(st.sets(st.integers(0, 40)), max_size=6))
def test_combinations_hold_everybody_once_and_in_exactly_their_audiences(sets):
    found = overlap.parted([BitMap(people) for people in sets])
    everybody = set().union(*sets)
    assert dict(found) == Counter(tuple(one in people for people in sets) for one in everybody)
    assert [count for _, count in found] == sorted((count for _, count in found), reverse=True)


def test_the_combinations_tab_counts_the_twelve_largest(world):
    for number in range(14):
        counted(f"c{number:02}", BitMap(range(number * 10, 200)))
    page = as_(world, "buyer").get("/overlap/?tab=combinations&only=retargeting")
    assert len(page.context["combined"].keys) == 12
    assert page.context["combined"].keys[0] == "c00"
    assert "combinations are counted of at most 12" in text(page)
    assert "200 people are in these 12 audiences" in text(page)
    few = overlap.combinations(["c00", "c05", "c10"], most=2)
    assert (few.others, few.rest, few.sizes) == (1, 50, (200, 150, 100))


# --- One pair.


@COUNTED
def test_a_pair_shows_both_rules_and_what_an_exclusion_would_change(world, views):
    page = as_(world, "marketer").get("/overlap/meta_views_7d/meta_cart_24h/")
    words = text(page)
    assert "1 person is in both: 50% of the first, 100% of the second" in words
    for audience in (views, world.cart):
        audience.refresh_from_db()
        assert audience.live_version.sentence.split(" within")[0][:40] in words
    first, second = (offer for offer, *_ in page.context["offers"])
    assert (first.audience.key, first.before, first.after, first.link) == ("meta_views_7d", 2, 1, False)
    assert (second.audience.key, second.before, second.after) == ("meta_cart_24h", 1, 0)


@COUNTED
def test_an_exclusion_publishes_a_version_that_is_counted_and_can_be_undone(world, views):
    client = as_(world, "marketer")
    address = "/overlap/meta_views_7d/meta_cart_24h/"
    page = client.post(f"{address}exclude/", {"seen": "1", "reason": "Carts are dearer"}, follow=True)
    assert page.redirect_chain[-1][0] == address
    views.refresh_from_db()
    assert views.live_version.number == 2
    assert views.live_version.reason == "Carts are dearer"
    assert '{"not":{"audience":"meta_cart_24h"}}' in views.live_version.segment
    assert "Counting…" in text(page)
    assert client.get(address, headers={"HX-Request": "true", "HX-Target": "pair-live"}).status_code == 200
    count_again(views)
    polled = client.get(address, headers={"HX-Request": "true", "HX-Target": "pair-live"})
    assert polled.status_code == 286
    assert "<html" not in polled.content.decode()
    pair = client.get(address).context["pair"]
    (done,) = pair.in_force
    assert (done.before, done.after, done.both_before, pair.both) == (2, 1, 1, 0)
    assert "meta_views_7d 2 → , now 1 In both 1 → , now 0" in text(polled)
    client.post(f"{address}undo/", {"seen": "2"})
    views.refresh_from_db()
    assert views.live_version.number == 3
    assert vocabulary.rule(views.live_version.segment) == vocabulary.rule(views.versions.get(number=1).segment)
    count_again(views)
    assert client.get(address).context["pair"].both == 1


def test_asking_twice_makes_one_version_each_way(world, views):
    client = as_(world, "marketer")
    address = "/overlap/meta_views_7d/meta_cart_24h/"
    for _ in range(2):
        client.post(f"{address}exclude/", {"seen": "1", "reason": "x"})
    assert views.versions.count() == 2
    for _ in range(2):
        page = client.post(f"{address}undo/", {"seen": "2"}, follow=True)
    assert views.versions.count() == 3
    assert "does not exclude" in text(page)


@COUNTED
def test_a_suppression_audience_is_linked_and_what_is_sent_shrinks(world, views):
    track("cleo", "purchase", value=10)
    count_again(world.buyers)
    client = as_(world, "marketer")
    address = "/overlap/meta_views_7d/meta_buyers_7d/"
    offer = next(offer for offer, *_ in client.get(address).context["offers"] if offer.audience.key == "meta_views_7d")
    assert (offer.link, offer.before, offer.after) == (True, 2, 1)
    client.post(f"{address}exclude/", {"seen": "1", "reason": "They bought"})
    assert list(views.excluded_by.all()) == [world.buyers]
    assert views.versions.count() == 1, "a link needs no new version"
    assert AuditEntry.objects.get(verb="audience.linked").reason == "They bought"
    (done,) = client.get(address).context["pair"].in_force
    assert (done.before, done.after) == (2, 1)
    client.post(f"{address}undo/", {"seen": "0"})
    assert not views.excluded_by.exists()


def test_what_is_excluded_already_is_said_and_not_offered(world):
    page = as_(world, "marketer").get("/overlap/meta_cart_24h/meta_buyers_7d/")
    assert "meta_buyers_7d is linked: nobody who is in it is sent by meta_cart_24h" in text(page)
    (other,) = (offer for offer, *_ in page.context["offers"])
    assert "keeps people out of advertising" in other.why_not


def test_a_circle_is_refused_in_words_before_and_after_asking(world, views):
    client = as_(world, "marketer")
    client.post("/overlap/meta_views_7d/meta_cart_24h/exclude/", {"seen": "1", "reason": "x"})
    count_again(views)
    page = client.get("/overlap/meta_cart_24h/meta_views_7d/")
    offer = next(offer for offer, *_ in page.context["offers"])
    assert "builds on meta_cart_24h" in offer.why_not
    refused = client.post("/overlap/meta_cart_24h/meta_views_7d/exclude/", {"seen": "1", "reason": "x"})
    assert refused.status_code == 422
    assert world.cart.versions.count() == 1


def test_an_older_page_does_not_overwrite_what_was_published_since(world, views):
    client = as_(world, "marketer")
    draft = versions.save_draft(actor=world.users["admin"], audience=views, segment={"list": "staff"})
    versions.publish(actor=world.users["admin"], version=draft, reason="Other people", override="for the test")
    late = client.post("/overlap/meta_views_7d/meta_cart_24h/exclude/", {"seen": "1", "reason": "x"})
    assert late.status_code == 422
    assert "V2 went live meanwhile" in text(late)
    assert views.versions.count() == 2


def test_somebodys_draft_is_not_lost(world, views):
    versions.save_draft(actor=world.users["admin"], audience=views, segment={"list": "staff"})
    refused = as_(world, "marketer").post("/overlap/meta_views_7d/meta_cart_24h/exclude/", {"seen": "1", "reason": "x"})
    assert refused.status_code == 422
    assert "There is a draft by Admin (v2)" in text(refused)
    assert views.versions.get(number=2).segment == '{"list":"staff"}'


def test_in_a_test_the_exclusion_waits_for_its_end(world, views):
    locks.set_lock(
        actor=world.users["buyer"], audience=views, until=timezone.now() + timedelta(days=3), note="Price test"
    )
    client = as_(world, "marketer")
    address = "/overlap/meta_views_7d/meta_cart_24h/"
    page = client.get(address)
    assert "In test until" in text(page)
    assert "Price test" in text(page)
    assert client.post(f"{address}exclude/", {"seen": "1", "reason": "x"}).status_code == 422
    assert views.versions.count() == 1
    later = client.post(f"{address}exclude/", {"seen": "1", "reason": "x", "when": "free"}, follow=True)
    assert "It is published when the test ends" in text(later)
    waiting = views.versions.get(number=2)
    assert waiting.state == "in_review"
    assert waiting.publish_at is not None
    assert "V2 waits for the end of the test" in text(client.get(address))


def test_a_missing_owner_is_named(world, views):
    Audience.objects.filter(pk=views.pk).update(alert_owner=None)
    refused = as_(world, "marketer").post("/overlap/meta_views_7d/meta_cart_24h/exclude/", {"seen": "1", "reason": "x"})
    assert refused.status_code == 422
    assert "Name an owner for alerts first" in text(refused)
    assert views.versions.count() == 1


@pytest.mark.parametrize("form", [{"seen": "1", "reason": " "}, {"seen": "x", "reason": "y"}, {}])
def test_a_form_that_says_too_little_changes_nothing(world, views, form):
    refused = as_(world, "marketer").post("/overlap/meta_views_7d/meta_cart_24h/exclude/", form)
    assert refused.status_code == 422
    assert views.versions.count() == 1


def test_who_may_not_publish_sees_the_numbers_and_who_may(world, views):
    client = as_(world, "buyer")
    page = client.get("/overlap/meta_views_7d/meta_cart_24h/")
    assert 'aria-disabled="true" title="This needs the role admin or marketer"' in page.content.decode()
    assert client.post("/overlap/meta_views_7d/meta_cart_24h/exclude/", {"seen": "1", "reason": "x"}).status_code == 403
    assert client.post("/overlap/meta_views_7d/meta_cart_24h/undo/", {"seen": "1"}).status_code == 403


def test_an_exclusion_leaves_its_line_in_the_trail(world, views):
    as_(world, "marketer").post("/overlap/meta_views_7d/meta_cart_24h/exclude/", {"seen": "1", "reason": "Dearer"})
    entry = AuditEntry.objects.filter(verb="audience.published", object_key="meta_views_7d").latest("pk")
    assert (entry.actor, entry.reason) == (world.users["marketer"], "Dearer")


def test_a_pair_takes_a_fixed_number_of_queries(world, views, django_assert_max_num_queries):
    client = as_(world, "buyer")
    with django_assert_max_num_queries(12):
        client.get(reverse("audiences:overlap-cell", args=["meta_views_7d", "meta_cart_24h"]))


def test_hostile_names_are_only_words_on_every_tab(world, views):
    evil = '"><img src=x onerror="alert(1)">'
    Audience.objects.update(name=evil)
    client = as_(world, "marketer")
    for address in (
        "/overlap/",
        "/overlap/?tab=combinations",
        "/overlap/?tab=waste",
        "/overlap/meta_views_7d/meta_cart_24h/",
    ):
        page = client.get(address).content.decode()
        assert "<img" not in page, address
        assert "&lt;img src=x" in page, address
