"""What is known of events and attributes as a whole, for those who write rules: how many, how recent, with how many people."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
from sqlglot import exp

from audiences.clock import DAY
from audiences.people.engines.views import ProfileView
from audiences.segments.leaves import Source, Statement
from audiences.segments.terms import call

DIALECT = "duckdb"
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
