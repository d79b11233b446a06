"""The catalogue: what is found and filtered, what its lines say of each connection, which names are copied, and how little it asks."""

import html
import re
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from audiences import queries
from audiences.models import Audience, Membership, NamingConvention, Refresh, User, frozen
from audiences.models import TestLock as Lock
from audiences.services import audiences as service
from audiences.services import naming
from destinations.models import Account, Destination, Ledger, Mapping, Run
from qa import catalog
from qa.models import Incident, Limits, SpotCheck
from tests import filled, many
from tests.filled import as_
from tests.qa.curves import grown

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> filled.Filled:
    cache.clear()
    return filled.fill()


def text(response) -> str:
    return response.content.decode()


def line(page: str, key: str) -> str:
    """The row of one audience, with its entities read."""
    found = next(row for row in re.findall(r"<tr>.*?</tr>", page, re.DOTALL) if f'href="/audiences/{key}/"' in row)
    return html.unescape(found)


def keys(client: Client, **asked: str) -> list[str]:
    return [one.audience.key for one in client.get("/audiences/", asked).context["rows"]]


def suppress_there(world: filled.Filled, **fields: object) -> Mapping:
    """The buyers' connection to where the cart goes, and at work."""
    values = {"state": "live", "remote_id": "99", "remote_name": "buyers on Meta"} | fields
    return Mapping.objects.create(audience=world.buyers, destination=world.destination, identifiers=["email"], **values)


# --- What is found.


def test_every_word_is_looked_for_in_rule_purpose_owner_and_ad_account(world):
    Audience.objects.filter(pk=world.cart.pk).update(name="Open carts", backup_owner=world.users["operator"])
    Mapping.objects.update(remote_name="meta_cart_as_told_there")
    for words, found in {
        "cart": ["meta_cart_24h"],
        "open CARTS": ["meta_cart_24h"],
        "PURCHASE 7 days": ["meta_buyers_7d"],
        "suppression": ["meta_buyers_7d"],
        "marketer cart": ["meta_cart_24h"],
        "operator": ["meta_cart_24h"],
        "meta eu": ["meta_cart_24h"],
        "as_told_there": ["meta_cart_24h"],
        "buyers nothing": [],
    }.items():
        assert keys(as_(world, "buyer"), q=words) == found, words


def test_chips_hold_what_they_count(world):
    service.follow(actor=world.users["buyer"], audience=world.buyers, following=True)
    Audience.objects.filter(pk=world.cart.pk).update(backup_owner=world.users["buyer"])
    service.archive(actor=world.users["marketer"], audience=world.draft, reason="Never used")
    client = as_(world, "buyer")
    chips = {chip.value: chip.count for chip in client.get("/audiences/").context["catalog"].chips}
    assert chips == {"": 2, "retargeting": 1, "suppression": 1, "mine": 1, "following": 1, "archived": 1}
    for value, number in chips.items():
        assert len(keys(client, only=value)) == number, value
    assert keys(client, only="mine") == ["meta_cart_24h"]
    assert keys(client, only="following") == ["meta_buyers_7d"]
    assert keys(client, only="archived") == ["not_yet"]
    assert keys(client, only="no-such-thing") == keys(client)


def test_filters_by_destination_channel_owner_and_the_parts_of_a_name(world):
    NamingConvention.objects.all().delete()
    naming.adopt_starter(actor=world.users["marketer"])
    Audience.objects.filter(pk=world.cart.pk).update(name_tokens={"intent": "cart", "window": "24h"})
    Audience.objects.filter(pk=world.buyers.pk).update(name_tokens={"intent": "purchasers", "window": "7d"})
    client, buyer = as_(world, "buyer"), world.users["buyer"]
    Audience.objects.filter(pk=world.buyers.pk).update(alert_owner=buyer)
    assert keys(client, destination="meta_main") == ["meta_cart_24h"]
    assert keys(client, channel="meta") == ["meta_cart_24h"]
    assert keys(client, channel="google") == []
    assert keys(client, owner=str(buyer.pk)) == ["meta_buyers_7d"]
    assert keys(client, window="7d") == ["meta_buyers_7d"]
    assert keys(client, intent="cart", window="7d") == []
    selects = {one.name: one for one in client.get("/audiences/?window=24h").context["catalog"].selects}
    assert selects["window"].chosen == "24h"
    assert {option.value: option.count for option in selects["window"].options} == {"24h": 1, "7d": 1}


def test_without_a_convention_no_part_of_a_name_is_a_filter(world):
    NamingConvention.objects.all().delete()
    assert keys(as_(world, "buyer"), window="7d") == keys(as_(world, "buyer"))


def test_the_address_keeps_what_was_asked_and_nothing_else(world):
    client = as_(world, "buyer")
    response = client.get("/audiences/?q=cart&only=&destination=&owner=", headers={"HX-Request": "true"})
    assert response["HX-Push-Url"] == "/audiences/?q=cart"
    assert 'data-copy="http://testserver/audiences/?q=cart"' in text(response)
    assert "<html" not in text(response)


