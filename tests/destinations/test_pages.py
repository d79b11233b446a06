"""The pages of destinations, connections and runs, as a browser without scripts sees them."""

from datetime import timedelta

import pytest
from django.utils import timezone
from pyroaring import BitMap

from audiences.bitmaps import pack
from audiences.models import AuditEntry, Identity, Workspace
from destinations.models import Destination, Hold, Ledger, Mapping, Rejection, Run
from destinations.sandbox.control import Sandbox
from destinations.services import runs
from tests import filled
from tests.destinations import scene
from tests.filled import as_

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> filled.Filled:
    return filled.fill()


def text(response) -> str:
    return response.content.decode()


def state(world: filled.Filled) -> str:
    world.mapping.refresh_from_db()
    return world.mapping.state


# --- Destinations.


def test_a_destination_is_connected_checked_and_its_secret_never_shown_again(world, sandbox: Sandbox, account_number):
    client = as_(world, "operator")
    form = {
        "name": "Meta test",
        "key": "meta_test",
        "base_url": sandbox.base_url,
        "ad_account_id": account_number,
        "access_token": "token-for-tests",
    }
    response = client.post("/destinations/new/meta/", form, follow=True)
    assert response.redirect_chain[-1][0] == "/destinations/meta_test/"
    made = Destination.objects.get(key="meta_test")
    assert made.state == "connected", made.state_words
    assert "Connected to" in text(response)
    for address in ("/destinations/meta_test/", "/destinations/meta_test/edit/", "/destinations/"):
        assert "token-for-tests" not in text(client.get(address)), address
    assert "token-for-tests" not in str(list(AuditEntry.objects.values_list("after", flat=True)))
    # A refused form does not give the secret back either.
    refused = client.post("/destinations/new/meta/", form)
    assert refused.status_code == 422
    assert "there is a destination" in text(refused).lower()
    assert "token-for-tests" not in text(refused)


def test_changing_settings_keeps_the_secrets_and_replacing_secrets_keeps_the_settings(world, sandbox, account_number):
    client = as_(world, "operator")
    form = {
        "name": "M",
        "key": "m",
        "base_url": sandbox.base_url,
        "ad_account_id": account_number,
        "access_token": "first",
    }
    client.post("/destinations/new/meta/", form)
    before = Destination.objects.get(key="m")
    client.post(
        "/destinations/m/edit/",
        {"part": "settings", "name": "Renamed", "base_url": sandbox.base_url, "ad_account_id": account_number},
    )
    after = Destination.objects.get(key="m")
    assert (after.name, after.credentials) == ("Renamed", before.credentials)
    client.post("/destinations/m/edit/", {"part": "secrets", "access_token": "second"})
    last = Destination.objects.get(key="m")
    assert last.credentials != before.credentials
    assert last.config == after.config
    other = client.post(
        "/destinations/m/edit/", {"part": "settings", "name": "Renamed", "base_url": "", "ad_account_id": "424242"}
    )
    assert other.status_code == 422
    assert "another account" in text(other)


def test_what_the_platform_says_is_shown_in_its_words(world, sandbox, account_number):
    client = as_(world, "operator")
    form = {
        "name": "M",
        "key": "m",
        "base_url": "http://127.0.0.1:9",
        "ad_account_id": account_number,
        "access_token": "t",
    }
    page = text(client.post("/destinations/new/meta/", form, follow=True))
    assert Destination.objects.get(key="m").state == "failing"
    assert Destination.objects.get(key="m").state_words in page


def test_a_form_names_each_wrong_field(world):
    response = as_(world, "operator").post(
        "/destinations/new/meta/", {"name": "", "key": "no spaces", "ad_account_id": "x", "access_token": ""}
    )
    assert response.status_code == 422
    page = text(response)
    for words in ("Letters, digits, _ and -", "An ad account is a number", "This field is required"):
        assert words in page


