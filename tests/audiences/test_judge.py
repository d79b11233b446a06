"""What rules mean for one person: window edges, missing values, sequences by hand, and laws over random rules and people."""

import itertools
from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiences.clock import DAY, HOUR, MINUTE
from audiences.segments.grammar import parse
from audiences.segments.judge import Occurrence, Person, bucket_of, judge, list_key, verdicts
from audiences.segments.tree import (
    Attribute,
    InAudience,
    InCustomerioSegment,
    Not,
    Occurred,
)
from audiences.segments.tree import leaves as rules_of
from tests.audiences import strategies
from tests.audiences.strategies import AS_OF, histories, moments, people, sequences, trees


def somebody(*events: tuple[str, int] | tuple[str, int, dict[str, object]], created=AS_OF, **attributes) -> Person:
    """A person whose events are (name, µs before as_of, properties)."""
    history = tuple(Occurrence(name, AS_OF - ago, *rest) for name, ago, *rest in events)
    return Person(1, "p1", created, attributes, history)


def holds(rule: dict[str, object], person: Person) -> bool:
    return judge(parse(rule), person, AS_OF)


@pytest.mark.parametrize(
    ("ago", "inside"), [(DAY, False), (DAY - 1, True), (0, True), (-1, False), (DAY + 1, False), (5, True)]
)
def test_a_window_is_open_at_its_start_and_closed_at_as_of(ago, inside):
    assert holds({"event": "buy", "within": "24h"}, somebody(("buy", ago))) is inside
    assert holds({"event": "*", "within": "24h"}, somebody(("buy", ago))) is inside
    assert holds({"event": "buy", "count": {"exactly": 0}, "within": "24h"}, somebody(("buy", ago))) is not inside


@pytest.mark.parametrize(("ago", "inside"), [(DAY + 1, False), (DAY, True), (1, True), (0, False)])
def test_a_range_holds_its_start_and_not_its_end(ago, inside):
    rule = {"event": "buy", "within": {"from": "2024-05-31", "to": "2024-06-01"}}
    assert holds(rule, somebody(("buy", ago))) is inside


def test_nothing_after_as_of_counts_in_any_form():
    tomorrow = somebody(("view", -HOUR), ("buy", -DAY, {"value": 5}), created=AS_OF + DAY)
    for rule in (
        {"event": "buy"},
        {"event": "*"},
        {"event": "buy", "within": {"from": "2024-06-01", "to": "2024-07-01"}},
        {"event": "buy", "sum": "value", "op": "gt", "value": 0},
        {"event": "buy", "last": "occurrence", "op": "after", "value": "2024-01-01"},
        {"sequence": [{"event": "view"}, {"event": "buy"}]},
        {"known_for": "1m"},
    ):
        assert not holds(rule, tomorrow)


@pytest.mark.parametrize(
    ("count", "wanted"),
    [
        ({"at_least": 2}, [False, False, True, True, True]),
        ({"at_most": 2}, [True, True, True, False, False]),
        ({"at_most": 0}, [True, False, False, False, False]),
        ({"exactly": 0}, [True, False, False, False, False]),
        ({"exactly": 2}, [False, False, True, False, False]),
        ({"between": [1, 3]}, [False, True, True, True, False]),
        ({"between": [0, 1]}, [True, True, False, False, False]),
    ],
)
def test_counts_include_none_and_identical_occurrences(count, wanted):
    for times, expected in enumerate(wanted):
        assert holds({"event": "buy", "count": count}, somebody(*[("buy", HOUR)] * times)) is expected


MISSING = object()


