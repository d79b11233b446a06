"""The SQL that rules become, word for word: sqlglot passes over what it does not know in silence, so nothing less would notice."""

from decimal import Decimal

import pytest
from sqlglot import exp

from audiences.clock import DAY
from audiences.segments.leaves import EVER_US, Activity, Rollup, Source, Span, Writer, span
from audiences.segments.terms import Bound, pointer
from audiences.segments.tree import (
    Attribute,
    Between,
    Condition,
    KnownFor,
    Measured,
    Moment,
    Step,
    Within,
)

AS_OF = 100 * DAY
LAKE = Source(exp.to_table("lake"), {"category": "p1", "value": "p2"}, earliest=5 * DAY, latest=90 * DAY)
HOT = Source(exp.to_table("hot"), only=(exp.column("hot_mark") <= exp.Literal.number(7),), earliest=80 * DAY)
PROFILES = Source(exp.to_table("people"), {"plan": "a1"})
WRITER = Writer()


def said(statement, sql, **values):
    assert statement.sql == " ".join(sql.split())
    assert dict(statement.values) == values


def test_occurrences_name_the_event_by_a_bound_value_and_read_no_times_that_cannot_differ():
    said(
        WRITER.occurrences("bought", [()], Span(EVER_US, AS_OF), [LAKE], AS_OF, timed=False),
        "SELECT profile_no FROM (SELECT profile_no, time_us FROM lake WHERE name = $v0) AS events",
        v0="bought",
    )


def test_tests_become_columns_of_their_own_and_sources_are_read_as_one():
    where = (Condition("category", "is", ("shoes",)), Condition("value", "gt", (Decimal("9.5"),)))
    said(
        WRITER.occurrences("bought", [where], Span(10 * DAY, AS_OF), [LAKE, HOT], AS_OF, measured=["value"]),
        """SELECT profile_no, time_us,
                  CAST(COALESCE(t0 = $v0, FALSE) AND COALESCE(n1 > CAST($v1 AS DECIMAL(38, 6)), FALSE) AS UTINYINT) AS w0, n1 AS d0
           FROM (SELECT profile_no, time_us, p1 AS t0, p2_num AS n1 FROM lake WHERE name = $v2 AND time_us > $v3
                 UNION ALL
                 SELECT profile_no, time_us, x0 AS t0, NUMBER_OF(x1) AS n1
                 FROM (SELECT profile_no, time_us, TEXT_AT(properties, $v5) AS x0, TEXT_AT(properties, $v6) AS x1 FROM hot
                       WHERE hot_mark <= 7 AND name = $v2 AND time_us <= $v4) AS made) AS events
           WHERE COALESCE(t0 = $v0, FALSE) AND COALESCE(n1 > CAST($v1 AS DECIMAL(38, 6)), FALSE)""",
        v0="shoes", v1="9.5", v2="bought", v3=10 * DAY, v4=AS_OF, v5="/category", v6="/value",
    )  # fmt: skip


MERGED = Writer(merged=exp.to_table("merges"))


