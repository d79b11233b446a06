"""Due work as rows with leases: ask for it, claim it, run it, and have it come back if its worker dies.

A task is declared with `@job("floor.verb", queue=…)` and runs as a Celery task of that name. The broker carries job ids as hints;
the worker that acts on one claims the row first. A lost hint is given again, a doubled one finds the row held.
"""

import functools
import logging
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from celery import current_app, shared_task
from celery.signals import worker_ready, worker_shutting_down
from django.db import close_old_connections, connection, transaction
from django.db.models import F, Q, QuerySet
from django.utils import timezone
from structlog.contextvars import bound_contextvars

from audiences.models import Job

log = logging.getLogger(__name__)

QUEUES = ("urgent", "sync", "compute", "intake")
LEASE = timedelta(seconds=30)
HINT_AGAIN = timedelta(seconds=10)
BROKER_AGAIN = 5.0  # seconds for which nobody is kept waiting once more for a broker that was away
LONGEST_BACKOFF = timedelta(minutes=10)

_serving = False


class LeaseLost(Exception):
    """Another worker holds the job now: stop, and write nothing."""


class Busy(Exception):
    """Another process is at it."""


class Stopping(LeaseLost):
    """This worker was asked to stop: the job ends here, at a safe place, and is due again at once."""


@dataclass(slots=True)
class Claim:
    """The right to run one job, until its lease ends."""

    job_id: int
    fence: int
    key: str
    lease: timedelta = LEASE
    _last_progress: float = 0.0

    def renew(self) -> None:
        """Hold on to the job. Raises LeaseLost if it is no longer ours, and Stopping if this worker is to stop."""
        if stopping():
            raise Stopping
        self.prolong()

    def prolong(self) -> None:
        """Hold on to it, stopping or not. Raises LeaseLost."""
        if not self._mine().update(lease_until=timezone.now() + self.lease):
            raise LeaseLost(f"job {self.job_id} was taken over")

    def guard(self) -> None:
        """In a transaction: nobody can take the job over before it is committed. Raises LeaseLost if somebody has."""
        if not self._mine().select_for_update().exists():
            raise LeaseLost(f"job {self.job_id} was taken over")

    def progress(self, *, every: float = 0.5, **numbers: Any) -> None:
        """Let people see how far it is, at most every so many seconds."""
        if time.monotonic() - self._last_progress >= every:
            self._last_progress = time.monotonic()
            self._mine().update(progress=numbers)

    def _mine(self) -> Any:
        return Job.objects.filter(pk=self.job_id, fence=self.fence, lease_until__isnull=False)


def ask(task: str, key: object, *, queue: str = "compute", after: timedelta = timedelta(0)) -> None:
    """Have `task` run for `key`, once, soon. Asking again before it began changes nothing; while it runs, it runs once more."""
    due = timezone.now() + after
    job, made = Job.objects.get_or_create(task=task, key=str(key), defaults={"queue": queue, "due_at": due})
    if not made:
        Job.objects.filter(pk=job.pk).filter(Q(due_at__isnull=True) | Q(due_at__gt=due)).update(due_at=due)
    if not after:
        transaction.on_commit(_hint, robust=True)


def keep_doing(task: str, key: object, *, every: timedelta, queue: str = "compute") -> None:
    """Have `task` run for `key` again and again, starting now if it is new."""
    seconds = max(1, int(every.total_seconds()))
    job, made = Job.objects.get_or_create(
        task=task, key=str(key), defaults={"queue": queue, "due_at": timezone.now(), "every_seconds": seconds}
    )
    if not made and job.every_seconds != seconds:
        next_due = timezone.now() + timedelta(seconds=seconds)
        Job.objects.filter(pk=job.pk).update(every_seconds=seconds, due_at=next_due)


def stop_doing(task: str, key: object) -> None:
    """No more of `task` for `key`; what runs now runs to its end."""
    Job.objects.filter(task=task, key=str(key)).update(due_at=None, every_seconds=None)


