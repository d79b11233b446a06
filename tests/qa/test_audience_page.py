"""An audience's page: how it is, what it means, where it goes, who answers for it; each role's buttons; and how little it asks."""

import html
import re
from datetime import date, datetime, timedelta

import pytest
from django.core.cache import cache
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from audiences import clock
from audiences.models import Audience, AuditEntry, Job, Membership, Refresh, SegmentVersion
from audiences.models import TestLock as Lock
from audiences.services import locks, versions
from destinations.models import Account, Destination, Hold, Ledger, Mapping, Run
from qa.models import Incident, Limits, Mail
from tests import filled
from tests.filled import as_
from tests.qa.curves import grown

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> filled.Filled:
    cache.clear()
    return filled.fill()


def text(response) -> str:
    return html.unescape(response.content.decode())


def words(response) -> str:
    """What is read, without markup."""
    return " ".join(re.sub(r"<[^>]+>", " ", text(response)).split())


def see(world: filled.Filled, role: str = "buyer", audience: Audience | None = None) -> str:
    return text(as_(world, role).get(f"/audiences/{(audience or world.cart).key}/"))


def read(world: filled.Filled, role: str = "buyer", audience: Audience | None = None) -> str:
    return words(as_(world, role).get(f"/audiences/{(audience or world.cart).key}/"))


def trouble(world: filled.Filled, **fields) -> Incident:
    values = {
        "kind": "size", "subject": f"audience:{world.cart.pk}", "audience": world.cart, "severity": "critical",
        "owner": world.users["marketer"], "since": timezone.now() - timedelta(hours=2),
        "sentence": "Dropped 41% since Mon 09:00; v7 was published 2 h before.", "remedy": "Go back to v6.",
    } | fields  # fmt: skip
    return Incident.objects.create(**values)


# --- The header.


def test_the_name_comes_before_the_key_and_is_copied(world):
    assert "Key meta_cart_24h" not in read(world), "one is enough where they are the same"
    Audience.objects.filter(pk=world.cart.pk).update(name="meta_retarget_cart_24h_v1")
    page = see(world)
    assert '<h1 class="mono">meta_<wbr>retarget_<wbr>cart_<wbr>24h_<wbr>v1</h1>' in page
    assert 'data-copy="meta_retarget_cart_24h_v1"' in page
    assert "Key meta_cart_24h" in read(world)


def test_health_is_a_sentence_with_people_and_the_age_of_the_last_sync(world):
    Run.objects.update(finished_at=timezone.now() - timedelta(minutes=12), state="done")
    assert "Healthy 1 person, synced 12 min ago ." in read(world)
    assert re.search(
        r"Healthy \d+ (person|people), counted just now , sent nowhere yet\.", read(world, audience=world.buyers)
    )
    assert "Not counted No rule is published yet." in read(world, audience=world.draft)


def test_an_open_incident_is_said_once_with_what_to_do_and_who_was_mailed(world):
    incident = trouble(world)
    sentence = "Dropped 41% since Mon 09:00; v7 was published 2 h before. Go back to v6."
    assert read(world).count(sentence) == 1
    Mail.objects.create(
        dedupe_key="one", incident=incident, to="marketer@example.com", subject="Down", text="Down", html="Down",
        message_id="<1@x>", state="sent", sent_at=timezone.now() - timedelta(hours=1),
    )  # fmt: skip
    assert "Since 2 h ago · Marketer was mailed 1 h ago" in read(world)
    Incident.objects.update(acknowledged_by=world.users["operator"])
    assert "Operator is on it" in read(world)
    Incident.objects.update(recovered_at=timezone.now())
    assert "Dropped 41% since Mon 09:00; v7" not in read(world).partition("The same as a table")[0]


def test_a_connections_incident_is_shown_too(world):
    trouble(
        world,
        audience=None,
        mapping=world.mapping,
        subject=f"mapping:{world.mapping.pk}",
        sentence="The token was refused.",
    )
    assert "The token was refused." in read(world)


