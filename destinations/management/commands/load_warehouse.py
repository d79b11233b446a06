"""`manage.py load_warehouse`: load what is new into the customer's PostgreSQL, now and here."""

from argparse import ArgumentParser
from typing import Any

from audiences import jobs
from audiences.management.base import RollcallCommand
from destinations.connectors.base import ConnectorError
from destinations.services import Refused, warehouse


class Command(RollcallCommand):
    help = "Load the record into the warehouse named in Settings, as its cadence does. Stopped anywhere and run again, it goes on."
    expected = (Refused, ConnectorError, jobs.Busy, jobs.LeaseLost)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="for machines")

    def handle(self, *args: Any, json: bool, **options: Any) -> None:
        row = warehouse.load_here()
        assert row.loaded_up_to is not None
        if json:
            self.print_json({"schema": row.schema, "loaded_up_to": row.loaded_up_to.isoformat(), "rows": row.rows})
            return
        for table, rows in row.rows.items():
            self.stdout.write(f"{row.schema}.{table}  {rows:,} rows written")
