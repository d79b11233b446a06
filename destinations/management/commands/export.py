"""`manage.py export`: this workspace as the file that `apply` reads."""

from argparse import ArgumentParser
from typing import Any

from audiences.management.base import RollcallCommand
from destinations import blueprint
from destinations.blueprint.writing import NoSuchAudience


class Command(RollcallCommand):
    help = (
        "Print audiences, destinations and mappings as YAML for `apply`: everything, or these audiences with what they need."
        " Credentials are written as names of environment variables."
    )
    expected = (NoSuchAudience,)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("keys", nargs="*", metavar="KEY", help="audiences; everything if left out")

    def handle(self, *args: Any, keys: list[str], **options: Any) -> None:
        self.stdout.write(blueprint.export(keys or None), ending="")