def test_merges_are_applied_before_anything_is_grouped():
    leaves = [
        Measured("bought", "sum", "value", "gte", (Decimal(500),), Within(30 * DAY)),
        Moment("bought", "first", "not_within_last", (DAY,), None),
    ]
    said(
        MERGED.measures("bought", leaves, [LAKE], AS_OF),
        """SELECT profile_no,
                  CAST(COALESCE(SUM(n0) FILTER(WHERE time_us > $v0) >= CAST($v1 AS DECIMAL(38, 6)), FALSE) AS UTINYINT) AS l0,
                  CAST(COALESCE(NOT (MIN(time_us) > $v2 AND MIN(time_us) <= $v3), FALSE) AS UTINYINT) AS l1
           FROM (SELECT COALESCE(merged.survivor_no, events.profile_no) AS profile_no, events.time_us, events.n0
                 FROM (SELECT profile_no, time_us, p2_num AS n0 FROM lake WHERE name = $v4) AS events
                 LEFT JOIN merges AS merged ON merged.old_no = events.profile_no) AS events
           GROUP BY profile_no
           HAVING COALESCE(SUM(n0) FILTER(WHERE time_us > $v0) >= CAST($v1 AS DECIMAL(38, 6)), FALSE)
               OR COALESCE(NOT (MIN(time_us) > $v2 AND MIN(time_us) <= $v3), FALSE)""",
        v0=AS_OF - 30 * DAY, v1="500", v2=AS_OF - DAY, v3=AS_OF, v4="bought",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("measure", "op", "values", "sql"),
    [
        ("avg", "gt", ("2",), "SUM(n0) > CAST($v0 AS DECIMAL(38, 6)) * COUNT(n0)"),
        ("min", "is_not", ("2",), "MIN(n0) <> CAST($v0 AS DECIMAL(38, 6))"),
        ("max", "between", ("1", "2"), "MAX(n0) >= CAST($v0 AS DECIMAL(38, 6)) AND MAX(n0) <= CAST($v1 AS DECIMAL(38, 6))"),
    ],
)  # fmt: skip
def test_measures_are_compared_as_exact_decimals(measure, op, values, sql):
    leaf = Measured("bought", measure, "value", op, tuple(map(Decimal, values)))
    assert f"HAVING COALESCE({sql}, FALSE)" in WRITER.measures("bought", [leaf], [LAKE], AS_OF).sql


ROLLUP = Rollup(exp.to_table("rollup"), LAKE)


def test_any_event_rules_read_roll_ups_where_these_can_tell_and_raw_rows_elsewhere():
    whole, cut = Span(EVER_US, AS_OF), Span(50 * DAY, AS_OF)
    counted = [Activity(whole, True), Activity(whole, False), Activity(cut, False), Activity(cut, True)]
    said(
        WRITER.activity(counted, [ROLLUP], [HOT]),
        """SELECT profile_no, c0, c1, c2, c3
           FROM (SELECT profile_no, CAST(events AS UINTEGER) AS c0, CAST(TRUE AS UINTEGER) AS c1, CAST(last_us > $v0 AS UINTEGER) AS c2,
                    CAST(0 AS UINTEGER) AS c3 FROM rollup
             UNION ALL
             SELECT profile_no, CAST(FALSE AS UINTEGER) AS c0, CAST(FALSE AS UINTEGER) AS c1, CAST(FALSE AS UINTEGER) AS c2,
                    CAST(time_us > $v0 AS UINTEGER) AS c3 FROM lake WHERE time_us > $v0
             UNION ALL
             SELECT profile_no, CAST(time_us <= $v1 AS UINTEGER) AS c0, CAST(time_us <= $v1 AS UINTEGER) AS c1,
                    CAST(time_us <= $v1 AS UINTEGER) AS c2, CAST(time_us <= $v1 AS UINTEGER) AS c3 FROM hot
             WHERE hot_mark <= 7 AND (time_us <= $v1 OR time_us <= $v1 OR time_us <= $v1 OR time_us <= $v1)) AS events""",
        v0=50 * DAY, v1=AS_OF,
    )  # fmt: skip


def test_a_roll_up_tells_whether_there_was_an_event_by_the_end_that_the_span_cuts():
    early = WRITER.activity([Activity(Span(EVER_US, 50 * DAY), False)], [ROLLUP], [])
    said(
        early,
        "SELECT profile_no, c0 FROM (SELECT profile_no, CAST(first_us <= $v0 AS UINTEGER) AS c0 FROM rollup WHERE first_us <= $v0) AS events",
        v0=50 * DAY,
    )
    inside = WRITER.activity([Activity(Span(20 * DAY, 50 * DAY), False)], [ROLLUP], [])
    assert "rollup" not in inside.sql
    assert "FROM lake WHERE time_us > $v0 AND time_us <= $v1" in inside.sql
    assert WRITER.activity([Activity(Span(95 * DAY, AS_OF), False)], [ROLLUP], []) is None


