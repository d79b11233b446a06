"""Rules as JSON: what is read, what is refused and where, and the laws of the canonical form."""

import json
from datetime import date, datetime
from decimal import Decimal
from time import perf_counter

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from audiences.clock import DAY, HOUR, MINUTE, to_us
from audiences.segments.grammar import Refused, canonical, loads, names, parse, resolve, sha256, to_json
from audiences.segments.tree import (
    All,
    Any,
    Attribute,
    Between,
    Bucket,
    Condition,
    Count,
    InAudience,
    InCustomerioSegment,
    InList,
    KnownFor,
    Measured,
    Moment,
    Not,
    Occurred,
    Sequence,
    Step,
    Within,
)
from tests.audiences.strategies import trees

MARCH = 1_740_787_200_000_000  # 2025-03-01
APRIL = MARCH + 31 * DAY
STAFF = {"list": "staff"}


@pytest.mark.parametrize(
    ("data", "tree"),
    [
        ({"all": [STAFF]}, All((InList("staff"),))),
        ({"any": [STAFF, {"audience": "vip"}]}, Any((InList("staff"), InAudience("vip")))),
        ({"not": {"customerio_segment": 12}}, Not(InCustomerioSegment(12))),
        ({"event": "buy"}, Occurred("buy", Count(1, None))),
        ({"event": "*", "within": "30m"}, Occurred("*", Count(1, None), Within(30 * MINUTE))),
        ({"event": "buy", "count": {"at_least": 2}, "within": "8w"}, Occurred("buy", Count(2, None), Within(56 * DAY))),
        ({"event": "buy", "count": {"at_most": 3}}, Occurred("buy", Count(0, 3))),
        ({"event": "buy", "count": {"exactly": 0}, "within": "24h"}, Occurred("buy", Count(0, 0), Within(24 * HOUR))),
        ({"event": "buy", "count": {"between": [2, 4]}}, Occurred("buy", Count(2, 4))),
        (
            {"event": "buy", "within": {"from": "2025-03-01", "to": "2025-04-01T02:00:00+02:00"}},
            Occurred("buy", Count(1, None), Between(MARCH, APRIL)),
        ),
        (
            {"event": "buy", "where": [{"property": "category", "op": "is", "value": "shoes"}]},
            Occurred("buy", Count(1, None), None, (Condition("category", "is", ("shoes",)),)),
        ),
        (
            {"event": "buy", "count": {"exactly": 0}, "known_for": "30d"},
            All((Occurred("buy", Count(0, 0)), KnownFor(30 * DAY))),
        ),
        ({"known_for": "3660d"}, KnownFor(3660 * DAY)),
        (
            {"event": "buy", "sum": "value", "op": "gte", "value": 499.5, "within": "365d"},
            Measured("buy", "sum", "value", "gte", (Decimal("499.5"),), Within(365 * DAY)),
        ),
        (
            {"event": "buy", "avg": "value", "op": "between", "value": [1, 2]},
            Measured("buy", "avg", "value", "between", (Decimal(1), Decimal(2))),
        ),
        ({"event": "buy", "first": "occurrence", "op": "before", "value": "2025-03-01"}, Moment("buy", "first", "before", (MARCH,))),
        ({"event": "buy", "last": True, "op": "within_last", "value": "3d"}, Moment("buy", "last", "within_last", (3 * DAY,))),
        (
            {"event": "buy", "last": "time", "op": "between", "value": ["2025-03-01", "2025-04-01"]},
            Moment("buy", "last", "between", (MARCH, APRIL)),
        ),
        (
            {"sequence": [{"event": "a", "within": "1h"}, {"event": "b", "within": "3d"}], "complete": False},
            Sequence((Step("a", HOUR), Step("b", 3 * DAY)), False),
        ),
        ({"bucket": {"salt": "s", "from": 0, "to": 10.25}}, Bucket("s", 0, 1025)),
        ({"attribute": "id", "op": "is", "value": "00042"}, Attribute(Condition("id", "is", ("00042",)))),
        ({"attribute": "n", "op": "in", "value": [True, 5, 5.0, "5", "a"]}, Attribute(Condition("n", "in", ("5", "a", "true")))),
        ({"attribute": "n", "op": "is", "value": ""}, Attribute(Condition("n", "is", ("",)))),
        ({"attribute": "n", "op": "missing"}, Attribute(Condition("n", "missing"))),
        ({"attribute": "n", "op": "gt", "value": -0.0}, Attribute(Condition("n", "gt", (Decimal(0),)))),
        ({"attribute": "n", "op": "between", "value": [1, 1]}, Attribute(Condition("n", "between", (Decimal(1), Decimal(1))))),
        ({"attribute": "t", "op": "after", "value": date(2025, 3, 1)}, Attribute(Condition("t", "after", (MARCH,)))),
        ({"attribute": "t", "op": "before", "value": datetime(2025, 3, 1)}, Attribute(Condition("t", "before", (MARCH,)))),
        ({"attribute": "t", "op": "is", "value": date(2025, 3, 1)}, Attribute(Condition("t", "is", ("2025-03-01",)))),
        ({"attribute": "t", "op": "within_next", "value": "1w"}, Attribute(Condition("t", "within_next", (7 * DAY,)))),
    ],
)  # fmt: skip
def test_every_form_is_read_and_written_back_equal(data, tree):
    assert parse(data) == tree
    assert parse(to_json(tree)) == tree
    assert loads(canonical(tree)) == tree


