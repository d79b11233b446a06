"""Reads CSV, CSV.gz and Parquet files as a stream of rows, in bounded memory. What the rows mean is imports.py's.

A line that is no row (too long, wrong number of fields, not UTF-8) comes out as a BadLine, and reading goes on after it.
"""

import codecs
import csv
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, TypeAlias

import pyarrow as pa
import pyarrow.parquet as pq

LONGEST_LINE = 1_000_000  # characters
MOST_COLUMNS = 2_000
_PARQUET = b"PAR1"
_GZIP = b"\x1f\x8b"


class Unreadable(Exception):
    """The file as a whole cannot be read; says why and what to do."""


@dataclass(frozen=True, slots=True)
class Row:
    """`line` is where it starts: the header is line 1, and in Parquet row n is line n + 1."""

    line: int
    values: list[Any]


@dataclass(frozen=True, slots=True)
class BadLine:
    line: int
    reason: str
    raw: str


Read: TypeAlias = Row | BadLine


class Table:
    """An open file: its column names, and its rows one after the other."""

    def __init__(self, columns: list[str], rows: Iterator[Read], raw: IO[bytes]) -> None:
        self.columns, self.rows, self._raw = columns, rows, raw

    @property
    def bytes_read(self) -> int:
        """How far into the file on disk reading has come (compressed bytes, where it is compressed)."""
        return self._raw.tell()


@contextmanager
def reading(path: Path) -> Iterator[Table]:
    """Open a file by what it contains, whatever it is called. Raises Unreadable."""
    with path.open("rb") as raw:
        start = raw.read(4)
        raw.seek(0)
        if not start:
            raise Unreadable("The file is empty. It needs a header line and at least one row.")
        if start == _PARQUET:
            yield _parquet(raw)
        elif start.startswith(_GZIP):
            with gzip.GzipFile(fileobj=raw, mode="rb") as unpacked:
                yield _csv(unpacked, raw)
        else:
            yield _csv(raw, raw)


def _csv(stream: IO[bytes] | gzip.GzipFile, raw: IO[bytes]) -> Table:
    lines = _Lines(stream)
    reader = csv.reader(lines, strict=True)
    csv.field_size_limit(LONGEST_LINE)
    try:
        header = next(reader, None)
    except csv.Error as error:
        raise Unreadable(f"The first line is no CSV header: {error}.") from None
    if lines.bad or not header or not any(name.strip() for name in header):
        why = lines.bad[0].reason if lines.bad else "it names no column"
        raise Unreadable(f"The first line is no CSV header: {why}.")
    columns = _checked([name.strip() for name in header])
    return Table(columns, _csv_rows(reader, lines, len(columns)), raw)


def _checked(columns: list[str]) -> list[str]:
    if len(columns) > MOST_COLUMNS:
        raise Unreadable(
            f"The file has {len(columns):,} columns; at most {MOST_COLUMNS:,} are read. Leave out those you do not need."
        )
    seen: set[str] = set()
    for position, name in enumerate(columns, 1):
        if not name:
            raise Unreadable(f"Column {position} has no name. Name it in the header line.")
        if name in seen:
            raise Unreadable(f"Two columns are called “{name[:80]}”. Rename one in the header line.")
        seen.add(name)
    return columns


def _csv_rows(reader: Any, lines: "_Lines", width: int) -> Iterator[Read]:
    # Counted through `lines`, because the reader's own line_num does not know of the lines that were left out.
    while True:
        start = lines.number + 1
        try:
            values = next(reader)
        except StopIteration:
            yield from lines.take_bad()
            return
        except csv.Error as error:
            yield from lines.take_bad()
            yield BadLine(start, f"no CSV: {error}", lines.take_fed())
            continue
        except (zlib.error, EOFError, OSError) as error:
            raise Unreadable(
                f"The compressed data break off after line {lines.number:,}: {type(error).__name__}."
            ) from None
        if lines.bad:
            yield from lines.take_bad()
            start = lines.number
        lines.fed.clear()
        if not values:
            continue  # an empty line
        if len(values) == width:
            yield Row(start, values)
        else:
            yield BadLine(start, f"{len(values)} fields where the header has {width}", _joined(values))


def _joined(values: list[str]) -> str:
    return ",".join(values)[:10_000]


class _Lines:
    """The text lines of a byte stream; those too long or not UTF-8 are left out and noted."""

    def __init__(self, stream: IO[bytes] | gzip.GzipFile) -> None:
        self._stream, self.number = stream, 0
        self.bad: list[BadLine] = []
        self.fed: list[str] = []  # the lines of the row being read: a stray quote can swallow many

    def __iter__(self) -> "_Lines":
        return self

    def __next__(self) -> str:
        while True:
            line = self._stream.readline(LONGEST_LINE)
            if not line:
                raise StopIteration
            self.number += 1
            if self.number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                while (rest := self._stream.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                    pass
                self._refuse(f"longer than {LONGEST_LINE:,} bytes", line[:1000])
                continue
            try:
                text = line.decode()
            except UnicodeDecodeError as error:
                self._refuse(f"not UTF-8 at byte {error.start + 1}", line)
                continue
            if "\x00" in text:
                self._refuse("has a NUL byte", line)
                continue
            self.fed.append(text)
            return text

    def take_fed(self) -> str:
        taken = "".join(self.fed).rstrip("\r\n")
        self.fed.clear()
        return taken

    def _refuse(self, reason: str, line: bytes) -> None:
        # Kept as escapes: PostgreSQL can hold neither NUL nor half a character.
        self.bad.append(
            BadLine(
                self.number,
                reason,
                line[:10_000].decode("utf-8", "backslashreplace").replace("\x00", "\\x00").rstrip("\r\n"),
            )
        )

    def take_bad(self) -> list[BadLine]:
        taken, self.bad = self.bad, []
        return taken


def _parquet(raw: IO[bytes]) -> Table:
    try:
        file = pq.ParquetFile(raw)
    except (pa.ArrowException, OSError) as error:
        raise Unreadable(f"The file begins like Parquet but cannot be read as it: {type(error).__name__}.") from None
    columns = _checked([name.strip() for name in file.schema_arrow.names])
    return Table(columns, _parquet_rows(file), raw)


def _parquet_rows(file: pq.ParquetFile) -> Iterator[Read]:
    line = 1
    try:
        for batch in file.iter_batches(batch_size=10_000):
            plain = [_plain(column) for column in batch.columns]
            for values in zip(*plain, strict=True):
                line += 1
                yield Row(line, list(values))
    except pa.ArrowException as error:
        raise Unreadable(f"The Parquet data break off after row {line - 1:,}: {type(error).__name__}.") from None


def _plain(column: pa.Array) -> list[Any]:
    """A column's values as JSON can hold them: moments as ISO text, decimals as text, bytes as text."""
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return column.to_pylist()
    return [_json_value(value) for value in column.to_pylist()]


def _json_value(value: Any) -> Any:
    match value:
        case datetime():
            return value.isoformat()
        case date():
            return value.isoformat()
        case Decimal():
            return format(value, "f")
        case bytes():
            return value.decode("utf-8", "backslashreplace")
        case float() if value != value or value in (float("inf"), float("-inf")):
            return None
        case _:
            return value
