"""`manage.py export_record`: the record of audiences as files, for a warehouse or a notebook."""

from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from audiences import clock
from audiences.management.base import RollcallCommand
from audiences.management.commands.refresh import chosen
from audiences.management.moments import iso, moment
from audiences.models import Audience
from audiences.people import lake
from audiences.services import trail
from destinations.models import RecordExport
from destinations.record import exporting, files, shape
from destinations.record.exporting import Scope
from destinations.record.files import Writer
from destinations.record.shape import Table


class Command(RollcallCommand):
    help = (
        "Write memberships, calls and their outcomes, events and holdouts to a folder, a file for each table. People are named by external id"
        " alone; docs/warehouse.md describes the tables. Named audiences: events of whoever was a member in the period; else of everybody."
    )
    expected = (lake.SnapshotGone,)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("keys", nargs="*", metavar="KEY", help="audiences; all, archived ones too, if left out")
        parser.add_argument(
            "--from", type=moment, default=0, metavar="ISO", dest="start_us", help="from this moment on"
        )
        parser.add_argument(
            "--to",
            type=moment,
            metavar="ISO",
            dest="end_us",
            help="up to this moment, and not with it; now if left out",
        )
        parser.add_argument(
            "--format", choices=RecordExport.Format.values, default=files.PARQUET.value, dest="file_format"
        )
        parser.add_argument(
            "--table",
            action="append",
            choices=sorted(shape.BY_NAME),
            metavar="TABLE",
            help=f"only this one; again for more: {', '.join(shape.BY_NAME)}",
        )
        parser.add_argument(
            "--to-folder",
            type=Path,
            required=True,
            metavar="DIR",
            help="made if it is not there; files of an earlier export are replaced",
        )
        parser.add_argument("--json", action="store_true", help="for machines")

    def handle(
        self,
        *args: Any,
        keys: list[str],
        start_us: int,
        end_us: int | None,
        file_format: str,
        table: list[str] | None,
        to_folder: Path,
        json: bool,
        **options: Any,
    ) -> None:
        end_us = clock.now_us() if end_us is None else end_us
        if start_us >= end_us:
            raise CommandError("--from must be before --to.")
        audiences = chosen(keys) if keys else list(Audience.objects.order_by("key"))
        tables = [shape.BY_NAME[name] for name in table] if table else list(shape.TABLES)
        try:
            to_folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CommandError(f"{to_folder}: {error.strerror}.") from error

        @contextmanager
        def opened(table: Table) -> Iterator[Writer]:
            path = to_folder / f"{table.name}.{file_format}"
            unfinished = path.with_name(f"{path.name}.part")
            with unfinished.open("wb") as stream, files.writing(stream, table, file_format) as writer:
                yield writer
            unfinished.replace(path)

        scope = Scope(tuple(audiences), start_us, end_us, everybody=not keys)
        rows = exporting.write(scope, tables, opened, self._tell)
        after = {"from": iso(start_us), "to": iso(end_us), "rows": rows, "format": file_format}
        trail.record(None, "record.exported", "record", ", ".join(keys)[:200] or "all", after=after)
        if json:
            self.print_json({"folder": str(to_folder), **after})
            return
        for name, count in rows.items():
            self.stdout.write(f"{to_folder / f'{name}.{file_format}'}  {count:,} rows")

    def _tell(self, rows: dict[str, int]) -> None:
        if self.stderr.isatty():
            name, count = list(rows.items())[-1]
            self.stderr.write(f"{name}: {count:,} rows", ending="\r")