A = {"attribute": "a", "op": "is"}
BUY = {"event": "buy"}


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (None, "must be an object, {…}"),
        ([], "must be an object, {…}"),
        ({}, "is no rule; use all, any, not, attribute, event, sequence, audience, list, customerio_segment, bucket or known_for"),
        ({"evnt": "buy"}, "is no rule; did you mean event?"),
        ({1: 2, "list": "x"}, "has a key that is not text"),
        ({"all": []}, "all: needs at least one rule"),
        ({"all": {}}, "all: must be a list, […]"),
        ({"any": [STAFF, 3]}, "any[1]: must be an object, {…}"),
        ({"all": [STAFF], "any": [STAFF]}, "has both all and any; give each a rule of its own, inside all or any"),
        ({"all": [STAFF], "name": 1}, "name: is not known here; use all"),
        ({"not": [STAFF]}, "not: must be an object, {…}"),
        ({"all": [STAFF, BUY | {"count": {"at_least": 0}}]}, "all[1].count.at_least: must be ≥ 1"),
        (BUY | {"count": {"at_least": True}}, "count.at_least: must be a whole number"),
        (BUY | {"count": {"at_least": 1.0}}, "count.at_least: must be a whole number"),
        (BUY | {"count": {"exactly": -1}}, "count.exactly: must be ≥ 0"),
        (BUY | {"count": {"exactly": 10**10}}, "count.exactly: must be ≤ 1,000,000,000"),
        (BUY | {"count": {"between": [3, 2]}}, "count.between: must go from the smaller to the larger number"),
        (BUY | {"count": {"between": [3]}}, "count.between: must be a list of two, [from, to]"),
        (BUY | {"count": {"between": [0, "1"]}}, "count.between[1]: must be a whole number"),
        (BUY | {"count": {}}, "count: needs one of at_least, at_most, exactly or between"),
        (BUY | {"count": {"at_least": 1, "at_most": 2}}, "count: needs one of at_least, at_most, exactly or between"),
        (BUY | {"count": {"atleast": 1}}, "count.atleast: is not known here; did you mean at_least?"),
        (BUY | {"wihtin": "3d"}, "wihtin: is not known here; did you mean within?"),
        (BUY | {"within": "541d"}, "within: must be from 1m to 540d; leave it out to mean ever"),
        (BUY | {"within": "0h"}, "within: must be from 1m to 540d; leave it out to mean ever"),
        (BUY | {"within": "999999999w"}, "within: must be from 1m to 540d; leave it out to mean ever"),
        (BUY | {"within": "3 days"}, 'within: must be a duration such as "30m", "24h", "3d" or "8w"'),
        (BUY | {"within": "٣d"}, 'within: must be a duration such as "30m", "24h", "3d" or "8w"'),
        (BUY | {"within": 3}, 'within: must be a duration such as "30d" or {"from": …, "to": …}; left out it means ever'),
        (BUY | {"within": {"from": "2025-03-01"}}, "within.to: is needed"),
        (BUY | {"within": {"from": "2025-03-01", "to": "2025-03-01"}}, "within.to: must be later than from; it is itself not included"),
        (BUY | {"within": {"from": "March", "to": "2025-03-01"}}, 'within.from: must be a date or time such as "2025-03-01" or "2025-03-01T09:30:00Z"'),
        (BUY | {"within": {"from": 0, "to": "2025-03-01"}}, 'within.from: must be a date or time such as "2025-03-01" or "2025-03-01T09:30:00Z"'),
        (BUY | {"known_for": "3661d"}, "known_for: must be from 1m to 3660d; for longer, compare with a date (before, after)"),
        (BUY | {"where": {}}, "where: must be a list, […]"),
        (BUY | {"where": [{"property": "p"}]}, "where[0].op: is needed"),
        (BUY | {"where": [{"attribute": "p", "op": "exists"}]}, "where[0].property: is needed"),
        (BUY | {"where": [{"property": "p", "op": "exists"}] * 21}, "where: has 21 conditions; the most is 20"),
        ({"event": "*", "where": [{"property": "p", "op": "exists"}]}, 'where: cannot stand on "*", any event; name the event'),
        ({"event": ""}, "event: must not be empty"),
        ({"event": 5}, "event: must be text"),
        ({"event": "*", "sum": "value", "op": "gt", "value": 1}, 'event: cannot be "*", any event, here; name the event'),
        (BUY | {"sum": "value", "avg": "value"}, "has both sum and avg; give each a rule of its own, inside all or any"),
        (BUY | {"sum": "value", "count": {"at_least": 1}}, "count: is not known here; use event, sum, op, value, within or where"),
        (BUY | {"sum": "value", "op": "gt"}, "value: is needed"),
        (BUY | {"sum": "value", "op": "gt", "value": "5"}, "value: must be a number, written without quotes"),
        (BUY | {"sum": "value", "op": "in", "value": [5]}, "op: is not known here; use is, is_not, gt, gte, lt, lte or between"),
        (BUY | {"first": "time", "op": "gt", "value": 1}, "op: is not known here; use before, after, between, within_last or not_within_last"),
        (BUY | {"first": 1, "op": "before", "value": "2025-03-01"}, 'first: must be "occurrence"'),
        ({"sequence": [BUY]}, "sequence: needs two steps or more; one alone is an event rule"),
        ({"sequence": [BUY] * 11}, "sequence: has 11 steps; the most is 10"),
        ({"sequence": [BUY, BUY], "complete": 0}, "complete: must be true or false"),
        ({"sequence": [BUY, BUY], "complete": False}, "sequence[1].within: is needed when complete is false: how long the last step had"),
        ({"sequence": [BUY, {"event": "*"}]}, 'sequence[1].event: cannot be "*", any event, here; name the event'),
        ({"sequence": [BUY, BUY | {"count": {"at_least": 2}}]}, "sequence[1].count: is not known here; use event, within or where"),
        ({"customerio_segment": "12"}, "customerio_segment: must be a whole number"),
        ({"customerio_segment": 0}, "customerio_segment: must be ≥ 1"),
        ({"bucket": {"salt": "s", "from": 10, "to": 10}}, "bucket.to: must be more than from"),
        ({"bucket": {"salt": "s", "from": 0, "to": 101}}, "bucket.to: must be a percentage from 0 to 100"),
        ({"bucket": {"salt": "s", "from": 0.125, "to": 1}}, "bucket.from: may have at most two decimal places"),
        ({"bucket": {"from": 0, "to": 1}}, "bucket.salt: is needed"),
        ({"list": "a\0b"}, "list: contains a NUL character"),
        ({"list": "\ud800"}, "list: contains half of a surrogate pair, which is no character"),
        ({"list": "x" * 1001}, "list: is 1,001 characters long; the most is 1,000"),
        (A, "value: is needed"),
        (A | {"value": None}, "value: must not be null; the op missing finds people without a value"),
        (A | {"value": ["x"]}, "value: must be one value; a list goes with in"),
        (A | {"value": {}}, "value: must be text, a number, true or false"),
        (A | {"op": "iss", "value": 1}, "op: is not known here; did you mean is?"),
        (A | {"op": 1, "value": 1}, "op: is not known here; use is, is_not, in, not_in, exists, missing, contains, starts_with, ends_with, gt, gte, lt, lte, between, before, after, within_last, not_within_last or within_next"),
        (A | {"op": "exists", "value": 1}, "value: must be left out: the op exists compares with nothing"),
        (A | {"op": "in", "value": "x"}, "value: must be a list, […]"),
        (A | {"op": "in", "value": []}, "value: needs at least one value"),
        (A | {"op": "in", "value": ["x", None]}, "value[1]: must not be null; the op missing finds people without a value"),
        (A | {"op": "in", "value": ["x"] * 10_001}, "value: has 10,001 values; the most is 10,000"),
        (A | {"op": "contains", "value": ""}, "value: must not be empty; the op exists finds everybody with a value"),
        (A | {"op": "gt", "value": True}, "value: must be a number, written without quotes"),
        (A | {"op": "gt", "value": float("nan")}, "value: must be a finite number"),
        (A | {"op": "gt", "value": float("inf")}, "value: must be a finite number"),
        (A | {"op": "gt", "value": 1e18}, "value: is too large a number; it must be below 1e18"),
        (A | {"op": "gt", "value": 10**5000}, "value: is too large a number; it must be below 1e18"),
        (A | {"value": 10**5000}, "value: must be text, a number, true or false"),
        (A | {"op": "gt", "value": 1e-7}, "value: may have at most 6 decimal places"),
        (A | {"op": "gt", "value": Decimal("1.0000001")}, "value: may have at most 6 decimal places"),
        (A | {"op": "gt", "value": Decimal("1234567890.123456")}, "value: may have at most 15 digits"),
        (A | {"op": "between", "value": [2, 1]}, "value: must go from the smaller to the larger number"),
        (A | {"op": "within_last", "value": "2025-03-01"}, 'value: must be a duration such as "30m", "24h", "3d" or "8w"'),
        (A | {"op": "before", "value": "30d"}, 'value: must be a date or time such as "2025-03-01" or "2025-03-01T09:30:00Z"'),
        ({"any": [STAFF] * 401}, "any: has 401 rules; the most is 400"),
        ({"any": [{"any": [STAFF] * 201}] * 2}, "any[1].any[199]: is rule number 401; the most is 400"),
        ({"x" * 10**6: 1, "list": "a"}, "x" * 40 + "…: is not known here; use list"),
        ({"bad\ud800\n": 1, "list": "a"}, "bad��: is not known here; use list"),
    ],
    ids=lambda shown: ascii(shown)[:60] if isinstance(shown, str) else None,
)  # fmt: skip
def test_a_refusal_names_the_place_and_the_remedy(data, refusal):
    with pytest.raises(Refused) as refused:
        parse(data)
    assert str(refused.value) == refusal
    refusal.encode()


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("", "is not JSON at line 1, column 1: Expecting value"),
        ("{'list': 'a'}", "is not JSON at line 1, column 2: Expecting property name enclosed in double quotes"),
        (b'{"list": "\xff"}', "is not UTF-8 at byte 10"),
        ('{"list": "a", "list": "b"}', "list: stands here twice"),
        ('{"all": [{"event": "a", "count": {"exactly": 0, "exactly": 1}}]}', "all[0].count.exactly: stands here twice"),
        ('{"attribute": "a", "op": "gt", "value": NaN}', "value: must be a finite number"),
        ('{"attribute": "a", "op": "gt", "value": -Infinity}', "value: must be a finite number"),
        ('{"attribute": "a", "op": "gt", "value": 1e99999999999999999999}', "value: must be a finite number"),
        ('{"attribute": "a", "op": "gt", "value": 1e999999}', "value: is too large a number; it must be below 1e18"),
        ('{"attribute": "a", "op": "gt", "value": 1e-999999}', "value: may have at most 6 decimal places"),
        ('{"attribute": "a", "op": "gt", "value": ' + "9" * 10**6 + "}", "value: must be a finite number"),
        ('{"event": "a", "count": {"exactly": ' + "9" * 10**6 + "}}", "count.exactly: must be a whole number"),
        ('{"list": "\\ud800"}', "list: contains half of a surrogate pair, which is no character"),
        ('{"list": "\\u0000"}', "list: contains a NUL character"),
        ('{"list": "' + "x" * 10**6 + '"}', "list: is 1,000,000 characters long; the most is 1,000"),
        ("[" * 10**6, "nests more than 450 brackets deep at character 450"),
        ('{"a":' * 10**5, "nests more than 450 brackets deep at character 2,250"),
        ('"' + '\\"' * 10**6, "is not JSON at line 1, column 1: Unterminated string starting at"),
        (" " * 4_000_001, "is longer than 4 MB"),
        (
            '{"not":' * 200 + '{"list":"a"}' + "}" * 200,
            ".".join(["not"] * 12) + ": stands more than 12 levels deep; put part of the rule into an audience of its own",
        ),
        (
            '{"all":[' * 200 + '{"list":"a"}' + "]}" * 200,
            ".".join(["all[0]"] * 12) + ": stands more than 12 levels deep; put part of the rule into an audience of its own",
        ),
    ],
    ids=lambda shown: ascii(shown)[:40],
)  # fmt: skip
def test_a_hostile_text_is_refused_quickly_with_a_place(text, refusal):
    started = perf_counter()
    with pytest.raises(Refused) as refused:
        loads(text)
    assert str(refused.value) == refusal
    assert perf_counter() - started < 5


