"""The way through the seven steps, as a browser without scripts walks it; and everything that may go wrong on the way."""

import json
from datetime import timedelta

import pytest
from django.core import signing
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from audiences.models import Audience, AuditEntry
from audiences.services import drafts, versions
from destinations.models import Destination, Mapping, Run
from destinations.services import mappings
from qa import setup
from qa.models import SetUp, SpotCheck
from tests import filled
from tests.filled import as_

pytestmark = pytest.mark.django_db
BUYERS = json.dumps({"event": "purchase", "count": {"at_least": 1}, "within": "30d"})


@pytest.fixture
def world() -> filled.Filled:
    return filled.fill()


def begin(client: Client, purpose: str = "retargeting", target: str = "meta_main") -> SetUp:
    response = client.post("/audiences/new/", {"purpose": purpose, "target": target})
    assert response.status_code == 302, response.content.decode()
    return SetUp.objects.latest("pk")


def at(row: SetUp, name: str) -> str:
    return f"/setup-steps/{row.pk}/{name}/"


def named(key: str, **more: str) -> dict[str, str]:
    """What the name's part of the form holds: a name of its own, for a reason."""
    return {"key": key, "name-own_name": key, "name-name_reason": "for the test", **more}


def recipe(key: str, **turned: str) -> dict[str, str]:
    usual = {
        "recipe": "cart",
        "n_hours": "24",
        "n_still": "4",
        "n_quiet": "3",
        "e_cart": "add_to_cart",
        "e_purchase": "purchase",
    }
    return {**usual, "act": "publish", "seen": "0", **named(key), **turned}


def published(client: Client, key: str = "meta_cart_late", **begun: str) -> SetUp:
    row = begin(client, **begun)
    client.post(at(row, "identity"), {"identifiers": ["email", "phone"]})
    response = client.post(at(row, "segment"), recipe(key))
    assert response.status_code == 302, response.content.decode()
    row.refresh_from_db()
    return row


def connected(client: Client, key: str = "meta_cart_late") -> SetUp:
    row = published(client, key)
    client.post(at(row, "connect"), {"act": "connect"})
    row.refresh_from_db()
    return row


def test_all_seven_steps_to_a_rehearsal_and_live(world):
    client = as_(world, "admin")
    assert client.get("/audiences/new/").status_code == 200
    assert not SetUp.objects.exists(), "looking begins nothing"
    row = begin(client)
    page = client.get(at(row, "identity")).content.decode()
    assert "E-mail" in page
    assert client.post(at(row, "identity"), {"identifiers": ["email", "phone"]}).url == at(row, "segment")
    assert client.post(at(row, "segment"), recipe("meta_cart_late")).url == at(row, "segment"), (
        "the pair is offered there"
    )
    page = client.get(at(row, "segment")).content.decode()
    assert "Suppression first" in page
    audience = Audience.objects.get(key="meta_cart_late")
    assert audience.live_version.sentence.startswith("People who did “add_to_cart” at least once in the last 24 hours")
    assert audience.alert_owner == world.users["admin"]
    client.post(f"/audiences/{audience.key}/pair/", {"days": "14", "event": "purchase", "set_up": str(row.pk)})
    assert client.post(at(row, "connect"), {"act": "connect"}).url == at(row, "behaviour")
    mapping = Mapping.objects.get(audience=audience)
    assert (mapping.state, mapping.identifiers) == ("rehearsal", ["email", "phone"])
    assert Run.objects.filter(mapping=mapping, rehearsal=True).count() == 1
    page = client.get(at(row, "behaviour")).content.decode()
    assert "24 hours after their last “add_to_cart”" in page
    assert "as soon as they do “purchase”" in page
    answers = {"cadence_seconds": "3600", "removal_limit_percent": "30", "weekly_spend": "1200.50"}
    assert client.post(at(row, "behaviour"), answers).url == at(row, "spot-check")
    mapping.refresh_from_db()
    row.refresh_from_db()
    assert (mapping.cadence_seconds, mapping.removal_limit_percent) == (3600, 30)
    assert str(row.weekly_spend) == "1200.50"
    assert "Draw people" in client.get(at(row, "spot-check")).content.decode()
    owners = {"definition_owner": world.users["marketer"].pk, "sync_owner": world.users["operator"].pk}
    owners |= {"alert_owner": world.users["buyer"].pk, "backup_owner": ""}
    client.post(at(row, "owners"), {"act": "owners", **owners})
    audience.refresh_from_db()
    assert (audience.definition_owner, audience.alert_owner) == (world.users["marketer"], world.users["buyer"])
    page = client.get(at(row, "owners")).content.decode()
    assert "After its suppression" in page
    client.post(at(row, "owners"), {"act": "live", "mapping": mapping.pk})
    mapping.refresh_from_db()
    assert mapping.state == "rehearsal", "the gate holds it"
    pair = Mapping.objects.get(audience__key="meta_suppress_purchasers_14d")
    client.post(at(row, "owners"), {"act": "live", "mapping": pair.pk})
    done = client.post(at(row, "owners"), {"act": "live", "mapping": mapping.pk})
    assert done.url == f"/audiences/{audience.key}/"
    mapping.refresh_from_db()
    row.refresh_from_db()
    assert (mapping.state, row.finished_at is not None) == ("live", True)
    assert client.get(at(row, "identity")).url == f"/audiences/{audience.key}/setup/"


