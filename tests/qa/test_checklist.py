"""The eight things an audience passes, and the seven of a workspace: each said by the data, with "cannot tell" where it cannot."""

from datetime import timedelta

import pytest
from django.utils import timezone

from audiences.models import Audience, EventName, Identity, NamingConvention, Refresh
from audiences.services import versions
from destinations.models import Destination, Eligibility, Mapping, Removal
from qa import checklist
from qa.models import Baseline, SpotCheck
from tests import filled

pytestmark = pytest.mark.django_db
KEYS = ("place", "identifiers", "time", "removal", "spot-check", "name", "owners", "baseline")


@pytest.fixture
def world() -> filled.Filled:
    world = filled.fill()
    Mapping.objects.filter(pk=world.mapping.pk).update(first_live_at=timezone.now())
    return world


def items(audience: Audience) -> dict[str, checklist.Item]:
    found = checklist.of(Audience.objects.get(pk=audience.pk))
    assert tuple(item.key for item in found) == KEYS
    for item in found:
        assert item.words.endswith((".", "”")) or " · " in item.words or ":" in item.words
        assert item.url.startswith("/")
    return {item.key: item for item in found}


def item(audience: Audience, key: str) -> checklist.Item:
    return items(audience)[key]


def suppressed(world: filled.Filled, state: str = "live") -> Mapping:
    return Mapping.objects.create(
        audience=world.buyers, destination=world.destination, identifiers=["email"], state=state
    )


def test_a_bare_audience_has_nothing_done_and_each_item_says_where_to_begin(world):
    found = items(world.draft)
    assert {key for key, one in found.items() if one.done} <= {"name", "owners"}
    assert found["place"].words == "It is connected to no destination yet."
    assert found["place"].url == f"/audiences/{world.draft.key}/setup/"


def test_place(world):
    one = item(world.cart, "place")
    assert (one.done, one.words) == (True, "Retargeting on Meta EU (live).")
    Mapping.objects.update(state="retired")
    assert item(world.cart, "place").done is False


def test_identifiers_are_done_when_enough_of_those_who_may_be_sent_have_one(world):
    assert item(world.cart, "identifiers").done is True
    Eligibility.objects.filter(step="unreachable").update(out_count=6, remaining=4)
    one = item(world.cart, "identifiers")
    assert one.done is False
    assert "40% of those who may be sent have one" in one.words
    Eligibility.objects.all().delete()
    assert item(world.cart, "identifiers").done is None
    Mapping.objects.update(identifiers=[])
    assert item(world.cart, "identifiers").done is False


def test_of_two_plans_the_newer_counts(world):
    Eligibility.objects.filter(step="unreachable").update(out_count=6, remaining=4)
    newer = Refresh.objects.create(
        audience=world.cart,
        version=world.cart.live_version,
        cause="manual",
        as_of_us=1,
        manifest=0,
        hot=0,
        change_seq=0,
    )
    Eligibility.objects.create(
        mapping=world.mapping, refresh=newer, position=0, step="unreachable", out_count=0, remaining=10
    )
    assert "100%" in item(world.cart, "identifiers").words


def test_time_logic_needs_a_way_out(world):
    assert "24 hours after their last “add_to_cart”, and in 1 more way" in item(world.cart, "time").words
    draft = versions.save_draft(actor=None, audience=world.cart, segment={"event": "add_to_cart"})
    versions.publish(actor=None, version=draft, reason="test", override="for the test")
    one = item(world.cart, "time")
    assert one.done is False
    assert "stays in for ever" in one.words
    Audience.objects.filter(pk=world.cart.pk).update(invalid_reason="an event is gone")
    assert "an event is gone" in item(world.cart, "time").words


def test_removals_are_validated_by_one_that_the_platform_took_and_suppression_comes_before(world):
    one = item(world.cart, "removal")
    assert (one.done, "is not at work on Meta EU yet" in one.words) == (False, True)
    world.cart.excluded_by.clear()
    one = item(world.cart, "removal")
    assert (one.done, one.url) == (False, f"/audiences/{world.cart.key}/pair/")
    world.cart.excluded_by.add(world.buyers)
    suppressed(world)
    assert item(world.cart, "removal").done is None, "nobody has left yet"
    identity = Identity.objects.first().identity_no
    removal = Removal.objects.create(
        mapping=world.mapping, identity_no=identity, cause="purchase", left_at=timezone.now()
    )
    assert item(world.cart, "removal").done is False, "it has not arrived"
    removal.accepted_at = timezone.now()
    removal.save()
    one = item(world.cart, "removal")
    assert (one.done, one.words) == (
        True,
        "1 of 1 removals received by the platform. Suppressed by meta_buyers_7d.",
    )