def test_brackets_inside_texts_are_not_nesting():
    assert loads(json.dumps({"list": "[{" * 490 + '\\"'})) == InList("[{" * 490 + '\\"')


def test_a_refusal_never_repeats_a_value():
    with pytest.raises(Refused) as refused:
        parse({"attribute": "email", "op": "gt", "value": "jane@example.com"})
    assert "jane" not in str(refused.value)


def test_twelve_levels_are_read_with_a_known_for_at_the_bottom():
    rule = {"event": "buy", "count": {"exactly": 0}, "known_for": "30d"}
    for _ in range(11):
        rule = {"not": rule}
    assert parse(to_json(parse(rule))) == parse(rule)


@pytest.mark.parametrize(
    "rules",
    [
        [{"event": "a", "within": "7d"}, {"event": "a", "within": "1w"}, {"within": "168h", "event": "a", "where": []}],
        [{"event": "a", "count": {"at_least": 1}}, {"event": "a"}],
        [{"event": "a", "count": {"at_most": 0}}, {"event": "a", "count": {"exactly": 0}}, {"event": "a", "count": {"between": [0, 0]}}],
        [{"event": "a", "known_for": "1d"}, {"all": [{"event": "a"}, {"known_for": "24h"}]}],
        [{"attribute": "a", "op": "in", "value": ["b", "a", "b"]}, {"attribute": "a", "op": "in", "value": ["a", "b"]}],
        [{"attribute": "a", "op": "is", "value": 5}, {"attribute": "a", "op": "is", "value": "5"}],
        [{"attribute": "a", "op": "gt", "value": 500}, {"attribute": "a", "op": "gt", "value": 500.0}, {"attribute": "a", "op": "gt", "value": Decimal("5E2")}],
        [{"attribute": "a", "op": "before", "value": "2025-03-01"}, {"attribute": "a", "op": "before", "value": "2025-03-01T01:00+01:00"}],
        [{"sequence": [{"event": "a"}, {"event": "b"}], "complete": True}, {"sequence": [{"event": "a"}, {"event": "b"}]}],
    ],
)  # fmt: skip
def test_rules_that_are_equal_have_one_text_and_one_hash(rules):
    assert len({canonical(parse(rule)) for rule in rules}) == 1
    assert len({sha256(parse(rule)) for rule in rules}) == 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"all": [STAFF]}, STAFF),
        ({"all": [STAFF, {"list": "b"}]}, {"all": [{"list": "b"}, STAFF]}),
        ({"attribute": "a", "op": "is", "value": True}, {"attribute": "a", "op": "is", "value": 1}),
        ({"attribute": "a", "op": "is", "value": "00042"}, {"attribute": "a", "op": "is", "value": 42}),
        ({"attribute": "a", "op": "is", "value": "1.50"}, {"attribute": "a", "op": "is", "value": 1.5}),
    ],
)
def test_rules_that_differ_have_trees_and_texts_that_differ(one, other):
    assert parse(one) != parse(other)
    assert canonical(parse(one)) != canonical(parse(other))