def test_the_list_of_destinations_takes_the_same_queries_for_many(world, django_assert_num_queries):
    client = as_(world, "buyer")
    client.get("/destinations/")
    with django_assert_num_queries(6):
        client.get("/destinations/")
    for index in range(20):
        made = Destination.objects.create(
            key=f"d{index}", name=f"D{index}", kind="meta", account=world.destination.account
        )
        mapping = Mapping.objects.create(audience=world.cart, destination=made)
        Run.objects.create(mapping=mapping, trigger="schedule", state="done")
    with django_assert_num_queries(6):
        client.get("/destinations/")


def test_a_destination_whose_connector_is_gone_still_has_a_page(world):
    Destination.objects.filter(pk=world.destination.pk).update(kind="vanished")
    client = as_(world, "admin")
    for address in ("/destinations/", "/destinations/meta_main/", f"/connections/{world.mapping.pk}/"):
        assert client.get(address).status_code == 200, address
    assert client.get("/destinations/meta_main/edit/").status_code == 404


# --- Connections.


def test_a_new_connection_shows_coverage_and_begins_as_a_rehearsal(world):
    client = as_(world, "operator")
    address = f"/connections/new/?audience={world.buyers.key}&destination=meta_main"
    response = client.get(address)
    coverage = {part.kind: (part.people, part.of) for part in response.context["coverage"]}
    assert coverage["email"] == (1, 1), "bob, the one buyer, has an e-mail"
    assert coverage["phone"] == (0, 1)
    assert response.context["form"].initial["identifiers"] == ["email", "external_id"]
    made = client.post(
        address,
        {"identifiers": ["email"], "cadence_seconds": "900", "removal_limit_percent": "50", "trial_percent": "1"},
    )
    mapping = Mapping.objects.get(audience=world.buyers)
    assert made["Location"] == f"/connections/{mapping.pk}/"
    assert mapping.state == "rehearsal"
    assert Run.objects.get(mapping=mapping).rehearsal


def test_a_connection_that_cannot_be_is_refused_at_its_field(world):
    client = as_(world, "operator")
    good = {"identifiers": ["email"], "cadence_seconds": "900", "removal_limit_percent": "50", "trial_percent": "1"}
    for query, form, words in (
        ("audience=not_yet&destination=meta_main", good, "does not take analytics audiences"),
        ("audience=no_such&destination=meta_main", good, "Select a valid choice"),
        (f"audience={world.cart.key}&destination=meta_main", good, "is connected to meta_main already"),
        (f"audience={world.buyers.key}&destination=meta_main", good | {"identifiers": []}, "This field is required"),
        (
            f"audience={world.buyers.key}&destination=meta_main",
            good | {"identifiers": ["country"]},
            "Needs at least one of",
        ),
        (
            f"audience={world.buyers.key}&destination=meta_main",
            good | {"identifiers": ["shoe_size"]},
            "Select a valid choice",
        ),
        (
            f"audience={world.buyers.key}&destination=meta_main",
            good | {"removal_limit_percent": "0"},
            "greater than or equal",
        ),
    ):
        response = client.post(f"/connections/new/?{query}", form)
        assert response.status_code == 422, query
        assert words in text(response), words
    assert Mapping.objects.count() == 1


def test_a_connection_goes_through_its_states_by_pages_whose_button_acts(world):
    client = as_(world, "operator")
    base = f"/connections/{world.mapping.pk}/do"
    assert client.get(f"{base}/pause/").status_code == 200
    assert state(world) == "live", "looking at the page changes nothing"
    client.post(f"{base}/pause/", {"reason": "too costly"})
    assert state(world) == "paused"
    assert "too costly" in text(client.get(f"/connections/{world.mapping.pk}/"))
    refused = client.post(f"{base}/resume/", {"reason": ""})
    assert refused.status_code == 422
    assert "meta_buyers_7d is not connected to Meta EU" in text(refused)
    assert state(world) == "paused"
    scene.allowed(world.mapping)
    client.post(f"{base}/resume/", {"reason": ""})
    assert state(world) == "live"
    past = timezone.localtime() - timedelta(days=1)
    for form, words in (
        ({"reason": "", "until": "2099-01-01T10:00"}, "This field is required"),
        ({"reason": "audit", "until": past.strftime("%Y-%m-%dT%H:%M")}, "must lie in the future"),
    ):
        response = client.post(f"{base}/freeze/", form)
        assert response.status_code == 422
        assert words in text(response)
    client.post(f"{base}/freeze/", {"reason": "audit", "until": "2099-01-01T10:00"})
    assert state(world) == "frozen"
    response = client.get(f"{base}/pause/", follow=True)
    assert "It is frozen now; that cannot be done from there." in text(response)
    client.post(f"{base}/retire/", {"reason": "over"})
    assert state(world) == "retired"