def test_attributes_of_all_rules_are_tested_in_one_pass():
    leaves = [
        Attribute(Condition("plan", "not_in", ("pro", "team"))),
        Attribute(Condition("größe/cm", "exists")),
        Attribute(Condition("signed_up", "within_last", (DAY,))),
        KnownFor(30 * DAY),
    ]
    said(
        WRITER.profiles(leaves, PROFILES, AS_OF),
        """SELECT profile_no, CAST(NOT COALESCE(t0 IN ($v0, $v1), FALSE) AS UTINYINT) AS l0, CAST(NOT t1 IS NULL AS UTINYINT) AS l1,
                  CAST(COALESCE(m2 > $v2 AND m2 <= $v3, FALSE) AS UTINYINT) AS l2, CAST(created_us <= $v4 AS UTINYINT) AS l3
           FROM (SELECT profile_no, created_us, t0, x1 AS t1, MOMENT_OF(x2) AS m2
                 FROM (SELECT profile_no, created_us, a1 AS t0, TEXT_AT(attributes, $v5) AS x1, TEXT_AT(attributes, $v6) AS x2
                       FROM people) AS made) AS profiles
           WHERE NOT COALESCE(t0 IN ($v0, $v1), FALSE) OR NOT t1 IS NULL OR COALESCE(m2 > $v2 AND m2 <= $v3, FALSE) OR created_us <= $v4""",
        v0="pro", v1="team", v2=AS_OF - DAY, v3=AS_OF, v4=AS_OF - 30 * DAY, v5="/größe~1cm", v6="/signed_up",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("op", "values", "sql"),
    [
        ("is", ("a",), "COALESCE(t0 = $v0, FALSE)"),
        ("is_not", ("a",), "NOT COALESCE(t0 = $v0, FALSE)"),
        ("in", ("a",), "COALESCE(t0 = $v0, FALSE)"),
        ("missing", (), "t0 IS NULL"),
        ("contains", ("a",), "COALESCE(CONTAINS(t0, $v0), FALSE)"),
        ("starts_with", ("a",), "COALESCE(STARTS_WITH(t0, $v0), FALSE)"),
        ("ends_with", ("a",), "COALESCE(ENDS_WITH(t0, $v0), FALSE)"),
        ("lte", (Decimal(1),), "COALESCE(n0 <= CAST($v0 AS DECIMAL(38, 6)), FALSE)"),
        ("between", (Decimal(1), Decimal(2)), "COALESCE(n0 >= CAST($v0 AS DECIMAL(38, 6)) AND n0 <= CAST($v1 AS DECIMAL(38, 6)), FALSE)"),
        ("before", (5,), "COALESCE(m0 < $v0, FALSE)"),
        ("after", (5,), "COALESCE(m0 > $v0, FALSE)"),
        ("not_within_last", (DAY,), "NOT COALESCE(m0 > $v0 AND m0 <= $v1, FALSE)"),
        ("within_next", (DAY,), "COALESCE(m0 > $v0 AND m0 <= $v1, FALSE)"),
    ],
)  # fmt: skip
def test_each_op_of_a_value(op, values, sql):
    statement = WRITER.profiles([Attribute(Condition("plan", op, values))], PROFILES, AS_OF)
    assert statement.sql.startswith(f"SELECT profile_no, CAST({sql} AS UTINYINT) AS l0 FROM (")
    assert statement.sql.endswith(f"WHERE {sql}")


def test_steps_are_read_for_the_candidates_alone():
    steps = [Step("viewed"), Step("bought", DAY, (Condition("category", "exists"),))]
    said(
        WRITER.steps(steps, Span(EVER_US, AS_OF), exp.to_table("candidates"), [LAKE], AS_OF),
        """SELECT profile_no, time_us, CAST(name = $v0 AS UTINYINT) AS s0, CAST(name = $v1 AND NOT t0 IS NULL AS UTINYINT) AS s1
           FROM (SELECT profile_no, time_us, name, p1 AS t0 FROM lake WHERE name IN ($v0, $v1)) AS events
           WHERE profile_no IN (SELECT profile_no FROM candidates) AND (name = $v0 OR (name = $v1 AND NOT t0 IS NULL))""",
        v0="viewed", v1="bought",
    )  # fmt: skip


