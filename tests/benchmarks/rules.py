"""Fifty audiences such as a shop keeps: 200 leaves, 60 of them distinct, over the people of shop.py. And each as SQL written by hand.

The SQL is what an analyst would write for one audience over the same files: a semi-join for each rule (`semi_joins`), or one pass
over the events with conditional aggregates (`one_pass`). Both use the typed columns.
"""

import random
from collections.abc import Sequence

from audiences.segments import grammar
from audiences.segments.tree import Node, leaves
from tests.benchmarks.shop import AS_OF

_ATTRIBUTES = [
    {"attribute": "country", "op": "in", "value": ["DE", "AT"]},
    {"attribute": "country", "op": "is", "value": "US"},
    {"attribute": "country", "op": "in", "value": ["FR", "ES", "IT"]},
    {"attribute": "country", "op": "not_in", "value": ["GB", "US"]},
    {"attribute": "plan", "op": "is", "value": "pro"},
    {"attribute": "plan", "op": "in", "value": ["pro", "team"]},
    {"attribute": "plan", "op": "is", "value": "free"},
    {"attribute": "age", "op": "gte", "value": 30},
    {"attribute": "age", "op": "lt", "value": 25},
    {"attribute": "ltv", "op": "gt", "value": 500},
    {"attribute": "ltv", "op": "gt", "value": 5000},
    {"attribute": "signup", "op": "after", "value": "2025-06-01"},
]
_COUNTS = [
    *({"event": "purchase", "count": {"at_least": 1}, "within": w} for w in ("7d", "14d", "30d", "60d", "90d", "180d")),
    {"event": "purchase", "count": {"at_least": 2}, "within": "90d"},
    {"event": "purchase", "count": {"at_least": 3}, "within": "180d"},
    {"event": "purchase", "count": {"at_least": 1}},
    *({"event": "purchase", "count": {"exactly": 0}, "within": w} for w in ("3d", "30d", "90d")),
    *({"event": "purchase", "count": {"at_least": 1}, "within": "90d", "where": [{"property": "category", "op": "is", "value": c}]}
      for c in ("shoes", "bags", "toys")),
    {"event": "purchase", "count": {"at_least": 1}, "within": "30d", "where": [{"property": "value", "op": "gt", "value": 300}]},
    *({"event": "add_to_cart", "count": {"at_least": 1}, "within": w} for w in ("1d", "3d", "7d", "30d")),
    {"event": "add_to_cart", "count": {"at_least": 3}, "within": "30d"},
    {"event": "add_to_cart", "count": {"at_least": 1}, "within": "14d", "where": [{"property": "category", "op": "is", "value": "hats"}]},
    *({"event": "product_view", "count": {"at_least": 1}, "within": w} for w in ("3d", "7d", "14d", "30d")),
    {"event": "product_view", "count": {"at_least": 5}, "within": "60d"},
    {"event": "product_view", "count": {"at_least": 2}, "within": "14d", "where": [{"property": "category", "op": "is", "value": "shoes"}]},
    *({"event": "page_view", "count": {"at_least": 1}, "within": w} for w in ("1d", "7d", "30d")),
    {"event": "page_view", "count": {"at_least": 10}, "within": "90d"},
    *({"event": "email_open", "count": {"at_least": 1}, "within": w} for w in ("30d", "90d")),
    {"event": "email_open", "count": {"exactly": 0}, "within": "90d"},
    *({"event": "app_open", "count": {"at_least": 1}, "within": w} for w in ("7d", "30d")),
    {"event": "search", "count": {"at_least": 1}, "within": "14d"},
    {"event": "review", "count": {"at_least": 1}},
    {"event": "refund", "count": {"exactly": 0}, "within": "180d"},
]  # fmt: skip
_MEASURES = [
    {"event": "purchase", "sum": "value", "op": "gte", "value": 500, "within": "180d"},
    {"event": "purchase", "sum": "value", "op": "gte", "value": 1000, "within": "180d"},
    {"event": "purchase", "avg": "value", "op": "gt", "value": 250, "within": "90d"},
    {"event": "purchase", "max": "value", "op": "gt", "value": 450, "within": "180d"},
]
_ANY_EVENT = [
    {"event": "*", "count": {"at_least": 1}},
    {"event": "*", "count": {"at_least": 1}, "within": "90d"},
    {"event": "*", "count": {"at_least": 1}, "within": "30d"},
    {"event": "*", "count": {"exactly": 0}, "within": "7d"},
]