def test_an_accounts_incident_is_shown_where_people_are_sent_there(world):
    fields = {"audience": None, "destination": world.destination, "subject": f"destination:{world.destination.pk}"}
    trouble(world, kind="token", sentence="Meta EU has refused our access.", **fields)
    assert "Meta EU has refused our access." in read(world)
    assert "Meta EU has refused our access." not in read(world, audience=world.buyers)
    Mapping.objects.update(state="rehearsal")
    assert "Meta EU has refused our access." not in read(world)


def test_a_test_says_who_and_until_when_and_a_broken_one_why(world):
    locks.set_lock(
        actor=world.users["buyer"], audience=world.cart, until=timezone.now() + timedelta(days=3), note="A or B"
    )
    page = read(world)
    assert "In test until" in page
    assert "A or B. Set by Buyer; the rule does not change before." in page
    locks.break_lock(actor=world.users["admin"], audience=world.cart, reason="The rule let buyers in")
    assert "“The rule let buyers in”" in read(world)
    assert Lock.objects.get().broken_by == world.users["admin"]


# --- The four numbers, and the curve.


def test_match_rate_is_of_what_was_received_and_unknown_is_never_nought(world):
    def rate() -> str:
        return read(world).partition("Match rate")[2].partition("Entered")[0].strip()

    assert rate() == "Meta does not say 1 received by Meta EU"
    Ledger.objects.update(ever_sent_count=50_000, present_count=48_000)
    Mapping.objects.update(matched_low=31_200, matched_high=36_000)
    assert rate() == "65–75% 31,200–36,000 of 48.0k received by Meta EU" or rate().startswith("65–75%")
    Ledger.objects.update(refresh=None)
    Mapping.objects.update(state="rehearsal", matched_low=None, matched_high=None)
    Ledger.objects.update(ever_sent_count=0, present_count=0)
    assert rate().startswith("Not known yet")


def test_entered_and_left_are_of_today_where_the_reader_is(world):
    Refresh.objects.filter(audience=world.cart).update(entered_count=30, left_count=4)
    assert "30 · 4" in read(world)
    long_ago = clock.to_us(timezone.now() - timedelta(days=2))
    Refresh.objects.filter(audience=world.cart).update(as_of_us=long_ago)
    assert "Not counted today" in read(world)


def test_the_next_sync_is_the_jobs(world):
    def due() -> str:
        return read(world).partition("Next sync")[2].partition("Counted every")[0].strip()

    assert due() == "None planned"
    Job.objects.create(
        task="destinations.sync", key=str(world.mapping.pk), due_at=timezone.now() + timedelta(minutes=5)
    )
    Job.objects.create(task="destinations.sync", key="999999", due_at=timezone.now())
    assert due() == "in 5 min"


def test_the_curve_has_versions_alerts_limits_and_a_table_of_the_same(world):
    grown(world.cart, usual=1000, now=590)
    draft = versions.save_draft(actor=world.users["marketer"], audience=world.cart, segment=filled.BUYERS)
    versions.publish(
        actor=world.users["marketer"], version=draft, reason="Buyers <b>instead</b>", override="for the test"
    )
    trouble(world)
    page = see(world)
    chart = page[page.index('<svg class="chart') : page.index("</svg>", page.index('<svg class="chart'))]
    assert "1 alert" in chart
    assert 'class="alert bad"' in chart
    assert 'class="band"' in chart
    assert ">v2<" in chart
    assert "<b>instead" not in as_(world, "buyer").get(f"/audiences/{world.cart.key}/").content.decode()
    table = page[page.index("The same as a table") :].partition("</table>")[0]
    first = table.partition("<tbody>")[2].partition("</tr>")[0]
    today = datetime.now(tz=timezone.get_default_timezone()).date()
    assert f"<td>{date.today():%a}" in first or f"<td>{today:%a}" in first
    assert '<td class="num">590</td>' in first
    assert "<td>v2</td>" in first
    assert "Dropped 41% since Mon 09:00" in first


def test_the_band_begins_anew_where_somebody_took_the_new_size_for_usual(world):
    grown(world.cart, usual=1000, now=590)
    client = as_(world, "buyer")

    def bands() -> int:
        return len(client.get(f"/audiences/{world.cart.key}/").context["portrait"].chart.bands)

    assert bands() == 1
    Limits.objects.create(audience=world.cart, usual_from=timezone.now() - timedelta(days=10))
    assert bands() == 2


