"""Tables as CSV that a spreadsheet opens without running anything in them. Pure."""

import csv
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

_RUN = ("=", "+", "-", "@", "\t", "\r", "\0")


class _Echo:
    """csv writes to it and gets the line back."""

    def write(self, line: str) -> str:
        return line


def lines(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Line by line; None is an empty cell."""
    writer = csv.writer(_Echo())
    yield writer.writerow(head)
    for row in rows:
        yield writer.writerow([inert("" if cell is None else str(cell)) for cell in row])


def inert(cell: str) -> str:
    """A cell that a spreadsheet would run as a formula is kept from it by a quote."""
    return f"'{cell}" if cell[:1] in _RUN else cell


def inert_columns(table: pa.Table) -> pa.Table:
    """The same, for the texts of a whole table at once."""
    for at, field in enumerate(table.schema):
        if pa.types.is_string(field.type):
            first = pc.utf8_slice_codeunits(table.column(at), 0, 1)
            runs = pc.is_in(first, pa.array(_RUN))
            if pc.any(runs).as_py():
                quoted = pc.binary_join_element_wise("'", table.column(at), "")
                table = table.set_column(at, field, pc.if_else(runs, quoted, table.column(at)))
    return table
