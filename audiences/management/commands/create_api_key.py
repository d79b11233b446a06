"""A key for programs that send people and events."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from audiences.management.base import RollcallCommand
from audiences.services import api_keys


class Command(RollcallCommand):
    help = "Make a key for programs that send people and events. Prints SITE_ID:API_KEY, this once."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("name", help="what the key is for, e.g. 'web shop'")

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            made = api_keys.create(options["name"], actor=None)
        except ValueError as error:
            raise CommandError(str(error)) from None
        self.stdout.write(f"{made.key.site_id}:{made.secret}")
