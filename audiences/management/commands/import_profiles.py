"""`manage.py import_profiles FILE --map id=customer_id`."""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from audiences import jobs
from audiences.management.base import RollcallCommand
from audiences.management.importing import mapping_of, take_in
from audiences.people import imports


class Command(RollcallCommand):
    help = "Take people in from a CSV, CSV.gz or Parquet file. Columns that are not mapped become attributes of their own name."
    expected = (imports.ImportRefused, jobs.Busy)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", type=Path)
        parser.add_argument(
            "--map",
            action="append",
            default=[],
            metavar="FIELD=COLUMN",
            help=f"id is required; fields: {', '.join(imports.PROFILE_FIELDS)}",
        )
        parser.add_argument("--json", action="store_true", help="print the result as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        take_in(self, options["file"], "profiles", mapping_of(options["map"]), json=options["json"])
