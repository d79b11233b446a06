"""Rules that nearly every shop wants, with the numbers that may be turned and this workspace's own names put in. Pure: what comes out is
a rule as JSON, read by the grammar like any other."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

# What an event is called in other shops, most usual first; the first one that has been seen here is offered.
USUAL: Mapping[str, tuple[str, ...]] = {
    "purchase": ("purchase", "purchased", "order_completed", "order_placed", "Order Completed", "Order Placed", "placed_order", "checkout_completed", "Purchase"),
    "cart": ("add_to_cart", "added_to_cart", "product_added", "Product Added", "cart_updated", "AddToCart", "Added to Cart"),
    "view": ("product_viewed", "viewed_product", "Product Viewed", "view_item", "view_product", "product_view", "ViewContent", "page_viewed", "page"),
}  # fmt: skip
AMOUNTS = ("value", "total", "amount", "revenue", "price", "order_value", "total_price", "subtotal")
EVENT_WORDS: Mapping[str, str] = {
    "purchase": "Event of a purchase",
    "cart": "Event of a cart",
    "view": "Event of a look at a product",
    "amount": "What of the purchase says how much",
}


@dataclass(frozen=True, slots=True)
class Number:
    """A number of the rule that may be turned, within limits."""

    name: str
    label: str
    usual: int
    low: int
    high: int
    unit: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """`sentence` says whom it finds and why. `slots` are the events it needs (keys of USUAL), and `amount` where it sums up."""

    key: str
    name: str
    sentence: str
    purposes: tuple[str, ...]
    numbers: tuple[Number, ...]
    slots: tuple[str, ...]
    build: Callable[[Mapping[str, int], Mapping[str, str]], dict[str, Any]]
    intent: str  # as a name's token would say it

    def rule(self, numbers: Mapping[str, int], names: Mapping[str, str]) -> dict[str, Any]:
        """The rule as JSON. Numbers left out are the usual ones. Raises ValueError naming what is out of its limits or missing."""
        chosen = {number.name: numbers.get(number.name, number.usual) for number in self.numbers}
        for number in self.numbers:
            if not number.low <= chosen[number.name] <= number.high:
                raise ValueError(f"{number.label}: from {number.low:,} to {number.high:,}")
        if missing := [EVENT_WORDS[slot] for slot in self.slots if not names.get(slot)]:
            raise ValueError(f"{missing[0]}: choose one")
        return self.build(chosen, names)


def guess(recipe: Recipe, events: Collection[str], properties: Mapping[str, Collection[str]]) -> dict[str, str]:
    """Slot → the name in use here; "" where none of the usual ones has been seen."""
    found = {
        slot: next((name for name in USUAL[slot] if name in events), "") for slot in recipe.slots if slot != "amount"
    }
    if "amount" in recipe.slots:
        known = properties.get(found.get("purchase", ""), ())
        found["amount"] = next((name for name in AMOUNTS if name in known), "")
    return found


def _did(event: str, at_least: int, within: str = "") -> dict[str, Any]:
    return {"event": event, "count": {"at_least": at_least}, **({"within": within} if within else {})}


def _did_not(event: str, within: str) -> dict[str, Any]:
    return {"event": event, "count": {"exactly": 0}, "within": within}


def _cart(n: Mapping[str, int], e: Mapping[str, str]) -> dict[str, Any]:
    if n["still"] >= n["hours"]:
        raise ValueError("Cart untouched for: must be less than the hours above")
    still = [_did_not(e["cart"], f"{n['still']}h")] if n["still"] else []
    return {"all": [_did(e["cart"], 1, f"{n['hours']}h"), *still, _did_not(e["purchase"], f"{n['quiet']}d")]}


def _browse(n: Mapping[str, int], e: Mapping[str, str]) -> dict[str, Any]:
    days = f"{n['days']}d"
    return {
        "all": [_did(e["view"], n["times"], days), _did_not(e["cart"], days), _did_not(e["purchase"], f"{n['quiet']}d")]
    }


def _viewed(n: Mapping[str, int], e: Mapping[str, str]) -> dict[str, Any]:
    return {"all": [_did(e["view"], n["times"], f"{n['days']}d"), _did_not(e["purchase"], f"{n['quiet']}d")]}


def _win_back(n: Mapping[str, int], e: Mapping[str, str]) -> dict[str, Any]:
    return {"all": [_did(e["purchase"], n["times"]), _did_not(e["purchase"], f"{n['days']}d")]}


def _replenish(n: Mapping[str, int], e: Mapping[str, str]) -> dict[str, Any]:
    if n["from"] >= n["to"]:
        raise ValueError("And less than: must be further back than the first number")
    return {"all": [_did(e["purchase"], 1, f"{n['to']}d"), _did_not(e["purchase"], f"{n['from']}d")]}


def _vip(n: Mapping[str, int], e: Mapping[str, str]) -> dict[str, Any]:
    return {"event": e["purchase"], "sum": e["amount"], "op": "gte", "value": n["spend"], "within": f"{n['days']}d"}


def _bought(n: Mapping[str, int], e: Mapping[str, str]) -> dict[str, Any]:
    return _did(e["purchase"], 1, f"{n['days']}d")


def _seed(n: Mapping[str, int], e: Mapping[str, str]) -> dict[str, Any]:
    return _did(e["purchase"], n["times"], f"{n['days']}d")


_QUIET = Number("quiet", "Nothing bought for", 3, 1, 90, "days")
_ADS = ("retargeting", "analytics", "warehouse")
_ALL = ("retargeting", "lookalike", "analytics", "warehouse")

RECIPES: Mapping[str, Recipe] = {
    recipe.key: recipe
    for recipe in (
        Recipe(
            "bought",
            "Purchasers, 14 days",
            "Who has just bought. Excluded from retargeting, so that nobody is shown what they already own.",
            ("suppression", "analytics", "warehouse"),
            (Number("days", "Bought in the last", 14, 1, 90, "days"),),
            ("purchase",),
            _bought,
            "purchasers",
        ),
        Recipe(
            "bought_week",
            "Purchasers, 7 days",
            "The same for what is bought again soon: a week later they may see ads again.",
            ("suppression",),
            (Number("days", "Bought in the last", 7, 1, 90, "days"),),
            ("purchase",),
            _bought,
            "purchasers",
        ),
        Recipe(
            "cart",
            "Cart abandonment, 4 to 24 hours",
            "Put something in the cart, left it there and did not buy. 4 to 24 hours let them finish by themselves, leave a platform time to match and still catch the moment.",
            _ADS,
            (
                Number("hours", "Cart in the last", 24, 5, 168, "hours"),
                Number("still", "Cart untouched for", 4, 0, 23, "hours"),
                _QUIET,
            ),
            ("cart", "purchase"),
            _cart,
            "cart",
        ),
        Recipe(
            "browse",
            "Browse abandonment",
            "Looked at products, put nothing in the cart, bought nothing.",
            _ADS,
            (
                Number("times", "Looked at least", 2, 1, 50, "times"),
                Number("days", "In the last", 7, 1, 60, "days"),
                Number("quiet", "Nothing bought for", 14, 1, 90, "days"),
            ),
            ("view", "cart", "purchase"),
            _browse,
            "browse",
        ),
        Recipe(
            "viewed",
            "Viewed 3+ times",
            "Came back to look again and again. More intent than one look, as easily said.",
            _ADS,
            (
                Number("times", "Looked at least", 3, 2, 50, "times"),
                Number("days", "In the last", 14, 1, 60, "days"),
                Number("quiet", "Nothing bought for", 14, 1, 90, "days"),
            ),
            ("view", "purchase"),
            _viewed,
            "viewed3",
        ),
        Recipe(
            "win_back",
            "Win back, 60 days",
            "Bought twice or more, and not for two months.",
            _ADS,
            (
                Number("times", "Bought at least", 2, 1, 50, "times"),
                Number("days", "Nothing bought for", 60, 14, 365, "days"),
            ),
            ("purchase",),
            _win_back,
            "winback",
        ),
        Recipe(
            "lapsed",
            "Win back, 90 days",
            "Has bought before, and not for three months.",
            _ADS,
            (
                Number("times", "Bought at least", 1, 1, 50, "times"),
                Number("days", "Nothing bought for", 90, 14, 540, "days"),
            ),
            ("purchase",),
            _win_back,
            "lapsed",
        ),
        Recipe(
            "replenish",
            "Replenishment",
            "The last purchase lies between the two: about the time when it runs out.",
            _ADS,
            (
                Number("from", "Bought more than", 30, 1, 365, "days ago"),
                Number("to", "And less than", 60, 2, 540, "days ago"),
            ),
            ("purchase",),
            _replenish,
            "replenish",
        ),
        Recipe(
            "vip",
            "VIP: best customers",
            "Who spent the most, in the workspace's currency.",
            _ALL,
            (
                Number("spend", "Spent at least", 300, 1, 1_000_000, "in all"),
                Number("days", "In the last", 365, 7, 540, "days"),
            ),
            ("purchase", "amount"),
            _vip,
            "vip",
        ),
        Recipe(
            "seed",
            "Lookalike seed: repeat buyers",
            "Bought again and again: the people to find more of.",
            ("lookalike", "analytics", "warehouse"),
            (
                Number("times", "Bought at least", 2, 1, 50, "times"),
                Number("days", "In the last", 365, 30, 540, "days"),
            ),
            ("purchase",),
            _seed,
            "repeat",
        ),
    )
}


def for_purpose(purpose: str) -> tuple[Recipe, ...]:
    """Those that suit it, the most usual first."""
    return tuple(recipe for recipe in RECIPES.values() if purpose in recipe.purposes)
