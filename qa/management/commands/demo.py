"""`manage.py demo`: a sample shop, users, audiences and sandbox accounts; then up."""

import os
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import call_command

from audiences import jobs
from audiences.management.base import RollcallCommand
from audiences.management.importing import progress_bar
from destinations.sandbox import control
from qa.sample import fill


class Command(RollcallCommand):
    help = "Serve Rollcall with a sample shop: 50,000 people, a million events, 17 audiences, sandbox ad accounts."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--no-serve", action="store_true", help="fill, then stop instead of serving")

    def handle(self, *args: Any, **options: Any) -> None:
        # The sandbox listens on this machine, and the pages offer the sample sign-ins.
        os.environ.update(DEMO="1", ALLOW_PRIVATE_DESTINATIONS="1")
        settings.DEMO = settings.ALLOW_PRIVATE_DESTINATIONS = True
        fill.prepare()
        self.stdout.write(f"Rollcall's sample shop: {settings.PUBLIC_URL}")
        for email, _, _ in fill.USERS:
            self.stdout.write(f"{email}, {fill.PASSWORD}")
        self.stdout.flush()
        if options["no_serve"]:
            self._fill_here()
            return
        if not fill.is_filled():
            jobs.ask(fill.TASK, fill.KEY, queue="intake")
        call_command("up", sandbox=True, stdout=self.stdout, stderr=self.stderr)

    def _fill_here(self) -> None:
        if fill.is_filled():
            self.stdout.write("It was filled before.")
            return
        bar = progress_bar(self)
        with (
            control.started(settings.DATA_DIR, settings.SANDBOX_PORT),
            jobs.held(fill.TASK, fill.KEY, queue="intake") as claim,
        ):

            def progress(words: str, share: float) -> None:
                claim.renew()
                bar(int(share * 100), 100)

            fill.fill(progress)
        self.stdout.write("Filled.")