@pytest.mark.parametrize(
    ("value", "op", "wanted", "passes"),
    [
        ("DE", "is", "DE", True),
        ("de", "is", "DE", False),
        ("00042", "is", "42", False),
        ("00042", "is", "00042", True),
        ("00042", "gte", 42, True),
        (42.0, "is", 42, True),
        (42, "is", "42", True),
        ("42.0", "is", 42, False),
        (True, "is", True, True),
        ("true", "is", True, True),
        (1, "is", True, False),
        ("", "is", "", True),
        ("", "exists", None, True),
        (None, "exists", None, False),
        (MISSING, "exists", None, False),
        ("é", "is", "e\u0301", False),
        ([], "exists", None, True),
        ([1, "a"], "is", '[1,"a"]', True),
        ("DE", "in", ["FR", "DE"], True),
        ("AT", "in", ["FR", "DE"], False),
        ("a@b.com", "contains", "@b", True),
        ("100 %", "contains", "%", True),
        ("100", "contains", "%", False),
        ("a_b", "starts_with", "a_", True),
        ("axb", "starts_with", "a_", False),
        ("report.PDF", "ends_with", ".pdf", False),
        (1234, "starts_with", "12", True),
        ("10", "gt", 9, True),
        ("10", "gt", 10, False),
        (10.5, "lte", 10.5, True),
        ("ten", "lt", 11, False),
        (True, "gte", 0, False),
        (1e21, "gt", 0, False),
        ("0.0000005", "gte", 0.000001, True),
        (5, "between", [5, 6], True),
        (6, "between", [5, 6], True),
        (6.000001, "between", [5, 6], False),
        ("2024-05-31", "before", "2024-06-01", True),
        ("2024-06-01", "before", "2024-06-01", False),
        ("2024-06-01", "after", "2024-06-01", False),
        ("2024-06-01T00:00:00.000001Z", "after", "2024-06-01", True),
        (1717200000, "before", "2024-06-02", True),
        ("soon", "before", "2024-06-02", False),
        ("2024-05-31T00:00:00Z", "within_last", "24h", False),
        ("2024-05-31T00:00:01Z", "within_last", "24h", True),
        ("2024-06-01T00:00:00Z", "within_last", "24h", True),
        ("2024-06-01T00:00:01Z", "within_last", "24h", False),
        ("2024-06-01T00:00:00Z", "within_next", "24h", False),
        ("2024-06-01T00:00:01Z", "within_next", "24h", True),
        ("2024-06-02", "within_next", "24h", True),
        ("2024-06-02T00:00:01Z", "within_next", "24h", False),
    ],
)
def test_a_value_passes_a_test_by_its_text_number_or_moment(value, op, wanted, passes):
    test = {"op": op} if wanted is None else {"op": op, "value": wanted}
    held = {} if value is MISSING else {"x": value}
    assert holds({"attribute": "x", **test}, somebody(**held)) is passes
    assert holds({"event": "buy", "where": [{"property": "x", **test}]}, somebody(("buy", 0, held))) is passes


@pytest.mark.parametrize(
    ("op", "positive", "value"),
    [("is_not", "is", "DE"), ("not_in", "in", ["DE", "FR"]), ("not_within_last", "within_last", "30d"), ("missing", "exists", None)],
)  # fmt: skip
@pytest.mark.parametrize(
    "held", [{}, {"x": None}, {"x": "DE"}, {"x": "IT"}, {"x": "2024-05-31"}, {"x": "2025-01-01"}, {"x": ""}]
)
def test_a_negative_is_the_exact_complement_of_its_positive(op, positive, value, held):
    rest = {} if value is None else {"value": value}
    person = somebody(**held)
    assert holds({"attribute": "x", "op": op, **rest}, person) is not holds(
        {"attribute": "x", "op": positive, **rest}, person
    )


def test_every_condition_must_pass_on_the_same_occurrence():
    where = [{"property": "category", "op": "is", "value": "shoes"}, {"property": "value", "op": "gt", "value": 10}]
    rule = {"event": "buy", "where": where}
    assert not holds(
        rule, somebody(("buy", 1, {"category": "shoes", "value": 5}), ("buy", 2, {"category": "hats", "value": 50}))
    )
    assert holds(rule, somebody(("buy", 1, {"category": "shoes", "value": 50})))


@pytest.mark.parametrize(
    ("measure", "op", "value", "holds_for"),
    [
        ("sum", "is", 0.3, True),
        ("sum", "gt", 0.3, False),
        ("sum", "gte", 0.3, True),
        ("avg", "is", 0.15, True),
        ("avg", "between", [0.15, 0.15], True),
        ("avg", "lt", 0.15, False),
        ("min", "is", 0.1, True),
        ("max", "is", 0.2, True),
        ("max", "is_not", 0.2, False),
        ("max", "is_not", 0.3, True),
    ],
)
def test_measures_are_decimal_and_pass_over_what_is_no_number(measure, op, value, holds_for):
    person = somebody(
        ("buy", 1, {"value": 0.1}),
        ("buy", 2, {"value": "0.2"}),
        ("buy", 3, {"value": "n/a"}),
        ("buy", 4),
        ("view", 1, {"value": 9}),
    )
    assert holds({"event": "buy", measure: "value", "op": op, "value": value}, person) is holds_for