def test_it_resumes_where_it_was_left_and_states_come_from_the_data(world):
    client = as_(world, "marketer")
    row = published(client)
    standing = setup.look(setup.find(row.pk))
    assert (standing.current, standing.done) == ("connect", {"destination", "identity", "segment"})
    # Somebody connects it by another door.
    other = mappings.create(actor=None, audience=row.audience, destination=world.destination, identifiers=["email"])
    standing = setup.look(setup.find(row.pk))
    assert (standing.mapping, standing.current) == (other, "behaviour")
    page = client.get("/setup-steps/").content.decode()
    assert f'href="{at(row, "behaviour")}"' in page


def test_a_spot_check_of_an_older_version_does_not_count(world):
    row = published(as_(world, "marketer"))
    check = SpotCheck.objects.create(audience=row.audience, version=row.audience.live_version, state="signed")
    assert "spot-check" in setup.look(setup.find(row.pk)).done
    check.version = world.cart.live_version
    check.save()
    assert "spot-check" not in setup.look(setup.find(row.pk)).done


def test_going_back_loses_nothing_and_another_place_asks_for_its_identifiers_again(world):
    client = as_(world, "marketer")
    row = published(client)
    page = client.get(at(row, "identity")).content.decode()
    assert page.count("checked") == 2
    client.post(at(row, "destination"), {"purpose": "retargeting", "target": "new:google"})
    row.refresh_from_db()
    assert (row.destination, row.answers["kind"], "identifiers" in row.answers) == (None, "google", False)
    assert row.audience.key == "meta_cart_late"
    assert setup.look(setup.find(row.pk)).current == "identity"


def test_clicked_twice_each_step_does_its_work_once(world):
    client = as_(world, "admin")
    first, second = begin(client), begin(client)
    assert first == second
    client.post(at(first, "identity"), {"identifiers": ["email"]})
    for _ in range(2):
        assert client.post(at(first, "segment"), recipe("meta_cart_late")).status_code == 302
    for _ in range(2):
        assert client.post(at(first, "connect"), {"act": "connect"}).status_code == 302
    assert Mapping.objects.filter(audience__key="meta_cart_late").count() == 1
    assert Audience.objects.get(key="meta_cart_late").versions.count() == 1


def test_a_stale_form_does_not_replace_somebody_elses_version(world):
    client = as_(world, "marketer")
    row = published(client)
    other = recipe("", seen="1", n_hours="48")
    assert client.post(at(row, "segment"), other).status_code == 302
    stale = client.post(at(row, "segment"), recipe("", seen="1", n_hours="12"))
    assert stale.status_code == 422
    assert "somebody has published version 2 meanwhile" in stale.content.decode()
    assert Audience.objects.get(key="meta_cart_late").live_version.number == 2


