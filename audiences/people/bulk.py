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
            arrays = ", ".join(f"%s::{_type(model, field)}[]" for field in fields)
            cursor.execute(
                f"INSERT INTO {table} ({names}) SELECT * FROM unnest({arrays}) {conflict}",  # noqa: S608 - names are the model's
                [list(column) for column in zip(*rows, strict=True)],
            )
        else:
            places = ", ".join(["%s"] * len(fields))
            cursor.executemany(f"INSERT INTO {table} ({names}) VALUES ({places}) {conflict}", rows)  # noqa: S608 - likewise


def insert_new(model: type[models.Model], fields: Sequence[str], rows: Sequence[Sequence[Any]]) -> set[Any]:
    """Insert rows whose first field, their primary key, is not there yet; the keys of those that were not."""
    table, names = model._meta.db_table, ", ".join(_column(model, field) for field in fields)
    if connection.vendor == "postgresql":
        arrays = ", ".join(f"%s::{_type(model, field)}[]" for field in fields)
        source = f"SELECT * FROM unnest({arrays})"  # noqa: S608 - names are the model's
        parameters: list[Any] = [list(column) for column in zip(*rows, strict=True)]
    elif len(rows) == 1:
        source, parameters = f"VALUES ({', '.join(['%s'] * len(fields))})", list(rows[0])
    else:
        values = ", ".join(f"json_extract(value, '$[{position}]')" for position in range(len(fields)))
        source = f"SELECT {values} FROM json_each(%s) WHERE true"  # noqa: S608 - likewise
        parameters = [orjson.dumps(rows).decode()]
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
            names = [f"c{position}" for position in range(len(fields) + 1)]
            sets = ", ".join(f"{_column(model, f)} = new.{n}" for f, n in zip(fields, names[1:], strict=True))
            types = [_type(model, model._meta.pk.name), *(_type(model, field) for field in fields)]
            arrays = ", ".join(f"%s::{kind}[]" for kind in types)
            cursor.execute(
                f"UPDATE {table} SET {sets} FROM unnest({arrays}) AS new({', '.join(names)}) WHERE {table}.{key} = new.c0",  # noqa: S608
                [list(column) for column in zip(*rows, strict=True)],
            )
        else:
            sets = ", ".join(f"{_column(model, field)} = %s" for field in fields)
            cursor.executemany(
                f"UPDATE {table} SET {sets} WHERE {key} = %s",  # noqa: S608 - names are the model's
                [(*row[1:], row[0]) for row in rows],
            )


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
