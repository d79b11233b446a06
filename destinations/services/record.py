"""Exports of an audience's record: asked for, made by a job, downloaded by whoever may, kept for some days. What is in them is record/exporting.py's.

A file is no longer given out once somebody has been erased since its people were named.
"""

import zipfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

from django.conf import settings
from django.db import connection, transaction
from django.utils import timezone

from audiences import clock, faults, jobs
from audiences.models import Audience, ChangeLog, User
from audiences.people import lake
from audiences.services import trail
from destinations.models import RecordExport
from destinations.record import exporting, files, shape
from destinations.record.exporting import Scope
from destinations.record.files import Writer
from destinations.record.shape import Table
from destinations.services import refuse

TASK = "destinations.export_record"
SWEEP = "destinations.sweep_exports"
KEPT = timedelta(days=7)
AT_ONCE = 5  # under way in the whole workspace
_UNDER_WAY = (RecordExport.State.WAITING, RecordExport.State.MAKING)


def ask(
    *, actor: User | None, audience: Audience, tables: Collection[str], file_format: str, start_us: int, end_us: int
) -> RecordExport:
    """Have a file made of these tables of the audience's record, from `start_us` up to and without `end_us`. Raises Refused."""
    chosen = [table.name for table in shape.TABLES if table.name in set(tables)]
    if not chosen:
        raise refuse("name at least one table", "tables")
    if start_us >= end_us:
        raise refuse("must be before the end", "start")
    if file_format not in RecordExport.Format.values:
        raise refuse("is no format that there is", "file_format")
    if RecordExport.objects.filter(state__in=_UNDER_WAY).count() >= AT_ONCE:
        raise refuse(f"{AT_ONCE} exports are being made already; ask again when one is ready")
    with transaction.atomic():
        row = RecordExport.objects.create(
            audience=audience, tables=chosen, file_format=file_format, start_us=start_us, end_us=end_us, requested_by=actor
        )  # fmt: skip
        jobs.ask(TASK, row.pk)
        after = {
            "export": row.pk, "tables": chosen, "format": file_format,
            "from": clock.from_us(start_us).isoformat(), "to": clock.from_us(end_us).isoformat(),
        }  # fmt: skip
        trail.record(actor, "record.asked", "audience", audience.key, after=after)
    return row


def download(*, actor: User | None, export: RecordExport) -> Path:
    """The finished file, as a zip; on the trail. Raises Refused where it is not there, or not any more."""
    if export.state == RecordExport.State.DONE and _somebody_was_erased(export):
        _end(export, RecordExport.State.WITHDRAWN)
    path = path_of(export)
    if export.state != RecordExport.State.DONE or not path.exists():
        raise refuse("This file is not here any more. Ask for it again.")
    trail.record(actor, "record.downloaded", "audience", export.audience.key, after={"export": export.pk})
    return path


def discard(*, actor: User | None, export: RecordExport) -> None:
    """The file goes now, and one that is still being made is not finished."""
    with transaction.atomic():
        _end(export, RecordExport.State.EXPIRED)
        trail.record(actor, "record.discarded", "audience", export.audience.key, after={"export": export.pk})


def make(claim: jobs.Claim) -> None:
    """Write the file. Killed anywhere, it is made from the start again."""
    export = RecordExport.objects.select_related("audience").filter(pk=int(claim.key), state__in=_UNDER_WAY).first()
    if export is None:
        return
    mark = lake.take_snapshot().change_seq
    RecordExport.objects.filter(pk=export.pk, state__in=_UNDER_WAY).update(
        state=RecordExport.State.MAKING, change_seq=mark
    )
    path = path_of(export)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{claim.fence}.part")
    scope = Scope((export.audience,), export.start_us, export.end_us)
    try:
        with zipfile.ZipFile(unfinished, "w", zipfile.ZIP_DEFLATED, compresslevel=5) as archive:

            @contextmanager
            def opened(table: Table) -> Iterator[Writer]:
                with (
                    archive.open(f"{table.name}.{export.file_format}", "w", force_zip64=True) as stream,
                    files.writing(stream, table, export.file_format) as writer,
                ):
                    yield writer

            rows = exporting.write(
                scope, [shape.BY_NAME[name] for name in export.tables], opened, lambda so_far: claim.progress(**so_far)
            )
        faults.point("export.written")
        size = unfinished.stat().st_size
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    now = timezone.now()
    with transaction.atomic():
        claim.guard()
        kept = RecordExport.objects.filter(pk=export.pk, state=RecordExport.State.MAKING).update(
            state=RecordExport.State.DONE, rows=rows, bytes=size, finished_at=now, kept_until=now + KEPT
        )
    if not kept:  # thrown away meanwhile
        path.unlink(missing_ok=True)


def give_up(export_id: int, words: str) -> None:
    """It cannot be made, and why."""
    RecordExport.objects.filter(pk=export_id, state__in=_UNDER_WAY).update(
        state=RecordExport.State.FAILED, error=words, finished_at=timezone.now()
    )


def sweep() -> int:
    """Remove files whose time is over, that hold somebody who was erased since, or that no export names; how many."""
    removed = 0
    now = timezone.now()
    for export in RecordExport.objects.filter(state=RecordExport.State.DONE):
        if export.kept_until is None or export.kept_until < now:
            _end(export, RecordExport.State.EXPIRED)
        elif _somebody_was_erased(export):
            _end(export, RecordExport.State.WITHDRAWN)
        else:
            continue
        removed += 1
    day_old = now.timestamp() - timedelta(days=1).total_seconds()
    known = {path_of(export).name for export in RecordExport.objects.filter(state=RecordExport.State.DONE)}
    for path in folder().glob("*") if folder().exists() else ():
        if path.name not in known and path.stat().st_mtime < day_old:
            path.unlink(missing_ok=True)
            removed += 1
    return removed


def folder() -> Path:
    """Where the files lie. Every process that makes or gives out files has it in common."""
    return Path(settings.DATA_DIR) / "exports"


def path_of(export: RecordExport) -> Path:
    return folder() / f"{export.pk}.zip"


def _end(export: RecordExport, state: RecordExport.State) -> None:
    RecordExport.objects.filter(pk=export.pk).update(state=state)
    export.state = state
    path_of(export).unlink(missing_ok=True)


def _somebody_was_erased(export: RecordExport) -> bool:
    """Since its people were named."""
    column = "xid" if connection.vendor == "postgresql" else "seq"
    later = ChangeLog.objects.filter(**{f"{column}__gt": export.change_seq})
    return later.filter(kind=ChangeLog.Kind.ERASURE).exists()