def test_the_canonical_form_is_sorted_compact_and_in_the_largest_units():
    rule = {
        "event": "añadir",
        "within": "14d",
        "count": {"at_least": 2},
        "where": [{"property": "p", "op": "lt", "value": 0.5}],
    }
    assert canonical(parse(rule)) == (
        '{"count":{"at_least":2},"event":"añadir","where":[{"op":"lt","property":"p","value":0.5}],"within":"2w"}'
    )
    assert sha256(parse({"list": "staff"})) == "c13074e4636b9b284022be30ccd15151668b8d36623e1c13b60f2b95e1defef5"


@pytest.mark.parametrize(
    ("given_count", "written"),
    [
        ({"at_least": 1}, None),
        ({"at_least": 2}, {"at_least": 2}),
        ({"between": [2, 2]}, {"exactly": 2}),
        ({"between": [0, 2]}, {"at_most": 2}),
        ({"between": [1, 2]}, {"between": [1, 2]}),
        ({"at_most": 0}, {"exactly": 0}),
    ],
)
def test_a_count_is_written_in_its_plainest_form(given_count, written):
    assert to_json(parse({"event": "buy", "count": given_count})).get("count") == written


@given(trees())
def test_what_is_written_is_read_as_the_same_tree(tree):
    written = to_json(tree)
    assert parse(written) == tree
    assert to_json(parse(written)) == written
    assert loads(canonical(tree)) == tree
    assert canonical(loads(canonical(tree))) == canonical(tree)


