"""What changed between two rules: said in one sentence, and every test of both accounted for."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiences.segments import diff, grammar
from audiences.segments.tree import All, Any, Node, Not, leaves
from tests.audiences import strategies

CART = {"event": "add_to_cart", "count": {"at_least": 1}, "within": "24h"}
GERMAN = {"attribute": "country", "op": "is", "value": "DE"}


def bought(days=30, **count):
    return {"event": "purchase", "count": count or {"at_least": 1}, "within": f"{days}d"}


def between(before, after):
    return diff.between(grammar.parse(before), grammar.parse(after))


def marks(found):
    return "".join(row.mark for row in found.changes)


@pytest.mark.parametrize(
    ("before", "after", "sentence", "lines"),
    [
        (
            {"all": [CART, bought(30, exactly=0)]},
            {"all": [CART, bought(14, exactly=0), {"not": GERMAN}]},
            "Window of “purchase” 30 → 14 days; added: who are not among those (whose country is “DE”).",
            "~+",
        ),
        (bought(30), bought(30, at_least=3), "Count of “purchase” at least once → at least 3 times.", "~"),
        (bought(30), bought(30, exactly=0), "Count of “purchase” at least once → not at all.", "~"),
        (
            {"event": "purchase", "within": "30d"},
            {"event": "purchase"},
            "Window of “purchase” in the last 30 days → at any time.",
            "~",
        ),
        (CART, {**CART, "within": "3d"}, "Window of “add_to_cart” 24 → 72 hours.", "~"),
        (GERMAN, {**GERMAN, "value": "FR"}, "Country “DE” → “FR”.", "~"),
        (GERMAN, {"not": GERMAN}, "Whose country is “DE” → who are not among those (whose country is “DE”).", "~"),
        (
            {"event": "purchase", "sum": "value", "op": "gte", "value": 500, "within": "365d"},
            {"event": "purchase", "sum": "value", "op": "gte", "value": 900, "within": "365d"},
            "Total value over “purchase” at least 500 → at least 900.",
            "~",
        ),
        ({"all": [CART, GERMAN]}, CART, "Removed: whose country is “DE”.", "−"),
        (CART, {"any": [CART, GERMAN]}, "Added as an alternative: whose country is “DE”.", "+"),
        ({"all": [CART, GERMAN]}, {"any": [CART, GERMAN]}, "All must hold → one of them is enough.", ""),
        (
            {"all": [CART, GERMAN, bought(7)]},
            {"all": [CART, {"any": [GERMAN, bought(7)]}]},
            "Moved into a group of alternatives: whose country is “DE”; "
            "moved into a group of alternatives: who did “purchase” at least once in the last 7 days.",
            "~~",
        ),
        (
            {"all": [CART, bought(30)]},
            {"all": [CART, {"any": [GERMAN, bought(7)]}]},
            "Window of “purchase” 30 → 7 days, it stands in a group of alternatives now; "
            "added as an alternative: whose country is “DE”.",
            "+~",
        ),
    ],
)
def test_a_change_is_one_line_and_one_sentence(before, after, sentence, lines):
    found = between(before, after)

    assert found.sentence == sentence
    assert marks(found) == lines


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"all": [CART, GERMAN]}, {"all": [GERMAN, CART]}),
        ({"all": [CART, {"all": [GERMAN]}]}, {"all": [CART, GERMAN]}),
        ({"not": {"not": CART}}, {"any": [CART]}),
        ({"not": {"any": [CART, GERMAN]}}, {"all": [{"not": {"any": [GERMAN, CART]}}]}),
    ],
)
def test_order_and_needless_brackets_are_no_change(before, after):
    found = between(before, after)

    assert not found
    assert found.sentence == "Nothing changed."


def test_what_went_is_shown_where_it_stood():
    found = between({"all": [CART, bought(7), GERMAN]}, {"all": [CART, GERMAN]})

    assert [(row.mark, (row.before or row.after).leaf.__class__.__name__) for row in found.rows] == [
        ("", "Occurred"),
        ("−", "Occurred"),
        ("", "Attribute"),
    ]


def test_the_first_version_is_all_new():
    found = diff.nothing_before(grammar.parse({"all": [CART, GERMAN]}))

    assert marks(found) == "++"


rules = strategies.trees(max_leaves=8)


@st.composite
def edited(draw) -> tuple[Node, Node]:
    """A rule, and another that has grown out of it, as editors make them."""
    before = draw(rules)
    other = draw(rules)
    return before, draw(
        st.sampled_from([other, All((before, other)), Any((other, before)), Not(before), All((other, before, before))])
    )


def bag(node: Node) -> Counter:
    return Counter((path, grammar.canonical(leaf)) for path, leaf in leaves(node))


def side(rows, which: str) -> Counter:
    tests = [getattr(row, which) for row in rows]
    return Counter((test.path, grammar.canonical(test.leaf)) for test in tests if test is not None)


@given(rules)
def test_between_a_rule_and_itself_there_is_nothing(rule):
    assert not diff.between(rule, rule)


@given(edited())
def test_there_is_nothing_only_between_rules_that_are_the_same(rules):
    before, after = rules
    assert bool(diff.between(before, after)) == (not diff.same(before, after))


@given(edited())
def test_every_test_of_both_rules_is_accounted_for_once(rules):
    before, after = rules
    found = diff.between(before, after)

    assert side(found.rows, "before") == bag(before)
    assert side(found.rows, "after") == bag(after)
    assert len(found.rows) == len(found.changes) + len(found.kept)


@given(edited())
def test_applied_the_changes_make_the_new_rules_tests_and_inverted_the_old_ones(rules):
    before, after = rules
    found = diff.between(before, after)
    old = Counter(key for _, key in bag(before).elements())
    new = Counter(key for _, key in bag(after).elements())

    def applied(tests: Counter, change: diff.Diff) -> Counter:
        came = Counter(grammar.canonical(row.after.leaf) for row in change.changes if row.after)
        went = Counter(grammar.canonical(row.before.leaf) for row in change.changes if row.before)
        assert not went - tests, "only what is there can go"
        return tests - went + came

    assert applied(old, found) == new
    assert applied(new, found.inverted()) == old
    assert found.inverted().inverted() == found


@given(rules, st.randoms(use_true_random=False))
def test_shuffled_rules_are_the_same(rule, chance):
    def shuffled(node: Node) -> Node:
        match node:
            case All(items) | Any(items):
                made = [shuffled(item) for item in items]
                chance.shuffle(made)
                return type(node)(tuple(made))
            case Not(item):
                return Not(shuffled(item))
        return node

    assert not diff.between(rule, shuffled(rule))


@given(edited())
def test_every_change_has_words(rules):
    found = diff.between(*rules)

    assert all(len(row.words) > 5 for row in found.changes)
    assert found.sentence.endswith(".")
    assert (found.sentence == "Nothing changed.") == (not found)
