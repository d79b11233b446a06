"""Typed columns: which properties and attributes have them, and how a JSON value becomes its text and its number in bulk.

The meaning is that of segments/values.py. DuckDB finds the ordinary cases; what it cannot say in the same words
(exponents, objects, arrays) goes through values.py itself, row by row.
"""

import json
from collections.abc import Iterable, Iterator, Mapping

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
from django.db.models import Min

from audiences.models import AttributeName, LakeColumn, PropertyName
from audiences.segments import values

MOST_UNASKED = 40  # names that get columns because they were seen first; names that rules use come on top
NUMBER = pa.decimal128(38, 6)
_BATCH = 65_536

_ODD = "\x00"  # marks a value for values.py; a text that begins with it takes that way too


def property_columns(*, using: str = "default") -> dict[str, str]:
    """Property name → column, for all that have one."""
    return _columns(LakeColumn.Kind.PROPERTY, using)


def attribute_columns(*, using: str = "default") -> dict[str, str]:
    """Attribute name → column, likewise."""
    return _columns(LakeColumn.Kind.ATTRIBUTE, using)


def want_columns(properties: Iterable[str] = (), attributes: Iterable[str] = ()) -> None:
    """Give these names typed columns in every file written from now on. Files that are there get them when they are compacted."""
    wanted = [(LakeColumn.Kind.PROPERTY, name) for name in properties]
    wanted += [(LakeColumn.Kind.ATTRIBUTE, name) for name in attributes]
    LakeColumn.objects.bulk_create((LakeColumn(kind=kind, name=name) for kind, name in wanted), ignore_conflicts=True)


def choose_columns() -> None:
    """Give columns to the names seen first, as long as there is room."""
    seen_properties = PropertyName.objects.values("name").annotate(first=Min("first_seen_us")).order_by("first", "name")
    seen_attributes = AttributeName.objects.order_by("first_seen_us", "name")
    for kind, seen in ((LakeColumn.Kind.PROPERTY, seen_properties), (LakeColumn.Kind.ATTRIBUTE, seen_attributes)):
        have = set(LakeColumn.objects.filter(kind=kind).values_list("name", flat=True))
        room = MOST_UNASKED - len(have)
        if room > 0:
            new = [name for name in seen.values_list("name", flat=True)[:MOST_UNASKED] if name not in have][:room]
            LakeColumn.objects.bulk_create((LakeColumn(kind=kind, name=name) for name in new), ignore_conflicts=True)


def fields(columns: Mapping[str, str]) -> list[pa.Field]:
    """The Arrow fields of typed columns, in the order in which `typed` adds them."""
    return [
        field
        for column in columns.values()
        for field in (pa.field(column, pa.string()), pa.field(f"{column}_num", NUMBER))
    ]


def typed(
    connection: duckdb.DuckDBPyConnection, query: str, json_field: str, columns: Mapping[str, str]
) -> Iterator[pa.Table]:
    """The rows of a query, in its order, some ten thousand at a time, with the typed columns of its JSON field added."""
    if not columns:
        yield from (pa.Table.from_batches([batch]) for batch in _batches(connection, query))
        return
    pointers = ["/" + name.replace("~", "~0").replace("/", "~1") for name in columns]
    connection.execute("SET VARIABLE pointers = ?::VARCHAR[]", [pointers])
    wanted = ", ".join(f"{column}, {_NUMBER_OF.format(text=column)} AS {column}_num" for column in columns.values())
    texts = ", ".join(
        f"{_TEXT_OF.format(json=f'found[{at}]')} AS {column}" for at, column in enumerate(columns.values(), start=1)
    )
    source = f"SELECT *, json_extract({json_field}, getvariable('pointers'))::VARCHAR[] AS found FROM ({query})"
    rest = f"* EXCLUDE (found, {', '.join(columns.values())})"
    for batch in _batches(connection, f"SELECT {rest}, {wanted} FROM (SELECT *, {texts} FROM ({source}))"):
        yield pa.Table.from_batches([_settle_odd(batch, json_field, columns)])


def _columns(kind: LakeColumn.Kind, using: str) -> dict[str, str]:
    rows = LakeColumn.objects.using(using).filter(kind=kind).order_by("pk").values_list("pk", "name")
    return {name: f"{kind.value[0]}{number}" for number, name in rows}


def _batches(connection: duckdb.DuckDBPyConnection, query: str) -> Iterator[pa.RecordBatch]:
    for batch in connection.sql(query).to_arrow_reader(_BATCH):
        if batch.num_rows:
            yield batch


def _settle_odd(batch: pa.RecordBatch, json_field: str, columns: Mapping[str, str]) -> pa.RecordBatch:
    for name, column in columns.items():
        odd = pc.starts_with(batch[column], _ODD)
        if not pc.any(odd).as_py():
            continue
        at = pc.indices_nonzero(odd).to_pylist()
        found = [json.loads(batch[json_field][row].as_py())[name] for row in at]
        position = batch.schema.get_field_index(column)
        texts = pa.array([values.text_of(value) for value in found], pa.string())
        numbers = pa.array([values.number_of(value) for value in found], NUMBER)
        batch = batch.set_column(position, column, pc.replace_with_mask(batch[column], odd, texts))
        batch = batch.set_column(
            position + 1, f"{column}_num", pc.replace_with_mask(batch[f"{column}_num"], odd, numbers)
        )
    return batch


# A JSON value as DuckDB prints it → its text form. Found: null, true, false, "text", {…}, […] or a number; a float is
# printed with its shortest digits, as Python does, but -0 and exponents are not.
_TEXT_OF = """
CASE WHEN {json} IS NULL THEN NULL
     WHEN starts_with({json}, '"') THEN
          CASE WHEN contains({json}, '\\') THEN json_extract_string({json}, '$') ELSE {json}[2:-2] END
     WHEN {json} IN ('true', 'false') THEN {json}
     WHEN {json} = 'null' THEN NULL
     WHEN regexp_full_match({json}, '0|-?[1-9][0-9]*|-?[0-9]+\\.[0-9]*[1-9]') THEN {json}
     WHEN regexp_full_match({json}, '[0-9]+\\.0|-[1-9][0-9]*\\.0') THEN {json}[:-3]
     ELSE chr(0) END"""  # chr(0) is _ODD
_NUMBER_OF = (
    "CASE WHEN regexp_full_match({text}, '-?[0-9]{{1,18}}(\\.[0-9]+)?') THEN CAST({text} AS DECIMAL(38, 6)) END"
)