def test_retiring_many_people_asks_for_the_audiences_key(world):
    Ledger.objects.filter(mapping=world.mapping).update(present=pack(BitMap(range(20_000))), present_count=20_000)
    client = as_(world, "operator")
    address = f"/connections/{world.mapping.pk}/do/retire/"
    assert "Type the audience&#x27;s key to go on" in text(client.get(address))
    for typed in ("", "meta"):
        assert client.post(address, {"confirm": typed}).status_code == 422
    assert state(world) == "live"
    client.post(address, {"confirm": world.cart.key, "reason": "over"})
    assert state(world) == "retired"


def test_nothing_goes_live_before_consent_is_answered(world):
    Workspace.objects.update(consent_policy=None)
    Mapping.objects.filter(pk=world.mapping.pk).update(state="rehearsal")
    response = as_(world, "operator").post(f"/connections/{world.mapping.pk}/do/live/", {"reason": ""})
    assert response.status_code == 422
    assert "consent policy" in text(response)
    assert state(world) == "rehearsal"


def test_roles_that_only_look_find_no_button_and_no_way_in(world):
    page = text(as_(world, "buyer").get(f"/connections/{world.mapping.pk}/"))
    for word in ("Sync now", "Rehearse", "Pause…", "Retire…"):
        assert word not in page
    pk, run = world.mapping.pk, world.run.pk
    for address in (
        f"/connections/{pk}/do/pause/",
        f"/connections/{pk}/sync/",
        f"/connections/{pk}/rehearse/",
        f"/connections/{pk}/retry/",
        f"/connections/{pk}/edit/",
        f"/audiences/{world.cart.key}/sync/",
        f"/runs/{run}/cancel/",
        f"/runs/{run}/approve/",
        "/destinations/meta_main/check/",
        "/connections/new/",
    ):
        assert as_(world, "buyer").post(address).status_code == 403, address
    assert as_(world, "marketer").post(f"/connections/{pk}/do/pause/").status_code == 403
    assert as_(world, "marketer").post(f"/runs/{run}/approve/").status_code == 403


def test_a_stop_for_safety_is_shown_with_its_reason_and_lifted_by_name(world):
    hold = Hold.objects.create(
        mapping=world.mapping,
        direction="removes",
        rule="stale_feed",
        reason="No purchase for 3 hours.",
        lift_roles=["operator"],
    )
    page = text(as_(world, "buyer").get(f"/connections/{world.mapping.pk}/"))
    assert "No purchase for 3 hours." in page
    assert "May be lifted by: operator." in page
    assert as_(world, "buyer").post(f"/holds/{hold.pk}/lift/").status_code == 403
    refused = as_(world, "admin").post(f"/holds/{hold.pk}/lift/", {"reason": "x"}, follow=True)
    assert "Only operator may lift it." in text(refused)
    as_(world, "operator").post(f"/holds/{hold.pk}/lift/", {"reason": "the feed is back"})
    hold.refresh_from_db()
    assert (hold.lifted_by, hold.lift_reason) == (world.users["operator"], "the feed is back")


def test_sent_received_and_matched_are_three_numbers_and_unknown_is_a_word(world):
    seen = as_(world, "buyer").get(f"/connections/{world.mapping.pk}/").context["seen"]
    assert (seen.tally.wanted, seen.tally.sent, seen.tally.received) == (1, 1, 1)
    assert seen.matched == "Not known yet"
    Mapping.objects.filter(pk=world.mapping.pk).update(matched_low=900, matched_high=1200)
    assert as_(world, "buyer").get(f"/connections/{world.mapping.pk}/").context["seen"].matched == "900–1,200"
    Ledger.objects.filter(mapping=world.mapping).update(refresh=None)
    page = text(as_(world, "buyer").get(f"/connections/{world.mapping.pk}/"))
    assert "Not planned yet" in page


