"""The Celery application. Tasks live in each floor's tasks.py and are named `<floor>.<verb>`."""

import logging
import os
import signal
import warnings
from pathlib import Path
from typing import Any

from celery import Celery, bootsteps
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


log = logging.getLogger(__name__)


@setup_logging.connect
def _leave_logging_alone(**_: Any) -> None:
    """With a receiver here Celery sets up none of its own: settings.LOGGING is all there is, and LOG_LEVEL counts in workers too."""


class Ending(bootsteps.StartStopStep):
    """A worker that ends by an error of its own, as Celery's do where a broker goes away at a bad moment, waits for its threads: what runs
    long is told, as after a signal, or it would wait for ever and take nothing."""

    requires = ("celery.worker.components:Pool",)

    def close(self, worker: Any) -> None:
        from audiences import jobs  # tables are there once a worker runs

        jobs.stop()


app.steps["worker"].add(Ending)


class Ticker(Scheduler):
    """Beat's schedule is one line that never changes, so it keeps no file; it shows that it ticks (PULSE_FILE)."""

    def apply_entry(self, entry: Any, producer: Any = None) -> None:
        try:
            self.apply_async(entry, producer=producer, advance=False)
        except Exception as error:  # the broker is away: the next second asks again
            log.warning("sweep not asked for", extra={"error": type(error).__name__})

    _asked_to_stop = False

    def tick(self, *args: Any, **kwargs: Any) -> Any:
        # Celery's own handler raises wherever it interrupts, and some of those places swallow what is raised.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        if self._asked_to_stop:
            raise SystemExit
        if settings.PULSE_FILE:
            Path(settings.PULSE_FILE).touch()
        return super().tick(*args, **kwargs)

    def _stop(self, *_: Any) -> None:
        self._asked_to_stop = True
