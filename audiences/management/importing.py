"""What import_profiles and import_events share: reading --map, a progress bar, and the summary."""

import sys
from collections.abc import Callable
from pathlib import Path

from django.core.management.base import CommandError

from audiences.management.base import RollcallCommand
from audiences.models import ImportFile
from audiences.people import imports


def mapping_of(pairs: list[str]) -> dict[str, str]:
    """{"id": "customer_id"} of ["id=customer_id"]. Raises CommandError."""
    mapping: dict[str, str] = {}
    for pair in pairs:
        field, equals, column = pair.partition("=")
        if not equals or not field or not column:
            raise CommandError(f"--map {pair}: write FIELD=COLUMN, such as --map id=customer_id.")
        if field in mapping:
            raise CommandError(f"--map {pair}: {field} is mapped twice.")
        mapping[field] = column
    return mapping


def take_in(
    command: RollcallCommand,
    file: Path,
    kind: str,
    mapping: dict[str, str],
    *,
    event_name: str = "",
    json: bool = False,
) -> None:
    """Run an import to its end and say what became of it. Raises CommandError where it failed."""
    if not file.is_file():
        raise CommandError(f"{file}: there is no such file.")
    row = imports.start(file, kind, mapping, event_name=event_name, in_background=False)
    before = row.state
    if before != ImportFile.State.DONE:
        bar = progress_bar(command)
        row = imports.run_here(row, lambda now: bar(now.bytes_read, now.bytes_total))
    result = {
        "import": row.pk,
        "state": row.state,
        "already_imported": before == ImportFile.State.DONE,
        "rows": row.rows_read,
        "accepted": row.rows_accepted,
        "refused": row.rows_refused,
    }
    if json:
        command.print_json(result)
    elif before == ImportFile.State.DONE:
        command.stdout.write(
            f"This very file was taken in before ({row.rows_accepted:,} rows). Nothing counts twice, so nothing changed."
        )
    else:
        command.stdout.write(f"{row.rows_accepted:,} of {row.rows_read:,} rows taken in, {row.rows_refused:,} refused.")
        if row.rows_refused:
            command.stdout.write(f"Why, row by row: manage.py refused --import {row.pk}, or the Imports page.")
    if row.state == ImportFile.State.FAILED:
        raise CommandError(row.error)


def progress_bar(command: RollcallCommand) -> Callable[[int, int], None]:
    """A function of (done, total) that draws on a terminal and is silent elsewhere."""

    def draw(done: int, total: int) -> None:
        if not command.stderr.isatty() or not total:
            return
        share = min(done / total, 1)
        end = "\n" if share == 1 else "\r"
        command.stderr.write(f"[{'#' * int(share * 40):40}] {share:4.0%}", ending=end)
        sys.stderr.flush()

    return draw