def test_the_numbers_ask_again_while_a_count_runs_and_stop_when_it_is_done(world):
    client = as_(world, "buyer")
    address = f"/audiences/{world.cart.key}/"
    headers = {"HX-Request": "true", "HX-Target": "numbers"}
    running = Refresh.objects.create(
        audience=world.cart, version=world.cart.live_version, state="running", cause="manual", as_of_us=clock.now_us()
    )
    part = text(client.get(address, headers=headers))
    assert "<html" not in part
    assert 'hx-trigger="every 2s"' in part
    assert "Counting again" in part
    Refresh.objects.filter(pk=running.pk).update(state="done", count=1)
    assert "hx-trigger" not in text(client.get(address, headers=headers))


# --- What it means, where it goes.


def test_how_people_leave_is_said_and_never_is_red(world):
    page = read(world)
    assert "As soon as they do “purchase”" in page
    assert "24 hours after their last “add_to_cart”" in page
    forever = {"event": "add_to_cart", "count": {"at_least": 1}}
    draft = versions.save_draft(actor=world.users["marketer"], audience=world.cart, segment=forever)
    versions.publish(actor=world.users["marketer"], version=draft, reason="Ever", override="for the test")
    assert re.search(r'class="health is-bad[^"]*">.*?Never: whoever is in stays in', see(world), re.DOTALL)


def test_a_connection_says_all_it_knows_on_the_page_itself(world):
    Mapping.objects.update(remote_name="meta_cart_there", matched_low=31_000, matched_high=36_000)
    Ledger.objects.update(ever_sent_count=48_210, present_count=47_900, rejected_count=12)
    Mapping.objects.create(
        audience=world.buyers, destination=world.destination, state="live", remote_id="9", remote_name="buyers_there"
    )
    Hold.objects.create(mapping=world.mapping, direction="adds", rule="person", reason="Waits for the feed")
    page = see(world)
    assert "Sent 48,210 Received 47,900 Matched 31,000–36,000" in read(world)
    assert 'data-copy="Include: meta_cart_there\nExclude: buyers_there"' in page
    assert "Open in the ad account" in page
    assert "Stopped for safety" in page
    assert "Who is really sent: 1 of 1" in page
    assert "hx-get" not in page[page.index("Where it goes") : page.index("Recent runs")], "not by a second request"


def test_a_rehearsal_says_what_it_will_be_called_and_sends_nothing(world):
    Mapping.objects.update(state="rehearsal", remote_id="", remote_name="")
    Ledger.objects.update(ever_sent_count=0, present_count=0)
    page = read(world)
    assert "Will be called" in page
    assert "Sent Nothing: a rehearsal Received –" in page


def test_it_names_what_it_is_used_with(world):
    inside = {"all": [{"audience": "meta_cart_24h"}, {"event": "purchase", "count": {"exactly": 0}, "within": "3d"}]}
    filled.audience("meta_nested", inside, world.users["marketer"])
    page = read(world)
    assert "Pairs with meta_ buyers_ 7d" in page
    assert "In the rule of meta_ nested" in page
    assert "Left out of meta_ cart_ 24h" in read(world, audience=world.buyers)
    world.cart.excluded_by.clear()
    assert "No suppression" in read(world)
    assert 'href="/audiences/meta_cart_24h/pair/"' in see(world, "marketer")
    assert 'href="/audiences/meta_cart_24h/pair/"' not in see(world, "buyer")


def test_owners_are_named_and_a_missing_one_stands_out(world):
    Audience.objects.filter(pk=world.cart.pk).update(alert_owner=None)
    page = read(world)
    assert "Definition Marketer Match rate Marketer Alerts Nobody" in page


def test_the_checklist_is_beside_it(world):
    assert "Launch checklist" in see(world)
    assert len(as_(world, "buyer").get(f"/audiences/{world.cart.key}/").context["portrait"].checklist) == 8


# --- Who may do what.


