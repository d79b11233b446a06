"""What a rule says of its audience's name: windows and words told, contradictions refused without a reason, names that follow a new rule."""

from dataclasses import replace
from html import unescape

import pytest
from django.core.cache import cache
from hypothesis import given, settings

from audiences import conformance, naming, rule_names
from audiences.models import Audience, AuditEntry
from audiences.naming import CHOICE, WINDOW, Convention, NamingRefused, Token, Value
from audiences.naming_forms import NameBuilder
from audiences.segments import gist, grammar
from audiences.segments.recipes import RECIPES
from audiences.services import naming as service
from audiences.services import versions
from tests import filled
from tests.audiences import strategies
from tests.filled import as_

CART = {"channel": "meta", "intent": "cart", "window": "24h"}


def did(event: str, within: str = "", least: int = 1, **more) -> dict:
    return {"event": event, "count": {"at_least": least}, **({"within": within} if within else {}), **more}


def did_not(event: str, within: str = "") -> dict:
    return {"event": event, "count": {"exactly": 0}, **({"within": within} if within else {})}


def of(rule: dict) -> gist.Gist:
    return gist.of(grammar.parse(rule))


CART_24H = {"all": [did("add_to_cart", "24h"), did_not("purchase", "3d")]}
CART_7D = {"all": [did("add_to_cart", "7d"), did_not("purchase", "7d")]}


# --- What a rule is about.


@pytest.mark.parametrize(
    ("rule", "window", "word"),
    [
        (CART_24H, "24h", "cart"),
        ({"all": [did("add_to_cart", "24h"), did_not("add_to_cart", "4h"), did_not("purchase")]}, "4-24h", "cart"),
        (
            {"sequence": [{"event": "add_to_cart", "within": "24h"}, {"event": "purchase", "within": "4h"}], "complete": False},
            "4-24h",
            "cart",
        ),
        (
            {"sequence": [{"event": "checkout_started", "within": "3d"}, {"event": "purchase", "within": "2h"}], "complete": False},
            "3d",
            "checkout",
        ),
        ({"all": [did("product_viewed", "14d", 3), did_not("purchase", "14d")]}, "14d", "viewed3"),
        ({"all": [did("Product Viewed", "7d"), did_not("add_to_cart", "30d")]}, "7d", "browse"),
        (did("searched", "30d", 2), "30d", "search"),
        (did("purchase", "14d"), "14d", "purchasers"),
        (did("Order Completed", "336h"), "14d", "purchasers"),
        (did("purchase", "90m"), "90m", "purchasers"),
        (did("purchase", "36h"), "36h", "purchasers"),
        (did("purchase"), "ever", "purchasers"),
        ({"all": [did("purchase", least=2), did_not("purchase", "60d")]}, "60d", "winback"),
        ({"event": "purchase", "last": "occurrence", "op": "not_within_last", "value": "90d"}, "90d", "lapsed"),
        ({"event": "purchase", "last": "occurrence", "op": "within_last", "value": "5d"}, "5d", "purchasers"),
        ({"all": [did("purchase", "60d"), did_not("purchase", "30d")]}, "30-60d", "replenish"),
        ({"event": "purchase", "sum": "value", "op": "gte", "value": 500, "within": "365d"}, "365d", "vip"),
        ({"all": [did("product_viewed", "30d"), did("add_to_cart", "7d")]}, "7d", "cart"),
        ({"all": [did("product_viewed", "7d"), did("add_to_cart", "7d")]}, "7d", "cart"),
        ({"any": [did("add_to_cart", "24h"), did("begin_checkout", "24h")]}, "24h", "checkout"),
        ({"not": did_not("add_to_cart", "3d")}, "3d", "cart"),
        ({"not": {"any": [did("email_opened", "90d")]}}, "90d", ""),
        (did("wishlist_added", "7d"), "7d", "wishlistadded"),
        ({"attribute": "signed_up_at", "op": "within_last", "value": "7d"}, "7d", ""),
    ],
)  # fmt: skip
def test_a_rule_says_how_far_it_looks_back_and_what_people_did(rule, window, word):
    about = of(rule)
    assert next(iter(about.windows), "") == window
    assert next(iter(about.words), "") == word


