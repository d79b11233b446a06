"""The Celery application. Tasks live in each floor's tasks.py and are named `<floor>.<verb>`."""

import os
import warnings
from pathlib import Path
from typing import Any

from celery import Celery
from celery.beat import Scheduler
from celery.exceptions import SecurityWarning
from celery.signals import setup_logging
from django.conf import settings

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")

# It warns of pickled tasks under root, which in a container is the usual user; ours are JSON and nothing else is taken.
warnings.filterwarnings("ignore", category=SecurityWarning)
app = Celery("rollcall")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
app.conf.beat_schedule = {
    "sweep": {"task": "audiences.sweep", "schedule": 1.0, "options": {"queue": "urgent", "expires": 5}}
}


@setup_logging.connect
def _leave_logging_alone(**_: Any) -> None:
    """With a receiver here Celery sets up none of its own: settings.LOGGING is all there is, and LOG_LEVEL counts in workers too."""


class Ticker(Scheduler):
    """Beat's schedule is one line that never changes, so it keeps no file; it shows that it ticks (PULSE_FILE)."""

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        if settings.PULSE_FILE:
            Path(settings.PULSE_FILE).touch()
        return super().tick(*args, **kwargs)
