"""Is it alive, is it ready, does the work get done: answers for machines, cheap enough to be asked every few seconds, without a person's data.

In words and with what to do about it: soundness.py. Signs of life are given by audiences/pulse.py.
"""

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.db import Error, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from audiences import jobs, pulse
from audiences.models import Job, Worker

ROOM_NEEDED = 1_000_000_000  # bytes
ASKED_AGAIN = 5.0  # seconds for which an answer about the disk or the broker stands
OK, BUSY, SILENT, UNKNOWN = "ok", "busy", "silent", "unknown"


@dataclass(frozen=True, slots=True)
class Readiness:
    """`checks`: name → whether it holds. Without all of them no request can be served; without those in `degraded` work waits."""

    checks: dict[str, bool]
    degraded: tuple[str, ...]

    @property
    def ready(self) -> bool:
        return all(self.checks.values())


@dataclass(frozen=True, slots=True)
class Beat:
    """A queue's sign of life. `seconds` since its canary was last done; None: never. BUSY: its workers live, and have no thread free."""

    queue: str
    seconds: float | None
    state: str


def readiness() -> Readiness:
    """Whether requests can be served: the database answers and is up to date, the lake takes files. Without a broker they are, too."""
    database = _database_answers()
    checks = {"database": database, "migrations": database and _migrated(), "lake": _kept("lake", _lake_writable)}
    degraded = [] if _kept("broker", broker_answers) else ["broker"]
    if database:
        degraded += [f"queue {beat.queue}" for beat in beats() if beat.state != OK]
    return Readiness(checks, tuple(degraded))


def beats(now: datetime | None = None) -> list[Beat]:
    """How long ago each queue's canary was last done, and what that says of its workers."""
    now = now or timezone.now()
    done = dict(Job.objects.filter(task="audiences.canary").values_list("key", "finished_at"))
    alive = Worker.objects.filter(seen_at__gt=now - pulse.SILENT)
    full = {queue for worker in alive if worker.running >= worker.threads for queue in worker.queues}
    found = []
    for queue in jobs.QUEUES:
        at = done.get(queue)
        late = at is None or now - at > pulse.SILENT
        state = OK if not late else BUSY if queue in full else UNKNOWN if at is None else SILENT
        found.append(Beat(queue, (now - at).total_seconds() if at else None, state))
    return found


def broker_answers() -> bool:
    """Whether something listens where the broker should. Embedded, there is none, and none is missed."""
    if settings.EMBEDDED:
        return True
    url = urlsplit(settings.BROKER_URL)
    try:
        with socket.create_connection((url.hostname or "", url.port or 6379), timeout=1):
            return True
    except OSError:
        return False


def _database_answers() -> bool:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
            return bool(cursor.fetchone())
    except Error:
        return False


_known_migrated = False


def _migrated() -> bool:
    """Once seen, it stays so for this process: its own code brings no further migrations."""
    global _known_migrated
    if not _known_migrated:
        executor = MigrationExecutor(connection)
        _known_migrated = not executor.migration_plan(executor.loader.graph.leaf_nodes())
    return _known_migrated


def _lake_writable() -> bool:
    """Whether a file can be made there, and there is room for more."""
    folder = Path(settings.LAKE_URL)
    existing = next(part for part in (folder, *folder.parents) if part.exists())
    try:
        if existing == folder:
            with tempfile.NamedTemporaryFile(dir=folder, prefix=".ready-", suffix=".part"):
                pass
        elif not os.access(existing, os.W_OK):
            return False
        return shutil.disk_usage(existing).free >= ROOM_NEEDED
    except OSError:
        return False


_answers: dict[str, tuple[float, bool]] = {}


def _kept(name: str, ask: Callable[[], bool]) -> bool:
    at, answer = _answers.get(name, (-ASKED_AGAIN, False))
    if time.monotonic() - at >= ASKED_AGAIN:
        answer = ask()
        _answers[name] = (time.monotonic(), answer)
    return answer
