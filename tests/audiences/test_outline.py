"""Rules under edit: an outline says what its tree says, its form says what it says, and whatever is posted an outline comes out."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiences.segments import grammar
from audiences.segments.outline import form_of, of_post, of_tree, tree_of
from audiences.segments.outline_items import ROWS, blank, group, meant, shown
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
