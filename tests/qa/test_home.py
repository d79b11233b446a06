"""Home in the browser's eyes without scripts: what needs whom, in sentences, by role; calm when nothing does; the demo's first minute."""

import re
from datetime import timedelta

import pytest
from django.core.cache import cache
from django.test import Client
from django.utils import timezone

from audiences.models import Refresh, User
from audiences.services import audiences, refreshes, versions
from destinations.models import Hold, Run
from qa.models import Incident, Mail, SetUp, SpotCheck
from qa.sample import tour
from tests import filled

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> filled.Filled:
    cache.clear()
    made = filled.fill()
    Incident.objects.all().delete()
    SetUp.objects.all().delete()
    SpotCheck.objects.all().delete()
    return made


def home(world: filled.Filled, role: str, client: Client | None = None) -> str:
    client = client or Client()
    client.force_login(world.users[role])
    return words(client.get("/"))


def words(response) -> str:
    assert response.status_code == 200
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", response.content.decode()))


def drop(world: filled.Filled, **fields) -> Incident:
    incident = Incident.objects.create(
        **{
            "kind": "size",
            "subject": f"audience:{world.cart.pk}",
            "audience": world.cart,
            "severity": "critical",
            "sentence": "Dropped 41% since Mon 09:00, after v7.",
            "since": timezone.now() - timedelta(hours=2),
            "owner": world.users["marketer"],
            **fields,
        }
    )
    Mail.objects.create(
        dedupe_key=f"opened:{incident.pk}", incident=incident, to="marketer@example.com", subject="s", text="t", html="<p>t</p>",
        message_id="<1@x>", state="sent", sent_at=timezone.now(),
    )  # fmt: skip
    return incident


def test_a_drop_needs_its_owner_and_waits_for_somebody_else_as_others_see_it(world):
    incident = drop(world)
    mine = home(world, "marketer")
    assert "1 thing needs you" in mine
    assert "Dropped 41% since Mon 09:00, after v7. 2 h ago · Mail sent to marketer@example.com" in mine
    theirs = home(world, "operator")
    assert "Nothing needs you" in theirs
    assert "1 thing waits for somebody else" in theirs
    assert "Dropped 41%" in theirs
    client = Client()
    client.force_login(world.users["marketer"])
    page = client.get("/").content.decode()
    assert f'href="/alerts/{incident.pk}/"' in page


def test_an_alert_that_somebody_took_up_or_that_is_over_needs_nobody(world):
    drop(world, acknowledged_by=world.users["admin"], acknowledged_at=timezone.now())
    seen = home(world, "marketer")
    assert "Nothing needs you" in seen
    assert "1 open alert that somebody has taken up" in seen
    assert "Admin is on it." in seen
    Incident.objects.update(recovered_at=timezone.now())
    seen = home(world, "marketer")
    assert "All is calm" in seen
    assert "Dropped 41%" not in seen


def test_what_waits_for_an_approval_or_stands_still_needs_those_who_may_act(world):
    Run.objects.create(mapping=world.mapping, state="approval", trigger="schedule", planned_removes=1_200)
    Hold.objects.create(mapping=world.mapping, direction="adds", rule="feed", reason="No purchase has come for 3 h.", lift_roles=["operator"])  # fmt: skip
    operator = home(world, "operator")
    assert "2 things need you" in operator
    assert "A sync would remove 1,200 people from Meta EU, more than it may by itself." in operator
    assert "Adds to Meta EU stopped for safety. No purchase has come for 3 h." in operator
    buyer = home(world, "buyer")
    assert "Nothing needs you" in buyer
    assert "Waits for an admin or operator." in buyer


def test_what_one_began_or_asked_for_is_ones_own_and_a_buyer_hears_nothing_of_it(world):
    version = world.cart.live_version
    assert version is not None
    SetUp.objects.create(purpose="retargeting", destination=world.destination, started_by=world.users["marketer"])
    SpotCheck.objects.create(audience=world.cart, version=version, state="ready", asked_by=world.users["marketer"], drawn_at=timezone.now())  # fmt: skip
    marketer = home(world, "marketer")
    assert "2 things need you" in marketer
    assert "Retargeting on Meta EU" in marketer
    assert "A spot check of version 1 is drawn" in marketer
    admin = home(world, "admin")
    assert "2 things wait for somebody else" in admin
    assert "Marketer began it." in admin
    assert "Retargeting on Meta EU" not in home(world, "buyer")


def test_what_changed_in_what_one_follows_is_told_with_its_reason(world):
    assert "Press “Follow” on an audience" in home(world, "buyer")
    world.users["buyer"].follows.add(world.cart)
    audiences.change(actor=world.users["marketer"], audience=world.cart, description="Carts", reason="For the autumn")
    seen = home(world, "buyer")
    assert "You follow · 1" in seen
    assert "Details changed : “For the autumn” · just now" in seen or "Details changed: “For the autumn”" in seen


def test_the_last_day_is_summed_up_and_rehearsals_are_not_in_it(world):
    Run.objects.create(mapping=world.mapping, state="failed", trigger="schedule", error="x")
    Run.objects.create(mapping=world.mapping, state="done", trigger="schedule", added=500, removed=20)
    Run.objects.create(mapping=world.mapping, state="done", trigger="person", added=9_000, rehearsal=True)
    seen = home(world, "buyer")
    assert "Syncs 3 · 1 failed" in seen
    assert "Added 501" in seen
    assert "Removed 20" in seen


def test_an_empty_workspace_is_told_how_to_begin():
    client = Client()
    client.force_login(filled.users()["operator"])
    seen = words(client.get("/"))
    assert "There is none yet" in seen
    assert "Import people" in seen


def test_the_first_minute_is_the_demos_alone_put_away_and_brought_back(world, settings):
    assert "Your first minute" not in home(world, "marketer")
    settings.DEMO = True
    for role in User.Role.values:
        assert f"Your first minute as {User.Role(role).label.lower()}" in home(world, role)
    client = Client()
    client.force_login(world.users["marketer"])
    put_away = client.post("/hide-tour/", follow=True)
    assert "Your first minute" not in words(put_away)
    page = put_away.content.decode()
    assert 'action="/hide-tour/"' in page
    assert 'name="back" value="1"' in page
    assert "Your first minute" in words(client.post("/hide-tour/", {"back": "1"}, follow=True))


def test_every_step_of_the_first_minute_leads_where_it_says(world, settings):
    settings.DEMO = True
    both = [filled.audience(key, filled.CART, world.users["marketer"]) for key in tour.BOTH]
    refreshes.refresh(both, cause=Refresh.Cause.MANUAL)
    client = Client()
    client.force_login(world.users["marketer"])
    page = client.get("/").content.decode()
    assert f'href="/overlap/{tour.BOTH[0]}/{tour.BOTH[1]}/"' in page
    for step in tour.steps(world.users["marketer"]):
        assert client.get(step.url).status_code == 200, step
    assert "Add exclusion" in words(client.get(f"/overlap/{tour.BOTH[0]}/{tour.BOTH[1]}/"))


def test_a_spot_check_of_a_version_that_is_live_no_more_asks_nobody_to_sign_it(world):
    version = world.cart.live_version
    assert version is not None
    SpotCheck.objects.create(audience=world.cart, version=version, state="ready", asked_by=world.users["marketer"])
    assert "spot check of version 1" in home(world, "marketer")
    draft = versions.save_draft(actor=world.users["marketer"], audience=world.cart, segment=filled.BUYERS)
    versions.publish(actor=None, version=draft, reason="Another rule", override="for the test")
    assert "spot check of version 1" not in home(world, "marketer")
