"""Tables as CSV that a spreadsheet opens without running anything in them. Pure."""

import csv
from collections.abc import Iterable, Iterator, Sequence


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
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r", "\0") else cell
