"""What audiences are called on platforms: over real sockets, as the platform itself says it."""

from dataclasses import replace

import pytest

from audiences import channels, naming
from audiences.models import Audience
from audiences.services import audiences
from audiences.services import naming as service
from destinations import remote_names
from destinations.connectors import registry
from destinations.connectors.openlist import OpenList
from destinations.models import Mapping
from destinations.services import Refused, mappings
from tests.audiences.people_in import identify, track
from tests.destinations import scene

pytestmark = pytest.mark.django_db(transaction=True)
TOKENS = {"channel": "meta", "intent": "cart", "window": "24h"}
OTHER_RULE = {"all": [scene.IN, {"event": "purchase", "count": {"exactly": 0}, "within": "60d"}]}


@pytest.fixture
def cart(db) -> Audience:
    """An audience that follows the convention, with two people."""
    scene.workspace()
    service.adopt_starter(actor=None)
    for id in ("anna", "bert"):
        identify(id, **{"email": f"{id}@example.com", "in": "yes"})
    track("zoe", "purchase")
    made = scene.audience("cart", scene.NO_PURCHASE)
    return service.rename_by_convention(actor=None, audience=made, tokens=TOKENS)


def there(live: scene.Scene) -> str:
    """The name that the platform itself gives."""
    live.mapping.refresh_from_db()
    with registry.open(live.mapping.destination) as connector:
        return connector.describe(live.mapping.remote_id).name


def publish(key: str, rule) -> None:
    scene.audience(key, rule)


@pytest.mark.parametrize("kind", ["meta", "google", "openlist"])
def test_it_is_made_under_its_name_and_renamed_when_a_new_version_is_live(cart, sandbox, account_number, kind):
    live = scene.live(sandbox, account_number, cart, kind=kind)
    run = live.sync()
    assert (run.state, there(live)) == ("done", f"{kind}_cart_24h_v1")
    before = live.mapping.remote_id

    publish("cart", OTHER_RULE)
    assert Audience.objects.get(key="cart").name == "meta_cart_24h_v2"
    run = live.sync()

    assert (run.state, run.planned_adds, run.planned_removes) == ("done", 0, 0)
    assert there(live) == f"{kind}_cart_24h_v2"
    assert (live.mapping.remote_id, live.mapping.remote_name) == (before, f"{kind}_cart_24h_v2")
    assert live.emails() == scene.hashes("anna", "bert")


def test_a_webhook_hears_of_the_new_name(cart, sandbox, account_number):
    live = scene.live(sandbox, account_number, cart, kind="webhook")
    live.sync()
    publish("cart", OTHER_RULE)
    live.sync()
    live.mapping.refresh_from_db()
    assert live.mapping.remote_name == "webhook_cart_24h_v2"


def test_a_second_sync_under_the_right_name_asks_nothing_about_it(cart, sandbox, account_number):
    live = scene.live(sandbox, account_number, cart)
    live.sync()
    before = len(live.calls())
    live.sync()
    assert len(live.calls()) == before


def test_a_name_that_a_person_chose_for_the_connection_stays(cart, sandbox, account_number):
    live = scene.live(sandbox, account_number, cart, own_name="Carts of the agency")
    live.sync()
    publish("cart", OTHER_RULE)
    live.sync()
    assert there(live) == "Carts of the agency"

    mappings.change(actor=None, mapping=live.mapping, own_name="")
    live.sync()
    assert there(live) == "meta_cart_24h_v2"


def test_a_name_of_its_own_is_told_exactly_and_without_a_convention_so_is_every_name(cart, sandbox, account_number):
    service.name_freely(actor=None, audience=cart, name="Carts, by hand", name_reason="as the agency has it")
    cart.refresh_from_db()
    live = scene.live(sandbox, account_number, cart, kind="google")
    live.sync()
    assert there(live) == "Carts, by hand"
    service.NamingConvention.objects.all().delete()
    audiences.rename(actor=None, audience=cart, name="Carts of the week")
    live.sync()
    assert there(live) == "Carts of the week"


