"""Publishing beside in the browser's own words: the choice and its date, what is shown of both audiences, moving the date, keeping both, the alert."""

import re
from datetime import date, timedelta
from html import unescape
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from audiences import jobs
from audiences.models import Audience, Job, Replacement, Review, SegmentVersion, User
from audiences.services import audiences, locks, versions
from audiences.services import replacements as service
from destinations.models import Mapping
from destinations.services.replacements import TASK
from qa import review_mail, watch
from qa.models import Incident, Mail
from tests.audiences.people_in import until_counted
from tests.filled import Filled, as_, audience
from tests.qa import carts as shop
from tests.qa.carts import CARTS, FEWER, SAME, change, draft, live

pytestmark = pytest.mark.django_db(transaction=True)  # a count takes in what is committed
REVIEW, BOTH = "/audiences/carts/review/", "/audiences/carts/replacement/"


@pytest.fixture
def world() -> Filled:
    return shop.world()


@pytest.fixture
def carts(world: Filled) -> Audience:
    made = shop.carts(world)
    made.excluded_by.add(world.buyers)
    Mapping.objects.create(audience=made, destination=world.destination, identifiers=["email"], state="live")
    Mapping.objects.create(audience=world.buyers, destination=world.destination, identifiers=["email"], state="live")
    return made


def words(response: Any, status: int = 200) -> str:
    assert response.status_code == status, response.content[:300]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", response.content.decode().replace("<wbr>", ""))).split())


def form(client: Client, **typed: str) -> dict[str, str]:
    """What the review's form sends, with this typed."""
    context = client.get(REVIEW).context
    version = context["version"]
    sent = {"version": str(version.number), "saw": context["saw"], "sha256": version.sha256}
    return {**sent, "how": "beside", "retires_on": context.get("retires_on", ""), "reason": "An hour more", **typed}


def published(world: Filled, carts: Audience, role: str = "marketer") -> Replacement:
    version = draft(carts, SAME, world.users[role])
    retires_at = timezone.now() + timedelta(days=14)
    service.publish(actor=world.users[role], version=version, reason="An hour more", retires_at=retires_at)
    jobs.run_now(TASK, "")
    return Replacement.objects.select_related("old", "new").get()


def test_the_choice_says_what_happens_to_ad_sets_and_a_fortnight_is_proposed(world: Filled, carts: Audience) -> None:
    draft(carts, SAME, world.users["marketer"])
    response = as_(world, "marketer").get(REVIEW)
    text = words(response)
    assert "Replace the same remote audience, renamed Ad sets that run on it go on" in text
    assert "Publish beside a second remote audience Ad sets that run on the old one keep it as it is" in text
    assert "On the date the old one is emptied" in text and "carts_v2" in text
    html = response.content.decode()
    assert f'value="{date.today() + timedelta(days=14)}"' in html
    assert re.search(r'value="replace" checked', html) and not re.search(r'value="beside" checked', html)


def test_a_first_version_has_no_such_choice(world: Filled, carts: Audience) -> None:
    draft(world.draft, CARTS, world.users["marketer"])
    assert "Publish beside" not in words(as_(world, "marketer").get(f"/audiences/{world.draft.key}/review/"))


def test_rules_that_name_the_old_one_are_listed_with_links_before_it_is_published(
    world: Filled, carts: Audience
) -> None:
    audience("both", {"all": [{"audience": "carts"}, CARTS]}, world.users["marketer"], "analytics")
    draft(carts, SAME, world.users["marketer"])
    response = as_(world, "marketer").get(REVIEW)
    assert "both That rule goes on meaning the old one, which cannot retire while it does." in words(response)
    assert 'href="/audiences/both/edit/"' in response.content.decode()


def test_a_small_change_is_published_beside_and_its_page_shows_both(world: Filled, carts: Audience) -> None:
    draft(carts, SAME, world.users["marketer"])
    client = as_(world, "marketer")
    until_counted()
    sent = form(client)
    response = client.post(reverse("qa:publish-reviewed", args=["carts"]), sent, follow=True)
    text = words(response)
    assert response.redirect_chain[-1][0] == "/audiences/carts_v2/replacement/"
    assert "v2 is live as carts_v2, beside carts" in text and "The connections of carts are being copied" in text
    assert 'hx-trigger="every 2s"' in response.content.decode()
    assert Job.objects.get(task=TASK).due_at is not None, "a worker is asked"
    row = Replacement.objects.get()
    assert row.retires_at is not None
    assert row.retires_at.astimezone(ZoneInfo("Europe/Berlin")).isoformat()[:16] == f"{sent['retires_on']}T00:00"
    jobs.run_now(TASK, "")
    text = words(client.get(BOTH))
    assert "carts_v2 takes the place of carts, which retires on" in text and "every 2s" not in text
    assert "Meta EU Live Rehearsal Nothing stands against it: an admin or operator takes it live." in text
    assert "In the way" not in text and "would keep it from retiring" not in text
    for key, said in (
        ("carts", "Replaced by carts_v2 ; retires on"),
        ("carts_v2", "Published beside carts , which retires on"),
    ):
        assert said in words(client.get(f"/audiences/{key}/")), key
    assert "use carts_v2" in words(client.get("/audiences/"))
    again = client.post(reverse("qa:publish-reviewed", args=["carts"]), sent, follow=True)
    assert "v2 is live already" in words(again) and Replacement.objects.count() == 1


