"""Hot events and changed profiles as Arrow tables of the same shape as the lake's files. Reads only, in the snapshot's moment.

SQLite is read by the one library that already has the file open: a second one would drop its locks.
"""

import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.csv
from django.db import connections, transaction
from django.db.models import Max

from audiences.models import LakeFile
from audiences.people import bulk
from audiences.people.lake import columns as lake_columns
from audiences.people.lake.staging import EVENTS, workbench
from audiences.people.pins import Snapshot

_CHUNK = 20_000


@dataclass(frozen=True, slots=True)
class Mark:
    """What orders a table's rows by when they became final: the column, and the highest that is."""

    column: str
    highest: str


MARK = {
    "sqlite": Mark("id", "coalesce((SELECT seq FROM sqlite_sequence WHERE name = '{table}'), 0)"),
    # Every transaction before the first one in progress has ended. Those known to belong to other databases of the server
    # do not count, or somebody's long one would keep our rows from view. Inside a transaction that has itself written
    # (no reader's has, but a test's may) its own rows count as well.
    "postgresql": Mark(
        "xid",
        """
        (SELECT coalesce(
            pg_current_xact_id_if_assigned()::text::bigint,
            (SELECT min(running::text::bigint) - 1 FROM pg_snapshot_xip(pg_current_snapshot()) AS running
              WHERE NOT EXISTS (
                SELECT FROM pg_locks JOIN pg_stat_activity USING (pid)
                 WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted
                   AND transactionid = running::xid AND datname <> current_database())),
            pg_snapshot_xmax(pg_current_snapshot())::text::bigint - 1))""",
    ),
}
PROFILES = pa.schema(
    [
        ("profile_no", pa.uint32()),
        ("bucket_key", pa.string()),
        ("created_us", pa.int64()),
        ("live", pa.bool_()),
        ("attributes", pa.string()),
    ]
)
"""What the projection of the profiles holds besides its typed columns."""

EVENT_FIELDS = "event_key, profile_no, name, time_us, received_us, source, {mark} AS hot_mark, properties"
PROFILE_FIELDS = (
    "profile_no, bucket_key, created_us,"
    " CASE WHEN kind = 'person' AND state = 'live' THEN 1 ELSE 0 END AS live, attributes"
)


def hot_events(after_mark: int, upto_mark: int, *, columns: Mapping[str, str] | None = None) -> pa.Table:
    """Hot events with after < mark ≤ upto as an events file would hold them, typed columns included, by mark.

    `columns` asks for other typed columns than the registered ones. Read it in one_moment() with contents().
    """
    with transaction.atomic(using="snapshot"), connections["snapshot"].cursor() as cursor:
        mark = MARK[connections["snapshot"].vendor].column
        fields = EVENT_FIELDS.format(mark=mark)
        query = f"SELECT {fields} FROM audiences_event WHERE {mark} > {int(after_mark)} AND {mark} <= {int(upto_mark)} ORDER BY {mark}"
        typed = lake_columns.property_columns(using="snapshot") if columns is None else columns
        return _with_columns(read(cursor, query, EVENTS), EVENTS, "properties", typed)


def hot_events_of(profile_nos: Collection[int], names: Collection[str] | None) -> list[tuple[int, str, int, int, str]]:
    """(profile_no, name, time_us, received_us, properties) of these profiles' hot events, all or of these names, those too that are not final yet."""
    if not profile_nos or (names is not None and not names):
        return []
    chosen, parameters = bulk.among("profile_no", profile_nos)
    if names is not None:
        named, values = bulk.among("name", sorted(names))
        chosen, parameters = f"{chosen} AND {named}", [*parameters, *values]
    with transaction.atomic(using="snapshot"), connections["snapshot"].cursor() as cursor:
        columns = "profile_no, name, time_us, received_us, properties"
        cursor.execute(f"SELECT {columns} FROM audiences_event WHERE {chosen}", parameters)
        return list(cursor.fetchall())