# --- Step 1.


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({}, "Choose what it is for"),
        ({"purpose": "retargeting"}, "Choose where it goes"),
        ({"purpose": "events", "target": "meta_main"}, "Choose what it is for"),
        ({"purpose": "retargeting", "target": "gone"}, "no longer there"),
        ({"purpose": "retargeting", "target": "new:<img onerror>"}, "no longer there"),
        ({"purpose": "warehouse", "target": "meta_main"}, "Meta does not take warehouse audiences"),
        ({"purpose": "analytics", "target": "new:google"}, "Google Ads does not take analytics audiences"),
        ({"purpose": "retargeting", "target": "x" * 500}, "at most 120 characters"),
    ],
)
def test_a_place_that_does_not_suit_is_refused_with_words(world, form, words):
    response = as_(world, "marketer").post("/audiences/new/", form)
    assert response.status_code == 422
    assert words in response.content.decode()
    assert not SetUp.objects.exists()


def test_what_has_no_connector_yet_is_shown_and_cannot_be_chosen(world):
    page = as_(world, "marketer").get("/audiences/new/").content.decode()
    assert 'value="events" disabled' in page
    assert "No connector sends single events yet" in page


def test_a_connected_audience_keeps_its_place_and_purpose(world):
    client = as_(world, "admin")
    row = connected(client)
    for form in (
        {"purpose": "retargeting", "target": "new:google"},
        {"purpose": "lookalike", "target": "meta_main"},
    ):
        response = client.post(at(row, "destination"), form)
        assert response.status_code == 422
        assert "begin another set-up" in response.content.decode()


# --- Step 2.


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        ([], "Choose at least one"),
        (["country"], "names a person by itself"),
        (["ssn"], "not one of the available choices"),
    ],
)
def test_identifiers_must_name_a_person_and_be_the_platforms(world, chosen, words):
    client = as_(world, "marketer")
    row = begin(client)
    response = client.post(at(row, "identity"), {"identifiers": chosen})
    assert response.status_code == 422
    assert words in response.content.decode()


# --- Step 3.


def test_a_recipe_is_counted_without_being_published(world):
    client = as_(world, "marketer")
    row = begin(client)
    counted = client.post(at(row, "segment"), recipe("", act="count", n_still="0"), headers={"HX-Request": "true"})
    page = counted.content.decode()
    assert counted.status_code == 200
    assert "<html" not in page
    assert "Finds now" in page
    assert 'class="value">1<' in page, "only Ann has a cart and no purchase"
    assert not Audience.objects.filter(key="").exists()
    assert Audience.objects.count() == 3


def test_counted_without_scripts_nothing_that_was_typed_is_lost(world):
    client = as_(world, "marketer")
    row = begin(client)
    form = recipe("typed_key", act="count", n_hours="48", description="For Bea")
    page = client.post(at(row, "segment"), form).content.decode()
    assert "<html" in page
    assert "in the last 2 days" in page
    for kept in ('value="typed_key"', 'value="For Bea"', 'value="for the test"', 'value="48"'):
        assert kept in page


def test_a_pasted_rule_says_each_problem_with_its_place(world):
    client = as_(world, "marketer")
    row = begin(client, purpose="suppression")
    for text, words in (
        ('{"all": [{"event": "purchse"}]}', ("<code>all[0].event</code>", "purchase")),
        ('{"event": "purchase", "count": {"at_least": -1}}', ("<code>count",)),
        ("{", ("is not JSON at line 1",)),
        ('{"audience": "nothing"}', ("<code>audience</code>",)),
        ('{"<img src=x onerror=alert(1)>": 1}', ("&lt;img",)),
    ):
        form = {"recipe": "json", "rule": text, "act": "publish", "seen": "0", **named("x")}
        response = client.post(at(row, "segment"), form)
        assert response.status_code == 422, text
        page = response.content.decode()
        assert "<img src=x" not in page
        for word in words:
            assert word in page, text
    assert not Audience.objects.filter(key="x").exists()


def test_a_pasted_rule_is_published(world):
    client = as_(world, "marketer")
    row = begin(client, purpose="suppression")
    form = {"recipe": "json", "rule": BUYERS, "act": "publish", "seen": "0", **named("meta_bought_30d")}
    assert client.post(at(row, "segment"), form).url == at(row, "connect")
    assert Audience.objects.get(key="meta_bought_30d").purpose == "suppression"


