"""The tables of the record: their columns, types and keys, the same in files and in a warehouse. Pure; docs/warehouse.md tells them to people."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

MOMENT = pa.timestamp("us", tz="UTC")

_POSTGRESQL = {
    pa.string(): "text",
    MOMENT: "timestamp with time zone",
    pa.int64(): "bigint",
    pa.bool_(): "boolean",
}


@dataclass(frozen=True, slots=True)
class Column:
    """`json`: text that holds a JSON object."""

    name: str
    type: pa.DataType
    json: bool = False

    @property
    def postgresql(self) -> str:
        return "jsonb" if self.json else _POSTGRESQL[self.type]


@dataclass(frozen=True, slots=True)
class Table:
    """`key`: the columns that name a row. `person`: it tells of single people."""

    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    person: bool = True

    @property
    def schema(self) -> pa.Schema:
        return pa.schema([(column.name, column.type) for column in self.columns])

    @property
    def names(self) -> list[str]:
        return [column.name for column in self.columns]


def _columns(*given: tuple[str, pa.DataType]) -> tuple[Column, ...]:
    return tuple(Column(name, type_) for name, type_ in given)


_text, _whole, _truth = pa.string(), pa.int64(), pa.bool_()

AUDIENCES = Table(
    "audiences",
    ("audience_key",),
    _columns(
        ("audience_key", _text),
        ("name", _text),
        ("purpose", _text),
        ("created_at", MOMENT),
        ("archived_at", MOMENT),
        ("live_version", _whole),
        ("counted_at", MOMENT),
        ("members", _whole),
        ("members_named", _whole),
    ),
    person=False,
)
MEMBERSHIPS = Table(
    "memberships",
    ("audience_key", "external_id", "entered_at"),
    _columns(
        ("audience_key", _text),
        ("external_id", _text),
        ("entered_at", MOMENT),
        ("left_at", MOMENT),
        ("entered_version", _whole),
        ("left_version", _whole),
        ("since_before", _truth),
        ("entered_by_new_version", _truth),
        ("left_by_new_version", _truth),
        ("backfilled", _truth),
    ),
)
DELIVERIES = Table(
    "deliveries",
    ("delivery_id",),
    _columns(
        ("delivery_id", _whole),
        ("audience_key", _text),
        ("connection_id", _whole),
        ("destination_key", _text),
        ("platform", _text),
        ("kind", _text),
        ("cause", _text),
        ("version", _whole),
        ("people", _whole),
        ("accepted", _whole),
        ("rejected", _whole),
        ("unknown", _whole),
        ("outcome", _text),
        ("settled", _truth),
        ("request_id", _text),
        ("http_status", _whole),
        ("prepared_at", MOMENT),
        ("answered_at", MOMENT),
    ),
    person=False,
)
DELIVERED_PEOPLE = Table(
    "delivered_people",
    ("delivery_id", "external_id"),
    _columns(
        ("delivery_id", _whole),
        ("external_id", _text),
        ("outcome", _text),
        ("code", _text),
        ("reason", _text),
    ),
)
EVENTS = Table(
    "events",
    ("event_id",),
    (
        *_columns(
            ("event_id", _text),
            ("external_id", _text),
            ("name", _text),
            ("time", MOMENT),
            ("received_at", MOMENT),
            ("source", _text),
        ),
        Column("properties", _text, json=True),
    ),
)
HOLDOUTS = Table(
    "holdouts",
    ("connection_id", "external_id", "arm"),
    _columns(
        ("connection_id", _whole),
        ("audience_key", _text),
        ("destination_key", _text),
        ("external_id", _text),
        ("arm", _text),
        ("assigned_at", MOMENT),
    ),
)
TABLES = (AUDIENCES, MEMBERSHIPS, DELIVERIES, DELIVERED_PEOPLE, EVENTS, HOLDOUTS)
BY_NAME = {table.name: table for table in TABLES}

TREATED, HELD_OUT = "treated", "holdout"


def made(table: Table, columns: Sequence[pa.Array | pa.ChunkedArray]) -> pa.Table:
    """Rows of this table, in its types."""
    return pa.table(dict(zip(table.names, columns, strict=True))).cast(table.schema)