@pytest.mark.parametrize(
    "rule",
    [
        {"attribute": "tier", "op": "is", "value": "gold"},
        {"audience": "other"},
        {"list": "staff"},
        {
            "all": [{"attribute": "tier", "op": "exists"}, did_not("purchase", "60d")]
        },  # what it is about stands elsewhere
        {"event": "purchase", "count": {"at_least": 1}, "within": {"from": "2024-01-01", "to": "2024-02-01"}},
        {"bucket": {"salt": "x", "from": 0, "to": 10}},
        {"known_for": "30d"},
        {"event": "purchase", "count": {"at_most": 3}},
    ],
)
def test_a_rule_that_cannot_tell_says_nothing_and_contradicts_nothing(rule):
    about = of(rule)
    assert about.windows == ()
    assert not about.window_is_wrong("24h")
    assert not about.word_is_wrong("cart") or "purchase" in str(rule)


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        (CART_24H, ("24h", "1d", "1440m"), ("7d", "4-24h", "ever", "3d")),
        ({"all": [did("purchase", "60d"), did_not("purchase", "30d")]}, ("60d", "30-60d"), ("30d", "ever")),
        ({"all": [did("product_viewed", "30d"), did("add_to_cart", "7d")]}, ("7d", "30d"), ("24h",)),
        ({"all": [did("add_to_cart", "7d"), {"attribute": "joined", "op": "within_last", "value": "90d"}]}, ("7d", "90d"), ("24h",)),
        ({"all": [did("add_to_cart", "7d"), {"audience": "other"}]}, ("24h",), ()),
    ],
)  # fmt: skip
def test_a_window_is_wrong_only_where_no_deed_of_the_rule_has_it(rule, right, wrong):
    about = of(rule)
    assert [word for word in right if about.window_is_wrong(word)] == []
    assert [word for word in wrong if not about.window_is_wrong(word)] == []


@pytest.mark.parametrize(
    ("rule", "right", "wrong"),
    [
        (CART_24H, ("cart", "Basket", "readers", "spring", "vip"), ("browse", "purchasers", "winback", "viewed3")),
        (did("purchase", "365d", 3), ("repeat", "purchasers", "vip"), ("cart", "winback")),
        (did("product_viewed", "7d", 3), ("viewed3", "browse"), ("viewed2", "cart")),
        (did("email_opened", "30d"), ("readers", "cart"), ()),  # not known what it is, so nothing is wrong
        ({"all": [CART_24H, {"attribute": "orders", "op": "gte", "value": 2}]}, ("cart", "repeat"), ("browse",)),
        ({"all": [CART_24H, {"list": "vip"}]}, ("browse",), ()),
    ],
)
def test_a_word_is_wrong_only_where_it_says_another_deed(rule, right, wrong):
    about = of(rule)
    assert [word for word in right if about.word_is_wrong(word)] == []
    assert [word for word in wrong if not about.word_is_wrong(word)] == []


@settings(max_examples=300, deadline=None)
@given(strategies.trees())
def test_what_a_rule_says_never_contradicts_itself(tree):
    about = gist.of(tree)
    assert not any(map(about.window_is_wrong, about.windows))
    assert not any(map(about.word_is_wrong, about.words))
    assert all(naming.is_window(word) for word in about.windows)


@pytest.mark.parametrize("key", RECIPES)
def test_every_recipe_is_named_by_its_own_rule(key):
    recipe = RECIPES[key]
    names = {"purchase": "purchase", "cart": "add_to_cart", "view": "product_viewed", "amount": "value"}
    about = of(recipe.rule({}, {slot: names[slot] for slot in recipe.slots}))
    assert recipe.intent in about.words
    assert about.windows


def test_a_convention_takes_what_it_has_a_value_for():
    window = Token("window", WINDOW, (Value("24h"), Value("7d")))
    job = Token("job", CHOICE, (Value("winback"), Value("seed")))
    convention = Convention("_", (job, Token("intent", CHOICE, (Value("cart"), Value("re.peat"))), window))
    assert rule_names.told(convention, of(CART_24H)) == {"window": "24h", "intent": "cart"}
    away = of({"all": [did("purchase", least=2), did_not("purchase", "60d")]})
    assert rule_names.told(convention, away) == {"job": "winback", "intent": "re.peat"}  # 60d is no value here
    range_ = of({"all": [did("add_to_cart", "24h"), did_not("add_to_cart", "4h")]})
    assert rule_names.told(replace(convention, tokens=(Token("window", WINDOW),)), range_) == {"window": "4-24h"}
    dashed = Convention("-", (Token("window", WINDOW),))
    assert rule_names.told(dashed, range_) == {"window": "24h"}  # the other could not be read back


