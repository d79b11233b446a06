"""What audiences are called on platforms: over real sockets, as the platform itself says it."""

from dataclasses import replace

import pytest

from audiences import channels, naming
from audiences.models import Audience, AuditEntry
from audiences.services import audiences
from audiences.services import naming as service
from destinations import blueprint, remote_names
from destinations.blueprint.notation import load_yaml
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


def test_a_name_that_somebody_changed_on_the_platform_is_seen_and_put_right(cart, sandbox, account_number):
    live = scene.live(sandbox, account_number, cart)
    live.sync()
    live.mapping.refresh_from_db()
    with registry.open(live.mapping.destination) as connector:
        connector.rename(live.mapping.remote_id, "My carts")
    Mapping.objects.update(matched_at=None)
    live.sync()  # nobody to add or remove: it only asks how many matched, and sees the name
    page = remote_names.every()[0]
    assert (page.state, page.told, page.wished) == ("waits", "My carts", "meta_cart_24h_v1")
    live.sync()
    assert there(live) == "meta_cart_24h_v1"
    line = AuditEntry.objects.get(verb="mapping.renamed")
    assert (line.before, line.after) == ("My carts", "meta_cart_24h_v1")
    with registry.open(live.mapping.destination) as connector:
        connector.rename(live.mapping.remote_id, "My carts again")
    identify("carl", email="carl@example.com", **{"in": "yes"})
    live.sync()
    assert there(live) == "meta_cart_24h_v1"
    assert AuditEntry.objects.filter(verb="mapping.renamed").latest("pk").reason == "somebody had renamed it there"


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


# --- In the file that `apply` reads and `export` writes.

FILE = """
naming:
  separator: _
  tokens:
    - channel
    - {name: intent, values: {cart: Put something in the cart, browse: ""}}
    - {name: window, values: [24h, 7d]}
    - {name: note, kind: text, optional: true}
    - version
  lengths: {meta: 60}
audiences:
  - key: cart
    purpose: retargeting
    owner: someone@example.com
    tokens: {channel: meta, intent: cart, window: 24h}
    segment: {attribute: in, op: is, value: "yes"}
  - key: odd
    purpose: analytics
    owner: someone@example.com
    name: Carts of the agency
    name_reason: They search for it
"""


def applied(text: str) -> blueprint.Plan:
    plan = blueprint.plan(blueprint.parse(load_yaml(text)), "names.yaml")
    plan.carry_out()
    return plan


def refused(text: str) -> list[str]:
    with pytest.raises(blueprint.BlueprintRefused) as error:
        applied(text)
    return [str(problem) for problem in error.value.problems]


@pytest.fixture
def shop(db) -> None:
    scene.workspace()
    identify("anna", email="anna@example.com", **{"in": "yes"})


def test_a_file_sets_the_convention_and_names_audiences_by_it(shop):
    applied(FILE)
    assert service.current().pattern == "{channel}_{intent}_{window}_[{note}]_v{version}"
    cart, odd = Audience.objects.get(key="cart"), Audience.objects.get(key="odd")
    assert (cart.name, cart.name_tokens) == ("meta_cart_24h_v1", TOKENS)
    assert (odd.name, odd.name_reason) == ("Carts of the agency", "They search for it")
    assert not applied(FILE).changed
    again = blueprint.export()
    assert "tokens:\n  - name: channel" in again
    assert not applied(again).changed


def test_a_file_that_publishes_a_version_leaves_the_name_that_followed_it(shop):
    applied(FILE)
    changed = FILE.replace('op: is, value: "yes"', "op: exists")
    applied(changed)
    assert Audience.objects.get(key="cart").name == "meta_cart_24h_v2"
    assert not applied(changed).changed


