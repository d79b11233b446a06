"""The profiles as one columnar file, so that attribute rules need not read the database. Written whole each time."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
from django.db import connection, transaction

from audiences import faults
from audiences.models import LakeFile, ProfileChange
from audiences.people.lake import columns as lake_columns
from audiences.people.lake import files, hot, manifest
from audiences.people.lake.staging import ROW_GROUP, Staged, workbench, write_parquet

_ROWS_AT_A_TIME = 10_000


def project_profiles(*, still_mine: Callable[[], None] | None = None) -> int:
    """Write all profiles anew, as they are now, and settle the changes that this contains; how many profiles. Raises Overtaken."""
    lake_columns.choose_columns()
    typed = lake_columns.attribute_columns()
    path = files.fresh_path("profiles")
    schema = pa.schema([*hot.PROFILES, *lake_columns.fields(typed)])
    with files.writing(path) as scratch, manifest.one_moment() as cursor:
        snapshot = manifest.take_snapshot()
        replaced = list(_alive().using("snapshot"))
        rows = write_parquet(scratch, schema, _profiles(cursor, typed))
        size = scratch.stat().st_size
    faults.point("project.staged")
    staged = [Staged(kind="profiles", path=path, rows=rows, bytes=size, columns=typed, origin="projection")]
    with manifest.publishing(staged):
        if still_mine:
            still_mine()
        number = manifest.publish(staged)
        # One that began later and came first has settled changes that this one has not seen.
        if not manifest.bury(replaced, number) or _alive().count() != 1:
            raise manifest.Overtaken
        faults.point("project.before_commit")
    faults.point("project.committed")
    _settle(snapshot.profiles)
    return rows


def _alive() -> Any:
    return LakeFile.objects.filter(kind=LakeFile.Kind.PROFILES, dead_manifest__isnull=True)


def _profiles(cursor: Any, typed: dict[str, str]) -> Iterator[pa.Table]:
    query = f"SELECT {hot.PROFILE_FIELDS} FROM audiences_profile ORDER BY profile_no"
    with workbench() as duckdb:
        for batch in hot.read(cursor, query, hot.PROFILES, chunk=ROW_GROUP):
            duckdb.register("chunk", pa.Table.from_batches([batch]))
            yield from lake_columns.typed(duckdb, "SELECT * FROM chunk", "attributes", typed)


def _settle(upto: int) -> None:
    """Delete the changes that the projection contains, all of them final. Those still there meanwhile are only read twice."""
    column = hot.MARK[connection.vendor].column
    while True:
        started = time.monotonic()
        with transaction.atomic():
            seen = ProfileChange.objects.filter(**{f"{column}__lte": upto}).order_by("pk")
            deleted, _ = ProfileChange.objects.filter(pk__in=seen.values("pk")[:_ROWS_AT_A_TIME]).delete()
        faults.point("project.settling")
        if not deleted:
            return
        if connection.vendor == "sqlite":
            time.sleep(time.monotonic() - started)
