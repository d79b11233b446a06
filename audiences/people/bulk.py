"""Statements over thousands of rows at once that SQLite and PostgreSQL both take. No meaning here, and no transaction: the caller's."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from django.db import connection, models


def insert(model: type[models.Model], fields: Sequence[str], rows: Sequence[Sequence[Any]], conflict: str = "") -> None:
    """Insert rows (values in the order of `fields`). `conflict` is an ON CONFLICT clause. Columns left out take their database default."""
    if not rows:
        return
    table, names = model._meta.db_table, ", ".join(_column(model, field) for field in fields)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            source, parameters = _rows(model, fields, rows)
            cursor.execute(f"INSERT INTO {table} ({names}) {source} {conflict}", parameters)
        else:
            places = ", ".join(["%s"] * len(fields))
            cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({places}) {conflict}", rows)  # noqa: S608 - names are the model's


def insert_new(model: type[models.Model], fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> set[Any]:
    """Insert rows whose first field, their primary key, is not there yet; the keys of those that were not."""
    table, names = model._meta.db_table, ", ".join(_column(model, field) for field in fields)
    source, parameters = _rows(model, fields, rows)
    returned = fetch(
        f"INSERT INTO {table} ({names}) {source} ON CONFLICT DO NOTHING RETURNING {_column(model, fields[0])}",
        parameters,
    )
    return {row[0] for row in returned}


def update(model: type[models.Model], fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Set `fields` of the rows named by primary key; each row is (primary key, values…)."""
    if not rows:
        return
    table, key = model._meta.db_table, model._meta.pk.column
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            source, parameters = _rows(model, [model._meta.pk.name, *fields], rows)
            sets = ", ".join(f"{_column(model, field)} = new.{_column(model, field)}" for field in fields)
            matching = f'{table}."{key}" = new."{key}"'
            cursor.execute(f"UPDATE {table} SET {sets} FROM ({source}) AS new WHERE {matching}", parameters)  # noqa: S608 - likewise
        else:
            sets = ", ".join(f"{_column(model, field)} = %s" for field in fields)
            cursor.executemany(
                f"UPDATE {table} SET {sets} WHERE {key} = %s",  # noqa: S608 - names are the model's
                [(*row[1:], row[0]) for row in rows],
            )


def _rows(model: type[models.Model], fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> tuple[str, list[Any]]:
    """Rows as a source that SQL selects from, and its parameters: one JSON text, which both databases read faster than Python writes arrays."""
    columns = [_column(model, field) for field in fields]
    if connection.vendor == "postgresql":
        typed = ", ".join(f"{column} {_type(model, field)}" for column, field in zip(columns, fields, strict=True))
        names = [column.strip('"') for column in columns]
        data = orjson.dumps([dict(zip(names, row, strict=True)) for row in rows]).decode()
        return f"SELECT {', '.join(columns)} FROM json_to_recordset(%s::json) AS given({typed})", [data]  # noqa: S608 - names are the model's
    values = ", ".join(f"json_extract(value, '$[{position}]') AS {column}" for position, column in enumerate(columns))
    return f"SELECT {values} FROM json_each(%s) WHERE true", [orjson.dumps(rows).decode()]  # noqa: S608 - likewise


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