@given(trees(), trees())
def test_equal_texts_are_equal_trees_and_only_they(one, other):
    assert (canonical(one) == canonical(other)) == (one == other)


@given(st.decimals(min_value=-(10**9) + 1, max_value=10**9 - 1, places=6))
def test_a_number_survives_being_written(number):
    tree = parse({"attribute": "a", "op": "gt", "value": number})
    assert tree.condition.values == (number,)
    assert loads(canonical(tree)) == tree


WORDS = st.sampled_from(
    ["all", "any", "not", "attribute", "event", "sequence", "audience", "list", "customerio_segment", "bucket", "known_for", "count",
     "at_least", "exactly", "between", "within", "where", "property", "op", "value", "sum", "avg", "first", "last", "from", "to", "salt",
     "complete", "is", "in", "gt", "before", "within_last", "30d", "2025-03-01", "*", "occurrence"]
)  # fmt: skip
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.decimals()
    | WORDS
    | st.text()
    | st.text(st.characters(), max_size=2),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(), inner, max_size=6),
    max_leaves=20,
)


def _is_read_or_refused(read, given_value):
    started = perf_counter()
    try:
        tree = read(given_value)
    except Refused as refused:
        str(refused).encode()
    else:
        assert parse(to_json(tree)) == tree
    assert perf_counter() - started < 5