def test_each_empty_state_says_what_is_so(world):
    client = as_(world, "marketer")
    assert "No audience matches “zebra”" in text(client.get("/audiences/?q=zebra"))
    assert "Nothing is archived" in text(client.get("/audiences/?only=archived"))
    assert "No audience passes these filters" in text(client.get("/audiences/?destination=nowhere"))
    with frozen.set_aside():
        Audience.objects.update(live_version=None)
        SpotCheck.objects.all().delete()
        Membership.objects.all().delete()
        Refresh.objects.all().delete()
        Audience.objects.all().delete()
    page = text(client.get("/audiences/"))
    assert "No audiences yet" in page
    assert 'href="/audiences/new/"' in page
    assert 'href="/audiences/new/"' not in text(as_(world, "buyer").get("/audiences/")), "not for a buyer"


# --- What a line says.


def test_the_name_comes_first_and_is_what_is_copied(world):
    Audience.objects.filter(pk=world.cart.pk).update(name="meta_cart_24h_v1")
    row = line(text(as_(world, "buyer").get("/audiences/")), world.cart.key)
    assert re.search(r'data-copy="([^"]+)"', row)[1] == "meta_cart_24h_v1"
    assert "meta_<wbr>cart_<wbr>24h_<wbr>v1" in row, "it breaks after its separators only"


def test_a_name_with_markup_is_shown_and_never_run(world):
    Audience.objects.filter(pk=world.cart.pk).update(name='<img src=x onerror="alert(1)">_' + "a" * 150)
    for address in ("/audiences/", f"/audiences/{world.cart.key}/"):
        page = text(as_(world, "buyer").get(address))
        assert "<img" not in page, address
        assert "&lt;img" in page, address


def test_size_is_said_in_words_where_no_count_is(world):
    row = line(text(as_(world, "buyer").get("/audiences/")), "not_yet")
    assert "Not counted" in row
    assert ">0<" not in row


def test_sent_received_and_matched_are_three_numbers_and_unknown_is_said(world):
    def told() -> str:
        row = line(text(as_(world, "buyer").get("/audiences/")), world.cart.key)
        return " ".join(re.sub(r"<[^>]+>", " ", row[row.index('class="told"') :].partition("</li>")[0]).split())

    assert told().startswith('class="told"> 1 sent → 1 received → Meta does not say matched')
    Mapping.objects.update(matched_low=31_000, matched_high=36_000)
    Ledger.objects.update(ever_sent_count=48_210, present_count=47_900)
    assert "48.2k sent → 47.9k received → 31k–36k matched" in told()
    Mapping.objects.update(state="rehearsal")
    Ledger.objects.update(ever_sent_count=0, present_count=0)
    assert "Nothing is sent in a rehearsal" in told()
    assert "0 sent" not in told()


def test_include_and_exclude_are_copied_by_their_names_on_that_platform(world):
    Mapping.objects.filter(pk=world.mapping.pk).update(remote_name="cart on Meta")
    other = Destination.objects.create(
        key="google_main", name="Google", kind="google", config={"account_id": "1"}, state="connected",
        account=Account.objects.create(key="google:1"),
    )  # fmt: skip
    Mapping.objects.create(
        audience=world.cart, destination=other, state="live", remote_id="7", remote_name="cart there"
    )
    client = as_(world, "buyer")
    row = line(text(client.get("/audiences/")), world.cart.key)
    assert "Include:" not in row, "the buyers go nowhere yet"
    assert row.count("its suppression is not there") == 2
    suppress_there(world)
    row = line(text(client.get("/audiences/")), world.cart.key)
    assert 'data-copy="Include: cart on Meta\nExclude: buyers on Meta"' in row
    assert "pairs with" in row
    assert row.count("its suppression is not there") == 1, "on Google it still is not"
    Mapping.objects.filter(audience=world.buyers).update(state="rehearsal")
    assert "Include:" not in line(text(client.get("/audiences/")), world.cart.key), "a rehearsal is not there"


def test_retargeting_with_no_suppression_says_so_and_leads_to_the_pair(world):
    world.cart.excluded_by.clear()
    assert "no suppression beside it" in line(text(as_(world, "buyer").get("/audiences/")), world.cart.key)
    row = line(text(as_(world, "marketer").get("/audiences/")), world.cart.key)
    assert f'href="/audiences/{world.cart.key}/pair/"' in row


def test_open_in_the_ad_account_leads_to_the_audience_there(world):
    def link() -> str:
        row = line(text(as_(world, "buyer").get("/audiences/")), world.cart.key)
        found = re.search(r'href="([^"]+)" target="_blank"', row)
        return found[1] if found else ""

    assert link() == "https://business.facebook.com/adsmanager/audiences?act=1&selected_audience_ids=2385"
    Destination.objects.update(base_url="http://127.0.0.1:9009")
    assert link() == "http://127.0.0.1:9009/accounts/meta/1/2385/"
    Mapping.objects.update(remote_id="")
    assert link() == ""


