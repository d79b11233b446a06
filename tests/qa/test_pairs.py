"""Suppression first: the audience of recent buyers beside a retargeting one, made, found, linked and connected."""

import pytest

from audiences.models import Audience, AuditEntry
from audiences.services import naming as naming_service
from audiences.services.audiences import AudienceRefused
from destinations.models import Destination, Mapping, Run
from destinations.services import mappings
from qa import pairs
from tests import filled
from tests.filled import as_

pytestmark = pytest.mark.django_db


@pytest.fixture
def world() -> filled.Filled:
    """The cart's audience goes to one destination and has no suppression; all its owners are named."""
    world = filled.fill()
    world.cart.excluded_by.clear()
    people = world.users
    Audience.objects.filter(pk=world.cart.pk).update(
        definition_owner=people["marketer"],
        sync_owner=people["operator"],
        alert_owner=people["buyer"],
        backup_owner=people["admin"],
    )
    world.cart.refresh_from_db()
    return world


def test_a_pair_is_made_owned_linked_published_and_rehearsed_where_the_audience_goes(world):
    pair = pairs.make(actor=world.users["marketer"], audience=world.cart)
    assert (pair.key, pair.purpose) == ("meta_suppress_purchasers_14d", "suppression")
    assert pair.live_version.sentence == "People who did “purchase” at least once in the last 14 days."
    owners = ("definition_owner_id", "sync_owner_id", "alert_owner_id", "backup_owner_id")
    assert [getattr(pair, owner) for owner in owners] == [getattr(world.cart, owner) for owner in owners]
    assert list(world.cart.excluded_by.all()) == [pair]
    mapping = Mapping.objects.get(audience=pair)
    assert (mapping.destination, mapping.state, mapping.identifiers) == (world.destination, "rehearsal", ["email"])
    assert Run.objects.filter(mapping=mapping, rehearsal=True).exists()


def test_made_twice_it_is_the_same_one(world):
    first = pairs.make(actor=world.users["marketer"], audience=world.cart)
    again = pairs.make(actor=world.users["marketer"], audience=world.cart)
    assert first == again
    assert Audience.objects.filter(key__startswith="meta_suppress").count() == 1
    assert Mapping.objects.filter(audience=first).count() == 1


def test_a_taken_key_is_numbered_and_without_a_platforms_name_it_has_no_channel(world):
    filled.audience("meta_suppress_purchasers_14d", None, world.users["marketer"], "suppression")
    assert pairs.make(actor=world.users["marketer"], audience=world.cart).key == "meta_suppress_purchasers_14d_2"
    plain = filled.audience("carts", filled.CART, world.users["marketer"])
    assert pairs.key_of(plain, 7, "Order Completed!") == "suppress_order_completed_7d"


@pytest.mark.parametrize("days", [6, 31, 0, -14])
def test_fewer_than_seven_days_or_more_than_thirty_are_refused_and_nothing_is_left_behind(world, days):
    before = Audience.objects.count()
    with pytest.raises(AudienceRefused, match="from 7 to 30"):
        pairs.make(actor=world.users["marketer"], audience=world.cart, days=days)
    assert Audience.objects.count() == before


def test_an_event_that_nobody_has_done_is_refused_whole(world):
    before = Audience.objects.count()
    with pytest.raises(AudienceRefused, match="no event"):
        pairs.make(actor=world.users["marketer"], audience=world.cart, event="never_seen")
    assert (Audience.objects.count(), world.cart.excluded_by.count()) == (before, 0)


def test_a_suppression_audience_gets_no_pair(world):
    with pytest.raises(AudienceRefused, match="itself"):
        pairs.make(actor=world.users["marketer"], audience=world.buyers)


def test_where_owners_are_missing_whoever_makes_it_stands_in(world):
    Audience.objects.filter(pk=world.cart.pk).update(sync_owner=None, alert_owner=None, backup_owner=None)
    world.cart.refresh_from_db()
    pair = pairs.make(actor=world.users["admin"], audience=world.cart)
    assert (pair.definition_owner, pair.alert_owner) == (world.users["marketer"], world.users["admin"])


def test_it_is_named_by_the_convention(world):
    assert naming_service.current() is not None
    pair = pairs.make(actor=world.users["marketer"], audience=world.cart)
    assert pair.name == "meta_purchasers_14d_v1"