def test_a_window_that_begins_and_ends_can_stand_in_a_name_but_not_across_the_separator():
    free = Token("window", WINDOW)
    assert (
        naming.build(Convention("_", (free, Token("v", naming.VERSION))), {"window": "4-24h"}, version=1) == "4-24h_v1"
    )
    assert naming.window_words("4-24h") == "4 to 24 hours ago"
    with pytest.raises(NamingRefused, match="holds the separator"):
        naming.build(Convention("-", (free,)), {"window": "4-24h"})
    for wrong in ("24-4h", "4-4h", "4h-24h", "-4h", "0-4h"):
        assert not free.takes(wrong), wrong


# --- Names of audiences.


@pytest.fixture
def world(db) -> filled.Filled:
    cache.clear()
    return filled.fill()


def named(world, **tokens) -> Audience:
    return service.rename_by_convention(actor=world.users["marketer"], audience=world.cart, tokens={**CART, **tokens})


def publish(audience: Audience, rule: dict) -> Audience:
    draft = versions.save_draft(actor=None, audience=audience, segment=rule)
    versions.publish(actor=None, version=draft, reason="another rule", override="for the test")
    return Audience.objects.select_related("live_version").get(pk=audience.pk)


def text(response) -> str:
    return unescape(response.content.decode()).replace("<wbr>", "")


def test_a_part_that_contradicts_the_rule_needs_a_reason_which_stays_on_the_trail(world):
    with pytest.raises(NamingRefused, match=r"The rule looks at the last 24 hours \(24h\), and the name says 7d"):
        named(world, window="7d")
    with pytest.raises(NamingRefused, match="The rule is about cart, and the name says browse"):
        named(world, intent="browse")
    assert Audience.objects.get(pk=world.cart.pk).name == "meta_cart_24h"

    audience = service.rename_by_convention(
        actor=world.users["marketer"],
        audience=world.cart,
        tokens={**CART, "window": "7d"},
        departs={"window": "the ad set calls it so"},
    )
    assert audience.name == "meta_cart_7d_v1"
    assert audience.name_overrides == {"window": {"value": "7d", "reason": "the ad set calls it so"}}
    line = AuditEntry.objects.filter(verb="audience.renamed").latest("pk")
    assert line.after["name_overrides"]["window"]["reason"] == "the ad set calls it so"
    assert line.reason == "the ad set calls it so"
    # The same value needs no second reason; another one does.
    service.rename_by_convention(actor=None, audience=audience, tokens={**CART, "channel": "google", "window": "7d"})
    with pytest.raises(NamingRefused, match="and the name says 30d"):
        service.rename_by_convention(actor=None, audience=audience, tokens={**CART, "window": "30d"})
    # Back to what the rule says: the reason is gone.
    again = service.rename_by_convention(actor=None, audience=audience, tokens=CART)
    assert again.name_overrides == {}


def test_a_draft_tells_where_nothing_is_live(world):
    versions.save_draft(actor=None, audience=world.draft, segment=CART_7D)
    builder = NameBuilder.of(world.draft)
    assert (builder["intent"].value(), builder["window"].value()) == ("cart", "7d")
    with pytest.raises(NamingRefused, match="and the name says 24h"):
        service.rename_by_convention(actor=None, audience=world.draft, tokens=CART)


def test_publishing_another_window_renames_by_it_and_says_why(world):
    audience = publish(named(world), CART_7D)
    assert (audience.name, audience.name_tokens["window"]) == ("meta_cart_7d_v2", "7d")
    line = AuditEntry.objects.filter(verb="audience.renamed").latest("pk")
    assert (line.before, line.after) == ("meta_cart_24h_v1", "meta_cart_7d_v2")
    assert line.reason == "A new version is live. The rule looks at the last 7 days (7d): 24h becomes 7d in it."


