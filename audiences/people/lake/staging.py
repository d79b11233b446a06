"""Events files before they are published: one a month, sorted, with typed columns and an activity roll-up. No manifest here."""

import os
import shutil
import socket
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
from django.conf import settings

from audiences import faults
from audiences.people.lake import columns as lake_columns
from audiences.people.lake import files

STALE_AFTER = timedelta(hours=2)  # a file that no manifest names after so long is an orphan

EVENTS = pa.schema(
    [
        ("event_key", pa.string()),
        ("profile_no", pa.uint32()),
        ("name", pa.string()),
        ("time_us", pa.int64()),
        ("received_us", pa.int64()),
        ("source", pa.string()),
        ("hot_mark", pa.int64()),
        ("properties", pa.string()),
    ]
)
"""What every events file holds besides its typed columns. `hot_mark` is null where no hot row came before."""

ROW_GROUP = 65_536  # small enough that the (name, time) order lets most be skipped
_UNREPEATING = {"event_key", "properties", "time_us", "received_us", "hot_mark"}  # a dictionary would only cost


@dataclass(frozen=True, slots=True)
class Staged:
    """A file on the disk that no manifest names yet. Paths are relative to the lake's root."""

    kind: str
    path: str
    rows: int
    bytes: int
    columns: Mapping[str, str]
    origin: str
    rollup_path: str = ""
    month: str = ""
    min_time_us: int | None = None
    max_time_us: int | None = None
    hot_min: int | None = None
    hot_max: int | None = None
    made_at: float = field(default_factory=time.monotonic)

    def age(self) -> float:
        """Seconds since the file was written."""
        return time.monotonic() - self.made_at


def stage_events(table: pa.Table, *, origin: str) -> list[Staged]:
    """Write the events of a table (schema EVENTS, any order, all in memory) to one file for each UTC month they fell in.

    Memory is a few times the table's; half a million rows at a time are good. Files left over by an error are unlinked.
    """
    lake_columns.choose_columns()
    typed = lake_columns.property_columns()
    table = table.select(EVENTS.names).cast(EVENTS)
    staged: list[Staged] = []
    try:
        with workbench() as connection:
            connection.register("incoming", table)
            connection.execute(
                "CREATE TEMP TABLE sorted AS SELECT *, date_trunc('month', make_timestamp(time_us)) AS month"
                " FROM incoming ORDER BY month, name, time_us, event_key"
            )
            months = connection.execute(
                "SELECT DISTINCT strftime(month, '%Y-%m'), epoch_us(month) FROM sorted ORDER BY 2"
            ).fetchall()
            for month, starts_us in months:
                query = f"SELECT * EXCLUDE (month) FROM sorted WHERE month = make_timestamp({int(starts_us)})"
                staged.append(stage_month(connection, query, month, typed, origin=origin))
    except BaseException:
        discard(staged)
        raise
    return staged


def stage_month(
    connection: duckdb.DuckDBPyConnection, query: str, month: str, columns: Mapping[str, str], *, origin: str
) -> Staged:
    """Write one month's rows, which the query gives in the order of the file, and their roll-up."""
    path = files.fresh_path("events", month)
    rollup_path = path.replace(".parquet", ".rollup.parquet")
    schema = pa.schema([*EVENTS, *lake_columns.fields(columns)])
    with files.writing(path) as scratch:
        rows = write_parquet(scratch, schema, lake_columns.typed(connection, query, "properties", columns))
        faults.point("stage.events")
        summary = connection.execute(
            "SELECT min(time_us), max(time_us), min(hot_mark), max(hot_mark) FROM read_parquet(?)", [str(scratch)]
        ).fetchall()[0]
        activity = connection.read_parquet(str(scratch)).aggregate(
            "profile_no, min(time_us) AS first_us, max(time_us) AS last_us, count(*) AS events", "profile_no"
        )
        size = scratch.stat().st_size
        with files.writing(rollup_path) as rollup:
            write_parquet(rollup, _ROLLUP, map(_table, activity.order("profile_no").to_arrow_reader(ROW_GROUP)))
    faults.point("stage.rollup")
    return Staged(
        kind="events",
        path=path,
        rollup_path=rollup_path,
        month=month,
        min_time_us=summary[0],
        max_time_us=summary[1],
        hot_min=summary[2],
        hot_max=summary[3],
        rows=rows,
        bytes=size,
        columns=dict(columns),
        origin=origin,
    )


def discard(staged: Iterable[Staged]) -> None:
    """Unlink staged files that will not be published."""
    for file in staged:
        files.remove(file.path)
        if file.rollup_path:
            files.remove(file.rollup_path)


def write_parquet(path: Path, schema: pa.Schema, tables: Iterable[pa.Table]) -> int:
    """Write the tables, a row group each ROW_GROUP rows; how many rows."""
    plain = [name for name in schema.names if name not in _UNREPEATING and not name.endswith("_num")]
    rows = 0
    with pq.ParquetWriter(path, schema, compression="zstd", use_dictionary=plain) as writer:
        for table in tables:
            writer.write_table(table.cast(schema), row_group_size=ROW_GROUP)
            rows += table.num_rows
    return rows


class workbench:
    """A DuckDB for one piece of lake work: bounded memory, spilling beside the data, no extensions, UTC."""

    def __init__(self, *, memory: str = "400MB") -> None:
        self._spill = Path(settings.DATA_DIR) / "spill" / f"lake-{socket.gethostname()}-{os.getpid()}"
        self._connection = duckdb.connect(
            config={
                "memory_limit": memory,
                "threads": settings.ENGINE_THREADS,
                "temp_directory": str(self._spill),
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
            }
        )
        self._connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")

    def __enter__(self) -> duckdb.DuckDBPyConnection:
        return self._connection

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def sweep_spill() -> int:
    """Remove what killed processes on this machine had spilled, a day later; how many folders."""
    left = [
        folder
        for folder in (Path(settings.DATA_DIR) / "spill").glob("lake-*")
        if folder.stat().st_mtime < time.time() - timedelta(days=1).total_seconds()
    ]
    for folder in left:
        shutil.rmtree(folder, ignore_errors=True)
    return len(left)


def _table(batch: pa.RecordBatch) -> pa.Table:
    return pa.Table.from_batches([batch])


_ROLLUP = pa.schema(
    [("profile_no", pa.uint32()), ("first_us", pa.int64()), ("last_us", pa.int64()), ("events", pa.int64())]
)
