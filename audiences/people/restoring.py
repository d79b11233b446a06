"""After the database was restored from a backup, with everything stopped: what it says of a time that, for it, has not been yet.

What platforms were told is the floor above's (destinations/services/restoring.py).
"""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, Max, Model
from django.utils import timezone

from audiences.models import ChangeLog, Counter, Event, Job, LakeFile, Pin, ProfileChange, Refresh
from audiences.people.lake import files

MARKS: Sequence[tuple[type[Model], str]] = (
    (Event, "xid"),
    (ChangeLog, "xid"),
    (ProfileChange, "xid"),
    (LakeFile, "hot_min"),
    (LakeFile, "hot_max"),
    (Refresh, "hot"),
    (Refresh, "change_seq"),
)


class LakeIncomplete(Exception):
    """Files of the lake that the database counts on are not there."""


def check_lake() -> None:
    """Raises LakeIncomplete: the lake has to be restored as well."""
    alive = LakeFile.objects.filter(dead_manifest=None).values_list("path", "rollup_path")
    missing = [path for pair in alive for path in pair if path and not files.absolute(path).exists()]
    if missing:
        raise LakeIncomplete(
            f"{len(missing)} files of the lake that the database counts on are missing, {missing[0]} among them."
            " Restore the lake from the same backup, then run this again."
        )


def forget_answers() -> None:
    """Answers are kept by what they depend on, and row ids will be given out once more to other rows."""
    shutil.rmtree(Path(settings.DATA_DIR) / "cache", ignore_errors=True)


def begin_anew(marks: Sequence[tuple[type[Model], str]]) -> None:
    """Nobody holds a job or a pin, and marks are of the past. `marks`: the columns of floors above that hold some."""
    with transaction.atomic():
        Pin.objects.all().delete()
        Job.objects.filter(lease_until__isnull=False).update(lease_until=None, due_at=timezone.now())
        if connection.vendor == "postgresql":
            _move_back((*MARKS, *marks))


def _move_back(marks: Sequence[tuple[type[Model], str]]) -> None:
    """Marks are transaction ids; those of the server that the backup is from may be far ahead of this one's, and what lies ahead counts as
    not there yet. All of them move back together, so that their order stays."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_current_xact_id()::text::bigint")
        current = int(cursor.fetchone()[0])
    flushed = Counter.objects.filter(name="flushed")
    tops: list[Any] = [table._default_manager.aggregate(top=Max(column))["top"] for table, column in marks]
    tops.append(flushed.values_list("value", flat=True).first())
    ahead = max((top for top in tops if top is not None), default=0) - current + 1
    if ahead <= 0:
        return
    for table, column in marks:
        table._default_manager.filter(**{f"{column}__isnull": False}).update(**{column: F(column) - ahead})
    flushed.update(value=F("value") - ahead)