def test_what_somebody_gave_a_reason_for_and_what_was_wrong_before_does_not_follow(world):
    audience = service.rename_by_convention(
        actor=None, audience=world.cart, tokens={**CART, "window": "30d"}, departs={"window": "because"}
    )
    audience = publish(audience, CART_7D)
    assert (audience.name, list(audience.name_overrides)) == ("meta_cart_30d_v2", ["window"])
    audience = publish(audience, {"all": [did("add_to_cart", "30d"), did_not("purchase", "7d")]})
    assert (audience.name, audience.name_overrides) == ("meta_cart_30d_v3", {}), "it contradicts nothing any more"
    Audience.objects.filter(pk=audience.pk).update(name="meta_cart_90d_v3", name_tokens={})
    assert publish(Audience.objects.get(pk=audience.pk), CART_7D).name == "meta_cart_90d_v4"


def test_a_window_without_a_value_in_the_convention_and_another_deed_are_only_said(world):
    audience = named(world)
    draft = versions.save_draft(
        actor=None, audience=audience, segment={"all": [did("add_to_cart", "45d"), did_not("purchase", "3d")]}
    )
    after = service.name_after(audience, draft)
    assert after.name == "meta_cart_24h_v2"
    assert after.words == (
        "The rule looks at the last 45 days (45d), and the name goes on saying 24h: somebody has to choose another.",
    )
    audience = publish(audience, did("purchase", "24h"))
    assert audience.name == "meta_cart_24h_v2"
    [row] = [row for row in conformance.table().rows if row.audience.pk == audience.pk]
    assert (row.state, row.why) == ("broken", ("The rule is about purchasers, and the name says cart.",))
    assert row.suggested == "meta_purchasers_24h_v2"


def test_a_name_that_would_be_another_audiences_does_not_follow(world):
    audience = named(world)
    Audience.objects.filter(pk=world.buyers.pk).update(name="meta_cart_7d_v2")
    assert publish(audience, CART_7D).name == "meta_cart_24h_v2"


def test_conformance_says_which_names_contradict_their_rules_and_which_may(world):
    Audience.objects.filter(pk=world.cart.pk).update(name="meta_cart_7d_v1")
    [row] = [row for row in conformance.table().rows if row.audience.pk == world.cart.pk]
    assert (row.state, row.suggested) == ("broken", "meta_cart_24h_v1")
    assert row.why == ("The rule looks at the last 24 hours (24h), and the name says 7d.",)
    said = {"window": {"value": "7d", "reason": "the agency's"}}
    Audience.objects.filter(pk=world.cart.pk).update(name_overrides=said)
    [row] = [row for row in conformance.table().rows if row.audience.pk == world.cart.pk]
    assert (row.state, row.notes) == ("ok", ("window stays 7d: the agency's",))
    assert "window stays 7d: the agency's" in text(as_(world, "buyer").get("/settings/naming/conformance/"))


# --- The pages.


def test_the_form_shows_what_the_rule_says_and_asks_why_it_differs(world):
    client = as_(world, "marketer")
    at = "/settings/naming/conformance/meta_cart_24h/"
    assert "The rule says 24h." in text(client.get(at))
    sent = {"name-channel": "meta", "name-intent": "cart", "name-window": "7d", "seen": "meta_cart_24h"}
    part = text(client.get("/settings/naming/built/", {**sent, "audience": "meta_cart_24h"}))
    assert 'class="built-name contradicts"' in part
    assert "and the name says 7d" in part
    refused = client.post(at, sent)
    assert refused.status_code == 422
    assert "Choose what the rule says, or say why it differs." in text(refused)
    assert client.post(at, sent | {"name-rule_reason": "the agency's week"}).status_code == 302
    assert Audience.objects.get(pk=world.cart.pk).name == "meta_cart_7d_v1"
    again = text(client.get(at))
    assert "the agency's week" in again
    assert 'class="built-name contradicts"' in again


def test_the_review_says_what_the_name_becomes(world):
    named(world)
    versions.save_draft(actor=world.users["marketer"], audience=world.cart, segment=CART_7D)
    page = text(as_(world, "marketer").get("/audiences/meta_cart_24h/review/"))
    assert 'Its name becomes <code class="anywhere">meta_cart_7d_v2</code>' in page
    assert "24h becomes 7d in it" in page
    assert "each platform is told at the next sync, and its id there stays" in page
