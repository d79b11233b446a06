"""`manage.py refused`: the rows that were not taken in, and why."""

import csv
from argparse import ArgumentParser
from typing import Any

from audiences.management.base import RollcallCommand
from audiences.models import RefusedRow


class Command(RollcallCommand):
    help = (
        "List refused rows as CSV: where each stood and why. With --raw the row itself too, which holds personal data."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--import", dest="import_file", type=int, metavar="N", help="only those of import N")
        parser.add_argument("--raw", action="store_true", help="add the row as it stood")

    def handle(self, *args: Any, **options: Any) -> None:
        rows = RefusedRow.objects.select_related("import_file").order_by("pk")
        if options["import_file"]:
            rows = rows.filter(import_file=options["import_file"])
        writer = csv.writer(self.stdout)
        raw = ["raw"] if options["raw"] else []
        writer.writerow(["source", "file", "line", "field", "reason", *raw])
        for row in rows.iterator():
            name = row.import_file.name if row.import_file else ""
            writer.writerow([row.source, name, row.line or "", row.field, row.reason, *([row.raw] if raw else [])])
