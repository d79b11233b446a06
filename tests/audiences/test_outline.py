"""Rules under edit: an outline says what its tree says, its form says what it says, and whatever is posted an outline comes out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiences.segments import grammar
from audiences.segments.outline import edited, form_of, of_post, of_tree, tree_of, walk
from audiences.segments.outline_edits import DEEDS, MOVE
from audiences.segments.outline_forms import MAX_ITEMS, MAX_LEVELS
from audiences.segments.outline_items import ROWS, blank, group, is_group, meant, shown
from audiences.segments.tree import Attribute, Condition
from tests.audiences import strategies


@given(strategies.trees(max_leaves=12))
def test_an_outline_says_what_its_tree_says(tree):
    made, problems = tree_of(of_tree(tree))
    assert problems == ()
    assert made is not None and grammar.canonical(made) == grammar.canonical(tree)


@given(strategies.trees(max_leaves=12))
def test_its_form_says_what_it_says(tree):
    said = of_tree(tree)
    assert of_post(form_of(said)) == said


@given(st.text())
def test_a_field_holds_any_text(text):
    field = shown(text)
    assert meant(field) == text
    assert "\n" not in field and field == field.strip()


@given(st.text(min_size=1, max_size=50).filter(lambda text: "\0" not in text))
@settings(max_examples=50)
def test_any_name_and_value_comes_back(text):
    tree = Attribute(Condition(text, "in", tuple(sorted({text, "b", ""}))))
    made, problems = tree_of(of_post(form_of(of_tree(tree))))
    if problems:  # half a surrogate pair is no character
        assert any("\ud800" <= letter <= "\udfff" for letter in text)
    else:
        assert made == tree


@pytest.mark.parametrize("kind", [kind for kind in ROWS if kind != "attribute"])
def test_every_kind_of_row_starts_with_something_missing_and_nothing_wrong(kind):
    tree, problems = tree_of(group(items=[blank(kind)]))
    assert tree is None
    assert problems and all(problem.missing for problem in problems)
    assert all(problem.path.startswith("rule-0.") for problem in problems)


def places(outline):
    """Every place that a button may name."""
    for path, item in walk(outline):
        yield path
        for step, one in enumerate(item.get("steps", ())):
            yield f"{path}.step{step}"
            yield from (f"{path}.step{step}.where{n}" for n in range(len(one["where"])))
        yield from (f"{path}.where{n}" for n in range(len(item.get("where", ()))))


@given(strategies.trees(max_leaves=8), st.data())
def test_whatever_is_pressed_an_outline_comes_out_whose_form_says_it(tree, data):
    made = of_tree(tree)
    for _ in range(4):
        deed = data.draw(st.sampled_from(sorted(DEEDS)))
        made, focus = edited(made, deed, data.draw(st.sampled_from(sorted(places(made)))))
        assert of_post(form_of(made)) == made
        assert focus in set(places(made))
        tree_of(made)


@pytest.mark.parametrize(
    ("dragged", "after", "focus"),
    [
        ("rule-0:rule-3", "all(b any(c d) a e)", "rule-2"),
        ("rule-0:rule-3:after", "all(b any(c d) e a)", "rule-3"),
        ("rule-3:rule-0", "all(e a b any(c d))", "rule-0"),
        ("rule-0:rule-2-0", "all(b any(a c d) e)", "rule-1-0"),
        ("rule-2-1:rule-0:after", "all(a d b any(c) e)", "rule-1"),
        ("rule-2-0:rule-2-1:after", "all(a b any(d c) e)", "rule-2-1"),
        ("rule-2:rule-0", "all(any(c d) a b e)", "rule-0"),
        ("rule-2:rule-2-1", "all(a b any(c d) e)", "rule-2"),  # not into itself
        ("rule-1:rule-1:after", "all(a b any(c d) e)", "rule-1"),
        ("rule-9:rule-0", "all(a b any(c d) e)", "rule"),
        ("rule-0:rule-9-9", "all(a b any(c d) e)", "rule-0"),
        ("rule:rule-0", "all(a b any(c d) e)", "rule"),
        ("rule-0", "all(a b any(c d) e)", "rule"),
        ("rule-0:rule-1:before", "all(a b any(c d) e)", "rule"),
    ],
)
def test_what_is_dragged_comes_before_or_after_what_it_is_let_go_over(dragged, after, focus):
    before = group(items=[row("a"), row("b"), group("any", [row("c"), row("d")]), row("e")])
    made, at = edited(before, MOVE, dragged)
    assert (said(made), at) == (after, focus)


@given(strategies.trees(max_leaves=8), st.data())
def test_dragging_loses_nothing_and_adds_nothing(tree, data):
    before = of_tree(tree)
    inner = sorted(path for path, _ in walk(before) if path != "rule")
    if not inner:
        return
    after = data.draw(st.sampled_from(("", ":after")))
    made, focus = edited(
        before, MOVE, f"{data.draw(st.sampled_from(inner))}:{data.draw(st.sampled_from(inner))}{after}"
    )
    assert sorted(repr({**one, "items": 0}) for _, one in walk(made)) == sorted(
        repr({**one, "items": 0}) for _, one in walk(before)
    )
    assert focus in set(places(made)) and of_post(form_of(made)) == made


@given(strategies.trees(max_leaves=6), st.data())
def test_what_is_wrong_is_said_at_a_field_of_the_form_or_at_an_item(tree, data):
    made = of_tree(tree)
    form = form_of(made)
    name = data.draw(st.sampled_from(sorted(name for name in form if not name.endswith((".kind", ".nots", ".bare")))))
    broken = of_post(
        form | {name: data.draw(st.sampled_from(("", "-1", "0", "x" * 1_001, "2024-13-01", "99999999999")))}
    )
    _, problems = tree_of(broken)
    there = {*form_of(broken), *places(broken)}
    assert {problem.path for problem in problems} <= there


def row(event):
    return {**blank(), "event": event}


def said(outline):
    """The events, groups in brackets; one that is left out with a minus."""
    inner = [said(item) if is_group(item) else item["event"] for item in outline["items"]]
    return f"{'-' * outline['nots']}{outline['kind']}({' '.join(inner)})"


@pytest.mark.parametrize(
    ("deed", "place", "after", "focus"),
    [
        ("up", "rule-1", "all(b a any(c d) e)", "rule-0"),
        ("down", "rule-0", "all(b a any(c d) e)", "rule-1"),
        ("down", "rule-1", "all(a any(b c d) e)", "rule-1-0"),
        ("up", "rule-3", "all(a b any(c d e))", "rule-2-2"),
        ("up", "rule-2-0", "all(a b c any(d) e)", "rule-2"),
        ("down", "rule-2-1", "all(a b any(c) d e)", "rule-3"),
        ("up", "rule-2", "all(a any(c d) b e)", "rule-1"),
        ("up", "rule-0", "all(a b any(c d) e)", "rule-0"),
        ("down", "rule-3", "all(a b any(c d) e)", "rule-3"),
        ("duplicate", "rule-2", "all(a b any(c d) any(c d) e)", "rule-3"),
        ("remove", "rule-3", "all(a b any(c d))", "rule-2"),
        ("remove", "rule-0", "all(b any(c d) e)", "rule-0"),
        ("add-rule", "rule-2", "all(a b any(c d ) e)", "rule-2-2"),
        ("add-group", "rule-2", "all(a b any(c d all()) e)", "rule-2-2-0"),
        ("exclude", "rule", "all(a b any(c d) e -any())", "rule-4-0"),
    ],
)
def test_what_a_press_does(deed, place, after, focus):
    before = group(items=[row("a"), row("b"), group("any", [row("c"), row("d")]), row("e")])
    made, at = edited(before, deed, place)
    assert (said(made), at) == (after, focus)


def test_people_are_left_out_of_everybody_that_any_of_the_rules_finds():
    made, at = edited(group("any", [row("a"), row("b")]), "exclude", "rule")
    assert (said(made), at) == ("all(any(a b) -any())", "rule-1-0")
    made, at = edited({**group("any", [row("a")]), "bare": True}, "exclude", "rule")
    assert (said(made), at) == ("all(a -any())", "rule-1-0")


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20)))
def test_whatever_is_posted_an_outline_comes_out(form):
    tree_of(of_post(form))
    tree_of(of_post({**form, "rule.kind": "all", "rule-0.kind": "x", "rule-0.nots": "99", "rule-0.times": "often"}))


def test_what_is_posted_too_deep_is_cut_and_what_is_too_long_is_refused_in_words():
    deep = {"rule" + "-0" * level + ".kind": "all" for level in range(200)}
    long = {"rule.kind": "any", **{f"rule-{n}.kind": "list" for n in range(3_000)}}
    assert len(list(walk(of_post(deep)))) == MAX_LEVELS
    with pytest.raises(ValueError, match=f"at most {MAX_ITEMS:,} parts"):
        of_post(long)