@pytest.mark.parametrize(
    ("turned", "words"),
    [
        ({"n_hours": "3"}, "greater than or equal to 5"),
        ({"n_hours": "many"}, "Enter a whole number"),
        ({"n_hours": "²"}, "Enter a whole number"),
        ({"n_hours": "9" * 400}, "less than or equal to 168"),
        ({"e_cart": "made_up"}, "Nobody has been seen doing that"),
        ({"key": "has spaces"}, "Letters, digits"),
        ({"key": "new"}, "no audience is called that"),
        ({"key": "meta_cart_24h"}, "keys are never reused"),
        ({"recipe": "json", "rule": "x" * 200_001}, "at most 200000 characters"),
    ],
)
def test_what_is_entered_wrong_is_said_beside_its_field_and_kept(world, turned, words):
    client = as_(world, "marketer")
    row = begin(client)
    response = client.post(
        at(row, "segment"),
        recipe("fine_key", description="Kept as it was", **turned)
        if "key" not in turned
        else {**recipe("x", description="Kept as it was"), **turned},
    )
    assert response.status_code == 422
    page = response.content.decode()
    assert words in page
    assert "Kept as it was" in page
    assert Audience.objects.count() == 3


def test_the_name_follows_the_convention_and_gives_the_key(world):
    client = as_(world, "marketer")
    row = begin(client)
    form = {name: value for name, value in recipe("").items() if not name.startswith("name-")}
    form |= {"name-channel": "meta", "name-intent": "cart", "name-window": "24h", "name-own_name": "", "key": ""}
    assert client.post(at(row, "segment"), {**form, "build": "1"}).status_code == 200
    assert Audience.objects.count() == 3, "only the name was built"
    assert client.post(at(row, "segment"), form).status_code == 302
    made = Audience.objects.latest("pk")
    assert made.name == "meta_cart_24h_v1"
    assert made.key == "meta_cart_24h_2", "the plain key is taken"


def test_an_operator_sees_the_step_and_publishes_nothing(world):
    client = as_(world, "operator")
    row = begin(client)
    assert "may publish" in client.get(at(row, "segment")).content.decode()
    assert client.post(at(row, "segment"), recipe("meta_cart_late")).status_code == 403


def test_without_any_event_the_step_says_so(world):
    from audiences.models import EventName, PropertyName

    EventName.objects.all().delete()
    PropertyName.objects.all().delete()
    client = as_(world, "marketer")
    row = begin(client)
    page = client.get(at(row, "segment")).content.decode()
    assert "No event has come in yet" in page
    assert client.post(at(row, "segment"), recipe("meta_cart_late")).status_code == 422


# --- Step 4.


def test_connecting_takes_the_linked_suppression_along(world):
    client = as_(world, "admin")
    row = published(client)
    row.audience.excluded_by.add(world.buyers)
    client.post(at(row, "connect"), {"act": "connect"})
    assert Mapping.objects.get(audience=world.buyers).destination == world.destination


def test_steps_that_need_an_earlier_one_lead_there(world):
    client = as_(world, "admin")
    row = begin(client)
    for name, leads in (("behaviour", "connect"), ("spot-check", "segment"), ("owners", "segment")):
        assert client.get(at(row, name)).url == at(row, leads)
    client.post(at(row, "connect"), {"act": "connect"})
    assert (
        not Mapping.objects.filter(audience=row.audience).exclude(pk=world.mapping.pk).exists() or row.audience is None
    )
    page = client.get(at(row, "connect")).content.decode()
    assert "Build the segment first" in page


def test_a_marketer_sends_the_step_to_an_engineer_by_a_link_without_secrets(world, sandbox, account_number):
    marketer = as_(world, "marketer")
    row = begin(marketer, target="new:meta")
    page = marketer.get(at(row, "connect") + "?link=1").content.decode()
    path = "/setup-steps/connect/" + page.split("/setup-steps/connect/")[1].split("<")[0]
    assert marketer.get(path).status_code == 403, "the link gives nobody a right"
    assert as_(world, "buyer").get(path).status_code == 403
    assert Client().get(path).url.startswith("/sign-in/?next=")
    engineer = as_(world, "operator")
    page = engineer.get(path).content.decode()
    assert "Marketer is setting up retargeting and asks you for this one step" in page
    form = {"name": "Meta", "key": "m", "base_url": sandbox.base_url, "ad_account_id": account_number}
    refused = engineer.post(path, form)
    assert refused.status_code == 422
    assert engineer.post(path, {**form, "access_token": "t"}).url == path
    made = Destination.objects.get(key="m")
    row.refresh_from_db()
    assert (row.destination, made.state) == (made, "connected")
    page = engineer.get(path).content.decode()
    assert "That was all" in page
    assert "access_token" not in page
    assert setup.look(setup.find(row.pk)).done >= {"destination"}


