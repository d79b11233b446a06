"""The engine against judge.py: random rules over random people, kept as hot rows, in the lake, and in both as while a flush goes on."""

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyroaring import BitMap

from audiences.models import Alias, Event, LakeFile, Profile, ProfileChange
from audiences.people import lake
from audiences.people.engines.base import Pinned
from audiences.people.engines.cache import Cache
from audiences.people.engines.duckdb import DuckDB
from audiences.segments import evaluate
from audiences.segments.judge import judge, verdicts
from tests.audiences import strategies
from tests.audiences.engine_people import accept, flush, save
from tests.audiences.strategies import AS_OF

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def own_lake(settings, tmp_path: Path) -> None:
    settings.LAKE_URL = str(tmp_path / "lake")


def fresh_engine(folder: Path) -> DuckDB:
    return DuckDB(memory="500MB", threads=1, folder=folder / "spill", cache=Cache(folder / "cache"))


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DuckDB]:
    made = fresh_engine(tmp_path)
    yield made
    made.close()


def now(as_of_us: int = AS_OF) -> Pinned:
    return Pinned(lake.take_snapshot(), as_of_us)


def empty_tables() -> None:
    for model in (Alias, Event, LakeFile, Profile, ProfileChange):
        model.objects.all().delete()


WAYS = ("hot", "lake", "both", "flushed meanwhile", "merged", "projected", "changed since")


def check(people, trees, way, folder, as_of_us=AS_OF) -> None:
    """Judge and engine agree on every rule and group of every tree."""
    empty_tables()
    engine = fresh_engine(folder / uuid.uuid4().hex)
    try:
        pin = None
        match way:
            case "hot":
                accept(people)
            case "lake":
                accept(people)
                flush()
            case "both":
                accept(people, chunks=3, between=lambda chunk: flush() if chunk == 0 else None)
            case "flushed meanwhile":  # a pin is taken, and then its hot rows are flushed
                accept(people, chunks=2, between=lambda chunk: flush())
                pin = now(as_of_us)
                engine.universe(pin)
                flush()
            case "merged":
                accept(people, chunks=2, merged=True, between=lambda chunk: flush())
            case "projected":
                accept(people)
                lake.project_profiles()
                flush()
            case "changed since":
                for person in people[::2]:
                    save(person)
                stale = [strategies.replace(person, attributes={"plan": "42"}, created_us=0) for person in people[1::2]]
                for person in stale:
                    save(person)
                lake.project_profiles()
                accept(people[1::2])
                accept([strategies.replace(person) for person in people[::2]])
        pin = pin or now(as_of_us)
        lists = {
            key: BitMap(person.profile_no for person in people if key in person.lists) for key in strategies.LIST_KEYS
        }
        found = evaluate.compute({str(at): tree for at, tree in enumerate(trees)}, pin, engine, lists)
        for at, tree in enumerate(trees):
            judged = {person.profile_no for person in people if judge(tree, person, pin.as_of_us)}
            assert set(found[str(at)].members) == judged
            each = [verdicts(tree, person, pin.as_of_us) for person in people]
            assert found[str(at)].rule_counts == {path: sum(one[path] for one in each) for path in each[0]}
    finally:
        engine.close()


@pytest.mark.parametrize("way", WAYS)
@hypothesis_settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_engine_and_judge_agree_on_every_rule_and_group(way, tmp_path, data):
    people = data.draw(strategies.people())
    trees = data.draw(st.lists(strategies.trees(), min_size=3, max_size=12))
    check(people, trees, way, tmp_path)
