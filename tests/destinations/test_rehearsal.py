"""The rehearsal page: what would be told to a platform, what stands in the way, and that nothing whole of a person is on it."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone
from pyroaring import BitMap

from audiences.bitmaps import pack
from audiences.models import Workspace
from audiences.services import versions
from destinations.models import Destination, Hold, Ledger, Mapping, Run
from destinations.services import mappings, runs
from tests import filled
from tests.audiences.people_in import identify, track
from tests.destinations import scene
from tests.filled import as_

pytestmark = pytest.mark.django_db
COUNTED = pytest.mark.django_db(transaction=True)  # a count takes in what is committed


@pytest.fixture
def world() -> filled.Filled:
    return filled.fill()


@pytest.fixture
def rehearsing(world) -> Mapping:
    """The filled connection, back where connections start."""
    Ledger.objects.filter(mapping=world.mapping).update(present=b"", ever_sent=b"", present_count=0, ever_sent_count=0)
    Mapping.objects.filter(pk=world.mapping.pk).update(state="rehearsal", remote_id="", remote_name="")
    world.mapping.refresh_from_db()
    return world.mapping


def rehearsed(mapping: Mapping, **fields: object) -> Run:
    now = timezone.now()
    values = {
        "state": "done", "planned_adds": 24_812, "planned_removes": 0, "unchanged": 3, "batches_planned": 3,
        "started_at": now - timedelta(seconds=4), "finished_at": now, "refresh": mapping.audience.membership.refresh,
        "sample_payload": '{"data": [["9f86d0…"]]}',
    }  # fmt: skip
    return Run.objects.create(mapping=mapping, trigger="person", rehearsal=True, **{**values, **fields})


def text(response) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


def page(world: filled.Filled, role: str = "operator"):
    return as_(world, role).get(f"/connections/{world.mapping.pk}/rehearsal/")


def test_before_the_first_it_says_so_and_offers_one(world, rehearsing):
    response = page(world)
    assert "Not rehearsed yet" in text(response)
    assert f'action="/connections/{rehearsing.pk}/rehearse/"' in response.content.decode()
    assert "Go live" not in text(response), "who goes live looks at a rehearsal first"


@COUNTED
def test_a_real_rehearsal_shows_its_numbers_and_nothing_whole_of_anybody(world, sandbox, account_number):
    identify("cleo", email="cleo@shop.example")
    track("cleo", "add_to_cart", product="Sea boots")
    mapping = mappings.create(
        actor=None,
        audience=world.cart,
        destination=scene.destination(sandbox, account_number),
        identifiers=["email", "phone"],
    )
    client = as_(world, "operator")
    client.post(f"/connections/{mapping.pk}/rehearse/")
    run = runs.run_to_end(Run.objects.get(mapping=mapping))
    response = client.get(f"/connections/{mapping.pk}/rehearsal/")
    words = text(response)
    assert run.state == "done", run.error
    assert "It would add 2 people, in 1 call" in words
    assert "Who is really sent" in words
    for whole in ("cleo@shop.example", "ann@shop.example", "+4915112345678", "4915112345678"):
        assert whole not in response.content.decode()
        assert scene.sha(whole) not in response.content.decode()
    assert not re.search(r"[0-9a-f]{64}", response.content.decode())
    assert sandbox.calls("meta", account_number) == []


def test_asking_twice_makes_one_rehearsal(world, rehearsing):
    client = as_(world, "marketer")
    for _ in range(2):
        response = client.post(f"/connections/{rehearsing.pk}/rehearse/")
    assert response.url == f"/connections/{rehearsing.pk}/rehearsal/"
    assert Run.objects.filter(rehearsal=True).count() == 1


def test_while_one_runs_the_page_asks_for_it_and_shows_the_one_before(world, rehearsing):
    rehearsed(rehearsing)
    going = Run.objects.create(mapping=rehearsing, trigger="person", rehearsal=True, state="counting")
    client = as_(world, "operator")
    address = f"/connections/{rehearsing.pk}/rehearsal/"
    fragment = {"HX-Request": "true", "HX-Target": "rehearsal"}
    assert "Counting who is in it" in text(client.get(address))
    polled = client.get(address, headers=fragment)
    assert polled.status_code == 200
    assert "<html" not in polled.content.decode()
    assert "24,812" in text(polled)
    Run.objects.filter(pk=going.pk).update(state="done", planned_adds=7, finished_at=timezone.now())
    ended = client.get(address, headers=fragment)
    assert ended.status_code == 286
    assert "It would add 7 people" in text(ended)


def test_what_broke_off_says_why_and_hides_nothing_of_the_one_before(world, rehearsing):
    rehearsed(rehearsing)
    rehearsed(rehearsing, state="failed", planned_adds=None, error="Meta does not accept the credentials. Reconnect.")
    words = text(page(world))
    assert "The last rehearsal broke off" in words
    assert "Meta does not accept the credentials" in words
    assert "24,812" in words


def test_an_old_rehearsal_says_that_it_is_old_and_why(world, rehearsing):
    rehearsed(rehearsing, finished_at=timezone.now() - timedelta(days=2))
    assert "It is more than a day old" in text(page(world))
    draft = versions.save_draft(actor=None, audience=world.cart, segment=filled.BUYERS)
    versions.publish(actor=None, version=draft, reason="Other people", override="for the test")
    assert "v2 has gone live since; this was rehearsed under v1" in text(page(world))


def test_what_stands_in_the_way_is_listed_the_worst_first(world, rehearsing):
    rehearsed(rehearsing)
    Workspace.objects.update(consent_policy=None)
    Destination.objects.update(state="refused", state_words="Meta no longer accepts the access token.")
    Mapping.objects.filter(pk=rehearsing.pk).update(blocked_reason="Terms are not accepted")
    Hold.objects.create(mapping=rehearsing, direction="adds", rule="stale_feed", reason="No purchase for 6 h")
    response = page(world)
    checks = response.context["checks"]
    assert [check.state for check in checks] == sorted(
        (check.state for check in checks), key=["stop", "watch", "good"].index
    )
    words = text(response)
    for said in (
        "consent policy",
        "no longer accepts the access token",
        "Terms are not accepted",
        "No purchase for 6 h",
        "Going live is refused until this is put right",
    ):
        assert said in words, said


def test_a_gate_that_objects_is_heard_before_anybody_presses_go_live(world, rehearsing):
    rehearsed(rehearsing)
    response = page(world)
    assert response.context["objection"], "its suppression audience is not on this destination"
    assert response.context["objection"] in response.content.decode().replace("&#x27;", "'").replace("&quot;", '"')
    refused = as_(world, "operator").post(f"/connections/{rehearsing.pk}/do/live/", {"reason": "x"})
    assert refused.status_code == 422
    rehearsing.refresh_from_db()
    assert rehearsing.state == "rehearsal"


def test_many_removals_are_announced(world):
    Ledger.objects.filter(mapping=world.mapping).update(present_count=1_000)
    rehearsed(world.mapping, planned_removes=900)
    assert "It would remove 900 of 1,000 people, more than the 50% that go without asking" in text(page(world))


def test_a_live_connection_has_the_page_too_and_no_button_to_go_live(world):
    rehearsed(world.mapping)
    words = text(page(world))
    assert "Rehearse again" in words
    assert "Go live" not in words


def test_a_buyer_sees_the_numbers_and_not_what_is_about_people(world, rehearsing):
    run = rehearsed(rehearsing)
    client = as_(world, "buyer")
    for address in (f"/connections/{rehearsing.pk}/rehearsal/", f"/runs/{run.pk}/", f"/connections/{rehearsing.pk}/"):
        body = client.get(address).content.decode()
        assert "9f86d0" not in body, address
    assert "24,812" in text(page(world, "buyer"))
    assert client.post(f"/connections/{rehearsing.pk}/rehearse/").status_code == 403


def test_a_number_that_is_not_there_is_404_and_a_lost_connector_still_a_page(world, rehearsing):
    assert as_(world, "admin").get("/connections/999999/rehearsal/").status_code == 404
    rehearsed(rehearsing)
    Destination.objects.update(kind="vanished")
    assert page(world).status_code == 200


def test_it_takes_a_fixed_number_of_queries(world, rehearsing, django_assert_max_num_queries):
    for _ in range(10):
        rehearsed(rehearsing)
    client = as_(world, "operator")
    client.get(f"/connections/{rehearsing.pk}/rehearsal/")
    with django_assert_max_num_queries(26):
        client.get(f"/connections/{rehearsing.pk}/rehearsal/")


def test_an_uncounted_audience_shows_no_zero(world, rehearsing):
    empty = Mapping.objects.create(audience=world.draft, destination=world.destination, identifiers=["email"])
    Ledger.objects.create(mapping=empty, base=pack(BitMap()))
    response = as_(world, "operator").get(f"/connections/{empty.pk}/rehearsal/")
    words = text(response)
    assert "The audience has no published rule yet" in words
    assert "the audience has not been counted yet" in words