def test_a_link_that_is_old_forged_or_of_a_finished_set_up_leads_nowhere(world, monkeypatch):
    engineer = as_(world, "operator")
    row = begin(as_(world, "marketer"), target="new:google")
    token = setup.link_for(row)
    for wrong in (
        token[:-2] + "xx",
        signing.dumps({"set_up": row.pk}),
        signing.dumps({"set_up": 10**9}, salt="qa.setup.engineer"),
        "x",
    ):
        assert engineer.get(f"/setup-steps/connect/{wrong}/").status_code == 410
    assert engineer.get(f"/setup-steps/connect/{token}/").status_code == 200
    with monkeypatch.context() as later:
        later.setattr(setup, "LINK_LASTS", timedelta(seconds=-1))
        assert engineer.get(f"/setup-steps/connect/{token}/").status_code == 410
    SetUp.objects.filter(pk=row.pk).update(finished_at=timezone.now())
    assert engineer.get(f"/setup-steps/connect/{token}/").status_code == 410


def test_an_account_connected_from_step_one_comes_back_to_it(world, sandbox, account_number):
    client = as_(world, "operator")
    row = begin(client, target="new:meta")
    back = at(row, "destination")
    assert (
        f'href="/destinations/new/meta/?next={back}"' in client.get(f"/destinations/new/?next={back}").content.decode()
    )
    form = {
        "name": "Meta",
        "key": "m",
        "base_url": sandbox.base_url,
        "ad_account_id": account_number,
        "access_token": "t",
    }
    assert client.post(f"/destinations/new/meta/?next={back}", form).url == f"{back}?destination=m"
    page = client.get(f"{back}?destination=m").content.decode()
    assert 'value="m" checked' in page
    form["key"] = "m2"
    assert client.post("/destinations/new/meta/?next=https://evil.example/", form).url == "/destinations/m2/"


def test_check_asks_the_platform_and_its_words_are_shown(world, sandbox, account_number):
    admin = as_(world, "admin")
    form = {
        "name": "Meta",
        "key": "m",
        "base_url": sandbox.base_url,
        "ad_account_id": account_number,
        "access_token": "t",
    }
    admin.post("/destinations/new/meta/", form)
    row = begin(admin, target="m")
    Destination.objects.filter(key="m").update(state="untested", state_words="")
    assert as_(world, "marketer").post(at(row, "connect"), {"act": "check"}).status_code == 403
    page = admin.post(at(row, "connect"), {"act": "check"}, follow=True).content.decode()
    words = Destination.objects.get(key="m").state_words
    assert words
    assert words in page


# --- Steps 5 and 7.


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"cadence_seconds": "7", "removal_limit_percent": "50"},
        {"cadence_seconds": "900", "removal_limit_percent": "0"},
        {"cadence_seconds": "900", "removal_limit_percent": "101"},
        {"cadence_seconds": "900", "removal_limit_percent": "50", "weekly_spend": "-1"},
        {"cadence_seconds": "900", "removal_limit_percent": "50", "weekly_spend": "NaN"},
        {"cadence_seconds": "900", "removal_limit_percent": "50", "weekly_spend": "1" * 40},
    ],
)
def test_behaviour_out_of_its_limits_is_refused(world, form):
    client = as_(world, "admin")
    row = connected(client)
    assert client.post(at(row, "behaviour"), form).status_code == 422
    assert "behaviour" not in setup.look(setup.find(row.pk)).done


def test_a_rule_that_buying_does_not_leave_is_said_in_red(world):
    client = as_(world, "admin")
    row = begin(client)
    client.post(at(row, "identity"), {"identifiers": ["email"]})
    form = {"recipe": "json", "rule": '{"event": "add_to_cart"}', "act": "publish", "seen": "0", **named("meta_stays")}
    client.post(at(row, "segment"), form)
    client.post(at(row, "connect"), {"act": "connect"})
    page = client.get(at(row, "behaviour")).content.decode()
    assert "Buying takes nobody out" in page
    assert "Nobody ever leaves" in page


