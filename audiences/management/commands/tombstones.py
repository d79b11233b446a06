"""manage.py tombstones: who must not come back, as keyed hashes in a file; and, after a restore, ask for them again."""

import sys
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser

from audiences.management.base import RollcallCommand
from audiences.management.importing import progress_bar
from audiences.people import tombstones


class Command(RollcallCommand):
    expected = (tombstones.WrongFile,)
    help = (
        "Print the keyed hashes of everybody who was erased or suppressed, to be kept beside your backups. With --apply, after a"
        " restore: bury again what is missing, and erase or suppress whoever the backup brought back."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--apply", metavar="FILE", help="a file that this command printed; -: standard input")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["apply"] is None:
            for line in tombstones.lines():
                self.stdout.write(line)
            return
        if options["apply"] == "-":
            self._tell(tombstones.apply(sys.stdin, progress_bar(self)))
            return
        path = Path(options["apply"])
        if not path.is_file():
            raise CommandError(f"{path}: there is no such file.")
        with path.open(encoding="utf-8") as lines:
            self._tell(tombstones.apply(lines, progress_bar(self)))

    def _tell(self, done: tombstones.Buried) -> None:
        self.stdout.write(
            f"{done.hashes:,} hashes were missing; {done.people:,} requests were asked again for people the backup had brought back."
        )
