"""Recipes give rules that parse, explain themselves, find the right people and can be published; exits say how people leave them."""

import pytest

from audiences import clock
from audiences.clock import DAY, HOUR
from audiences.people import engines
from audiences.segments import evaluate, exits, explain, grammar, recipes
from audiences.services import audiences, refreshes, versions
from tests.audiences.people_in import identify, numbers, track, until_counted

NAMES = {"purchase": "purchase", "cart": "add_to_cart", "view": "product_viewed", "amount": "value"}
ALL = sorted(recipes.RECIPES)


@pytest.fixture
def shop(db):
    """One person for each recipe, and one for none."""
    now = clock.now_us()
    for id in ("cart", "browse", "viewed", "repeat", "lapsed", "due", "fresh", "nobody"):
        identify(id, email=f"{id}@example.com")
    track("cart", "add_to_cart", now - 5 * HOUR)
    for times in range(2):
        track("browse", "product_viewed", now - DAY - times * HOUR)
    for times in range(3):
        track("viewed", "product_viewed", now - 10 * DAY - times * HOUR)
    for days in (70, 80):
        track("repeat", "purchase", now - days * DAY, value=400)
    track("lapsed", "purchase", now - 100 * DAY, value=10)
    track("due", "purchase", now - 45 * DAY, value=20)
    track("fresh", "purchase", now - 2 * DAY, value=5)
    track("fresh", "add_to_cart", now - 3 * HOUR)
    until_counted()


def tree(key, **turned):
    return grammar.parse(recipes.RECIPES[key].rule(turned, NAMES))


@pytest.mark.parametrize("key", ALL)
def test_each_is_a_rule_that_reads_as_a_sentence_and_that_people_leave(key):
    rule = tree(key)
    assert grammar.loads(grammar.canonical(rule)) == rule
    assert explain.sentence(rule).startswith("People who")
    assert exits.leaving(rule), "nobody would ever leave it"
    assert exits.entering(rule)


@pytest.mark.parametrize("key", ALL)
def test_each_takes_its_numbers_to_both_limits_and_no_further(key):
    recipe = recipes.RECIPES[key]
    for number in recipe.numbers:
        usual = {other.name: other.usual for other in recipe.numbers}
        if key != "replenish":
            for edge in (number.low, number.high):
                grammar.parse(recipe.rule({**usual, number.name: edge}, NAMES))
        for beyond in (number.low - 1, number.high + 1):
            with pytest.raises(ValueError, match=number.label):
                recipe.rule({**usual, number.name: beyond}, NAMES)


def test_replenishment_looks_further_back_with_its_second_number():
    with pytest.raises(ValueError, match="further back"):
        recipes.RECIPES["replenish"].rule({"from": 60, "to": 60}, NAMES)


def test_a_cart_is_abandoned_once_it_was_left_alone_and_not_while_somebody_still_shops(shop):
    now = clock.now_us()
    track("nobody", "add_to_cart", now - 5 * HOUR)
    track("nobody", "add_to_cart", now - HOUR)
    until_counted()
    trees = {"usual": tree("cart"), "at once": tree("cart", still=0)}
    with refreshes.pinned(now) as pin:
        found = evaluate.compute(trees, pin, engines.current(), {})
    assert set(found["usual"].members) == numbers("cart")
    assert set(found["at once"].members) == numbers("cart", "nobody")
    with pytest.raises(ValueError, match="untouched"):
        recipes.RECIPES["cart"].rule({"hours": 6, "still": 6}, NAMES)


@pytest.mark.parametrize("key", ALL)
def test_a_recipe_without_its_event_says_which(key):
    recipe = recipes.RECIPES[key]
    with pytest.raises(ValueError, match="choose one"):
        recipe.rule({}, {**NAMES, recipe.slots[0]: ""})


