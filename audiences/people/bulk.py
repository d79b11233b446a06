"""Statements over thousands of rows at once that SQLite and PostgreSQL both take. No meaning here, and no transaction: the caller's."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import orjson
from django.db import connection, models

SQLITE_ROWS = 500  # of up to 60 values: SQLite takes 32,766 in a statement


def insert(model: type[models.Model], fields: Sequence[str], rows: Sequence[Sequence[Any]], conflict: str = "") -> None:
    """Insert rows (values in the order of `fields`). `conflict` is an ON CONFLICT clause. Columns left out take their database default."""
    if not rows:
        return
    table, names = model._meta.db_table, ", ".join(_column(model, field) for field in fields)
    for source, parameters in _sources(model, fields, rows):
        execute(f"INSERT INTO {table} ({names}) {source} {conflict}", parameters)


def insert_new(model: type[models.Model], fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> set[Any]:
    """Insert rows whose first field, their primary key, is not there yet; the keys of those that were not."""
    table, names = model._meta.db_table, ", ".join(_column(model, field) for field in fields)
    end = f"ON CONFLICT DO NOTHING RETURNING {_column(model, fields[0])}"
    return {
        row[0]
        for source, parameters in _sources(model, fields, rows)
        for row in fetch(f"INSERT INTO {table} ({names}) {source} {end}", parameters)
    }


def update(model: type[models.Model], fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Set `fields` of the rows named by primary key; each row is (primary key, values…)."""
    if not rows:
        return
    table, key = model._meta.db_table, model._meta.pk.column
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            source, parameters = _recordset(model, [model._meta.pk.name, *fields], rows)
            sets = ", ".join(f"{_column(model, field)} = new.{_column(model, field)}" for field in fields)
            matching = f'{table}."{key}" = new."{key}"'
            cursor.execute(f"UPDATE {table} SET {sets} FROM ({source}) AS new WHERE {matching}", parameters)  # noqa: S608 - likewise
        else:
            sets = ", ".join(f"{_column(model, field)} = %s" for field in fields)
            cursor.executemany(
                f"UPDATE {table} SET {sets} WHERE {key} = %s",  # noqa: S608 - names are the model's
                [(*row[1:], row[0]) for row in rows],
            )


def _sources(
    model: type[models.Model], fields: Sequence[str], rows: Sequence[Sequence[Any]]
) -> Iterator[tuple[str, list[Any]]]:
    """Rows as sources of an INSERT with their parameters. Not executemany: that asks for the interpreter after every row, which other threads hold."""
    if connection.vendor == "postgresql":
        if rows:
            yield _recordset(model, fields, rows)
        return
    one = f"({', '.join(['%s'] * len(fields))})"
    for first in range(0, len(rows), SQLITE_ROWS):
        some = rows[first : first + SQLITE_ROWS]
        yield f"VALUES {', '.join([one] * len(some))}", [value for row in some for value in row]


def _recordset(
    model: type[models.Model], fields: Sequence[str], rows: Sequence[Sequence[Any]]
) -> tuple[str, list[Any]]:
    """Rows as a SELECT on PostgreSQL, and its parameters: one JSON text, read faster than Python writes arrays."""
    columns = [_column(model, field) for field in fields]
    typed = ", ".join(f"{column} {_type(model, field)}" for column, field in zip(columns, fields, strict=True))
    names = [column.strip('"') for column in columns]
    data = orjson.dumps([dict(zip(names, row, strict=True)) for row in rows]).decode()
    return f"SELECT {', '.join(columns)} FROM json_to_recordset(%s::json) AS given({typed})", [data]  # noqa: S608 - names are the model's


def among(column: str, values: Iterable[Any]) -> tuple[str, list[Any]]:
    """An SQL condition "column is one of these" and its parameters, for any number of values."""
    values = list(values)
    if len(values) == 1:
        return f"{column} = %s", values
    if connection.vendor == "postgresql":
        return f"{column} = ANY(%s)", [values]
    return f"{column} IN (SELECT value FROM json_each(%s))", [orjson.dumps(values).decode()]  # noqa: S608 - columns are ours


def fetch(sql: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)
        return cursor.fetchall()


def execute(sql: str, parameters: Sequence[Any] = ()) -> None:
    """One statement without an answer."""
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def execute_many(sql: str, rows: Sequence[Sequence[Any]]) -> None:
    """One statement for each row of parameters."""
    if rows:
        with connection.cursor() as cursor:
            cursor.executemany(sql, rows)


def take_numbers(counter: str, how_many: int) -> int:
    """The first of `how_many` new numbers of a Counter. Its row stays locked until the transaction ends; 0 takes none and only locks."""
    last = fetch(
        "INSERT INTO audiences_counter (name, value) VALUES (%s, %s) "
        "ON CONFLICT (name) DO UPDATE SET value = audiences_counter.value + excluded.value RETURNING value",
        [counter, how_many],
    )[0][0]
    return int(last) - how_many + 1


def for_update() -> str:
    """What locks the rows of a SELECT; on SQLite the transaction already holds the only lock."""
    return "FOR UPDATE" if connection.vendor == "postgresql" else ""


def for_key_share() -> str:
    """What keeps the rows of a SELECT from being deleted or renamed meanwhile."""
    return "FOR KEY SHARE" if connection.vendor == "postgresql" else ""


def _column(model: type[models.Model], field: str) -> str:
    return f'"{model._meta.get_field(field).column}"'  # type: ignore[union-attr]


def _type(model: type[models.Model], field: str) -> str:
    return str(model._meta.get_field(field).db_type(connection))