def test_a_link_to_the_draft_leads_to_what_became_of_it(world: Filled, carts: Audience) -> None:
    published(world, carts)
    client = as_(world, "buyer")
    assert client.get("/audiences/carts/versions/2/").headers["Location"] == "/audiences/carts_v2/versions/2/"
    assert client.get(f"{REVIEW}?version=2").headers["Location"] == "/audiences/carts_v2/review/?version=2"
    assert client.get("/audiences/carts_v2/review/?version=2").status_code == 200
    assert client.get("/audiences/carts/versions/9/").status_code == 404


@pytest.mark.parametrize("day", ["", "tomorrow", "2026-02-30", "0001-01-01", "9999-12-31", "1" * 5_000, "2020-01-01"])
def test_a_day_that_is_none_is_said_and_nothing_that_was_typed_is_lost(
    world: Filled, carts: Audience, day: str
) -> None:
    draft(carts, SAME, world.users["marketer"])
    client = as_(world, "marketer")
    for name in ("qa:publish-reviewed", "qa:ask-review"):
        sent = form(client) | {"retires_on": day, "reason": "Because <b>"}
        response = client.post(reverse(name, args=["carts"]), sent)
        text = words(response, 422)
        assert "old one" in text and "Because <b>" in text
        assert re.search(r'value="beside" checked', response.content.decode())
    assert not Replacement.objects.exists() and not Review.objects.exists()


def test_a_large_change_is_asked_for_beside_and_approved_as_it_was_asked_for(world: Filled, carts: Audience) -> None:
    draft(carts, FEWER, world.users["marketer"])
    asker, approver = as_(world, "marketer"), as_(world, "admin")
    until_counted()
    asker.post(reverse("qa:ask-review", args=["carts"]), form(asker))
    text = words(approver.get(REVIEW))
    assert "Published beside, it becomes a second audience." in text and "Publish beside a second" not in text
    review_mail.tell()
    mail = Mail.objects.get()
    assert "Beside" in mail.text and "carts retires" in mail.text
    sent = form(approver, typed="carts", words="Both then")
    response = approver.post(reverse("qa:approve-review", args=["carts"]), sent, follow=True)
    assert "v2 is approved and live as carts_v2, beside carts" in words(response)
    jobs.run_now(TASK, "")
    copy = Mapping.objects.get(audience__key="carts_v2")
    assert copy.state == "live", "who approved may start connections, and the suppression stands there"
    review_mail.tell()
    assert Mail.objects.latest("pk").subject == "APPROVED | carts_v2 | v2"
    assert "beside carts" in Mail.objects.latest("pk").text


def test_an_approver_who_saw_the_other_way_is_shown_this_one_first(world: Filled, carts: Audience) -> None:
    left = change(carts, world.users["marketer"])
    approver = as_(world, "admin")
    sent = form(approver, typed="carts")
    retires_at = timezone.now() + timedelta(days=3)
    service.publish(actor=world.users["marketer"], version=left, reason="Beside", retires_at=retires_at)
    response = approver.post(reverse("qa:approve-review", args=["carts"]), sent)
    assert "It has been changed since you opened this page" in words(response, 409)
    assert not Replacement.objects.exists()


def test_who_is_alone_approves_it_beside(world: Filled, carts: Audience) -> None:
    User.objects.exclude(role="admin").update(is_active=False)
    own = dict.fromkeys(("definition_owner", "sync_owner", "alert_owner"), world.users["admin"])
    audiences.set_owners(actor=None, audience=carts, **own)
    draft(carts, FEWER, world.users["admin"])
    client = as_(world, "admin")
    until_counted()
    sent = form(client, typed="carts", words="Alone here")
    response = client.post(reverse("qa:approve-review", args=["carts"]), sent, follow=True)
    assert "self-approved and live as carts_v2" in words(response)


