"""`manage.py restored`: after the database came back from a backup, and before any worker starts."""

from argparse import ArgumentParser
from typing import Any

from django.utils import timezone

from audiences.management.base import RollcallCommand
from audiences.people.restoring import LakeIncomplete
from destinations.services import restoring


class Command(RollcallCommand):
    expected = (LakeIncomplete,)
    help = (
        "Say that this database was restored from a backup: platforms may hold others by now, so everybody is told again. Run it before "
        "workers start. Comparisons are held on every connection until somebody lifts that, because events since the backup may be missing; "
        "removals that people themselves cause go on."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--complete",
            action="store_true",
            help="nothing is missing (all was stopped when the backup was made): hold nothing",
        )
        parser.add_argument(
            "--everybody",
            action="store_true",
            help="take out everybody else who is known here too: they may have been sent after the backup",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        done = restoring.restored(now=timezone.now(), hold=not options["complete"], everybody=options["everybody"])
        self.stdout.write(f"{done.people:,} people on {done.connections} connections are told again.")
        if not options["complete"]:
            self.stdout.write(
                "Have your sources send again what they sent since the backup (repeats count once), then lift the stop on each connection's page."
            )
