"""`manage.py work`: the embedded mode's worker. `up` starts it; in server mode Celery's own command does."""

from argparse import ArgumentParser
from typing import Any

from celery import current_app
from django.conf import settings
from django.core.management.base import CommandError

from audiences import worker
from audiences.management.base import RollcallCommand


class Command(RollcallCommand):
    help = "Run due work until stopped (embedded mode)."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--threads", type=int, default=6)

    def handle(self, *args: Any, **options: Any) -> None:
        if not settings.EMBEDDED:
            raise CommandError(
                "BROKER_URL is set, so workers are Celery's: celery -A config worker --queues=urgent,sync,compute,intake"
            )
        worker.serve(current_app._get_current_object(), threads=options["threads"])