SEGMENT = [
    {"attribute": "country", "op": "in", "value": ["DE", "AT", "US"]},
    {"attribute": "plan", "op": "is", "value": "pro"},
    {"event": "purchase", "count": {"at_least": 1}, "within": "90d"},
    {"event": "add_to_cart", "count": {"at_least": 1}, "within": "30d"},
    {"event": "product_view", "count": {"at_least": 2}, "within": "14d"},
    {"event": "*", "count": {"at_least": 1}, "within": "60d"},
    {"event": "purchase", "sum": "value", "op": "gte", "value": 300, "within": "180d"},
    {"event": "email_open", "count": {"exactly": 0}, "within": "7d"},
]
"""A segment of eight."""
CHANGES = [
    lambda n: {"attribute": "country", "op": "in", "value": ["DE", "AT", "FR", "GB"][: 1 + n % 4]},
    lambda n: {"attribute": "age", "op": "gte", "value": 20 + n},
    lambda n: {"event": "purchase", "count": {"at_least": 1 + n % 2}, "within": f"{91 + n}d"},
    lambda n: {"event": "add_to_cart", "count": {"at_least": 1}, "within": f"{31 + n}d", "where": [{"property": "category", "op": "is", "value": "toys"}]},
    lambda n: {"event": "page_view", "count": {"at_least": 2 + n % 3}, "within": f"{60 + n}d"},
    lambda n: {"event": "*", "count": {"at_least": 1}, "within": f"{61 + n}d"},
    lambda n: {"event": "purchase", "sum": "value", "op": "gte", "value": 301 + n, "within": "180d"},
    lambda n: {"event": "email_open", "count": {"exactly": 0}, "within": f"{8 + n}d"},
]  # fmt: skip
"""What its rules are changed to while it is edited, each in the place of the rule that stands there; `n` makes each turn another."""


def audiences() -> dict[str, Node]:
    """The fifty trees by key: four rules each, in all() or with an any() inside, every one of the sixty leaves used."""
    draw = random.Random(4)
    pool = [*_ATTRIBUTES, *_COUNTS, *_MEASURES, *_ANY_EVENT]
    assert len(pool) == 60, len(pool)
    once = draw.sample(pool, 60)
    popular = [draw.choice(pool) for _ in range(12)]
    found: dict[str, Node] = {}
    for number in range(50):
        picked: list[dict[str, object]] = []
        while len(picked) < 4:
            rule = once.pop() if once else draw.choice(popular if draw.random() < 0.4 else pool)
            if rule not in picked:
                picked.append(rule)
        data = {"all": picked} if number % 3 else {"all": [*picked[:2], {"any": picked[2:]}]}
        found[f"audience_{number:02}"] = grammar.parse(data)
    used = [leaf for tree in found.values() for _, leaf in leaves(tree)]
    assert (len(used), len(set(used))) == (200, 60)
    return found


