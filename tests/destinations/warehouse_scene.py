"""A database of a customer's on the server that the tests run on, and what ought to be in it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg.rows import dict_row

from audiences import clock
from audiences.models import Audience
from destinations.record import exporting, shape
from destinations.record.exporting import Scope
from destinations.services import warehouse

PASSWORD = "a password with / and @"


@dataclass
class Customer:
    """`owner` makes and breaks; `loader` is whom Rollcall comes as, who may make schemas and nothing else."""

    owner: str
    loader: str
    url: str

    def rows(self, table: str, schema: str = "rollcall") -> list[dict[str, Any]]:
        with psycopg.connect(self.owner, row_factory=dict_row) as connection:
            return connection.execute(f'SELECT * FROM "{schema}"."{table}"').fetchall()

    def do(self, *statements: str) -> list[tuple[Any, ...]]:
        """As the owner; the rows of the last one, if it has any."""
        with psycopg.connect(self.owner, autocommit=True) as connection:
            for statement in statements:
                cursor = connection.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def tables(self) -> set[str]:
        return {
            f"{schema}.{name}"
            for schema, name in self.do(
                "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
            )
        }


@contextmanager
def customer() -> Iterator[Customer]:
    server = os.environ["DATABASE_URL"]
    name, role = f"rc_warehouse_{os.getpid()}", f"rc_loader_{os.getpid()}"
    parts = urlsplit(server)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
        connection.execute(f'DROP ROLE IF EXISTS "{role}"')
        connection.execute(f"CREATE ROLE \"{role}\" LOGIN PASSWORD '{PASSWORD}'")
        connection.execute(f'CREATE DATABASE "{name}"')
        connection.execute(f'GRANT CREATE ON DATABASE "{name}" TO "{role}"')
        place = f"{parts.hostname}:{parts.port or 5432}/{name}"
        url = f"postgresql://{role}:{PASSWORD.replace('/', '%2F').replace('@', '%40').replace(' ', '%20')}@{place}"
        try:
            yield Customer(parts._replace(path=f"/{name}").geturl(), role, url)
        finally:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'DROP ROLE IF EXISTS "{role}"')


def named(customer: Customer, schema: str = "rollcall", **fields: Any) -> None:
    warehouse.save(
        actor=None, url=customer.url, schema=schema, **{"cadence_seconds": 3600, "with_events": True, **fields}
    )


def ought() -> dict[str, list[dict[str, Any]]]:
    """The whole record, made anew from what there is."""
    found: dict[str, list[dict[str, Any]]] = {table.name: [] for table in shape.TABLES}

    @contextmanager
    def opened(table):
        class Collecting:
            def write(self, rows):
                found[table.name] += rows.to_pylist()

        yield Collecting()

    scope = Scope(tuple(Audience.objects.order_by("key")), 0, clock.now_us() + clock.DAY, everybody=True)
    exporting.write(scope, shape.TABLES, opened)
    return found


def comparable(table: str, rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Rows in one order; properties as JSON."""
    columns = shape.BY_NAME[table].names
    told = []
    for row in rows:
        values = dict(row)
        if isinstance(values.get("properties"), str):
            values["properties"] = json.loads(values["properties"].replace("\\u0000", "\N{REPLACEMENT CHARACTER}"))
        if "properties" in values:
            values["properties"] = json.dumps(values["properties"], sort_keys=True)
        told.append(tuple(repr(clock.to_us(v) if hasattr(v, "tzinfo") and v else v) for v in map(values.get, columns)))
    return sorted(told)