def test_an_average_that_no_decimal_writes_is_compared_exactly():
    person = somebody(("buy", 1, {"value": 1}), ("buy", 2, {"value": 0}), ("buy", 3, {"value": 0}))
    assert holds({"event": "buy", "avg": "value", "op": "gt", "value": 0.333333}, person)
    assert holds({"event": "buy", "avg": "value", "op": "lt", "value": 0.333334}, person)
    assert holds({"event": "buy", "avg": "value", "op": "is_not", "value": 0.333333}, person)


@pytest.mark.parametrize("measure", ["sum", "avg", "min", "max"])
@pytest.mark.parametrize(("op", "value"), [("is", 0), ("is_not", 0), ("lt", 1), ("gte", 0), ("between", [0, 1])])
def test_a_measure_over_nothing_satisfies_no_comparison(measure, op, value):
    rule = {"event": "buy", measure: "value", "op": op, "value": value, "within": "24h"}
    assert not holds(rule, somebody(("buy", 2 * DAY, {"value": 0}), ("buy", HOUR, {"value": "none"})))


def test_first_and_last_are_taken_within_the_window_and_are_missing_over_nothing():
    person = somebody(("buy", 40 * DAY), ("buy", 10 * DAY), ("buy", 2 * DAY), ("buy", -DAY))
    first = {"event": "buy", "first": "occurrence"}
    last = {"event": "buy", "last": "occurrence"}
    assert holds(first | {"op": "not_within_last", "value": "30d"}, person)
    assert holds(first | {"op": "within_last", "value": "30d", "within": "30d"}, person)
    assert holds(last | {"op": "between", "value": ["2024-05-30", "2024-05-31"]}, person)
    assert not holds(last | {"op": "between", "value": ["2024-05-29", "2024-05-30"]}, person)
    assert not holds(last | {"op": "before", "value": "2024-05-30"}, person)
    assert not holds(last | {"op": "after", "value": "2024-05-30"}, person)
    for op, value in (("before", "2030-01-01"), ("not_within_last", "1d"), ("within_last", "540d")):
        assert not holds({"event": "view", "last": "occurrence", "op": op, "value": value}, person)


@pytest.mark.parametrize(
    ("created_ago", "first_ago", "known"),
    [(DAY, None, True), (DAY - 1, None, False), (0, DAY, True), (0, DAY - 1, False), (2 * DAY, 0, True), (-DAY, DAY, True), (-DAY, -2 * DAY, False)],
)  # fmt: skip
def test_a_person_is_known_since_the_earlier_of_creation_and_first_event(created_ago, first_ago, known):
    events = [] if first_ago is None else [("view", first_ago), ("view", first_ago - 1)]
    assert holds({"known_for": "24h"}, somebody(*events, created=AS_OF - created_ago)) is known


def test_known_for_keeps_newcomers_out_of_a_zero_count():
    rule = {"event": "buy", "count": {"exactly": 0}, "within": "30d", "known_for": "30d"}
    assert not holds(rule, somebody(created=AS_OF - DAY))
    assert holds(rule, somebody(created=AS_OF - 30 * DAY))


ADD_BUY = [{"event": "add"}, {"event": "buy", "within": "3d"}]