def test_nobody_sees_a_button_that_is_never_theirs(world):
    address = f"/audiences/{world.cart.key}"
    posts = {role: set(re.findall(r'action="([^"]+)"', see(world, role))) for role in world.users}
    links = {role: set(re.findall(r'href="([^"#]+)"', see(world, role))) for role in world.users}
    for role in ("admin", "marketer", "operator"):
        assert {f"{address}/sync/", f"{address}/count/", f"{address}/follow/"} <= posts[role], role
        assert f"{address}/qa/" in links[role], role
    assert f"{address}/follow/" in posts["buyer"]
    assert not {f"{address}/sync/", f"{address}/count/"} & posts["buyer"]
    assert f"{address}/qa/" not in links["buyer"]
    assert f"{address}/test/" in links["buyer"], "a buyer marks it as in test"
    assert f"{address}/details/" in links["marketer"]
    assert f"{address}/details/" not in links["buyer"] | links["operator"]


def test_every_link_of_the_page_leads_somewhere_for_whoever_sees_it(world):
    trouble(world)
    for role in world.users:
        client = as_(world, role)
        links = re.findall(r'href="(/[^"#]*)"', text(client.get(f"/audiences/{world.cart.key}/")))
        for address in {link for link in links if not link.startswith("/static/")}:
            assert client.get(address).status_code in (200, 302), (role, address)


def test_an_archived_audience_is_only_to_be_looked_at(world):
    Mapping.objects.all().delete()
    Audience.objects.filter(pk=world.cart.pk).update(archived_at=timezone.now(), refresh_due_at=None)
    page = see(world, "admin")
    assert "Archived" in page
    assert f'action="/audiences/{world.cart.key}/sync/"' not in page
    assert f'action="/audiences/{world.cart.key}/count/"' not in page


def test_counting_is_asked_for_by_those_who_may_and_is_on_record(world):
    address = f"/audiences/{world.cart.key}/count/"
    assert as_(world, "buyer").post(address).status_code == 403
    assert as_(world, "marketer").get(address).status_code == 405
    response = as_(world, "marketer").post(address, follow=True)
    assert "It is being counted" in text(response)
    assert AuditEntry.objects.filter(verb="audience.refresh_asked", object_key=world.cart.key).count() == 1
    assert Audience.objects.get(pk=world.cart.pk).refresh_cause == "manual"
    refused = as_(world, "marketer").post(f"/audiences/{world.draft.key}/count/", follow=True)
    assert "has no published rule yet" in text(refused)


def test_a_draft_has_a_page_without_numbers(world):
    page = read(world, audience=world.draft)
    assert "No rule is published yet" in page
    assert "Not counted yet" in page
    assert "Sent nowhere yet" in page


# --- How much it asks.


def test_it_asks_as_much_for_four_connections_and_many_versions_as_for_one(world):
    def asked() -> int:
        cache.clear()
        client = as_(world, "admin")
        address = f"/audiences/{world.cart.key}/"
        client.get(address)
        with CaptureQueriesContext(connection) as captured:
            assert client.get(address).status_code == 200
        return len(captured)

    few = asked()
    refresh = Refresh.objects.filter(audience=world.cart).latest("pk")
    for number in range(3):
        target = Destination.objects.create(
            key=f"more_{number}", name=f"More {number}", kind="meta", config={"ad_account_id": f"act_{number}"},
            account=Account.objects.create(key=f"meta:more_{number}"),
        )  # fmt: skip
        mapping = Mapping.objects.create(
            audience=world.cart,
            destination=target,
            identifiers=["email"],
            state="live",
            remote_id=f"8{number}",
            first_live_at=timezone.now(),
        )
        Ledger.objects.create(mapping=mapping, refresh=refresh, ever_sent_count=1, present_count=1)
        Run.objects.create(mapping=mapping, state="done", trigger="schedule", finished_at=timezone.now())
        trouble(world, audience=None, mapping=mapping, subject=f"mapping:{mapping.pk}", kind="run")
        SegmentVersion.objects.create(audience=world.cart, number=10 + number, segment="{}", sentence="All.")
        Lock.objects.create(audience=world.cart, until=timezone.now() + timedelta(days=number + 1))
    trouble(world)
    assert Membership.objects.filter(audience=world.cart).exists()
    many = asked()
    assert many <= few + 2, "an open incident asks for its mail; a second connection for nothing more"
    assert many <= 70