def test_an_audiences_connections_are_a_page_and_a_part_of_its_page(world):
    address = f"/audiences/{world.cart.key}/connections/"
    client = as_(world, "buyer")
    assert "<html" in text(client.get(address))
    part = text(client.get(address, headers={"HX-Request": "true"}))
    assert "<html" not in part
    assert "Meta EU" in part
    assert "Who is really sent to Meta EU" in part


# --- Runs.


def test_a_run_asks_again_every_two_seconds_until_it_has_ended(world):
    run = filled.running(world.mapping)
    client = as_(world, "buyer")
    live = client.get(f"/runs/{run.pk}/", headers={"HX-Request": "true"})
    assert live.status_code == 200
    assert 'hx-trigger="every 2s"' in text(live)
    assert "36 of 92 batches" in text(live)
    Run.objects.filter(pk=run.pk).update(state="done", finished_at=timezone.now())
    over = client.get(f"/runs/{run.pk}/", headers={"HX-Request": "true"})
    assert over.status_code == 286
    assert "hx-trigger" not in text(over)
    assert client.get(f"/runs/{run.pk}/").status_code == 200, "a browser that opens the page gets a page"


def test_a_run_shows_planned_and_done_its_batches_and_its_refusals_by_reason(world):
    page = text(as_(world, "buyer").get(f"/runs/{world.run.pk}/"))
    assert "of 2 planned" in page
    assert "AbCdEf" in page
    assert "The platform could not read the phone number" in page
    assert "Done with rejections" in page


def test_cancelling_says_what_has_been_sent(world):
    run = filled.running(world.mapping)
    world.run.operations.update(run=run)
    page = text(as_(world, "marketer").get(f"/runs/{run.pk}/"))
    assert "Sent already, and it stays sent: 2 to add, 0 to remove." in page
    as_(world, "marketer").post(f"/runs/{run.pk}/cancel/")
    run.refresh_from_db()
    assert run.cancel_requested
    late = as_(world, "marketer").post(f"/runs/{world.run.pk}/cancel/", follow=True)
    assert "has ended already" in text(late)


def test_a_large_removal_waits_for_an_approval_by_name(world):
    run = Run.objects.create(
        mapping=world.mapping, state="approval", trigger="schedule", planned_adds=0, planned_removes=900
    )
    page = text(as_(world, "operator").get(f"/runs/{run.pk}/"))
    assert "Remove 900 people" in page
    assert "Remove 900 people" not in text(as_(world, "marketer").get(f"/runs/{run.pk}/"))
    as_(world, "operator").post(f"/runs/{run.pk}/approve/", {"reason": "the shop closed"})
    run.refresh_from_db()
    assert (run.state, run.approved_by) == ("queued", world.users["operator"])


def test_sync_now_asks_for_a_run_of_every_connection_that_sends(world):
    client = as_(world, "marketer")
    first = client.post(f"/audiences/{world.cart.key}/sync/")
    run = Run.objects.latest("pk")
    assert (run.state, run.requested_by, first["Location"]) == ("queued", world.users["marketer"], f"/runs/{run.pk}/")
    client.post(f"/audiences/{world.cart.key}/sync/")
    assert Run.objects.latest("pk").pk == run.pk, "pressed twice, it is one run"
    Mapping.objects.update(state="frozen")
    assert "nothing is sent" in text(client.post(f"/audiences/{world.cart.key}/sync/", follow=True))
    none = client.post(f"/audiences/{world.buyers.key}/sync/", follow=True)
    assert "connected to no destination yet" in text(none)


def test_retrying_asks_for_a_run_of_the_refused(world):
    response = as_(world, "operator").post(f"/connections/{world.mapping.pk}/retry/")
    run = Run.objects.latest("pk")
    assert (run.trigger, response["Location"]) == ("retry", f"/runs/{run.pk}/")