def test_in_test_it_is_published_beside_at_once_and_in_its_place_when_the_test_ends(
    world: Filled, carts: Audience
) -> None:
    until = timezone.now() + timedelta(days=20)
    locks.set_lock(actor=world.users["buyer"], audience=carts, until=until, note="Creative")
    draft(carts, SAME, world.users["marketer"])
    client = as_(world, "marketer")
    until_counted()
    sent = form(client)
    response = client.post(reverse("qa:publish-reviewed", args=["carts"]), sent | {"how": "replace"}, follow=True)
    assert "is published when the test ends" in words(response)
    client.post(reverse("audiences:stop-waiting", args=["carts", 2]))
    client.post(reverse("qa:publish-reviewed", args=["carts"]), form(client))
    jobs.run_now(TASK, "")
    assert Audience.objects.filter(key="carts_v2").exists()
    text = words(client.get(BOTH))
    assert "What would keep it from retiring" in text and "carts is in test until" in text
    assert "In the way of carts: carts is in test until" in words(client.get("/audiences/carts/"))


def test_the_date_is_moved_and_both_are_kept_on_the_page(world: Filled, carts: Audience) -> None:
    row = published(world, carts)
    client = as_(world, "marketer")
    move, keep = reverse("qa:move-end", args=["carts"]), reverse("qa:keep-both", args=["carts"])
    sent = {"replacement": str(row.pk), "retires_on": str(date.today() + timedelta(days=40))}
    assert "retires at the beginning of" in words(client.post(move, sent, follow=True))
    assert "choose" in words(client.post(move, sent | {"retires_on": "soon"}), 422).lower()
    assert "Say why" in words(client.post(keep, sent | {"reason": ""}), 422)
    kept = words(client.post(keep, sent | {"reason": "It sells"}, follow=True))
    assert "carts and carts_v2 go on side by side" in kept and "Let it retire after all" in kept
    assert "Replaced by" not in words(client.get("/audiences/carts/"))
    assert "which is kept too" in words(client.get("/audiences/carts_v2/"))
    assert "retires at the beginning of" in words(client.post(move, sent, follow=True))
    for forged in ("", "x", "²", "999999", str(row.pk) * 9):
        assert client.post(move, sent | {"replacement": forged}).status_code == 404
    assert client.post(reverse("qa:keep-both", args=[world.cart.key]), sent).status_code == 404


def test_who_may_not_publish_sees_no_form_and_an_audience_that_nothing_replaces_says_so(
    world: Filled, carts: Audience
) -> None:
    published(world, carts)
    buyer = as_(world, "buyer")
    assert 'name="retires_on"' not in buyer.get(BOTH).content.decode()
    assert "Nothing takes its place" in words(buyer.get(f"/audiences/{world.cart.key}/replacement/"))


def test_what_hinders_it_on_the_date_is_alerted_to_the_owner_once_and_over_when_it_has_retired(
    world: Filled, carts: Audience
) -> None:
    row = published(world, carts)
    Mapping.objects.filter(audience=row.new).update(state="live")
    audience("both", {"all": [{"audience": "carts"}, CARTS]}, world.users["marketer"], "analytics")
    Replacement.objects.update(retires_at=timezone.now() - timedelta(minutes=1))
    for _ in range(3):
        jobs.run_now(TASK, "")
        watch.look()
    incident = Incident.objects.get(kind="retire")
    assert incident.audience == carts and incident.owner == world.users["marketer"]
    assert "The rule of both names carts" in incident.sentence
    assert Mail.objects.filter(incident=incident).count() == 1
    client = as_(world, "marketer")
    text = words(client.get("/audiences/carts/"))
    assert "it was to retire on" in text and "In the way" not in text, "the alert says what is"
    assert "The rule of both names carts" in text
    assert "In the way of carts: The rule of both" in words(client.get("/audiences/carts_v2/"))
    assert "What keeps it from retiring" in words(client.get(BOTH))
    assert "The rule of both names carts" in words(client.get("/"))
    named = versions.save_draft(actor=None, audience=Audience.objects.get(key="both"), segment=CARTS)
    versions.publish(actor=None, version=named, reason="By itself", override="for the test")
    jobs.run_now(TASK, "")
    watch.look()
    incident.refresh_from_db()
    assert incident.recovered_words == "Nothing hinders its retirement any more."
    assert "it is being emptied" in words(client.get("/audiences/carts/"))
    assert Mapping.objects.get(audience=carts).state == "retired"


def test_in_its_place_nothing_is_as_it_was_not(world: Filled, carts: Audience) -> None:
    draft(carts, SAME, world.users["marketer"])
    client = as_(world, "marketer")
    until_counted()
    sent = form(client, how="replace")
    response = client.post(reverse("qa:publish-reviewed", args=["carts"]), sent, follow=True)
    assert "v2 is live and is being counted" in words(response) and not Replacement.objects.exists()
    now = live(carts)
    assert now is not None and now.number == 2
    stale = client.post(reverse("qa:publish-reviewed", args=["carts"]), sent, follow=True)
    assert "v2 is live already" in words(stale)
    draft(carts, FEWER, world.users["marketer"])
    sent = form(client, how="replace", sha256="0" * 64)
    assert client.post(reverse("qa:publish-reviewed", args=["carts"]), sent).status_code == 409
    assert SegmentVersion.objects.get(audience=carts, number=3).state == "draft"
