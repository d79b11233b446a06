"""Rules in plain English: the words for every form, and one reading only."""

import pytest
from hypothesis import given

from audiences.segments.explain import sentence
from audiences.segments.grammar import names, parse
from tests.audiences.strategies import trees

CART = {"event": "add_to_cart", "within": "24h"}
NO_PURCHASE = {"event": "purchase", "count": {"exactly": 0}, "within": "3d"}
STAFF = {"list": "staff"}
DE = {"attribute": "country", "op": "is", "value": "DE"}


def test_the_sentence_a_buyer_reads_first():
    assert sentence(parse({"all": [CART, NO_PURCHASE]})) == (
        "People who did “add_to_cart” at least once in the last 24 hours, and did not do “purchase” in the last 3 days."
    )


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"event": "buy"}, "who did “buy” at least once at any time"),
        ({"event": "buy", "count": {"at_least": 2}, "within": "60d"}, "who did “buy” at least 2 times in the last 60 days"),
        ({"event": "buy", "count": {"at_most": 1}}, "who did “buy” at most once (or not at all)"),
        ({"event": "buy", "count": {"exactly": 1}, "within": "1h"}, "who did “buy” exactly once in the last hour"),
        ({"event": "buy", "count": {"exactly": 1500}, "within": "90m"}, "who did “buy” exactly 1,500 times in the last 90 minutes"),
        ({"event": "buy", "count": {"between": [2, 4]}, "within": "8w"}, "who did “buy” 2 to 4 times in the last 56 days"),
        ({"event": "buy", "count": {"exactly": 0}}, "who never did “buy”"),
        ({"event": "*", "count": {"exactly": 0}}, "who never did anything"),
        ({"event": "*", "count": {"exactly": 0}, "within": "90d"}, "who did nothing in the last 90 days"),
        ({"event": "*", "count": {"at_least": 3}, "within": "7d"}, "who did anything at least 3 times in the last 7 days"),
        (
            {"event": "buy", "within": {"from": "2025-03-01", "to": "2025-04-01"}},
            "who did “buy” at least once from 1 March 2025 to the end of 31 March 2025",
        ),
        ({"event": "buy", "within": {"from": "2025-03-01", "to": "2025-03-02"}}, "who did “buy” at least once on 1 March 2025"),
        (
            {"event": "buy", "within": {"from": "2025-03-01", "to": "2025-04-01T09:30:00Z"}},
            "who did “buy” at least once from 1 March 2025 until just before 1 April 2025, 09:30 UTC",
        ),
        (
            {"event": "buy", "where": [{"property": "category", "op": "is", "value": "shoes"}, {"property": "value", "op": "gte", "value": 50}]},
            "who did “buy” (where category is “shoes”, and value is at least 50) at least once at any time",
        ),
        (
            {"event": "buy", "count": {"exactly": 0}, "known_for": "30d"},
            "who never did “buy”, and have been known for at least 30 days",
        ),
        (
            {"event": "buy", "sum": "value", "op": "gte", "value": 500, "within": "365d"},
            "whose total value over “buy” in the last 365 days is at least 500",
        ),
        ({"event": "buy", "avg": "value", "op": "between", "value": [1, 2.5]}, "whose average value over “buy” is from 1 to 2.5"),
        ({"event": "buy", "min": "value", "op": "is_not", "value": 0}, "whose smallest value over “buy” is not 0"),
        ({"event": "buy", "max": "item price", "op": "lt", "value": 0}, "whose largest “item price” over “buy” is below 0"),
        (
            {"event": "buy", "first": "occurrence", "op": "between", "value": ["1997-03-01", "1997-04-01"]},
            "whose first “buy” happened from 1 March 1997 to the end of 31 March 1997",
        ),
        ({"event": "buy", "last": "occurrence", "op": "not_within_last", "value": "30d"}, "whose last “buy” did not happen in the last 30 days"),
        ({"event": "buy", "last": "occurrence", "op": "before", "value": "2025-03-01"}, "whose last “buy” happened before 1 March 2025"),
        ({"sequence": [{"event": "add"}, {"event": "buy", "within": "3d"}]}, "who did “add”, then “buy” within 3 days"),
        (
            {"sequence": [{"event": "view", "within": "7d"}, {"event": "add"}, {"event": "buy", "within": "1d"}], "complete": False},
            "who did “view” in the last 7 days, then “add”, then let 24 hours pass without “buy”",
        ),
        ({"audience": "vip"}, "who are in the audience “vip”"),
        ({"list": "staff"}, "who are on the list “staff”"),
        ({"customerio_segment": 12}, "who are in the Customer.io segment 12"),
        ({"bucket": {"salt": "test", "from": 0, "to": 12.5}}, "who fall between 0% and 12.5% in the random split “test”"),
        ({"attribute": "zip", "op": "is", "value": "00042"}, "whose zip is “00042”"),
        ({"attribute": "age", "op": "is", "value": 42}, "whose age is 42"),
        ({"attribute": "a name", "op": "is", "value": ""}, "whose “a name” is “”"),
        ({"attribute": "country", "op": "is_not", "value": "DE"}, "whose country is not “DE” or is missing"),
        ({"attribute": "country", "op": "in", "value": ["DE", "AT"]}, "whose country is “AT” or “DE”"),
        ({"attribute": "country", "op": "not_in", "value": ["DE"]}, "whose country is not “DE”, or is missing"),
        ({"attribute": "country", "op": "not_in", "value": ["DE", "AT", "CH"]}, "whose country is none of “AT”, “CH” and “DE”, or is missing"),
        (
            {"attribute": "n", "op": "in", "value": list(range(10, 27))},
            "whose n is one of 10, 11, 12, 13, 14 and 12 more",
        ),
        (
            {"attribute": "n", "op": "not_in", "value": list(range(10, 17))},
            "whose n is none of 10, 11, 12, 13, 14 and 2 more, or is missing",
        ),
        ({"attribute": "email", "op": "exists"}, "whose email is known"),
        ({"attribute": "email", "op": "missing"}, "whose email is missing"),
        ({"attribute": "email", "op": "ends_with", "value": ".de"}, "whose email ends with “.de”"),
        ({"attribute": "sku", "op": "starts_with", "value": 12}, "whose sku starts with “12”"),
        ({"attribute": "age", "op": "gt", "value": 17.5}, "whose age is above 17.5"),
        ({"attribute": "t", "op": "after", "value": "2025-03-01T09:30:15Z"}, "whose t is after 1 March 2025, 09:30:15 UTC"),
        ({"attribute": "t", "op": "within_last", "value": "2d"}, "whose t is in the last 2 days"),
        ({"attribute": "t", "op": "not_within_last", "value": "48h"}, "whose t is not in the last 2 days or is missing"),
        ({"attribute": "t", "op": "within_next", "value": "1w"}, "whose t is in the next 7 days"),
        ({"not": {"event": "buy", "within": "3d"}}, "who did not do “buy” in the last 3 days"),
        ({"not": STAFF}, "who are not on the list “staff”"),
        ({"not": {"audience": "vip"}}, "who are not in the audience “vip”"),
        ({"not": DE}, "who are not among those (whose country is “DE”)"),
        ({"not": {"not": STAFF}}, "who are not among those (who are not on the list “staff”)"),
    ],
)  # fmt: skip
def test_every_form_has_its_words(rule, words):
    assert sentence(parse(rule)) == f"People {words}."


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"all": [DE, CART]}, "whose country is “DE”, and who did “add_to_cart” at least once in the last 24 hours"),
        ({"all": [{"any": [{"all": [STAFF]}]}]}, "who are on the list “staff”"),
        ({"any": [STAFF, DE, {"list": "b"}]}, "who are on the list “staff”, or whose country is “DE”, or who are on the list “b”"),
        ({"all": [STAFF, {"any": [DE, {"list": "b"}]}]}, "who are on the list “staff”, and (whose country is “DE”, or who are on the list “b”)"),
        (
            {"any": [STAFF, {"all": [DE, {"any": [{"list": "b"}, {"list": "c"}]}]}]},
            "who are on the list “staff”, or (whose country is “DE”, and (who are on the list “b”, or are on the list “c”))",
        ),
        ({"all": [STAFF, {"all": [DE]}, {"all": [{"list": "b"}, {"list": "c"}]}]},
         "who are on the list “staff”, and whose country is “DE”, and who are on the list “b”, and are on the list “c”"),
        (
            {"all": [{"not": {"any": [STAFF, {"list": "b"}]}}, {"list": "c"}]},
            "who are not among those (who are on the list “staff”, or are on the list “b”), and are on the list “c”",
        ),
        (
            {"any": [{"event": "buy", "count": {"exactly": 0}, "known_for": "30d"}, STAFF]},
            "(who never did “buy”, and have been known for at least 30 days), or who are on the list “staff”",
        ),
    ],
)  # fmt: skip
def test_nesting_is_read_in_one_way_only(rule, words):
    assert sentence(parse(rule)) == f"People {words}."


def test_a_name_that_would_break_the_page_is_shown_short_and_printable():
    shown = sentence(parse({"list": "a\nb" + "x" * 900}))
    assert shown.isprintable() and len(shown) < 200


@given(trees())
def test_every_rule_has_a_sentence_that_names_what_it_names(tree):
    shown = sentence(tree)
    assert shown.startswith(("People who", "People (who")) and shown.endswith(".")
    found = names(tree)
    for name in {name for name, _ in found.attributes + found.events + found.lists} | {
        name for _, name, _ in found.properties
    }:
        assert name in shown