def test_what_is_doubtful_about_a_rule_is_said_as_it_is_written_and_does_not_keep_it_from_being_published(world):
    client = as_(world, "admin")
    row = begin(client)
    client.post(at(row, "identity"), {"identifiers": ["email"]})
    form = {"recipe": "json", "rule": '{"event": "add_to_cart"}', "act": "count"}
    page = client.post(at(row, "segment") + "?recipe=json", form).content.decode()
    assert "<strong>No way out</strong>" in page and "<strong>No time window</strong>" in page
    assert "Nobody ever leaves this rule" not in page  # that is said once
    assert "Worth a look" not in client.get(at(row, "segment") + "?recipe=cart").content.decode()
    form |= {"act": "publish", "seen": "0", **named("meta_stays")}
    assert client.post(at(row, "segment"), form).status_code == 302
    assert Audience.objects.get(key="meta_stays").live_version is not None


def test_it_is_put_right_in_the_rule_builder_by_one_press_and_the_set_up_goes_on_from_there(world):
    client = as_(world, "marketer")
    row = begin(client)
    client.post(at(row, "identity"), {"identifiers": ["email"]})
    form = {"recipe": "json", "rule": '{"event": "add_to_cart"}', "act": "count", "seen": "0", **named("meta_stays")}
    page = client.post(at(row, "segment"), form).content.decode()
    assert 'name="act" value="fix:no-time-window:"' in page
    nameless = {**form, "act": "fix:no-time-window:", "key": "", "name-own_name": ""}
    assert client.post(at(row, "segment"), nameless).status_code == 422
    answer = client.post(at(row, "segment"), {**form, "act": "fix:no-time-window:"})
    assert answer.url == "/audiences/meta_stays/edit/"
    made = Audience.objects.get(key="meta_stays")
    assert made.live_version is None and "in the last 30 days" in made.versions.get().sentence
    now = drafts.current(made)
    drafts.undo(actor=world.users["marketer"], audience=made, number=now.number, revision=now.revision)
    assert "30 days" not in made.versions.get().sentence
    page = client.get(at(row, "segment")).content.decode()
    assert "Go on in the rule builder" in page and "not published yet" in page
    versions.publish(actor=world.users["marketer"], version=made.versions.get(), reason="Built")
    assert client.get(f"/audiences/{made.key}/setup/").status_code == 200
    assert setup.look(setup.find(row.pk)).current == "connect"


def test_put_right_the_name_says_what_the_rule_says_then(world):
    client = as_(world, "marketer")
    row = begin(client)
    client.post(at(row, "identity"), {"identifiers": ["email"]})
    named_by_parts = {"name-channel": "meta", "name-intent": "cart", "name-window": "ever", "key": ""}
    form = {"recipe": "json", "rule": '{"event": "add_to_cart"}', "act": "fix:no-time-window:", "seen": "0"}
    answer = client.post(at(row, "segment"), {**form, **named_by_parts})
    assert answer.url == "/audiences/meta_cart_30d/edit/"
    assert Audience.objects.get(key="meta_cart_30d").name == "meta_cart_30d_v1"


def test_a_rule_is_built_without_any_json(world):
    client = as_(world, "marketer")
    row = begin(client)
    page = client.get(at(row, "segment") + "?recipe=build").content.decode()
    assert 'name="rule"' not in page and "Open the rule builder" in page
    form = {"recipe": "build", "act": "build", **named("meta_mine")}
    assert client.post(at(row, "segment"), form).url == "/audiences/meta_mine/edit/"
    made = Audience.objects.get(key="meta_mine")
    assert not made.versions.exists() and setup.look(setup.find(row.pk)).audience == made
    assert "Pick a template" in client.get("/audiences/meta_mine/edit/").content.decode()
    assert client.post(at(row, "segment"), {**form, **named("meta_mine")}).url == "/audiences/meta_mine/edit/"
    assert as_(world, "operator").post(at(row, "segment"), form).status_code == 403