def test_buckets_are_the_first_eight_bytes_of_a_hash():
    said(
        WRITER.buckets("it's", PROFILES),
        """SELECT profile_no, CAST((CAST(CONCAT('0x', LEFT(SHA256(CONCAT($v0, bucket_key)), 16)) AS UBIGINT) % 10000) AS USMALLINT) AS bucket
           FROM people""",
        v0="it's:",
    )  # fmt: skip
    said(WRITER.live(PROFILES), "SELECT profile_no FROM people WHERE live")


def test_the_history_of_some_people_is_read_by_semi_join():
    said(
        WRITER.history(exp.to_table("wanted"), ["viewed"], AS_OF, [LAKE], properties=["category"]),
        """SELECT profile_no, time_us, name, t0
           FROM (SELECT profile_no, time_us, name, p1 AS t0 FROM lake
                 WHERE profile_no IN (SELECT profile_no FROM wanted) AND name = $v0) AS events""",
        v0="viewed",
    )
    said(
        WRITER.history(exp.to_table("wanted"), None, AS_OF, [LAKE], columns=["event_key"], newest=20),
        """SELECT profile_no, time_us, name, event_key
           FROM (SELECT profile_no, time_us, name, event_key FROM lake WHERE profile_no IN (SELECT profile_no FROM wanted)) AS events
           ORDER BY time_us DESC, event_key LIMIT 20""",
    )


HOSTILE = "'); DROP TABLE lake; --\"$v0 ~/\\"


def test_no_name_and_no_value_of_a_rule_reaches_the_text():
    where = (Condition(HOSTILE, "is", (HOSTILE,)), Condition(HOSTILE, "before", (5,)))
    texts = [
        WRITER.occurrences(HOSTILE, [where], Span(EVER_US, AS_OF), [LAKE], AS_OF, measured=[HOSTILE]),
        WRITER.measures(HOSTILE, [Measured(HOSTILE, "sum", HOSTILE, "gt", (Decimal(1),), None, where)], [HOT], AS_OF),
        WRITER.profiles([Attribute(condition) for condition in where], PROFILES, AS_OF),
        WRITER.steps([Step(HOSTILE, None, where)], Span(EVER_US, AS_OF), exp.to_table("candidates"), [HOT], AS_OF),
        WRITER.buckets(HOSTILE, PROFILES),
        WRITER.history(exp.to_table("wanted"), [HOSTILE], AS_OF, [HOT], properties=[HOSTILE]),
    ]
    for statement in texts:
        assert "DROP" not in statement.sql
        assert any("DROP TABLE" in str(value) for value in statement.values.values())


def test_every_window_is_half_open():
    assert span(Within(7 * DAY), AS_OF) == Span(93 * DAY, AS_OF)
    assert span(Between(3, 9), AS_OF) == Span(2, 8)
    assert span(Between(3, 2 * AS_OF), AS_OF) == Span(2, AS_OF)
    assert span(None, AS_OF) == Span(EVER_US, AS_OF)
    assert not LAKE.meets(Span(90 * DAY, AS_OF))
    assert LAKE.meets(Span(90 * DAY - 1, AS_OF))
    assert LAKE.meets(Span(EVER_US, 5 * DAY))
    assert not LAKE.meets(Span(EVER_US, 5 * DAY - 1))


def test_equal_values_share_a_placeholder_and_unlike_ones_do_not():
    bound = Bound()
    names = [bound(value).name for value in ("1", 1, True, "1", [1], [1])]
    assert names == ["v0", "v1", "v2", "v0", "v3", "v3"]
    assert bound.values == {"v0": "1", "v1": 1, "v2": True, "v3": [1]}


def test_a_pointer_finds_a_key_whatever_it_is_called():
    assert [pointer(name) for name in ("a", "a/b", "a~b", "~1", "")] == ["/a", "/a~1b", "/a~0b", "/~01", "/"]