@given(ANYTHING)
@settings(max_examples=400)
def test_any_json_value_is_read_or_refused(data):
    _is_read_or_refused(parse, data)


@given(trees(), st.data())
@settings(max_examples=300)
def test_a_rule_with_one_thing_replaced_is_read_or_refused(tree, data):
    rule = to_json(tree)
    places = [(rule, key) for key in rule]
    for holder, key in places:
        inner = holder[key]
        places += [
            (inner, at)
            for at in (inner if isinstance(inner, dict) else range(len(inner) if isinstance(inner, list) else 0))
        ]
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(ANYTHING)
    _is_read_or_refused(parse, rule)


@given(st.text() | st.binary() | ANYTHING.map(lambda value: json.dumps(value, default=str)))
@example('{"list":"a"')
@example("\ufeff{}")
@settings(max_examples=400)
def test_any_text_is_read_or_refused(text):
    _is_read_or_refused(loads, text)


@given(trees(), st.integers(0, 10**6), st.text(max_size=2), st.integers(0, 3))
@settings(max_examples=300)
def test_a_damaged_text_is_read_or_refused(tree, at, inserted, removed):
    text = canonical(tree)
    at %= len(text) + 1
    _is_read_or_refused(loads, text[:at] + inserted + text[at + removed :])


def test_names_are_found_with_their_paths():
    where = [{"property": "category", "op": "is", "value": "shoes"}]
    found = names(
        parse(
            {
                "all": [
                    {"attribute": "country", "op": "exists"},
                    {"event": "buy", "count": {"exactly": 0}, "known_for": "30d", "where": where},
                    {"any": [{"event": "*"}, {"not": {"event": "buy", "sum": "value", "op": "gt", "value": 1}}]},
                    {"sequence": [{"event": "view"}, {"event": "buy", "where": where}]},
                    {"event": "view", "last": "occurrence", "op": "within_last", "value": "1d"},
                    {"audience": "vip"},
                    {"not": {"list": "staff"}},
                    {"customerio_segment": 12},
                ]
            }
        )
    )
    assert found.attributes == [("country", "all[0].attribute")]
    assert found.events == [
        ("buy", "all[1].event"),
        ("buy", "all[2].any[1].not.event"),
        ("view", "all[3].sequence[0].event"),
        ("buy", "all[3].sequence[1].event"),
        ("view", "all[4].event"),
    ]
    assert found.properties == [
        ("buy", "category", "all[1].where[0].property"),
        ("buy", "value", "all[2].any[1].not.sum"),
        ("buy", "category", "all[3].sequence[1].where[0].property"),
    ]
    assert found.audiences == [("vip", "all[5].audience")]
    assert found.lists == [("staff", "all[6].not.list")]
    assert found.customerio_segments == [(12, "all[7].customerio_segment")]


