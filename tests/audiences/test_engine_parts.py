"""The parts of the engine by themselves: what DuckDB was taught, the cache that processes share, numbers as ranges."""

import json
import os
import threading
from collections.abc import Iterator
from decimal import Decimal

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pyroaring import BitMap

from audiences.people.engines import folding, functions, ranges
from audiences.people.engines.cache import Cache
from audiences.segments import values
from audiences.segments.judge import Occurrence, Person, judge
from audiences.segments.terms import pointer
from audiences.segments.tree import Measured, Sequence, Step
from tests.audiences import strategies


@pytest.fixture(scope="module")
def taught() -> Iterator[duckdb.DuckDBPyConnection]:
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        functions.teach(connection)
        yield connection


def ask(connection: duckdb.DuckDBPyConnection, sql: str, *given: object) -> object:
    return connection.execute(f"SELECT {sql}", list(given)).fetchall()[0][0]


anything = st.recursive(
    st.one_of(
        st.sampled_from((42, 42.0, "00042", "", True, None, [], [42], {"a": "é"})),
        st.floats(allow_nan=False, allow_infinity=False),
        st.integers(-(10**30), 10**30),
        st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=3), inner, max_size=3)),
    max_leaves=4,
)  # fmt: skip
keys = st.one_of(
    st.sampled_from(["a", "a/b", "~", "~1", "$.a", "é", '"', "a.b", " "]), st.text(min_size=1, max_size=4)
).filter(lambda key: "\0" not in key and key.isprintable())


@hypothesis_settings(max_examples=600)
@given(value=anything, key=keys)
@example(value=-0.0, key="a")
@example(value=1e16, key="a")
@example(value=1e300, key="a")
@example(value=2**64, key="a")
@example(value=5e-324, key="a")
@example(value=100000000000000000000.0, key="a")
@example(value={"b": 1.0, "c": [1e16]}, key="a")
@example(value='say "\\', key="a")
def test_the_text_of_a_json_value_is_that_of_values_py(taught, value, key):
    document = json.dumps({"x": 1, key: value}, ensure_ascii=False)
    found = ask(taught, "text_at(?, ?)", document, pointer(key))
    assert found == values.text_of(json.loads(document)[key])


def test_a_key_that_is_not_there_is_missing(taught):
    assert ask(taught, "text_at('{}', '/a')") is None
    assert ask(taught, """text_at('{"a": {"b": 1}}', '/b')""") is None


numbers = st.one_of(
    st.from_regex(r"-?[0-9]{0,20}\.?[0-9]{0,9}", fullmatch=True),
    st.sampled_from(["0.0000005", "-0.0000005", "1.", "+1", "1e5", " 1", "1_0", "٣", "999999999999999999.9999995", "12\n", "", "-"]),
    st.text(max_size=4),
)  # fmt: skip


@hypothesis_settings(max_examples=600)
@given(text=numbers.filter(lambda text: "\0" not in text))
def test_the_number_in_a_text_is_that_of_values_py(taught, text):
    assert ask(taught, "number_of(?)", text) == values.number_of(text)


moments = st.one_of(
    st.datetimes().map(lambda moment: moment.isoformat()),
    st.dates().map(lambda day: day.isoformat()),
    st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,9})?)?(Z|[+-][0-9]{2}:?[0-9]{2})?", fullmatch=True),
    st.from_regex(r"-?[0-9]{1,16}(\.[0-9]{1,8})?", fullmatch=True),
    st.sampled_from(["2024-02-30", "2023-02-29", "2024-02-29", "0044-03-15", "9999-12-31T23:59:59-14:00", "2024-01-01T24:00:00", "2024-01-01T10:30", "infinity", "epoch", "20240101", "2024-01-01Z", "99999999999", "100000000000", "253402300799", "253402300799999", "-1.5", "2024-01-01 10:00:00+05"]),
)  # fmt: skip


@hypothesis_settings(max_examples=800)
@given(text=moments)
def test_the_moment_in_a_text_is_that_of_values_py(taught, text):
    assert ask(taught, "moment_of(?)", text) == values.time_of(text)


# --- The cache


def test_an_answer_is_kept_here_and_for_others(tmp_path):
    first, second = Cache(tmp_path), Cache(tmp_path)
    assert first.get(b"key") is None
    first.put(b"key", BitMap([1, 5]))
    assert second.get(b"key") == BitMap([1, 5])
    first.put(b"nobody", BitMap())
    assert second.get(b"nobody") == BitMap()
    assert second.get(b"nobody") is not None


def test_what_the_cache_gives_is_the_callers_own(tmp_path):
    cache = Cache(tmp_path)
    mine = BitMap([1])
    cache.put(b"key", mine)
    mine.add(2)
    cache.get(b"key").add(3)
    assert cache.get(b"key") == BitMap([1])


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[:40] + b"x" + data[41:], lambda data: b""]
)
def test_a_damaged_file_is_overlooked_and_goes(tmp_path, damage):
    Cache(tmp_path).put(b"key", BitMap(range(100)))
    [path] = tmp_path.iterdir()
    path.write_bytes(damage(path.read_bytes()))
    assert Cache(tmp_path).get(b"key") is None
    assert not path.exists()