def sweep(*, slots: int | None = None) -> int:
    """Tell workers of due jobs; how many. `slots`: no more than so many jobs outside the urgent queue in hand at once."""
    now = timezone.now()
    waiting = Q(hinted_at__isnull=True) | Q(hinted_at__lt=F("due_at")) | Q(hinted_at__lt=now - HINT_AGAIN)
    due = list(_due(now).filter(waiting).order_by("due_at").only("pk", "task", "queue")[:200])
    if not due:
        return 0
    if slots is not None:
        in_hand = Job.objects.exclude(queue="urgent").filter(Q(lease_until__gte=now) | (Q(due_at__lte=now) & ~waiting))
        free = max(0, slots - in_hand.count())
        due = [row for row in due if row.queue == "urgent"] + [row for row in due if row.queue != "urgent"][:free]
    Job.objects.filter(pk__in=[row.pk for row in due]).update(hinted_at=now)
    for row in due:
        current_app.send_task(row.task, args=[row.pk], queue=row.queue)
    return len(due)


def job(name: str, *, queue: str = "compute", lease: timedelta = LEASE) -> Callable[[Callable[[Claim], None]], Any]:
    """Declare a function of a Claim as the task `name`. It must be safe to run again after being killed anywhere.

    `lease`: how long others wait for a worker that has died.
    """

    def declare(function: Callable[[Claim], None]) -> Any:
        @shared_task(name=name, queue=queue)
        @functools.wraps(function)
        def run(job_id: int) -> None:
            claim = _claim(job_id, lease=lease)
            if claim is None:
                return  # done, not due any more, or another worker's
            began = time.monotonic()
            with bound_contextvars(task=name, job=job_id):
                try:
                    with _heartbeat(claim):
                        function(claim)
                except Stopping:
                    _settle(claim, None, again=True)
                except LeaseLost:
                    log.warning("job taken over")
                except Exception as error:  # the row keeps where, and it is tried again
                    log.exception("job failed")
                    _settle(claim, error)
                else:
                    _settle(claim, None)
                    log.debug("job done", extra={"ms": round((time.monotonic() - began) * 1000)})

        return run

    return declare


@contextmanager
def held(task: str, key: object, *, queue: str = "compute", wait: timedelta = timedelta(0)) -> Iterator[Claim]:
    """Run a job's work in this process under its lease, as a command does. If the process dies, a worker takes the job over.

    Raises Busy if another process holds it for longer than `wait`.
    """
    row, _ = Job.objects.get_or_create(task=task, key=str(key), defaults={"queue": queue})
    until = time.monotonic() + wait.total_seconds()
    while (claim := _claim(row.pk, asked_for=False)) is None:
        if time.monotonic() >= until:
            raise Busy(f"{task} for {key} is being done by another process")
        time.sleep(0.2)
    try:
        with _heartbeat(claim):
            yield claim
    except LeaseLost:
        raise
    except BaseException as error:
        _let_go(claim, error)
        raise
    _settle(claim, None)


def run_now(task: str, key: object, *, queue: str = "compute", wait: timedelta = timedelta(minutes=5)) -> None:
    """Have it done before this returns: here, or by the worker that is at it. Raises Busy if that takes longer than `wait`."""
    ask(task, key, queue=queue)
    row = Job.objects.get(task=task, key=str(key))
    until = time.monotonic() + wait.total_seconds()
    while True:
        _task(task)(row.pk)  # does nothing where another worker holds it
        row.refresh_from_db()
        if row.lease_until is None and (row.due_at is None or row.due_at > timezone.now()):
            return
        if time.monotonic() >= until:
            raise Busy(f"{task} for {key} is being done by another process")
        time.sleep(0.2)


def run_due_here(queues: list[str] | None = None, *, rounds: int = 100) -> int:
    """Run everything that is due in this process, until nothing is; how many jobs. For commands and tests."""
    done = 0
    for _ in range(rounds):
        due = _due(timezone.now())
        rows = list(due.filter(queue__in=queues) if queues else due)
        if not rows:
            break
        for row in rows:
            _task(row.task)(row.pk)
            done += 1
    return done


_asked_to_stop = threading.Event()


def stopping() -> bool:
    """Whether this worker was asked to stop. What takes long asks at each safe place, so that a stop is over within 30 seconds."""
    return _asked_to_stop.is_set()


def go_on() -> bool:
    """Whether a job that has no end of its own goes on: in a worker that was not asked to stop. Elsewhere it does what there is to do now."""
    return _serving and not stopping()


def nap(seconds: float) -> None:
    """Sleep, but no longer than this worker goes on."""
    _asked_to_stop.wait(seconds)


