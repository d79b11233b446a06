"""The overlap matrix of 100 audiences over a million people, beside a self-join of the same members in DuckDB and in PostgreSQL."""

import statistics
import time

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from django.db import connection

from audiences import bitmaps, overlap

pytestmark = pytest.mark.bench

PEOPLE, AUDIENCES = 1_000_000, 100
SELF_JOIN = "SELECT a.audience, b.audience, count(*) FROM {0} a JOIN {0} b USING (person) WHERE a.audience <= b.audience GROUP BY 1, 2"


@pytest.fixture(scope="module")
def members():
    """100 audiences from 0.01 % to 40 % of the people, most of them small, drawn by chance."""
    draw = np.random.default_rng(7)
    sizes = np.geomspace(0.0001, 0.4, AUDIENCES)
    return [np.flatnonzero(draw.random(PEOPLE) < size).astype(np.uint32) for size in sizes]


def _median(work, times):
    took = []
    for _ in range(times):
        start = time.perf_counter()
        result = work()
        took.append(time.perf_counter() - start)
    return statistics.median(took), result


def _ours(members):
    """From the stored bytes, as the page and the command read them."""
    stored = [bitmaps.pack(bitmaps.from_sorted(people)) for people in members]
    return _median(lambda: overlap.pairs([bitmaps.unpack(data) for data in stored]), 5)


def _rows(members):
    audience = np.repeat(np.arange(AUDIENCES, dtype=np.int32), [len(people) for people in members])
    return pa.table({"audience": audience, "person": np.concatenate(members).astype(np.int32)})


def _same(matrix, rows):
    assert len(rows) >= AUDIENCES
    for a, b, count in rows:
        assert matrix[a][b] == count
    assert sum(count for _, _, count in rows) == sum(
        matrix[a][b] for a in range(AUDIENCES) for b in range(a, AUDIENCES)
    )


def test_the_matrix_is_25_times_as_fast_as_a_self_join_in_duckdb(members, record_property):
    ours, matrix = _ours(members)
    with duckdb.connect(config={"threads": 2}) as database:
        rows = _rows(members)
        database.execute("CREATE TABLE member AS SELECT * FROM rows")
        theirs, result = _median(lambda: database.execute(SELF_JOIN.format("member")).fetchall(), 3)

    _same(matrix, result)
    print(
        f"\noverlap, {AUDIENCES} audiences, {len(rows):,} members: {ours:.3f} s, DuckDB {theirs:.2f} s: {theirs / ours:.0f} x"
    )
    record_property("ratio_duckdb", theirs / ours)
    assert theirs / ours >= 25


@pytest.mark.django_db
@pytest.mark.skipif(connection.vendor != "postgresql", reason="its rival is PostgreSQL: set DATABASE_URL")
def test_the_matrix_is_150_times_as_fast_as_a_self_join_in_postgresql(members, record_property):
    ours, matrix = _ours(members)
    rows = _rows(members)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE member (audience integer NOT NULL, person integer NOT NULL)")
        with cursor.copy("COPY member FROM STDIN") as copy:
            pairs = zip(rows["audience"].to_numpy().tolist(), rows["person"].to_numpy().tolist(), strict=True)
            copy.write("".join(f"{audience}\t{person}\n" for audience, person in pairs))
        cursor.execute("ALTER TABLE member ADD PRIMARY KEY (person, audience)")
        cursor.execute("ANALYZE member")

        def join():
            cursor.execute(SELF_JOIN.format("member"))
            return cursor.fetchall()

        theirs, result = _median(join, 1)

    _same(matrix, result)
    print(
        f"\noverlap, {AUDIENCES} audiences, {len(rows):,} members: {ours:.3f} s, PostgreSQL {theirs:.1f} s: {theirs / ours:.0f} x"
    )
    record_property("ratio_postgresql", theirs / ours)
    assert theirs / ours >= 150