def test_an_open_incident_is_the_health_and_comes_first(world):
    incident = Incident.objects.create(
        kind="size", subject=f"audience:{world.buyers.pk}", audience=world.buyers, severity="critical",
        sentence="Dropped 41% since Mon 09:00.", since=timezone.now() - timedelta(hours=2),
    )  # fmt: skip
    client = as_(world, "buyer")
    assert keys(client)[0] == "meta_buyers_7d"
    assert keys(client, only="attention") == ["meta_buyers_7d"]
    row = line(text(client.get("/audiences/")), world.buyers.key)
    assert "Problem" in row
    assert "Dropped 41% since Mon 09:00." in row
    Incident.objects.filter(pk=incident.pk).update(acknowledged_by=world.users["operator"])
    assert "Operator is on it" in line(text(client.get("/audiences/")), world.buyers.key)
    Incident.objects.filter(pk=incident.pk).update(recovered_at=timezone.now())
    assert "Healthy" in line(text(client.get("/audiences/")), world.buyers.key)


def test_a_connections_incident_is_its_audiences(world):
    Incident.objects.create(
        kind="run", subject=f"mapping:{world.mapping.pk}", mapping=world.mapping, severity="warning",
        sentence="The last sync failed.", since=timezone.now(),
    )  # fmt: skip
    assert keys(as_(world, "buyer"), only="attention") == [world.cart.key]


def test_what_keeps_a_connection_from_its_work_is_the_audiences_trouble(world):
    def words() -> str:
        return line(text(as_(world, "buyer").get("/audiences/")), world.cart.key)

    assert "Healthy" in words()
    Run.objects.create(mapping=world.mapping, state="failed", trigger="schedule")
    assert "The last sync to Meta EU failed." in words()
    Mapping.objects.update(blocked_reason="The audience is gone there.")
    assert "Stopped on Meta EU: The audience is gone there." in words()
    Destination.objects.update(state="refused")
    assert "Meta EU refuses our token" in words()
    Mapping.objects.update(state="rehearsal")
    assert "Healthy" in words(), "a rehearsal sends nothing"


def test_an_audience_in_test_says_until_when(world):
    until = timezone.now() + timedelta(days=3)
    Lock.objects.create(audience=world.cart, until=until, note="A against B", set_by=world.users["buyer"])
    assert f"In test until {until:%-d %b}" in line(text(as_(world, "buyer").get("/audiences/")), world.cart.key)


def test_the_band_is_as_wide_as_the_limits_that_somebody_has_set(world):
    grown(world.cart, usual=1000, now=1000)

    def band() -> str:
        lines = as_(world, "buyer").get("/audiences/").context["lines"]
        return next(one.spark.words for one in lines if one.found.audience == world.cart)

    low, high = 1000 * (1 - queries.SWING), 1000 * (1 + queries.SWING)
    assert band().endswith(f"an alert below {low:,.0f} or above {high:,.0f}")
    Limits.objects.create(audience=world.cart, size_share=0.5)
    assert band().endswith("an alert below 500 or above 1,500")


def test_following_works_from_its_row_and_leads_back_to_it(world):
    client, buyer = as_(world, "buyer"), world.users["buyer"]
    address = f"/audiences/{world.cart.key}/follow/"
    response = client.post(address, {"follows": "1", "next": "/audiences/?q=cart"})
    assert response["Location"] == "/audiences/?q=cart"
    assert list(buyer.follows.all()) == [world.cart]
    part = text(client.post(address, {}, headers={"HX-Request": "true"}))
    assert 'aria-pressed="false"' in part
    assert not buyer.follows.exists()
    assert client.get(address).status_code == 405
    outside = client.post(address, {"follows": "1", "next": "https://evil.example/"})
    assert outside["Location"].startswith("/audiences/")


# --- How much it asks.


def asked(number: int) -> int:
    cache.clear()
    admin = User.objects.get(role="admin")
    many.audiences(number, admin)
    client = Client()
    client.force_login(admin)
    client.get("/audiences/")
    with CaptureQueriesContext(
        connection,
    ) as captured:
        response = client.get("/audiences/")
    assert len(response.context["lines"]) == number
    return len(captured)


@pytest.mark.parametrize("number", [3, 30])
def test_it_asks_as_much_for_three_audiences_as_for_thirty(number):
    """Session, user, workspace; the convention, people, follows, connections, incidents and audiences; then what one page of them shows."""
    filled.users()
    assert asked(number) == 16


def test_pages_of_fifty(world):
    for index in range(60):
        Audience.objects.create(key=f"more_{index:02}", name=f"more_{index:02}", purpose="analytics")
    client = as_(world, "buyer")
    assert len(client.get("/audiences/").context["lines"]) == 50
    assert len(client.get("/audiences/?page=2").context["lines"]) == 13
    assert len(client.get("/audiences/?page=99999999999999").context["lines"]) == 13
    assert catalog.Wish().any is False