def test_memory_and_folder_keep_what_was_used_last(tmp_path):
    cache = Cache(tmp_path, memory_bytes=100, folder_bytes=200)
    for number in range(20):
        cache.put(str(number).encode(), BitMap([number]))
        os.utime(next(iter(tmp_path.glob("*"))))
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert sum(sizes) > 200
    for number, path in enumerate(tmp_path.iterdir()):
        os.utime(path, (number, number))
    kept = sorted(tmp_path.iterdir(), key=lambda path: path.stat().st_mtime)[-(200 // sizes[0]) :]
    cache.sweep()
    assert sorted(tmp_path.iterdir()) == sorted(kept)
    assert cache.get(b"19") == BitMap([19])  # still near


def test_a_folder_that_cannot_be_written_costs_only_the_keeping(tmp_path, caplog):
    cache = Cache(tmp_path / "cache")
    (tmp_path / "cache").write_text("in the way")
    cache.put(b"key", BitMap([1]))
    assert cache.get(b"key") == BitMap([1])
    assert "could not be kept" in caplog.text


def test_threads_write_and_read_the_same_answers(tmp_path):
    wrong = []

    def work():
        cache = Cache(tmp_path)
        for turn in range(200):
            key = str(turn % 5).encode()
            cache.put(key, BitMap([turn % 5]))
            if Cache(tmp_path).get(key) != BitMap([turn % 5]):
                wrong.append(turn)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# --- Counting and measuring


def places(*numbers: int) -> folding.Places:
    return folding.places(np.array(numbers, np.uint32))


def test_a_tally_counts_across_batches_that_reach_further():
    tally = folding.Tally(counting=True)
    tally.add(places(1, 1, 2))
    tally.add(places())
    tally.add(places(70_000, 1), np.array([5, 1]))
    assert [set(tally.members(least)) for least in (1, 2, 3, 4)] == [{1, 2, 70_000}, {1, 70_000}, {1, 70_000}, {70_000}]


small, large = st.integers(-(10**9), 10**9), st.integers(-(10**24), 10**24)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.one_of(small, large, st.integers(-(2**62) - 2, 2**62 + 2)))),
    strategies.measured(),
)
def test_measures_are_exact_or_left_to_sql(rows, leaf):
    """Against whole numbers of any length."""
    column = pa.array([Decimal(number).scaleb(-6) for _, number in rows], pa.decimal128(38, 6))
    people = places(*(number for number, _ in rows))
    wanted = ranges.of_measured(leaf)
    mine = {number: [value for who, value in rows if who == number] for number, _ in rows}
    try:
        found, present = folding.decimals(column)
        assert present is None
        total, least, most = folding.Total(), folding.Extreme(greatest=False), folding.Extreme(greatest=True)
        for part in (slice(None, len(rows) // 2), slice(len(rows) // 2, None)):
            for fold in (total, least, most):
                fold.add(people[part], found[part])
        told = {
            "sum": total.members(wanted, average=False),
            "avg": total.members(wanted, average=True),
            "min": least.members(wanted),
            "max": most.members(wanted),
        }
    except folding.TooLarge:
        assert (
            sum(abs(value) for _, value in rows) > 2**55
            or max(map(abs, _ends(leaf))) * max(map(len, mine.values())) > 2**60
        )
        return
    for measure, members in told.items():
        exact = Measured(leaf.event, measure, leaf.property, leaf.op, leaf.values)
        assert set(members) == {number for number, own in mine.items() if _holds(exact, own)}


def _ends(leaf: Measured) -> list[int]:
    return [values.millionths(value) for value in leaf.values]


def _holds(leaf: Measured, own: list[int]) -> bool:
    measured = {"sum": sum, "avg": sum, "min": min, "max": max}[leaf.measure](own)
    low, high = _ends(leaf)[0], _ends(leaf)[-1]
    if leaf.measure == "avg":
        low, high = low * len(own), high * len(own)
    return {
        "is": measured == low, "is_not": measured != low, "gt": measured > low, "gte": measured >= low,
        "lt": measured < low, "lte": measured <= low, "between": low <= measured <= high,
    }[leaf.op]  # fmt: skip


def test_rows_without_a_number_do_not_count():
    column = pa.array([None, Decimal("1.5"), None], pa.decimal128(38, 6)).slice(1)
    numbers, present = folding.decimals(column)
    assert numbers[0] == 1_500_000
    assert list(present) == [True, False]
    nobody = folding.Total()
    assert not nobody.members(ranges.Range(outside=True), average=False)


# --- Sequences: few names and few moments, so that every edge is met


names = st.sampled_from("abc")
sequences = st.builds(
    lambda steps, within, complete: Sequence((*steps, Step("c", within)), complete),
    st.lists(st.builds(Step, names, st.one_of(st.none(), st.integers(1, 4))), min_size=1, max_size=3),
    st.integers(1, 4),
    st.booleans(),
)


@hypothesis_settings(max_examples=2000)
@given(rows=st.lists(st.tuples(st.integers(1, 3), st.integers(0, 8), names), max_size=14), sequence=sequences)
def test_chains_are_those_that_judge_finds(rows, sequence):
    as_of_us = 8
    people = np.array([who for who, _, _ in rows], np.uint32)
    times = np.array([time for _, time, _ in rows], np.int64)
    taken = [np.array([name == step.event for _, _, name in rows], np.bool_) for step in sequence.steps]
    found = folding.follow(people, times, taken, [step.within for step in sequence.steps], sequence.complete, as_of_us)
    for number in {who for who, _, _ in rows}:
        events = tuple(Occurrence(name, time) for who, time, name in rows if who == number)
        assert (number in found) == judge(sequence, Person(number, "", 0, events=events), as_of_us)