def test_a_template_goes_on_in_the_rule_builder_and_what_is_wrong_with_it_is_said_first(world):
    client = as_(world, "marketer")
    row = begin(client)
    assert client.post(at(row, "segment"), recipe("meta_cart_mine", act="build", n_hours="999")).status_code == 422
    assert (
        client.post(at(row, "segment"), recipe("meta_cart_mine", act="build")).url == "/audiences/meta_cart_mine/edit/"
    )
    made = Audience.objects.get(key="meta_cart_mine")
    assert "add_to_cart" in made.versions.get().sentence


@pytest.mark.parametrize("owner", ["", "0", "99999999", "x", "<img>"])
def test_an_owner_who_is_nobody_is_refused(world, owner):
    client = as_(world, "admin")
    row = connected(client)
    mine = str(world.users["admin"].pk)
    form = {"act": "owners", "definition_owner": mine, "sync_owner": mine, "alert_owner": owner}
    assert client.post(at(row, "owners"), form).status_code == 422


def test_only_a_connection_of_this_set_up_goes_live_by_it_and_only_by_who_may(world):
    row = connected(as_(world, "admin"))
    other = Mapping.objects.create(audience=world.buyers, destination=world.destination, identifiers=["email"])
    for asked in (str(other.pk), "x", "", "999999"):
        as_(world, "operator").post(at(row, "owners"), {"act": "live", "mapping": asked})
    other.refresh_from_db()
    assert other.state == "rehearsal"
    assert as_(world, "marketer").post(at(row, "owners"), {"act": "live", "mapping": row.mapping_id}).status_code == 403


def test_it_may_be_finished_without_going_live(world):
    client = as_(world, "marketer")
    row = connected(client)
    client.post(at(row, "owners"), {"act": "finish"})
    row.refresh_from_db()
    assert row.finished_at is not None
    assert Mapping.objects.get(pk=row.mapping_id).state == "rehearsal"
    assert AuditEntry.objects.filter(verb="setup.finished").count() == 1


# --- Around them.


def test_an_audience_that_is_there_is_walked_through_from_its_checklist(world):
    client = as_(world, "marketer")
    page = client.get(f"/audiences/{world.cart.key}/setup/").content.decode()
    assert "Walk through the seven steps" in page
    assert not SetUp.objects.exists()
    response = client.post(f"/audiences/{world.cart.key}/setup/")
    row = SetUp.objects.get()
    assert (row.audience, row.mapping, row.destination) == (world.cart, world.mapping, world.destination)
    assert response.url == at(row, "behaviour")
    assert client.post(f"/audiences/{world.cart.key}/setup/").url == response.url
    assert SetUp.objects.count() == 1
    client.post(f"/audiences/{world.draft.key}/setup/")
    row = SetUp.objects.get(audience=world.draft)
    assert client.get(at(row, "destination")).status_code == 200


def test_a_set_up_may_be_discarded_and_what_it_made_stays(world):
    client = as_(world, "marketer")
    row = published(client)
    client.post(f"/setup-steps/{row.pk}/discard/")
    assert not SetUp.objects.exists()
    assert Audience.objects.filter(key="meta_cart_late").exists()
    assert client.post(f"/setup-steps/{row.pk}/discard/").status_code == 302


def test_forged_addresses_and_strangers(world):
    client = as_(world, "marketer")
    row = begin(client)
    for address in (at(row, "nothing"), "/setup-steps/999999/identity/", "/audiences/nothing/setup/"):
        assert client.get(address).status_code == 404
    for address in ("/setup-steps/", "/audiences/new/", at(row, "identity")):
        assert as_(world, "buyer").get(address).status_code == 403
        assert Client().get(address).status_code == 302
    assert as_(world, "buyer").get(f"/audiences/{world.cart.key}/setup/").status_code == 200
    assert as_(world, "buyer").post(f"/audiences/{world.cart.key}/setup/").status_code == 403


def test_the_list_takes_the_same_queries_for_many(world, django_assert_num_queries):
    client = as_(world, "marketer")
    published(client)
    client.get("/setup-steps/")
    with CaptureQueriesContext(connection) as few:
        client.get("/setup-steps/")
    queries = len(few)  # the next request empties the log
    assert queries > 3
    for number in range(3):
        SetUp.objects.update(created_at=timezone.now() - timedelta(hours=1))
        published(client, f"meta_cart_{number}")
        begin(client, target="new:google")
    assert SetUp.objects.count() == 7
    with django_assert_num_queries(queries):
        client.get("/setup-steps/")