def test_a_rehearsal_has_validated_nothing_and_an_exception_stands_in_for_suppression(world):
    Mapping.objects.update(state="rehearsal", first_live_at=None)
    until = (timezone.now() + timedelta(days=1)).isoformat()
    Mapping.objects.update(override={"by": "operator@example.com", "reason": "launch", "until": until})
    world.cart.excluded_by.clear()
    one = item(world.cart, "removal")
    assert (one.done, "Rehearsed only" in one.words, "By a written exception" in one.words) == (False, True, True)
    # A suppression audience itself needs none beside it.
    Mapping.objects.update(audience=world.buyers, state="live")
    assert item(world.buyers, "removal").done is None


def test_the_spot_check_is_of_the_live_version(world):
    assert item(world.cart, "spot-check").done is False
    SpotCheck.objects.create(
        audience=world.cart,
        version=world.cart.live_version,
        state="signed",
        signed_by=world.users["marketer"],
        signed_at=timezone.now(),
    )
    one = item(world.cart, "spot-check")
    assert one.done is True
    assert "signed off by Marketer" in one.words
    draft = versions.save_draft(actor=None, audience=world.cart, segment=filled.BUYERS)
    versions.publish(actor=None, version=draft, reason="test", override="for the test")
    one = item(world.cart, "spot-check")
    assert (one.done, "v1 was signed off by Marketer; v2 is live now." in one.words) == (False, True)


def test_the_name_is_held_against_the_convention_where_there_is_one(world):
    assert item(world.cart, "name").done is False
    Audience.objects.filter(pk=world.cart.pk).update(name="meta_cart_24h_v1")
    assert item(world.cart, "name").done is True
    Audience.objects.filter(pk=world.cart.pk).update(name="Anything", name_reason="A partner's name")
    assert item(world.cart, "name").done is True
    NamingConvention.objects.all().delete()
    assert item(world.draft, "name").done is None


def test_owners_are_people_who_can_sign_in(world):
    people = world.users
    Audience.objects.filter(pk=world.cart.pk).update(
        definition_owner=people["marketer"], sync_owner=people["operator"], alert_owner=people["buyer"]
    )
    assert item(world.cart, "owners").done is True
    people["buyer"].is_active = False
    people["buyer"].save()
    one = item(world.cart, "owners")
    assert (one.done, "alerts" in one.words) == (False, True)


def test_the_baseline_is_the_one_that_was_frozen(world):
    assert "None was taken for Meta EU" in item(world.cart, "baseline").words
    row = Baseline.objects.create(mapping=world.mapping, size=12_345, frozen_at=timezone.now())
    one = item(world.cart, "baseline")
    assert (one.done, one.words) == (True, "12,345 people, received: not known yet, spend: not entered.")
    row.received, row.weekly_spend, row.currency = 12_000, 900, "EUR"
    row.save()
    assert item(world.cart, "baseline").words == "12,345 people, 12,000 received, 900.00 EUR a week."
    Mapping.objects.update(first_live_at=None)
    assert "when it first goes live" in item(world.cart, "baseline").words


def test_it_takes_the_same_queries_however_many_connections(world, django_assert_num_queries):
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    audience = Audience.objects.select_related("live_version").get(pk=world.cart.pk)
    with CaptureQueriesContext(
        connection,
    ) as few:
        checklist.of(audience)
    for number in range(5):
        other = Destination.objects.create(
            key=f"d{number}", name=f"D{number}", kind="meta", account=world.destination.account
        )
        Mapping.objects.create(audience=world.cart, destination=other, identifiers=["email"], state="live")
    audience = Audience.objects.select_related("live_version").get(pk=world.cart.pk)
    with django_assert_num_queries(len(few)):
        checklist.of(audience)


# --- The workspace.


def test_an_empty_workspace_has_seven_steps_to_do(db):
    steps = checklist.workspace_steps()
    assert [step.done for step in steps] == [False] * 7
    assert all(step.url.startswith("/") and step.words for step in steps)


def test_a_workspaces_steps_follow_its_data(world):
    Audience.objects.filter(pk=world.cart.pk).update(alert_owner=None)
    done = {step.key: step.done for step in checklist.workspace_steps()}
    assert done == {
        "source": True,
        "identifiers": True,
        "segment": True,
        "destination": True,
        "removal": False,
        "spot-check": False,
        "owners": False,
    }
    Removal.objects.create(
        mapping=world.mapping, identity_no=1, cause="rule", left_at=timezone.now(), accepted_at=timezone.now()
    )
    SpotCheck.objects.create(audience=world.cart, version=world.cart.live_version, state="signed")
    Audience.objects.update(alert_owner=world.users["marketer"])
    assert all(step.done for step in checklist.workspace_steps())
    EventName.objects.all().delete()
    assert checklist.workspace_steps()[0].done is False
