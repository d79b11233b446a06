"""`manage.py sandbox`: serve the sandbox platforms until stopped."""

from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, CommandParser

from destinations.sandbox import server


class Command(BaseCommand):
    help = "Serve platforms to try things on: Meta-, Google- and OpenList-shaped accounts, and a webhook receiver."
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--port", type=int, default=settings.SANDBOX_PORT, help="0 takes a free one")
        parser.add_argument(
            "--host",
            default="127.0.0.1",
            help="The address to listen at; others than this machine's show everyone everything",
        )
        parser.add_argument(
            "--file",
            type=Path,
            default=settings.DATA_DIR / "sandbox.sqlite3",
            help="Where the platforms keep what they hold",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            server.serve(options["host"], options["port"], options["file"], say=self._say)
        except OSError as error:
            raise CommandError(f"Port {options['port']} cannot be used: {error.strerror}.") from None
        except KeyboardInterrupt:
            return

    def _say(self, address: str) -> None:
        self.stdout.write(f"Sandbox platforms on {address}")
        self.stdout.flush()