def test_one_that_is_there_is_offered_only_where_it_goes_to_the_same_destinations(world):
    assert pairs.alike(world.cart, days=14, event="purchase") == [], "the buyers go nowhere"
    Mapping.objects.create(audience=world.buyers, destination=world.destination, identifiers=["email"], state="live")
    [found] = pairs.alike(world.cart, days=14, event="purchase")
    assert (found.audience, found.days, found.places) == (world.buyers, 7, "Meta EU (live)")
    other = Destination.objects.create(key="o", name="Other", kind="meta", account=world.destination.account)
    Mapping.objects.create(audience=world.cart, destination=other, identifiers=["email"])
    assert pairs.alike(world.cart, days=14, event="purchase") == []


def test_another_rule_an_archived_or_a_linked_one_is_not_offered(world):
    Mapping.objects.create(audience=world.buyers, destination=world.destination, identifiers=["email"], state="live")
    assert pairs.alike(world.cart, days=14, event="add_to_cart") == []
    world.cart.excluded_by.add(world.buyers)
    assert pairs.alike(world.cart, days=14, event="purchase") == []


def test_linking_one_brings_it_to_the_audiences_destinations(world):
    pairs.link(actor=world.users["marketer"], audience=world.cart, suppression=world.buyers)
    assert Mapping.objects.get(audience=world.buyers).destination == world.destination
    assert pairs.partners([world.cart.pk, world.draft.pk]) == {world.cart.pk: [world.buyers]}
    assert pairs.lacking(world.cart) == []
    other = Destination.objects.create(key="o", name="Other", kind="meta", account=world.destination.account)
    Mapping.objects.create(audience=world.cart, destination=other, identifiers=["email"])
    assert pairs.lacking(world.cart) == [world.buyers]


def test_partners_of_many_take_one_query(world, django_assert_num_queries):
    world.cart.excluded_by.add(world.buyers)
    ids = list(Audience.objects.values_list("pk", flat=True))
    with django_assert_num_queries(1):
        assert pairs.partners(ids) == {world.cart.pk: [world.buyers]}


def test_the_pair_lets_the_retargeting_go_live_once_it_is_live_itself(world):
    Mapping.objects.filter(pk=world.mapping.pk).update(state="rehearsal")
    world.mapping.refresh_from_db()
    pair = pairs.make(actor=world.users["admin"], audience=world.cart)
    assert "still in rehearsal on Meta EU" in mappings.objection(world.mapping)
    mappings.go_live(actor=world.users["admin"], mapping=Mapping.objects.get(audience=pair))
    assert mappings.objection(world.mapping) == ""


# --- In the browser.


def test_the_page_makes_it_and_says_what_it_will_be_called(world):
    client, address = as_(world, "marketer"), f"/audiences/{world.cart.key}/pair/"
    assert "meta_suppress_purchasers_14d" in client.get(address).content.decode()
    response = client.post(address, {"days": "21", "event": "purchase"}, follow=True)
    assert "meta_suppress_purchasers_21d is made and linked" in response.content.decode()
    assert AuditEntry.objects.filter(verb="audience.linked", object_key=world.cart.key).exists()


def test_the_page_links_one_that_is_there(world):
    Mapping.objects.create(audience=world.buyers, destination=world.destination, identifiers=["email"], state="live")
    client, address = as_(world, "marketer"), f"/audiences/{world.cart.key}/pair/"
    assert "There is one already" in client.get(address).content.decode()
    client.post(address, {"link": world.buyers.key})
    assert list(world.cart.excluded_by.all()) == [world.buyers]


@pytest.mark.parametrize(
    ("form", "status"),
    [
        ({"days": "99", "event": "purchase"}, 422),
        ({"days": "x", "event": "purchase"}, 422),
        ({"days": "14", "event": "<img onerror>"}, 422),
        ({}, 422),
        ({"link": "nothing-like-it"}, 404),
        ({"link": "not_yet"}, 422),  # no suppression audience
        ({"link": "meta_cart_24h"}, 422),
    ],
)
def test_bad_input_is_answered_and_changes_nothing(world, form, status):
    before = Audience.objects.count()
    assert as_(world, "marketer").post(f"/audiences/{world.cart.key}/pair/", form).status_code == status
    assert (Audience.objects.count(), world.cart.excluded_by.count()) == (before, 0)


def test_roles_that_may_not_edit_audiences_make_none(world):
    for role in ("buyer", "operator"):
        assert as_(world, role).post(f"/audiences/{world.cart.key}/pair/", {"days": "14"}).status_code == 403
