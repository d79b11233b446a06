"""Events as they were accepted, streamed out of the lake and the hot rows: all of a snapshot, or what an older one did not have. Reads only.

Engines answer questions about events; here they are read whole, for whoever copies them elsewhere.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyroaring import BitMap

from audiences import bitmaps
from audiences.clock import DAY
from audiences.models import LakeFile
from audiences.people.lake import hot, manifest
from audiences.people.lake.staging import EVENTS, workbench
from audiences.people.pins import Pinned

READ = pa.schema([EVENTS.field(name) for name in EVENTS.names if name != "hot_mark"])
_BATCH = 65_536
_LATEST_US = 2 * DAY  # so long after it was received an event has been committed, or never is


@dataclass(frozen=True, slots=True)
class Known:
    """What a reader has already: every file up to a manifest, hot rows up to a mark, and when it was so."""

    manifest: int = 0
    hot: int = 0
    at_us: int = 0


@dataclass(frozen=True)
class Part:
    """Some events. Once all parts up to this one are read, every file up to `manifest` is known; None for hot rows, which come last."""

    manifest: int | None
    batches: Iterator[pa.RecordBatch] = field(repr=False)


def read_events(
    pinned: Pinned,
    *,
    known: Known | None = None,
    start_us: int | None = None,
    end_us: int | None = None,
    only: BitMap | None = None,
) -> Iterator[Part]:
    """The snapshot's events (schema READ) by file, oldest manifest first, then those that are still hot. Read each part before the next.

    Some that are `known` may come again, for compaction puts them into new files; none that is not known is left out. Profile
    numbers are as written: merges are not applied. `only`: of these numbers. Raises SnapshotGone.
    """
    known = known or Known()
    with tempfile.TemporaryFile() as kept:
        with manifest.one_moment() as cursor:
            contents = manifest.contents(pinned.snapshot)
            # Hot rows are kept aside now: later they may be in a file that this snapshot does not name.
            _keep_hot(cursor, kept, max(contents.flushed, known.hot), pinned.snapshot.hot)
        rows = LakeFile.objects.in_bulk([file.file_id for file in contents.events])
        later = [(rows[file.file_id], file) for file in contents.events]
        for number in sorted({row.added_manifest for row, _ in later if row.added_manifest > known.manifest}):
            here = [(row, file) for row, file in later if row.added_manifest == number]
            yield Part(number, _of_files(here, known, start_us, end_us, only))
        yield Part(None, _of_hot(kept, start_us, end_us, only))


def _of_files(
    chosen: list[tuple[LakeFile, manifest.EventFile]],
    known: Known,
    start_us: int | None,
    end_us: int | None,
    only: BitMap | None,
) -> Iterator[pa.RecordBatch]:
    for row, file in chosen:
        if (start_us is not None and file.max_time_us < start_us) or (
            end_us is not None and file.min_time_us >= end_us
        ):
            continue
        conditions = ["true"]
        if start_us is not None:
            conditions.append(f"time_us >= {int(start_us)}")
        if end_us is not None:
            conditions.append(f"time_us < {int(end_us)}")
        if file.only_hot_up_to is not None:
            conditions.append(f"hot_mark <= {int(file.only_hot_up_to)}")
        if row.origin == "flush":
            conditions.append(f"hot_mark > {int(known.hot)}")
        elif row.origin == "compaction":  # which forgets the marks
            conditions.append(f"received_us >= {int(known.at_us) - _LATEST_US}")
        if only is not None:
            conditions.append("profile_no IN (SELECT profile_no FROM wanted)")
        with workbench() as connection:
            if only is not None:
                connection.register("wanted", pa.table({"profile_no": bitmaps.to_array(only)}))
            query = f"SELECT {', '.join(READ.names)} FROM read_parquet(?) WHERE {' AND '.join(conditions)}"
            found = connection.sql(query, params=[str(file.path)]).to_arrow_reader(_BATCH)
            yield from (batch.cast(READ) for batch in found if batch.num_rows)


def _keep_hot(cursor: Any, kept: IO[bytes], after: int, upto: int) -> None:
    """They are few, because they are flushed all the time; but not where the lake was away for hours."""
    mark = hot.MARK[cursor.db.vendor].column
    query = (
        f"SELECT {', '.join(READ.names)} FROM audiences_event"
        f" WHERE {mark} > {int(after)} AND {mark} <= {int(upto)} ORDER BY {mark}"
    )
    with pq.ParquetWriter(kept, READ, compression="zstd") as writer:
        for batch in hot.read(cursor, query, READ):
            writer.write_batch(batch)
    kept.flush()


def _of_hot(kept: IO[bytes], start_us: int | None, end_us: int | None, only: BitMap | None) -> Iterator[pa.RecordBatch]:
    kept.seek(0)
    chosen = None if only is None else pa.array(bitmaps.to_array(only))
    for batch in pq.ParquetFile(kept).iter_batches(_BATCH):
        times = batch.column("time_us").to_numpy()
        wanted = (times >= (start_us or 0)) & (times < (end_us if end_us is not None else 2**63 - 1))
        if chosen is not None:
            wanted &= pc.is_in(batch.column("profile_no"), chosen).to_numpy(zero_copy_only=False)
        if wanted.any():
            yield batch.filter(pa.array(wanted))
