"""The embedded worker: finds due rows as soon as the database changes and runs them in Celery's thread pool. Server mode uses beat instead."""

import logging
import threading
import time

from celery import Celery
from django.db import close_old_connections, connection

from audiences import jobs

log = logging.getLogger(__name__)

LOOK = 0.02  # seconds between looks at PRAGMA data_version: 2 % of an idle core, 23 ms to start at the median
URGENT_THREADS = 3
CLOCK = 1.0  # rows also become due by the clock alone


class Sweeper(threading.Thread):
    """Sweeps when another connection has written, and once a second besides."""

    def __init__(self, slots: int) -> None:
        super().__init__(daemon=True, name="sweeper")
        self._slots = slots
        self._stop_asked = threading.Event()

    def run(self) -> None:
        seen, last = None, 0.0
        while not self._stop_asked.wait(LOOK):
            try:
                version = self._data_version()
                if version != seen or time.monotonic() - last >= CLOCK:
                    seen, last = version, time.monotonic()
                    jobs.sweep(slots=self._slots)
                    seen = self._data_version()
            except Exception:  # the database may be busy or away for a moment; what is due stays due
                log.exception("sweep failed")
                close_old_connections()
                time.sleep(1)

    def stop(self) -> None:
        self._stop_asked.set()

    @staticmethod
    def _data_version() -> int:
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA data_version")
            return int(cursor.fetchone()[0])


def serve(app: Celery, *, threads: int) -> None:
    """Run until told to stop (SIGTERM: finish what runs, then go)."""
    # The fast lane keeps one thread, and what it decides has two of its own: a platform that hangs does not stop the others.
    sweeper = Sweeper(slots=max(1, threads - URGENT_THREADS))
    sweeper.start()
    try:
        app.worker_main(
            [
                "--quiet",
                "worker",
                "--pool=threads",
                f"--concurrency={threads}",
                "--loglevel=WARNING",
                "--without-gossip",
                "--without-mingle",
                "--without-heartbeat",
                "--hostname=rollcall@localhost",
                f"--queues={','.join(jobs.QUEUES)}",
            ]
        )
    finally:
        sweeper.stop()