def test_a_changed_convention_in_the_file_renames_those_that_the_file_names(shop):
    applied(FILE)
    plan = applied(FILE.replace("separator: _", 'separator: "-"'))
    assert Audience.objects.get(key="cart").name == "meta-cart-24h-v1"
    words = [(detail.field, detail.after) for change in plan.changes for detail in change.details]
    assert ("name", "meta-cart-24h-v1") in words
    assert any("becomes {channel}-{intent}" in after for _, after in words)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        (
            "intent: cart,",
            "intent: carts,",
            "audiences[0].tokens.intent: “carts” is not one of the intents: cart, browse",
        ),
        ("window: 24h}", "colour: red}", "audiences[0].tokens.colour: is no part of a name to choose"),
        ("channel: meta,", "", "audiences[0].tokens.channel: Choose the channel"),
        ("    tokens:", "    name: x\n    tokens:", "audiences[0].name: stands beside tokens"),
        ("tokens: {channel: meta, intent: cart, window: 24h}", "tokens: [meta]", "audiences[0].tokens: must be parts"),
        ("name_reason: They search for it", 'name_reason: " "', "audiences[1].name_reason: explains a name of its own"),
        ("separator: _", "separator: x", "naming.separator: must be 1 to 3 of the signs"),
        ("cart: Put", "ca_rt: Put", "naming.tokens[1].values[0]: “ca_rt” holds the separator"),
        ("meta: 60", "meta: 900", "naming.lengths.meta: must be a whole number from 20 to 200"),
        ("- channel", "- 7", "naming.tokens[0]: must be fields with values"),
        ("  tokens:\n    - channel", "  parts:\n    - channel", "naming.parts: is not known here"),
        ("values: [24h, 7d]", "values: [[24h]]", "naming.tokens[2].values[0]"),
    ],
)
def test_what_is_wrong_with_names_in_a_file_is_said_at_its_place(shop, old, new, says):
    assert old in FILE
    assert any(problem.startswith(says) for problem in refused(FILE.replace(old, new, 1))), refused(
        FILE.replace(old, new, 1)
    )
    assert not Audience.objects.exists()


def test_two_audiences_of_a_file_cannot_have_one_name(shop):
    twin = FILE.replace("key: odd", "key: odd\n    tokens: {channel: meta, intent: cart, window: 24h}")
    twin = twin.replace("    name: Carts of the agency\n    name_reason: They search for it\n", "")
    assert refused(twin) == ["audiences[1].tokens: give “meta_cart_24h_v1”, the name of cart already"]


def test_a_connection_s_own_name_stands_in_the_file(cart, sandbox, account_number):
    live = scene.live(sandbox, account_number, cart)
    text = blueprint.export()
    changed = text.replace("  state: live\n", "  state: live\n  remote_name: Agency carts\n")
    plan = applied(changed)
    assert [d.field for c in plan.changes for d in c.details] == ["remote_name"]
    live.sync()
    assert there(live) == "Agency carts"
    assert "remote_name: Agency carts" in blueprint.export()


WEEK = """{"event": "purchase", "count": {"at_least": 1}, "within": "7d"}"""


def test_a_part_that_says_another_than_the_rule_of_the_file_is_kept_with_a_reason_and_written_back(shop):
    track("anna", "purchase")
    text = FILE.replace('{attribute: in, op: is, value: "yes"}', WEEK).replace(
        "cart: Put something in the cart", "cart: x, purchasers: Bought"
    )
    text = text.replace("intent: cart, window: 24h}", "intent: purchasers, window: 24h}")
    plan = applied(text)
    assert any(
        "looks at the last 7 days (7d), and the name says 24h. It is kept so, as the file has it." in note
        for note in plan.notes
    )
    cart = Audience.objects.get(key="cart")
    assert cart.name == "meta_purchasers_24h_v1"
    assert cart.name_overrides == {"window": {"value": "24h", "reason": "applied from names.yaml"}}
    assert not applied(text).changed

    reasoned = text.replace("    segment:", "    token_reasons: {window: The agency knows it so}\n    segment:", 1)
    applied(reasoned)
    assert Audience.objects.get(key="cart").name_overrides["window"]["reason"] == "The agency knows it so"
    again = blueprint.export()
    assert "The agency knows it so" in again
    assert not applied(again).changed
    # A rule that the name is right about takes the reason away; what the file said stays what it means.
    applied(reasoned.replace('"within": "7d"', '"within": "24h"'))
    cart = Audience.objects.get(key="cart")
    assert (cart.name, cart.name_overrides) == ("meta_purchasers_24h_v2", {})


def test_a_file_that_changes_window_and_name_at_once_needs_no_reason(shop):
    track("anna", "purchase")
    text = FILE.replace('{attribute: in, op: is, value: "yes"}', WEEK.replace("7d", "24h"))
    text = text.replace("intent: cart,", "intent: browse,").replace('browse: ""', 'browse: "", bought: ""')
    text = text.replace("intent: browse,", "intent: bought,")
    applied(text)
    changed = text.replace("window: 24h}", "window: 7d}").replace('"within": "24h"', '"within": "7d"')
    plan = applied(changed)
    assert plan.notes == []
    cart = Audience.objects.get(key="cart")
    assert (cart.name, cart.name_overrides) == ("meta_bought_7d_v2", {})
    assert not applied(changed).changed
