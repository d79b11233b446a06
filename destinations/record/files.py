"""Tables of the record as CSV and Parquet files, written row group by row group. What is in them is reading.py's and deliveries.py's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, Protocol

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from audiences import spreadsheets
from destinations.models import RecordExport
from destinations.record.shape import Table

CSV, PARQUET = RecordExport.Format.CSV, RecordExport.Format.PARQUET


class Writer(Protocol):
    """Takes rows of one table."""

    def write(self, rows: pa.Table) -> Any: ...


class _Csv:
    def __init__(self, stream: IO[bytes], table: Table) -> None:
        self.writer = pyarrow.csv.CSVWriter(stream, table.schema)

    def write(self, rows: pa.Table) -> None:
        for batch in spreadsheets.inert_columns(rows).to_batches():
            if batch.num_rows:  # for an empty one Arrow writes whatever was in its buffer before
                self.writer.write_batch(batch)


class _Parquet:
    def __init__(self, stream: IO[bytes], table: Table) -> None:
        self.writer = pq.ParquetWriter(stream, table.schema, compression="zstd")

    def write(self, rows: pa.Table) -> None:
        self.writer.write_table(rows)


@contextmanager
def writing(stream: IO[bytes], table: Table, file_format: str) -> Iterator[Writer]:
    """Rows given to the writer stand in the stream, as a whole file, when the block ends. A file of no rows has its columns."""
    if file_format == CSV:
        csv = _Csv(stream, table)
        yield csv
        csv.writer.close()
    else:
        parquet = _Parquet(stream, table)
        yield parquet
        parquet.writer.close()
