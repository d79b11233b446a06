"""The engine against judge.py: random rules over random people, while their events are accepted, flushed, compacted, merged and pinned."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from audiences.people import lake
from audiences.people.engines.base import Pinned
from audiences.people.engines.cache import Cache
from audiences.people.engines.duckdb import DuckDB
from audiences.segments import evaluate, tree
from audiences.segments.tree import Attribute, InCustomerioSegment, InList, KnownFor, Occurred
from tests.audiences import strategies
from tests.audiences.engine_people import courses, judged, lists_of, take

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def own_lake(settings, tmp_path: Path) -> None:
    settings.LAKE_URL = str(tmp_path / "lake")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DuckDB]:
    made = DuckDB(memory="500MB", threads=2, folder=tmp_path / "spill", cache=Cache(tmp_path / "cache"))
    yield made
    made.close()


def agree(engine: DuckDB, course, trees) -> None:
    """Whoever judge takes in, the engine takes in: every rule and group of every tree, as a whole and person by person."""
    rules = {str(at): rule for at, rule in enumerate(trees)}

    def ask(pin: Pinned) -> None:
        evaluate.compute(rules, pin, engine, lists_of(course.people))

    pin, people = take(course, ask)
    found = evaluate.compute(rules, pin, engine, lists_of(course.people))
    for key, rule in rules.items():
        members, counts = judged(rule, people, pin.as_of_us)
        assert set(found[key].members) == members
        assert found[key].rule_counts == counts
    leaves = [
        leaf for rule in trees for _, leaf in tree.leaves(rule) if not isinstance(leaf, InList | InCustomerioSegment)
    ]
    numbers = [person.profile_no for person in people[::2]]
    for leaf, members in engine.point(leaves, numbers, pin).items():
        assert set(members) == judged(leaf, people, pin.as_of_us)[0] & set(numbers)


EXAMPLES = int(os.environ.get("LAW_EXAMPLES", "60"))  # of each kind, 20 to 30 rules an example; 1,000 for a night
COURSES = {"data": st.data(), "course": courses()}
QUIETLY = {"deadline": None, "suppress_health_check": list(HealthCheck)}
KINDS = {
    "trees": strategies.trees(),
    "attributes": st.builds(Attribute, strategies.conditions(strategies.ATTRIBUTES)),
    "any event": st.one_of(
        st.builds(Occurred, st.just("*"), strategies.counts(), strategies.windows()),
        strategies.durations().map(KnownFor),
    ),
    "counts": strategies.occurred(),
    "measures": st.one_of(strategies.measured(), strategies.first_or_last()),
    "sequences": strategies.sequences(),
}


@pytest.mark.timeout(900)
@pytest.mark.parametrize("kind", KINDS)
@hypothesis_settings(max_examples=15, **QUIETLY)
@given(**COURSES)
def test_engine_and_judge_agree_on_every_rule_and_group(kind, engine, data, course):
    agree(engine, course, data.draw(st.lists(KINDS[kind], min_size=20, max_size=30)))


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("kind", KINDS)
@hypothesis_settings(max_examples=EXAMPLES, **QUIETLY)
@given(**COURSES)
def test_engine_and_judge_agree_as_often_as_there_is_time_for(kind, engine, data, course):
    agree(engine, course, data.draw(st.lists(KINDS[kind], min_size=20, max_size=30)))


def test_a_lake_of_nothing_answers_nothing(engine):
    pin = Pinned(lake.take_snapshot(), strategies.AS_OF)
    assert not engine.universe(pin)
    assert engine.members([], pin) == {}