class ByHand:
    """One audience as a SQL query over the shop's files."""

    def __init__(self, event_files: Sequence[str], profile_file: str) -> None:
        self._events = f"read_parquet({list(event_files)!r})"
        self._profiles = f"read_parquet({profile_file!r})"

    def semi_joins(self, tree: Node) -> str:
        """Each rule about events as `profile_no IN (SELECT …)`."""
        where = self._group(grammar.to_json(tree), self._semi_join)
        return f"SELECT p.profile_no FROM {self._profiles} AS p WHERE p.live AND {where}"

    def one_pass(self, tree: Node) -> str:
        """All rules about events as conditional aggregates over one pass of the events that matter."""
        aggregates: list[str] = []
        kept: list[str] = []

        def aggregate(rule: dict) -> str:
            condition = self._occurrence(rule)
            kept.append(condition)
            for measure in ("sum", "avg", "min", "max"):
                if measure in rule:
                    aggregates.append(f"{measure}(p2_num) FILTER (WHERE {condition}) AS a{len(aggregates)}")
                    return f"coalesce(e.a{len(aggregates) - 1} {_sign(rule)} {rule['value']}, false)"
            aggregates.append(f"count(*) FILTER (WHERE {condition}) AS a{len(aggregates)}")
            return f"coalesce(e.a{len(aggregates) - 1}, 0) {_times(rule)}"

        where = self._group(grammar.to_json(tree), aggregate)
        if not aggregates:
            return f"SELECT p.profile_no FROM {self._profiles} AS p WHERE p.live AND {where}"
        return (
            f"SELECT p.profile_no FROM {self._profiles} AS p LEFT JOIN (SELECT profile_no, {', '.join(aggregates)} FROM {self._events}"
            f" WHERE {' OR '.join(f'({one})' for one in kept)} GROUP BY profile_no) AS e USING (profile_no) WHERE p.live AND {where}"
        )

    def _group(self, rule: dict, event) -> str:
        for word, joint in (("all", " AND "), ("any", " OR ")):
            if word in rule:
                return "(" + joint.join(self._group(item, event) for item in rule[word]) + ")"
        return self._attribute(rule) if "attribute" in rule else event(rule)

    def _attribute(self, rule: dict) -> str:
        column = {"country": "a1", "plan": "a2", "age": "a3_num", "ltv": "a4_num", "signup": "a5"}[rule["attribute"]]
        value = rule["value"]
        match rule["op"]:
            case "in":
                return f"p.{column} IN ({', '.join(map(repr, value))})"
            case "not_in":
                return f"(p.{column} IS NULL OR p.{column} NOT IN ({', '.join(map(repr, value))}))"
            case "is":
                return f"p.{column} = {value!r}"
            case "after":
                return f"CAST(p.{column} AS TIMESTAMP) > TIMESTAMP '{value}'"
        return f"p.{column} {_sign(rule)} {value}"

    def _occurrence(self, rule: dict) -> str:
        parts = [] if rule["event"] == "*" else [f"name = '{rule['event']}'"]
        parts.append(f"time_us <= {AS_OF}")
        if "within" in rule:
            parts.append(f"time_us > {AS_OF - duration(rule['within'])}")
        for test in rule.get("where", ()):
            parts.append(
                f"p1 = '{test['value']}'" if test["property"] == "category" else f"p2_num {_sign(test)} {test['value']}"
            )
        return " AND ".join(parts)

    def _semi_join(self, rule: dict) -> str:
        condition = self._occurrence(rule)
        for measure in ("sum", "avg", "min", "max"):
            if measure in rule:
                return self._in(
                    f"{condition} GROUP BY profile_no HAVING {measure}(p2_num) {_sign(rule)} {rule['value']}"
                )
        count = rule.get("count", {"at_least": 1})
        if count == {"exactly": 0}:
            return f"NOT {self._in(condition)}"
        if count == {"at_least": 1}:
            return self._in(condition)
        return self._in(f"{condition} GROUP BY profile_no HAVING count(*) {_times(rule)}")

    def _in(self, condition: str) -> str:
        return f"p.profile_no IN (SELECT profile_no FROM {self._events} WHERE {condition})"


def _sign(rule: dict) -> str:
    return {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}[rule["op"]]


def _times(rule: dict) -> str:
    [(bound, times)] = rule.get("count", {"at_least": 1}).items()
    return f"{'>=' if bound == 'at_least' else '='} {times}"


def duration(text: str) -> int:
    """µs."""
    return int(text[:-1]) * {"m": 1, "h": 60, "d": 1440, "w": 10_080}[text[-1]] * 60_000_000