@pytest.mark.parametrize(
    ("steps", "events", "complete", "lapsed"),
    [
        # complete: the chain exists; lapsed: the same steps with "complete": false
        (ADD_BUY, [], False, False),
        (ADD_BUY, [("buy", DAY)], False, False),
        (ADD_BUY, [("add", 4 * DAY)], False, True),
        (ADD_BUY, [("add", 3 * DAY)], False, True),  # the window closes at as_of
        (ADD_BUY, [("add", 3 * DAY - 1)], False, False),  # a microsecond of it is left
        (ADD_BUY, [("add", 3 * DAY), ("buy", 0)], True, False),  # bought at the last moment
        (ADD_BUY, [("add", 5 * DAY), ("buy", 2 * DAY)], True, False),
        (ADD_BUY, [("add", 5 * DAY), ("buy", 2 * DAY - 1)], False, True),  # bought a microsecond too late
        (ADD_BUY, [("add", 5 * DAY), ("buy", 5 * DAY)], False, True),  # at once is not later
        (ADD_BUY, [("buy", 6 * DAY), ("add", 5 * DAY)], False, True),
        (ADD_BUY, [("add", 9 * DAY), ("add", 5 * DAY), ("buy", 4 * DAY)], True, True),  # one chain each way
        (ADD_BUY, [("add", 5 * DAY), ("add", 4 * DAY), ("buy", 3 * DAY)], True, False),
        (ADD_BUY, [("add", 4 * DAY), ("buy", -HOUR)], False, True),
        ([{"event": "add", "within": "3d"}, {"event": "buy", "within": "1d"}], [("add", 3 * DAY)], False, False),  # first step: open start
        ([{"event": "add", "within": "3d"}, {"event": "buy", "within": "1d"}], [("add", 3 * DAY - 1)], False, True),
        ([{"event": "a"}, {"event": "a", "within": "1h"}], [("a", 2 * HOUR)], False, True),
        ([{"event": "a"}, {"event": "a", "within": "1h"}], [("a", 2 * HOUR), ("a", HOUR)], True, True),
        ([{"event": "a"}, {"event": "a", "within": "1h"}], [("a", 2 * HOUR), ("a", 2 * HOUR)], False, True),
        # the middle step must be reachable: the later "b" has no "a" within the hour before it
        ([{"event": "a"}, {"event": "b", "within": "1h"}, {"event": "c", "within": "1h"}],
         [("a", 10 * HOUR), ("b", 9 * HOUR), ("b", 5 * HOUR), ("c", 4 * HOUR)], False, True),
        # an early "a" starts the chain that a later one cannot
        ([{"event": "a"}, {"event": "b", "within": "2h"}, {"event": "c", "within": "1h"}],
         [("a", 10 * HOUR), ("b", 9 * HOUR), ("a", 8 * HOUR), ("c", 8 * HOUR)], True, False),
        ([{"event": "a"}, {"event": "b"}, {"event": "c", "within": "1h"}],
         [("a", 9 * HOUR), ("b", 8 * HOUR), ("c", 7 * HOUR), ("b", 30 * MINUTE)], True, False),
    ],
)  # fmt: skip
def test_sequences_by_hand(steps, events, complete, lapsed):
    person = somebody(*events)
    assert holds({"sequence": steps}, person) is complete
    assert holds({"sequence": steps, "complete": False}, person) is lapsed


def test_a_step_takes_only_the_occurrences_that_pass_its_conditions():
    shoes = [{"property": "category", "op": "is", "value": "shoes"}]
    rule = {
        "sequence": [{"event": "add", "where": shoes}, {"event": "buy", "within": "1d", "where": shoes}],
        "complete": False,
    }
    hats = somebody(("add", 3 * DAY, {"category": "shoes"}), ("buy", 3 * DAY - HOUR, {"category": "hats"}))
    assert holds(rule, hats)
    assert not holds(rule, somebody(("add", 3 * DAY, {"category": "hats"})))


@given(sequences(), histories(max_size=10))
@settings(max_examples=400)
def test_a_sequence_is_what_trying_every_chain_finds(sequence, events):
    person = Person(1, "p1", AS_OF, {}, events)
    of_step = [
        [event.time_us for event in events if event.time_us <= AS_OF and judge(Occurred(step.event, parse({"event": "x"}).count, None, step.where), replace(person, events=(event,)), AS_OF)]
        for step in sequence.steps
    ]  # fmt: skip

    def is_chain(times):
        first = sequence.steps[0].within
        if first is not None and times[0] <= AS_OF - first:
            return False
        return all(
            before < after and (step.within is None or after - before <= step.within)
            for step, (before, after) in zip(sequence.steps[1:], itertools.pairwise(times), strict=False)
        )

    if sequence.complete:
        expected = any(is_chain(times) for times in itertools.product(*of_step))
    else:
        last = sequence.steps[-1].within
        expected = any(
            is_chain(times)
            and times[-1] + last <= AS_OF
            and not any(times[-1] < late <= times[-1] + last for late in of_step[-1])
            for times in itertools.product(*of_step[:-1])
        )
    assert judge(sequence, person, AS_OF) is expected