def test_a_changed_convention_renames_nothing_by_itself(cart, sandbox, account_number):
    live = scene.live(sandbox, account_number, cart, kind="google")
    live.sync()
    dashed = replace(service.current(), separator="-")
    service.change(actor=None, convention=dashed)
    live.sync()
    assert there(live) == "meta_cart_24h_v1"  # as it is called here, until somebody renames it
    service.rename_by_convention(actor=None, audience=Audience.objects.get(key="cart"), tokens=TOKENS)
    live.sync()
    assert there(live) == "google-cart-24h-v1"


def test_a_platform_that_renames_nothing_keeps_the_old_name_and_the_page_says_so(
    cart, sandbox, account_number, monkeypatch
):
    monkeypatch.setattr(OpenList, "capabilities", replace(OpenList.capabilities, can_rename=False))
    live = scene.live(sandbox, account_number, cart, kind="openlist")
    live.sync()
    publish("cart", OTHER_RULE)
    run = live.sync()
    assert (run.state, there(live)) == ("done", "openlist_cart_24h_v1")
    name = remote_names.now(Mapping.objects.select_related("audience__live_version", "destination").get())
    assert (name.state, name.wished) == ("stuck", "openlist_cart_24h_v2")
    assert "renames nothing: it stays “openlist_cart_24h_v1” there" in name.words


def test_a_name_that_grew_too_long_for_a_platform_is_not_cut_and_stops_no_sync(cart, sandbox, account_number):
    live = scene.live(sandbox, account_number, cart, kind="openlist")
    live.sync()
    short = replace(service.current(), lengths={"openlist": len("openlist_cart_24h_v1")})
    service.change(actor=None, convention=short)
    for number in range(2, 11):
        publish("cart", {"all": [scene.IN, {"event": "purchase", "count": {"exactly": 0}, "within": f"{number}d"}]})
    identify("carl", email="carl@example.com", **{"in": "yes"})
    run = live.sync()
    assert (run.state, run.added) == ("done", 1)
    name = remote_names.now(Mapping.objects.select_related("audience__live_version", "destination").get())
    assert (name.state, name.wished) == ("long", "")
    assert "“openlist_cart_24h_v10” has 21 characters; 20 fit" in name.words


def test_a_connection_whose_name_does_not_fit_is_not_made_under_a_cut_one(cart, sandbox, account_number):
    service.change(actor=None, convention=replace(service.current(), lengths={"google": 20}))
    service.name_freely(actor=None, audience=cart, name="A name of more than twenty characters", name_reason="why not")
    live = scene.live(sandbox, account_number, Audience.objects.get(key="cart"), kind="google")
    run = live.sync()
    assert run.state == "failed"
    assert "20 fit" in run.error
    assert live.calls("create") == []


def test_two_audiences_do_not_take_one_name_at_one_destination(cart, sandbox, account_number):
    live = scene.live(sandbox, account_number, cart)
    live.sync()
    twin = scene.audience("twin", scene.NO_PURCHASE)
    service.rename_by_convention(actor=None, audience=twin, tokens={**TOKENS, "channel": "google"})
    other = scene.live(sandbox, account_number, Audience.objects.get(key="twin"))
    run = other.sync()
    assert run.state == "failed"
    assert "cart is called “meta_cart_24h_v1” there already" in run.error
    with pytest.raises(Refused, match="200"):
        mappings.change(actor=None, mapping=other.mapping, own_name="x" * 201)


def test_an_adopted_audience_keeps_the_name_it_had(cart, sandbox, account_number):
    first = scene.live(sandbox, account_number, cart)
    first.sync()
    mappings.retire(actor=None, mapping=first.mapping)
    other = scene.audience("other", scene.NO_PURCHASE)
    mapping = mappings.create(actor=None, audience=other, destination=first.mapping.destination, identifiers=["email"])
    mapping = mappings.adopt(actor=None, mapping=mapping, remote_id=Mapping.objects.get(pk=first.mapping.pk).remote_id)
    name = remote_names.now(mapping)
    assert (name.state, name.told, name.to_rename) == ("kept", "meta_cart_24h_v1", False)


def test_the_floor_below_knows_every_platform_and_its_room():
    known = {channel.kind: channel for channel in channels.known()}
    assert list(known) == list(registry.CONNECTORS)
    for kind, connector in registry.CONNECTORS.items():
        assert known[kind].name_length == connector.capabilities.name_length
        assert naming.VALUE.fullmatch(kind)
