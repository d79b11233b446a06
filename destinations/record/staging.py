"""Rows on their way into a PostgreSQL: COPY into a temporary table, then one statement from there. Nothing of what the rows mean."""

import io
import json
from collections.abc import Iterable
from typing import Any

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
from psycopg import sql

from destinations.record.shape import Table

STAGED = "staged"

# What JSON may hold and jsonb refuses: NUL, half characters, and numbers beyond its range. Few rows do; those are read and written anew.
_REFUSED = r"\\u0000|\\u[dD][89a-fA-F]|[eE][+-]?[0-9]{3}|[0-9]{300}"
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def stage(cursor: psycopg.Cursor[Any], table: Table, rows: Iterable[pa.Table]) -> int:
    """Rows of this table in a temporary one called `staged`, whose keys may be null, until the transaction ends; how many."""
    columns = sql.SQL(", ").join(
        sql.SQL("{} {}").format(sql.Identifier(column.name), sql.SQL(column.postgresql)) for column in table.columns
    )
    cursor.execute(sql.SQL("DROP TABLE IF EXISTS pg_temp.staged"))
    cursor.execute(sql.SQL("CREATE TEMPORARY TABLE staged ({}) ON COMMIT DROP").format(columns))
    staged = 0
    with cursor.copy(sql.SQL("COPY pg_temp.staged FROM STDIN (FORMAT csv)")) as copy:
        for some in rows:
            copy.write(_lines(table, some))
            staged += some.num_rows
    return staged


def _lines(table: Table, rows: pa.Table) -> bytes:
    """CSV in which every text is quoted, so that an empty one is not taken for null."""
    for at, column in enumerate(table.columns):
        if column.json:
            rows = rows.set_column(at, rows.schema.field(at), _fit_for_jsonb(rows.column(at)))
        elif pa.types.is_string(column.type):
            rows = rows.set_column(at, rows.schema.field(at), pc.replace_substring(rows.column(at), "\0", _REPLACEMENT))
    stream = io.BytesIO()
    with pyarrow.csv.CSVWriter(
        stream, rows.schema, write_options=pyarrow.csv.WriteOptions(include_header=False)
    ) as csv:
        for batch in rows.to_batches():
            if batch.num_rows:  # for an empty one Arrow writes whatever was in its buffer before
                csv.write_batch(batch)
    return stream.getvalue()


def _fit_for_jsonb(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    odd = pc.match_substring_regex(texts, _REFUSED)
    if not pc.any(odd).as_py():
        return texts
    mended = pa.array([_mended(text) for text in texts.filter(odd).to_pylist()], pa.string())
    return pa.chunked_array([pc.replace_with_mask(texts.combine_chunks(), odd.combine_chunks(), mended)])


def _mended(text: str) -> str:
    try:
        return json.dumps(_without(json.loads(text)), allow_nan=False)
    except (ValueError, RecursionError):
        return json.dumps({"unreadable": True})


def _without(value: Any) -> Any:
    """The same value without what jsonb cannot hold: characters are replaced, numbers become null."""
    match value:
        case str():
            return "".join(_REPLACEMENT if c == "\0" or "\ud800" <= c <= "\udfff" else c for c in value)
        case dict():
            return {_without(key): _without(one) for key, one in value.items()}
        case list():
            return [_without(one) for one in value]
        case float() if value != value or abs(value) == float("inf"):
            return None
        case _:
            return value