@worker_ready.connect
def _begin(**_: Any) -> None:
    global _serving
    _serving = True


@worker_shutting_down.connect
def stop(**_: Any) -> None:
    """What takes long ends at its next safe place. Whatever ends a worker calls it: a signal, or an error of its own (config/celery.py)."""
    _asked_to_stop.set()


def _task(name: str) -> Any:
    """The task of this name. Outside a worker Celery looks for tasks only when told to."""
    if name not in current_app.tasks:
        current_app.loader.import_default_modules()
    return current_app.tasks[name]


def _due(now: datetime) -> QuerySet[Job]:
    """Asked for and not held, or held by a worker whose lease ran out."""
    return Job.objects.filter(Q(due_at__lte=now, lease_until__isnull=True) | Q(lease_until__lt=now))


def _claim(job_id: int, *, asked_for: bool = True, lease: timedelta = LEASE) -> Claim | None:
    now = timezone.now()
    free = _due(now) if asked_for else Job.objects.filter(Q(lease_until__isnull=True) | Q(lease_until__lt=now))
    row = free.filter(pk=job_id).first()
    if row is None:
        return None
    won = free.filter(pk=job_id, fence=row.fence).update(
        fence=F("fence") + 1, lease_until=now + lease, due_at=None, started_at=now, finished_at=None, progress={}
    )
    return Claim(job_id, row.fence + 1, row.key, lease) if won else None


def _let_go(claim: Claim, error: BaseException) -> None:
    """A command failed or was stopped: it is not tried again unless somebody asks."""
    Job.objects.filter(pk=claim.job_id, fence=claim.fence).update(
        lease_until=None, finished_at=timezone.now(), attempts=F("attempts") + 1, error=_in_short(error)
    )


def _settle(claim: Claim, error: Exception | None, *, again: bool = False) -> None:
    """`again`: at once, whatever its rhythm."""
    now = timezone.now()
    with transaction.atomic():
        row = Job.objects.select_for_update().filter(pk=claim.job_id, fence=claim.fence).first()
        if row is None:
            return
        if error is None:
            row.attempts, row.error = 0, ""
            wanted = now + timedelta(seconds=row.every_seconds) if row.every_seconds else None
            wanted = now if again else wanted
        else:
            row.attempts += 1
            row.error = _in_short(error)
            wanted = now + min(timedelta(seconds=2**row.attempts), LONGEST_BACKOFF)
        asked = [moment for moment in (row.due_at, wanted) if moment]
        row.due_at = min(asked) if asked else None
        row.lease_until, row.finished_at = None, now
        row.save()
        if row.due_at and row.due_at <= now:  # asked for while it ran: whoever was told of it then found it held
            transaction.on_commit(_hint, robust=True)


def _in_short(error: BaseException) -> str:
    """What and where; never its words, which could hold a person's data."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f"{frames[-1].name}:{frames[-1].lineno}" if frames else "?"
    return f"{type(error).__name__} in {where}"


class _heartbeat:
    """Renews the claim's lease from a thread while the job runs."""

    def __init__(self, claim: Claim) -> None:
        self._claim, self._stop = claim, threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True, name=f"lease-{claim.job_id}")

    def __enter__(self) -> None:
        # One in-memory connection serves every thread of a test; there nobody else could take the lease anyway.
        if not connection.in_atomic_block:
            self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _beat(self) -> None:
        while not self._stop.wait(self._claim.lease.total_seconds() / 3):
            try:
                self._claim.prolong()
            except LeaseLost:
                return
            except Exception:  # the database may be away for a moment; the lease outlives two missed beats
                log.exception("lease not renewed", extra={"job": self._claim.job_id})
            finally:
                close_old_connections()
        connection.close()


_broker_away_until = 0.0


def _hint() -> None:
    """Wake a sweeper in server mode; the embedded worker sees the database change by itself. Without a broker, beat does when it is back."""
    global _broker_away_until
    if current_app.conf.broker_url.startswith("memory:") or time.monotonic() < _broker_away_until:
        return
    try:
        current_app.send_task("audiences.sweep", queue="urgent", expires=5)
    except Exception as error:  # whatever the broker's client raises: the work itself is committed
        _broker_away_until = time.monotonic() + BROKER_AGAIN
        log.warning("broker is away; due work waits", extra={"error": type(error).__name__})
