"""`manage.py import_events FILE --map profile=customer_id --map time=date --name purchase`."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from audiences import jobs
from audiences.management.base import RollcallCommand
from audiences.management.importing import mapping_of, take_in
from audiences.people import imports


class Command(RollcallCommand):
    help = "Take events in from a CSV, CSV.gz or Parquet file. Other columns become properties; unknown people are created."
    expected = (imports.ImportRefused, jobs.Busy)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--map",
            action="append",
            default=[],
            metavar="FIELD=COLUMN",
            help="profile and time are required; name unless --name is given",
        )
        parser.add_argument("--name", default="", help="what every row's event is called")
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        take_in(
            self,
            options["file"],
            "events",
            mapping_of(options["map"]),
            event_name=options["name"],
            json=options["json"],
        )