def test_the_list_of_runs_filters_and_takes_the_same_queries_for_many(world, django_assert_num_queries):
    client = as_(world, "buyer")
    filled.running(world.mapping)
    assert [run.state for run in client.get("/runs/?state=active").context["rows"]] == ["sending"]
    assert [run.state for run in client.get("/runs/?state=trouble").context["rows"]] == ["partial"]
    assert list(client.get("/runs/?audience=no_such").context["rows"]) == []
    assert list(client.get("/runs/?destination=no_such").context["rows"]) == []
    assert len(client.get("/runs/?destination=meta_main&audience=meta_cart_24h").context["rows"]) == 2
    with django_assert_num_queries(7):
        client.get("/runs/")
    for _ in range(60):
        Run.objects.create(mapping=world.mapping, state="done", trigger="schedule", requested_by=world.users["admin"])
    with django_assert_num_queries(7):
        assert len(client.get("/runs/").context["rows"]) == 50


def test_a_rehearsal_in_the_browser_shows_what_would_go_and_the_sandbox_gets_nobody(world, sandbox, account_number):
    client = as_(world, "operator")
    form = {"name": "M", "key": "m", "base_url": sandbox.base_url, "ad_account_id": account_number, "access_token": "t"}
    client.post("/destinations/new/meta/", form)
    settings = {"identifiers": ["email"], "cadence_seconds": "900", "removal_limit_percent": "50", "trial_percent": "1"}
    client.post(f"/connections/new/?audience={world.cart.key}&destination=m", settings)
    mapping = Mapping.objects.get(destination__key="m")
    runs.run_to_end(Run.objects.get(mapping=mapping, rehearsal=True))
    page = text(client.get(f"/connections/{mapping.pk}/"))
    assert "It would add <strong>1</strong>" in page
    assert "ann@shop.example" not in page
    assert [call for call in sandbox.calls("meta", account_number) if call["op"] in ("add", "create")] == []
    client.post(f"/connections/new/?audience={world.buyers.key}&destination=m", settings)
    for connection in Mapping.objects.filter(destination__key="m").order_by("-pk"):  # suppression first
        client.post(f"/connections/{connection.pk}/do/live/", {"reason": "ready"})
    run = runs.request(actor=None, mapping=Mapping.objects.get(pk=mapping.pk), start=False)
    done = runs.run_to_end(run)
    assert done.state == "done", done.error
    seen = client.get(f"/connections/{mapping.pk}/").context["seen"]
    assert (seen.tally.sent, seen.tally.received) == (1, 1)


def test_refused_people_come_with_what_to_do_and_a_masked_example(world):
    Rejection.objects.all().delete()
    anna = Identity.objects.get(email="ann@shop.example")
    for code, reason in (
        ("no_identifier", "None of the identifiers could be sent."),
        ("INVALID_EMAIL", "Malformed e-mail"),
    ):
        Rejection.objects.create(
            mapping=world.mapping, identity_no=anna.identity_no, kind="add" if code == "INVALID_EMAIL" else "remove",
            code=code, reason=reason, operation=world.run.operations.get(),
        )  # fmt: skip
    body = text(as_(world, "operator").get(f"/runs/{world.run.pk}/"))
    assert "Look at how the source writes it" in body
    assert "Let the connection send another kind of identifier" in body
    assert "a•••@s•••.example" in body
    assert "ann@shop.example" not in body
    assert "a•••@" not in text(as_(world, "buyer").get(f"/runs/{world.run.pk}/"))


def test_a_run_that_failed_says_what_was_sent_and_what_to_do(world):
    Run.objects.filter(pk=world.run.pk).update(state="failed", error="The platform hung up.", added=1)
    page = text(as_(world, "operator").get(f"/runs/{world.run.pk}/"))
    assert "Sent before, and it stays sent: 1 added, 0 removed" in page
    assert "Sync again" in page
    Run.objects.filter(pk=world.run.pk).update(added=0)
    assert "Nothing was sent by it" in text(as_(world, "operator").get(f"/runs/{world.run.pk}/"))
    Destination.objects.update(state="refused")
    assert "Reconnect Meta EU" in text(as_(world, "operator").get(f"/runs/{world.run.pk}/"))
    assert ">v1<" in page, "the version is named"
    assert "entered or left between two counts" in page
