"""Is this deployment sound? One function a question, each answering in words and with what to do. Nothing here changes anything."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import DatabaseError, connection
from django.db.migrations.executor import MigrationExecutor
from django.utils import timezone

from audiences.models import Job, Workspace, frozen
from audiences.people import backlog
from qa import health, outbox
from qa.health import ROOM_NEEDED

OVERDUE = timedelta(minutes=2)


@dataclass(frozen=True, slots=True)
class Finding:
    """`state`: ok, warning (works, but somebody should know) or problem (does not work)."""

    question: str
    state: str
    words: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Every question in turn; what cannot be asked because an earlier one failed is left out."""
    yield _folder()
    yield _room()
    yield from _secrets()
    database = _database()
    yield database
    yield _broker()
    yield _lake()
    yield _settings()
    yield _mail()
    if database.state == "ok":
        yield _history()
        yield _workspace()
        yield _work()
        yield _workers()


def _folder() -> Finding:
    try:
        with tempfile.NamedTemporaryFile(dir=settings.DATA_DIR):
            pass
    except OSError as error:
        return Finding(
            "data folder",
            "problem",
            f"{settings.DATA_DIR} cannot be written: {error.strerror}.",
            "Set DATA_DIR to a folder that this user may write.",
        )
    return Finding("data folder", "ok", f"{settings.DATA_DIR} can be written.")


def _room() -> Finding:
    free = shutil.disk_usage(settings.DATA_DIR).free
    words = f"{free / 1e9:.1f} GB free."
    if free < ROOM_NEEDED:
        return Finding("disk", "problem", words, "Make room: without it nothing can be accepted.")
    return Finding("disk", "ok", words)


def _secrets() -> Iterator[Finding]:
    for path in (settings.SECRET_KEY_FILE, settings.CREDENTIALS_KEY_FILE):
        if not path.exists():
            continue
        if path.stat().st_mode & 0o077:
            yield Finding(path.name, "problem", "Others on this machine may read it.", f"chmod 600 {path}")
        else:
            yield Finding(
                path.name, "ok", "Kept in the data folder, readable by this user alone. Back it up with the data."
            )


def _database() -> Finding:
    try:
        executor = MigrationExecutor(connection)
        behind = executor.migration_plan(executor.loader.graph.leaf_nodes())
    except DatabaseError as error:
        return Finding(
            "database",
            "problem",
            f"It does not answer ({type(error).__name__}).",
            "Check DATABASE_URL, and that the server runs.",
        )
    if behind:
        return Finding("database", "problem", f"{len(behind)} migrations are missing.", "manage.py migrate")
    return Finding("database", "ok", f"{connection.display_name} answers and is up to date.")


def _broker() -> Finding:
    if settings.EMBEDDED:
        return Finding("broker", "ok", "Embedded: no broker is needed.")
    url = urlsplit(settings.BROKER_URL)
    if not health.broker_answers():
        return Finding(
            "broker",
            "problem",
            f"Nothing answers at {url.hostname}:{url.port}.",
            "Start Redis or correct BROKER_URL. Until then work waits; nothing is lost.",
        )
    return Finding("broker", "ok", f"{url.scheme} answers at {url.hostname}:{url.port}.")


def _lake() -> Finding:
    folder = Path(settings.LAKE_URL)
    if "://" in settings.LAKE_URL:
        return Finding("lake", "problem", "LAKE_URL is a URL.", "Give a folder that every process shares.")
    existing = next(part for part in (folder, *folder.parents) if part.exists())
    if not os.access(existing, os.W_OK):
        return Finding(
            "lake", "problem", f"{existing} cannot be written.", "Set LAKE_URL to a folder that this user may write."
        )
    waiting = backlog.look()
    if waiting.late(timezone.now()) and waiting.since is not None:
        words = (
            f"{waiting.events:,} accepted events wait to be stored, the first since {waiting.since:%d %b %H:%M} UTC."
        )
        if waiting.why:
            words += f" Storing broke off: {waiting.why}."
        return Finding("lake", "warning", words, "None is lost. Start a worker for the queue intake; see its log.")
    return Finding("lake", "ok", f"{folder} can be written.")


