"""Signs of life: a canary job through every queue, and each worker's own proof that it takes what it is sent. Who judges them: qa/health.py.

A worker may live, renew its leases and answer the broker, and yet take no more messages (Celery on Redis has done so after a lost
connection). So each sends itself a message by the way that all its work comes, and ends when none arrives: whoever keeps it running
starts it anew, and its jobs are taken over like those of any dead worker.
"""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from celery import current_app, shared_task
from celery.signals import celeryd_after_setup, worker_ready, worker_shutdown
from celery.worker import state
from django.conf import settings
from django.db import Error, connection
from django.utils import timezone
from kombu import Exchange, Queue

from audiences import jobs, tallies
from audiences.models import Worker

log = logging.getLogger(__name__)

SILENT = timedelta(seconds=settings.CANARY_SECONDS)
EVERY = SILENT / 6
KEPT = timedelta(days=1)  # rows of workers that are gone
LAST_WORDS = 15.0  # seconds between asking itself to stop and stopping


@jobs.job("audiences.canary")
def canary(claim: jobs.Claim) -> None:
    """Does nothing. That it was done, and when, is what its row says of the queue that is its key."""


def keep_canaries() -> None:
    """One through each queue, for as long as the installation lives. Calling it again changes nothing."""
    for queue in jobs.QUEUES:
        jobs.keep_doing("audiences.canary", queue, every=EVERY, queue=queue)


@shared_task(name="audiences.here", expires=SILENT.total_seconds())
def here() -> None:
    """What a worker sends to itself."""
    _self_check.heard()


@celeryd_after_setup.connect
def _own_queue(sender: str, instance: Any, **_: Any) -> None:
    address = _address(sender)
    own = Queue(address, Exchange("here"), routing_key=address, expires=10 * SILENT.total_seconds())
    instance.app.amqp.queues.select_add(own)


@worker_ready.connect
def _begin(sender: Any, **_: Any) -> None:
    keep_canaries()
    queues = [queue for queue in jobs.QUEUES if queue in sender.app.amqp.queues.consume_from]
    _self_check.begin(sender.hostname, queues, threads=sender.controller.concurrency)


@worker_shutdown.connect
def _finish(**_: Any) -> None:
    _self_check.stop()
    tallies.flush()


def _address(worker: str) -> str:
    return f"here.{worker}"


class SelfCheck:
    """A thread of a worker that sees whether messages still reach its pool. `end`: what it does when they do not."""

    def __init__(self, end: Callable[[], None]) -> None:
        self._end = end
        self._sign = time.monotonic()  # when it last took something, or could not have
        self._name, self._queues, self._threads = "", list[str](), 1
        self._started = timezone.now()
        self._over = threading.Event()

    def begin(self, name: str, queues: list[str], *, threads: int) -> None:
        self._name, self._queues, self._threads = name, queues, threads
        self._started = timezone.now()
        self.heard()
        threading.Thread(target=self._run, daemon=True, name="pulse").start()

    def heard(self) -> None:
        self._sign = time.monotonic()

    def _run(self) -> None:
        while True:
            if not self._ask() or len(state.active_requests) >= self._threads:
                self.heard()  # the broker is away, or every thread is busy: nothing could have been taken
            if time.monotonic() - self._sign > SILENT.total_seconds():
                log.error("worker takes no work any more, so it ends", extra={"worker": self._name})
                self._end()
                return
            self._note()
            tallies.flush()
            connection.close()
            if self._over.wait(EVERY.total_seconds()):
                return

    def stop(self) -> None:
        self._over.set()

    def _ask(self) -> bool:
        try:
            current_app.send_task("audiences.here", queue=_address(self._name), retry=False)
        except Exception:  # whatever the broker's client raises: this thread must outlive it
            return False
        return True

    def _note(self) -> None:
        if settings.PULSE_FILE:
            Path(settings.PULSE_FILE).touch()
        now = timezone.now()
        seen = now - timedelta(seconds=time.monotonic() - self._sign)
        fields = {"queues": self._queues, "threads": self._threads, "running": len(state.active_requests)}
        try:
            Worker.objects.update_or_create(
                name=self._name, defaults={**fields, "started_at": self._started, "seen_at": seen}
            )
            Worker.objects.filter(seen_at__lt=now - KEPT).delete()
        except Error:  # the database is away; the next word will be written
            log.warning("worker's sign of life not written", extra={"worker": self._name})


def _end() -> None:
    """Ask for a stop as anybody would, and go if nobody listens."""
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(LAST_WORDS)
    os._exit(os.EX_TEMPFAIL)


_self_check = SelfCheck(_end)