def test_a_bucket_is_the_start_of_a_hash_and_the_buckets_part_everybody():
    for key in ("p1", "00042", "é"):
        assert bucket_of("test", key) == int(sha256(b"test:" + key.encode()).hexdigest()[:16], 16) % 10_000
    parts = [
        {"bucket": {"salt": "test", "from": start, "to": start + 12.5}}
        for start in (0, 12.5, 25, 37.5, 50, 62.5, 75, 87.5)
    ]
    for number in range(300):
        person = Person(number, f"p{number}", AS_OF)
        assert sum(holds(part, person) for part in parts) == 1
    assert bucket_of("a", "p1") != bucket_of("b", "p1")


def test_lists_and_customerio_segments_cannot_be_mistaken_for_each_other():
    person = replace(somebody(), lists=frozenset({"staff", list_key(InCustomerioSegment(12))}))
    assert holds({"list": "staff"}, person)
    assert holds({"customerio_segment": 12}, person)
    assert not holds({"list": "12"}, person)
    assert not holds({"customerio_segment": 1}, person)


def test_an_unresolved_audience_is_an_error_and_not_false():
    with pytest.raises(ValueError, match="resolve it first"):
        judge(InAudience("vip"), somebody(), AS_OF)


def test_verdicts_name_every_rule_and_group():
    rule = parse(
        {
            "all": [
                {"event": "buy"},
                {"any": [{"list": "a"}, {"not": {"event": "view"}}]},
                {"event": "x", "count": {"exactly": 0}, "known_for": "1d"},
            ]
        }
    )
    assert verdicts(rule, somebody(("buy", 1), ("view", 1)), AS_OF) == {
        "": False,
        "all[0]": True,
        "all[1]": False,
        "all[1].any[0]": False,
        "all[1].any[1]": False,
        "all[1].any[1].not": True,
        "all[2]": False,
        "all[2].all[0]": True,
        "all[2].all[1]": False,
    }  # fmt: skip


@given(trees(), people(), moments())
def test_verdicts_agree_with_the_judge_and_cover_the_tree(tree, everybody, as_of_us):
    for person in everybody:
        found = verdicts(tree, person, as_of_us)
        assert found[""] == judge(tree, person, as_of_us)
        for path, leaf in rules_of(tree):
            assert found[path] == judge(leaf, person, as_of_us)


@given(trees(), people())
def test_not_is_an_exact_complement(tree, everybody):
    for person in everybody:
        assert judge(Not(tree), person, AS_OF) is not judge(tree, person, AS_OF)


@given(trees(), people(), st.randoms())
def test_the_order_of_events_and_the_future_change_nothing(tree, everybody, chance):
    for person in everybody:
        shuffled = list(person.events)
        chance.shuffle(shuffled)
        future = Occurrence("bought", AS_OF + 1, {"value": 42})
        assert judge(tree, replace(person, events=(*shuffled, future)), AS_OF) is judge(tree, person, AS_OF)


@given(strategies.conditions(strategies.ATTRIBUTES), people())
def test_a_condition_means_the_same_on_a_profile_and_on_an_event(condition, everybody):
    for person in everybody:
        event = Occurrence("seen", AS_OF, person.attributes)
        on_event = Occurred("seen", parse({"event": "x"}).count, None, (condition,))
        assert judge(Attribute(condition), person, AS_OF) is judge(on_event, replace(person, events=(event,)), AS_OF)


def test_random_people_meet_every_kind_of_rule():
    """The laws above say little if the strategies never draw a match."""
    met: set[tuple[str, bool]] = set()

    @given(strategies.leaves(), people(min_size=3))
    @settings(max_examples=400, database=None, derandomize=True)
    def draw(leaf, everybody):
        met.update((type(leaf).__name__, judge(leaf, person, AS_OF)) for person in everybody)

    draw()
    kinds = {
        "Attribute",
        "Occurred",
        "Measured",
        "Moment",
        "Sequence",
        "KnownFor",
        "Bucket",
        "InList",
        "InCustomerioSegment",
    }
    assert met == {(kind, verdict) for kind in kinds for verdict in (True, False)}