def merged_into(survivors: Collection[int]) -> dict[int, int]:
    """old_no → survivor_no of whoever was merged into one of these."""
    chosen, parameters = bulk.among("survivor_no", survivors)
    with transaction.atomic(using="snapshot"), connections["snapshot"].cursor() as cursor:
        cursor.execute(f"SELECT old_no, survivor_no FROM audiences_alias WHERE {chosen}", parameters)
        return dict(cursor.fetchall())


def changed_profiles(snapshot: Snapshot, *, columns: Mapping[str, str] | None = None) -> pa.Table:
    """The profiles that the newest projection has wrong or lacks, as it would hold them, typed columns included.

    Their values are never older than the snapshot; they may be newer. Read it in one_moment() with contents().
    """
    with transaction.atomic(using="snapshot"), connections["snapshot"].cursor() as cursor:
        newest = (
            LakeFile.objects.using("snapshot").filter(kind=LakeFile.Kind.PROFILES).aggregate(at=Max("added_manifest"))
        )
        # A projection made since has values newer than the snapshot's; then all must be, or a profile could go back.
        upto = ""
        if (newest["at"] or 0) <= snapshot.manifest:
            upto = f" WHERE {MARK[connections['snapshot'].vendor].column} <= {int(snapshot.profiles)}"
        query = (
            f"SELECT {PROFILE_FIELDS} FROM audiences_profile"
            f" WHERE profile_no IN (SELECT profile_no FROM audiences_profilechange{upto}) ORDER BY profile_no"
        )
        typed = lake_columns.attribute_columns(using="snapshot") if columns is None else columns
        return _with_columns(read(cursor, query, PROFILES), PROFILES, "attributes", typed)


def read_aliases(cursor: Any) -> pa.Table:
    """All merges: old_no → survivor_no."""
    schema = pa.schema([("old_no", pa.uint32()), ("survivor_no", pa.uint32())])
    return pa.Table.from_batches(read(cursor, "SELECT old_no, survivor_no FROM audiences_alias", schema), schema)


def read(cursor: Any, query: str, schema: pa.Schema, *, chunk: int = _CHUNK) -> Iterator[pa.RecordBatch]:
    """A query's rows as Arrow batches of this schema, streamed, in the cursor's transaction."""
    if cursor.db.vendor == "postgresql":
        yield from _copied(cursor, query, schema, chunk)
        return
    cursor.execute(query)
    while rows := cursor.fetchmany(chunk):
        yield _batch(rows, schema)


def _batch(rows: Sequence[Sequence[Any]], schema: pa.Schema) -> pa.RecordBatch:
    arrays = []
    for at, field in enumerate(schema):
        values: list[Any] = [row[at] for row in rows]
        if pa.types.is_boolean(field.type):
            values = [bool(value) for value in values]
        arrays.append(pa.array(values, field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _copied(cursor: Any, query: str, schema: pa.Schema, chunk: int) -> Iterator[pa.RecordBatch]:
    """COPY is the fastest way out of PostgreSQL that stays in this transaction, and so in this snapshot."""
    with cursor.copy(f"COPY ({query}) TO STDOUT (FORMAT csv)") as copy:
        lines = iter(copy)  # PostgreSQL sends a row a message
        while block := b"".join(itertools.islice(lines, chunk)):
            table = pyarrow.csv.read_csv(
                pa.BufferReader(block),
                read_options=pyarrow.csv.ReadOptions(column_names=schema.names, block_size=len(block) + 1),
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=pyarrow.csv.ConvertOptions(
                    column_types=schema,
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                    true_values=["1"],
                    false_values=["0"],
                ),
            )
            yield from table.to_batches()


def _with_columns(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, json_field: str, columns: Mapping[str, str]
) -> pa.Table:
    table = pa.Table.from_batches(batches, schema)
    whole = pa.schema([*schema, *lake_columns.fields(columns)])
    if not table.num_rows or not columns:
        return pa.Table.from_batches([], whole) if not table.num_rows else table
    with workbench() as connection:
        connection.register("rows", table)
        tables = [
            part.cast(whole) for part in lake_columns.typed(connection, "SELECT * FROM rows", json_field, columns)
        ]
    return pa.concat_tables(tables)
