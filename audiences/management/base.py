"""What every Rollcall command shares: it brings an empty installation up to date, and fails with one clear line."""

import fcntl
from typing import Any

import orjson
from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from django.db.migrations.executor import MigrationExecutor


class RollcallCommand(BaseCommand):
    """Subclasses name in `expected` the exceptions that are the user's to mend; each becomes one line and exit code 1."""

    expected: tuple[type[Exception], ...] = ()
    requires_system_checks = ()  # `make check` and `doctor` run them; a command starts at once

    def execute(self, *args: Any, **options: Any) -> str | None:
        bring_up_to_date()
        try:
            return super().execute(*args, **options)
        except self.expected as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError("Stopped. What was finished is kept; run it again to go on.", returncode=130) from None

    def print_json(self, value: Any) -> None:
        """One JSON document on standard output."""
        self.stdout.write(orjson.dumps(value, option=orjson.OPT_INDENT_2, default=str).decode())


def bring_up_to_date() -> None:
    """Migrate if anything is missing. Several processes may come at once: one migrates, the others wait."""
    if not _behind():
        return
    with (settings.DATA_DIR / "migrate.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if connection.vendor == "postgresql":  # several machines may share a database, but not this folder
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_advisory_lock(721045)")
        try:
            if _behind():
                call_command("migrate", verbosity=0, interactive=False)
        finally:
            if connection.vendor == "postgresql":
                with connection.cursor() as cursor:
                    cursor.execute("SELECT pg_advisory_unlock(721045)")


def _behind() -> bool:
    executor = MigrationExecutor(connection)
    return bool(executor.migration_plan(executor.loader.graph.leaf_nodes()))