def test_a_resolved_rule_has_the_rules_of_its_audiences_in_their_place():
    lived = {"a": parse({"any": [{"audience": "b"}, STAFF]}), "b": parse({"event": "buy"})}
    rule = parse({"all": [{"not": {"audience": "a"}}, {"audience": "b"}]})
    buy = Occurred("buy", Count(1, None))
    assert resolve(rule, lived) == All((Not(Any((buy, InList("staff")))), buy))
    assert resolve(parse(STAFF), {}) == InList("staff")


@pytest.mark.parametrize(
    ("lived", "refusal"),
    [
        ({}, "all[1].not: there is no live audience with the key a"),
        ({"a": {"audience": "a"}}, "all[1].not: audiences refer to each other in a circle: a → a"),
        ({"a": {"not": {"audience": "b"}}, "b": {"any": [STAFF, {"audience": "a"}]}}, "all[1].not: audiences refer to each other in a circle: a → b → a"),
        ({"a": {"audience": "b"}}, "all[1].not: there is no live audience with the key b"),
        (
            {"a": {"audience": "0"}} | {str(n): {"audience": str(n + 1)} for n in range(11)},
            "all[1].not: goes through more than 10 audiences, one referring to the next",
        ),
        (
            {"a": {"all": [{"audience": "b"}] * 30}, "b": {"all": [{"audience": "c"}] * 30}, "c": {"any": [STAFF] * 30}},
            "all[1].not: comes to 27,000 rules with its audiences written out; the most is 4,000",
        ),
    ],
)  # fmt: skip
def test_a_reference_that_leads_nowhere_or_nowhere_but_back_is_refused(lived, refusal):
    rule = parse({"all": [STAFF, {"not": {"audience": "a"}}]})
    with pytest.raises(Refused) as refused:
        resolve(rule, {key: parse(one) for key, one in lived.items()})
    assert str(refused.value) == refusal


def test_the_moments_in_this_file_are_what_they_say():
    assert to_us(datetime.fromisoformat("2025-03-01T00:00:00+00:00")) == MARCH
