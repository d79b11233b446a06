"""What is known of events and attributes as a whole, for those who write rules: how many, how recent, with how many people."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
from sqlglot import exp

from audiences.clock import DAY
from audiences.people.engines.views import ProfileView
from audiences.segments.advice import Seen
from audiences.segments.leaves import Source, Statement
from audiences.segments.terms import call

DIALECT = "duckdb"
CARRIED = ("platform", "logged_in", "currency")
YES = {"true": True, "True": True, "1": True, "false": False, "False": False, "0": False}
SAMPLE = 7 * DAY  # properties are counted among the events of the last days


def count_events(sources: Sequence[Source], until_us: int) -> Statement:
    """name, occurrences and newest_us."""
    select = exp.select("name", "count(*) AS occurrences", "max(time_us) AS newest_us", dialect=DIALECT)
    select = select.from_(_rows(sources, "name", "time_us")).where("time_us <= $until", dialect=DIALECT)
    return Statement(select.group_by("name").sql(DIALECT), {"until": until_us})


def count_properties(sources: Sequence[Source], newest_us: int) -> Statement:
    """name, key and carriers, among the events of the days up to the newest; the key '' counts the events themselves."""
    key = call("unnest", call("list_append", call("json_keys", exp.column("properties")), exp.Literal.string("")))
    each = exp.select("name", exp.alias_(key, "key")).from_(_rows(sources, "name", "time_us", "properties"))
    each = each.where("time_us > $after AND time_us <= $until", dialect=DIALECT)
    select = exp.select("name", "key", "count(*) AS carriers", dialect=DIALECT).from_(each.subquery("each"))
    return Statement(select.group_by("name", "key").sql(DIALECT), {"after": newest_us - SAMPLE, "until": newest_us})


def count_lately(sources: Sequence[Source], after_us: int, until_us: int) -> Statement:
    """name, key, value, people and occurrences of that time, among the events that carry the key; the key '' counts them all."""
    paths = exp.Array(expressions=[exp.Literal.string(f"$.{key}") for key in CARRIED])
    carried = call("json_extract_string", exp.column("properties"), paths)  # all at once: the text is read once
    each = exp.select("name", "profile_no", exp.alias_(carried, "carried"))
    each = each.from_(_rows(sources, "name", "time_us", "properties"))
    each = each.where("time_us > $after AND time_us <= $until", dialect=DIALECT)
    # One pass over the events; what comes after is as short as there are people.
    values = [
        exp.alias_(call("list_extract", exp.column("carried"), exp.Literal.number(at)), key)
        for at, key in enumerate(CARRIED, 1)
    ]
    kept = exp.select("name", "profile_no", *values, "count(*) AS occurrences", dialect=DIALECT)
    kept = kept.from_(each.subquery("each")).group_by("name", "profile_no", *CARRIED)
    parts = [
        exp.select("name", f"'{key}' AS key", f"{key or repr(key)} AS value", dialect=DIALECT)
        .select("count(DISTINCT profile_no) AS people", "sum(occurrences)::BIGINT AS occurrences", dialect=DIALECT)
        .from_("kept")
        .where(*([f"{key} IS NOT NULL"] if key else []), dialect=DIALECT)
        .group_by("name", "value")
        for key in ("", *CARRIED)
    ]
    select = exp.union(*parts, distinct=False).with_("kept", as_=kept, materialized=True)
    return Statement(select.sql(DIALECT), {"after": after_us, "until": until_us})


def seen(batches: Iterator[pa.RecordBatch]) -> dict[str, Seen]:
    """count_lately's rows by name."""
    found: dict[str, dict[str, dict[str, int]]] = defaultdict(lambda: defaultdict(dict))
    for batch in batches:
        for row in batch.to_pylist():
            many = row["people"] if row["key"] else row["occurrences"]
            found[row["name"]][row["key"]][row["value"]] = many
    return {
        name: Seen(
            recent=of[""][""],
            platforms=of["platform"],
            signed_in={YES[value]: many for value, many in of["logged_in"].items() if value in YES},
            currencies=of["currency"],
        )
        for name, of in found.items()
    }


def count_attributes(view: ProfileView) -> Statement | None:
    """key and carriers, among the live profiles; None if there are no profiles."""
    sources = view.sources()
    if not sources:
        return None
    if view.projected is not None and view.changed is not None:
        changed = exp.select("profile_no").from_(view.changed.relation.copy())
        stale = exp.column("profile_no").isin(query=changed)
        sources[0] = replace(view.projected, only=(*view.projected.only, exp.not_(stale)))
    key = call("unnest", call("json_keys", exp.column("attributes")))
    each = exp.select(exp.alias_(key, "key")).from_(_rows(sources, "live", "attributes")).where("live")
    select = exp.select("key", "count(*) AS carriers", dialect=DIALECT).from_(each.subquery("each"))
    return Statement(select.group_by("key").sql(DIALECT), {})


def properties(batches: Iterator[pa.RecordBatch]) -> dict[str, dict[str, int]]:
    """count_properties' rows by name and key."""
    found: dict[str, dict[str, int]] = defaultdict(dict)
    for batch in batches:
        for row in batch.to_pylist():
            found[row["name"]][row["key"]] = row["carriers"]
    return found


def _rows(sources: Sequence[Source], *columns: str) -> exp.Subquery:
    """The rows of several sources as one relation."""
    parts = [exp.select("profile_no", *columns).from_(source.relation).where(*source.only) for source in sources]
    return (exp.union(*parts, distinct=False) if len(parts) > 1 else parts[0]).subquery("together")
