"""What is known of events and attributes as a whole, for those who write rules: how many, how recent, with how many people."""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
from sqlglot import exp

from audiences.clock import DAY
from audiences.people.engines.base import MOST_VALUES, SHARED, NameFacts, ValueFacts
from audiences.people.engines.views import ProfileView
from audiences.segments.advice import Seen
from audiences.segments.leaves import Source, Statement
from audiences.segments.terms import call
from audiences.segments.values import text_of

DIALECT = "duckdb"
CARRIED = ("platform", "logged_in", "currency")
YES = {"true": True, "True": True, "1": True, "false": False, "False": False, "0": False}
LONGEST = 82  # characters of a value's JSON; longer ones are no choice to pick from
SAMPLE = 7 * DAY  # properties are counted among the events of the last days


def count_events(sources: Sequence[Source], until_us: int) -> Statement:
    """name, occurrences and newest_us."""
    select = exp.select("name", "count(*) AS occurrences", "max(time_us) AS newest_us", dialect=DIALECT)
    select = select.from_(_rows(sources, "name", "time_us")).where("time_us <= $until", dialect=DIALECT)
    return Statement(select.group_by("name").sql(DIALECT), {"until": until_us})


def count_properties(sources: Sequence[Source], newest_us: int, merged: exp.Expr | None) -> Statement:
    """name, key, value, times and people, among the events of the days up to the newest; with no value: all that carry the key, and the
    key '' counts the events themselves. `merged` is the relation of merges; the people are those of the relation `universe`."""
    each = exp.select("name", "time_us", "properties").from_(_rows(sources, "name", "time_us", "properties"))
    each = each.where("time_us > $after AND time_us <= $until", dialect=DIALECT)
    if merged is None:
        each = each.select("profile_no")
    else:
        each = each.select("coalesce(survivor_no, profile_no) AS profile_no", dialect=DIALECT)
        each = each.join(merged.copy(), on="old_no = profile_no", join_type="left")
    named = exp.select("name", "profile_no", "properties AS json", dialect=DIALECT).from_(each.subquery("each"))
    return Statement(_tally(named, ["name"], "properties"), {"after": newest_us - SAMPLE, "until": newest_us})


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
    """key, value, times and people, as count_properties has them; None if there are no profiles."""
    sources = view.sources()
    if not sources:
        return None
    if view.projected is not None and view.changed is not None:
        changed = exp.select("profile_no").from_(view.changed.relation.copy())
        stale = exp.column("profile_no").isin(query=changed)
        sources[0] = replace(view.projected, only=(*view.projected.only, exp.not_(stale)))
    each = exp.select("profile_no", "attributes AS json", dialect=DIALECT).from_(_rows(sources, "attributes"))
    return Statement(_tally(each, [], "attributes"), {})


def names(batches: Iterator[pa.RecordBatch]) -> dict[str, dict[str, NameFacts]]:
    """The rows of count_properties by name and key; those of count_attributes are under the name ''."""
    found: dict[str, dict[str, NameFacts]] = defaultdict(dict)
    values: dict[tuple[str, str], list[ValueFacts]] = defaultdict(list)
    for batch in batches:
        for row in batch.to_pylist():
            name, key = row.get("name", ""), row["key"]
            if row["value"] is None:
                found[name][key] = NameFacts(row["times"], row["people"])
                continue
            text = text_of(json.loads(row["value"]))
            if text is not None and text.isprintable():
                values[name, key].append(ValueFacts(text, row["times"], row["people"]))
    for (name, key), told in values.items():
        told.sort(key=lambda one: (-one.people, -one.times, one.text))
        found[name][key] = replace(found[name][key], values=tuple(told))
    return found


def _tally(each: exp.Select, by: Sequence[str], what: str) -> str:
    """SQL of the keys of `json`, and of the most usual short values of each, of people in the universe."""
    keys = "json_keys(json)" if what == "attributes" else "list_append(json_keys(json), '')"
    pointer = "'/' || replace(replace(key, '~', '~0'), '/', '~1')"
    grouped = ", ".join([*by, "key"])
    return (
        f"WITH each AS ({each.sql(DIALECT)}), "  # noqa: S608 - names of ours, the rest is bound
        "those AS (SELECT * FROM each WHERE profile_no IN (SELECT profile_no FROM universe)), "
        f"apart AS (SELECT *, unnest({keys}) AS key FROM those), "
        f"told AS (SELECT * EXCLUDE (json), CASE WHEN key <> '' THEN json_extract(json, {pointer})::VARCHAR END AS value FROM apart), "
        f"keys AS (SELECT {grouped}, NULL::VARCHAR AS value, count(*) AS times, count(DISTINCT profile_no) AS people FROM told GROUP BY {grouped}), "
        f"usual AS (SELECT {grouped}, value, count(*) AS times, count(DISTINCT profile_no) AS people FROM told "
        f"WHERE value NOT IN ('null', '\"\"') AND length(value) <= {LONGEST} AND value[1] NOT IN ('{{', '[') "
        f"GROUP BY {grouped}, value HAVING people >= {SHARED} "
        f"QUALIFY row_number() OVER (PARTITION BY {grouped} ORDER BY people DESC, times DESC, value) <= {MOST_VALUES}) "
        "SELECT * FROM keys UNION ALL SELECT * FROM usual"
    )


def _rows(sources: Sequence[Source], *columns: str) -> exp.Subquery:
    """The rows of several sources as one relation."""
    parts = [exp.select("profile_no", *columns).from_(source.relation).where(*source.only) for source in sources]
    return (exp.union(*parts, distinct=False) if len(parts) > 1 else parts[0]).subquery("together")