def test_the_workspaces_own_names_are_guessed_and_never_made_up():
    seen = {"Order Completed", "Product Viewed", "something"}
    vip, browse = recipes.RECIPES["vip"], recipes.RECIPES["browse"]
    assert recipes.guess(vip, seen, {"Order Completed": {"revenue", "colour"}}) == {
        "purchase": "Order Completed",
        "amount": "revenue",
    }
    assert recipes.guess(browse, seen, {}) == {"view": "Product Viewed", "cart": "", "purchase": "Order Completed"}


def test_every_purpose_has_a_recipe_and_suppression_has_the_buyers():
    for purpose in ("retargeting", "suppression", "lookalike", "analytics", "warehouse"):
        assert recipes.for_purpose(purpose)
    suppression = [(recipe.key, recipe.numbers[0].usual) for recipe in recipes.for_purpose("suppression")]
    assert suppression == [("bought", 14), ("bought_week", 7)]


def test_they_find_whom_they_say(shop):
    trees = {key: tree(key) for key in ALL}
    with refreshes.pinned(clock.now_us()) as pin:
        found = evaluate.compute(trees, pin, engines.current(), {})
    found = {key: set(computed.members) for key, computed in found.items()}
    assert found == {
        "bought": numbers("fresh"),
        "bought_week": numbers("fresh"),
        "cart": numbers("cart"),
        "browse": numbers("browse"),
        "viewed": numbers("viewed"),
        "win_back": numbers("repeat"),
        "lapsed": numbers("lapsed"),
        "replenish": numbers("due"),
        "vip": numbers("repeat"),
        "seed": numbers("repeat"),
    }


def test_each_can_be_published(shop):
    for key in ALL:
        made = audiences.create(actor=None, key=f"from_{key}", purpose=recipes.RECIPES[key].purposes[0])
        draft = versions.save_draft(actor=None, audience=made, segment=tree(key))
        assert versions.publish(actor=None, version=draft, reason="recipe").state == "published"


# --- How people leave.


@pytest.mark.parametrize(
    ("rule", "ways"),
    [
        ({"event": "a", "within": "24h"}, ["24 hours after their last “a”"]),
        ({"event": "a", "count": {"at_least": 3}, "within": "7d"}, ["when fewer than 3 “a” lie in the last 7 days"]),
        ({"event": "a"}, []),
        ({"event": "a", "count": {"exactly": 0}}, ["as soon as they do “a”"]),
        ({"event": "a", "count": {"exactly": 0}, "within": "3d"}, ["as soon as they do “a”"]),
        ({"event": "a", "count": {"at_most": 2}, "within": "3d"}, ["as soon as they do “a” more than 2 times"]),
        ({"not": {"event": "a", "within": "3d"}}, ["when they do “a”"]),
        ({"attribute": "country", "op": "is", "value": "DE"}, ["when country changes"]),
        ({"event": "a", "last": "occurrence", "op": "not_within_last", "value": "9d"}, ["as soon as they do “a”"]),
        ({"bucket": {"salt": "x", "from": 0, "to": 10}}, []),
        ({"list": "vips"}, ["when they are taken off the list vips"]),
        ({"any": [{"event": "a"}, {"event": "b", "within": "3d"}]}, []),
        (
            {"any": [{"event": "a", "within": "3d"}, {"event": "b", "within": "3d"}]},
            ["when none of the alternatives holds any more"],
        ),
        (
            {"sequence": [{"event": "a", "within": "3d"}, {"event": "b", "within": "2h"}], "complete": False},
            ["3 days after their “a”"],
        ),
    ],
)
def test_the_ways_out_of_a_rule_are_said_and_none_is_made_up(rule, ways):
    assert [way.words for way in exits.leaving(grammar.parse(rule))] == ways


def test_leaving_by_buying_is_known_by_its_event():
    assert exits.by_deed(tree("cart")) == {"purchase", "add_to_cart"}
    assert exits.by_deed(tree("viewed")) == {"purchase"}
    assert exits.by_deed(tree("vip")) == frozenset()
    assert exits.by_deed(grammar.parse({"not": {"event": "buy", "within": "3d"}})) == {"buy"}
