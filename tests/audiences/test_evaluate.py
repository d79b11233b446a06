"""The algebra of rules over given answers: who is in, how many pass each rule, and what many audiences share."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyroaring import BitMap

from audiences.people.engines.base import Pinned, Snapshot
from audiences.segments import evaluate
from audiences.segments.judge import list_key, verdicts
from audiences.segments.primitives import happened, is_relative, primitive
from audiences.segments.tree import (
    All,
    Any,
    Attribute,
    Bucket,
    Condition,
    Count,
    InAudience,
    InCustomerioSegment,
    InList,
    KnownFor,
    Moment,
    Not,
    Occurred,
    Sequence,
    Step,
    Within,
    leaves,
)
from tests.audiences import strategies
from tests.audiences.strategies import AS_OF

PIN = Pinned(Snapshot(0, 0, 0, 0), AS_OF)
A, B = Attribute(Condition("a", "exists")), Attribute(Condition("b", "exists"))
EVERYBODY = BitMap([1, 2, 3, 4])
ANSWERS = {A: BitMap([1, 2, 9]), B: BitMap([2, 3])}


class Asked:
    """An engine that answers by judging, and remembers what it was asked."""

    def __init__(self, people):
        self.people = people
        self.leaves = []

    def universe(self, pin):
        return BitMap(person.profile_no for person in self.people)

    def members(self, leaves, pin, stop=None):
        self.leaves.append(list(leaves))
        return {
            leaf: BitMap(one.profile_no for one in self.people if verdicts(leaf, one, pin.as_of_us)[""])
            for leaf in leaves
        }


@pytest.mark.parametrize(
    ("rule", "members"),
    [
        (A, {1, 2}),
        (All((A, B)), {2}),
        (Any((A, B)), {1, 2, 3}),
        (Not(A), {3, 4}),
        (Not(Any((A, B))), {4}),
        (All(()), {1, 2, 3, 4}),
        (Any(()), set()),
        (All((Not(A), Not(Not(B)))), {3}),
    ],
)
def test_groups_are_set_operations_among_the_live_people(rule, members):
    assert set(evaluate.members(rule, EVERYBODY, ANSWERS)) == members


def test_every_rule_and_group_is_counted_under_its_path():
    rule = All((A, Not(Any((B, Not(A))))))
    assert evaluate.counts(rule, EVERYBODY, ANSWERS) == {
        "": 1,
        "all[0]": 2,
        "all[1]": 1,
        "all[1].not": 3,
        "all[1].not.any[0]": 2,
        "all[1].not.any[1]": 2,
        "all[1].not.any[1].not": 2,
    }
    assert [path for path, _ in leaves(rule)] == [
        path for path, node in evaluate.every(rule) if not isinstance(node, All | Any | Not)
    ]


def test_neither_the_answers_nor_the_universe_are_changed():
    everybody, answers = BitMap(EVERYBODY), {leaf: BitMap(found) for leaf, found in ANSWERS.items()}
    found = evaluate.members(All((A,)), everybody, answers)
    found.add(77)
    found = evaluate.members(All(()), everybody, answers)
    found.add(77)
    assert (everybody, answers) == (EVERYBODY, ANSWERS)


def test_a_leaf_that_audiences_share_is_asked_once():
    engine = Asked([])
    evaluate.compute({"one": All((A, B)), "two": Any((B, Not(A))), "three": B}, PIN, engine, {})
    assert engine.leaves == [[A, B]]


def test_lists_are_looked_up_and_not_asked():
    vip, segment = InList("vip"), InCustomerioSegment(12)
    engine = Asked([])
    engine.universe = lambda pin: EVERYBODY
    found = evaluate.compute(
        {"it": All((vip, Not(segment)))}, PIN, engine, {"vip": BitMap([1, 2, 9]), list_key(segment): BitMap([2])}
    )
    assert (set(found["it"].members), found["it"].rule_counts["all[0]"]) == ({1}, 2)
    assert engine.leaves == [[]]


@pytest.mark.parametrize("leaf", [InList("gone"), InCustomerioSegment(3), InAudience("other")])
def test_what_nobody_can_answer_is_said(leaf):
    with pytest.raises(evaluate.Unanswerable):
        evaluate.compute({"it": Not(leaf)}, PIN, Asked([]), {})


@given(strategies.people(), st.lists(strategies.trees(), min_size=1, max_size=5))
def test_the_algebra_agrees_with_judging_person_by_person(people, trees):
    lists = {key: BitMap(one.profile_no for one in people if key in one.lists) for key in strategies.LIST_KEYS}
    found = evaluate.compute({str(at): tree for at, tree in enumerate(trees)}, PIN, Asked(people), lists)
    for at, tree in enumerate(trees):
        each = {person.profile_no: verdicts(tree, person, AS_OF) for person in people}
        assert set(found[str(at)].members) == {number for number, verdict in each.items() if verdict[""]}
        for path, count in found[str(at)].rule_counts.items():
            assert count == sum(verdict[path] for verdict in each.values())


@given(strategies.people(), st.lists(strategies.leaves(lists=False), min_size=1, max_size=8))
def test_primitive_rules_mean_the_same(people, asked):
    for leaf in asked:
        rule = primitive(leaf)
        for part in (part for _, part in leaves(rule)):
            assert not isinstance(part, Occurred) or (part.count.low >= 1 and part.count.high is None)
            assert not isinstance(part, Attribute) or part.condition.op not in ("is_not", "not_in", "missing")
        for person in people:
            assert verdicts(leaf, person, AS_OF)[""] == verdicts(rule, person, AS_OF)[""]


def test_opposite_counts_rest_on_the_same_leaves():
    def counted(low, high):
        return Occurred("buy", Count(low, high))

    assert primitive(counted(1, None)) == counted(1, None)
    assert primitive(counted(0, 0)) == Not(counted(1, None))
    assert primitive(counted(2, 2)) == All((counted(2, None), Not(counted(3, None))))
    assert primitive(counted(0, None)) == All(())


@given(strategies.people(), strategies.leaves(lists=False), st.integers(1, 10**12))
def test_only_relative_leaves_change_while_nothing_happens(people, leaf, later):
    """Once every event lies in the past."""
    if not is_relative(leaf):
        done = AS_OF + 10 * 3_600_000_000
        for person in people:
            assert verdicts(leaf, person, done) == verdicts(leaf, person, done + later)


@pytest.mark.parametrize(
    ("leaf", "relative"),
    [
        (A, False),
        (Attribute(Condition("a", "not_within_last", (5,))), True),
        (Occurred("e", Count(1, None)), False),
        (Occurred("e", Count(1, None), Within(5)), True),
        (Occurred("e", Count(1, None), None, (Condition("p", "within_next", (5,)),)), True),
        (Moment("e", "last", "before", (5,)), False),
        (Moment("e", "last", "within_last", (5,)), True),
        (KnownFor(5), True),
        (Bucket("s", 0, 1), False),
        (Sequence((Step("a"), Step("b"))), True),
    ],
)
def test_which_leaves_are_relative(leaf, relative):
    assert is_relative(leaf) is relative


@given(strategies.people(), strategies.sequences())
def test_whoever_takes_a_sequence_did_all_that_must_have_happened(people, sequence):
    for person in people:
        if verdicts(sequence, person, AS_OF)[""]:
            assert all(verdicts(step, person, AS_OF)[""] for step in happened(sequence))