def _settings() -> Finding:
    if settings.DEBUG:
        return Finding("settings", "problem", "DEBUG is on: errors show the code and its data.", "Unset DEBUG.")
    if not settings.PUBLIC_URL.startswith("https://"):
        local = urlsplit(settings.PUBLIC_URL).hostname in ("127.0.0.1", "localhost")
        return Finding(
            "settings",
            "ok" if local else "problem",
            f"PUBLIC_URL is {settings.PUBLIC_URL}.",
            "" if local else "Serve it over https and set PUBLIC_URL=https://…: sign-ins cross the network.",
        )
    try:
        call_command("check", deploy=True, fail_level="WARNING", verbosity=0)
    except SystemCheckError as error:
        return Finding("settings", "problem", str(error).splitlines()[0], "manage.py check --deploy says which.")
    return Finding("settings", "ok", "Safe for the open network.")


def _mail() -> Finding:
    if outbox.to_files():
        return Finding(
            "mail",
            "warning",
            f"Mails are files in {settings.DATA_DIR}/outbox.",
            "Set EMAIL_URL=smtp://user:password@host:587 so that owners hear of trouble.",
        )
    return Finding("mail", "ok", f"Mails go to {settings.EMAIL_HOST}.")


def _history() -> Finding:
    missing = {guard.name for guard in frozen.GUARDS} - frozen.installed(connection)
    if missing:
        words = "Published versions or the audit trail could be changed by other programs: the database's guards are not in place."
        return Finding("history", "problem", words, "Run manage.py migrate, which puts them back.")
    return Finding("history", "ok", "The database refuses changes of published versions and of the audit trail.")


def _workspace() -> Finding:
    workspace = Workspace.objects.first()
    if workspace is None:
        return Finding(
            "workspace", "warning", "Nobody has set it up.", f"Open {settings.PUBLIC_URL} and create the first admin."
        )
    if workspace.consent_policy is None:
        return Finding(
            "workspace", "problem", "The consent policy is not answered, so nothing is sent.", "Settings → Consent."
        )
    return Finding("workspace", "ok", f"“{workspace.name}” is set up.")


def _work() -> Finding:
    now = timezone.now()
    overdue = Job.objects.filter(due_at__lt=now - OVERDUE, lease_until__isnull=True)
    if overdue.exists():
        oldest = overdue.order_by("due_at").first()
        assert oldest is not None
        assert oldest.due_at is not None
        minutes = int((now - oldest.due_at).total_seconds() // 60)
        return Finding(
            "work",
            "warning",
            f"{overdue.count()} jobs wait, the oldest for {minutes} minutes.",
            "Start a worker: manage.py up, or celery -A config worker and beat.",
        )
    failing = Job.objects.filter(attempts__gte=3)
    if failing.exists():
        names = ", ".join(sorted({job.task for job in failing[:50]}))
        return Finding("work", "problem", f"These jobs keep failing: {names}.", "The worker's log says why.")
    return Finding("work", "ok", "No job is overdue and none keeps failing.")


def _workers() -> Finding:
    beats = health.beats()
    if all(beat.state == health.UNKNOWN for beat in beats):
        return Finding("workers", "warning", "None has started yet.", "manage.py up, or the worker and beat services.")
    silent = [beat for beat in beats if beat.state in (health.SILENT, health.UNKNOWN)]
    if silent:
        ages = ", ".join(f"{beat.queue} ({_ago(beat.seconds)})" for beat in silent)
        words = f"No worker takes what is in these queues: {ages}."
        return Finding("workers", "problem", words, "Start or restart the worker, and beat in server mode.")
    busy = [beat.queue for beat in beats if beat.state == health.BUSY]
    if busy:
        words = f"Every thread is busy, so these queues wait: {', '.join(busy)}."
        return Finding("workers", "warning", words, "If that lasts, start more workers or give them more threads.")
    return Finding("workers", "ok", "Every queue is being worked.")


def _ago(seconds: float | None) -> str:
    return "never" if seconds is None else f"for {int(seconds // 60)} minutes"
