"""`manage.py members`: who is in an audience, now or as of a past moment."""

import os
from argparse import ArgumentParser
from typing import Any

from audiences import members
from audiences.management.base import RollcallCommand
from audiences.management.commands.refresh import chosen
from audiences.management.moments import moment
from audiences.services import refreshes


class Command(RollcallCommand):
    help = "Print the external ids of an audience's members, one a line, sorted."
    expected = (refreshes.NothingToCount, members.NotCounted)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("key", metavar="KEY")
        parser.add_argument(
            "--as-of",
            type=moment,
            metavar="ISO",
            help="as of a past moment (a date is midnight UTC): past events, today's attributes",
        )

    def handle(self, *args: Any, key: str, as_of: int | None, **options: Any) -> None:
        audience = chosen([key])[0]
        if as_of is None:
            people = members.of(audience)
        else:
            people = refreshes.compute_as_of([audience], as_of)[audience.key].members
        listed = 0
        try:
            for external_id in members.external_ids(people):
                self.stdout.write(external_id)
                listed += 1
        except BrokenPipeError:  # `members KEY | head` has read what it wanted
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stdout.fileno())
            return
        if listed < len(people):
            self.stderr.write(
                f"{len(people) - listed:,} of {len(people):,} members have no external id and are not listed."
            )
