"""Few large events files instead of many small ones, and the end of files that nobody reads any more."""

from collections.abc import Callable, Collection, Sequence
from datetime import timedelta
from itertools import groupby

import pyarrow as pa
from django.db import transaction
from django.utils import timezone

from audiences import faults
from audiences.models import Counter, LakeFile, Pin
from audiences.people.lake import columns as lake_columns
from audiences.people.lake import files, hot, manifest
from audiences.people.lake.staging import STALE_AFTER, Staged, discard, stage_month, workbench

ENOUGH = 8  # small files of a month that are worth a merge
LARGE = 4_000_000  # rows; a larger file is not written, and one of half that size is left alone
QUIET = timedelta(hours=1)
GRACE = timedelta(minutes=10)

_SCRAP = pa.schema([("profile_no", pa.uint32())])


def compact(*, settle: bool = False, still_mine: Callable[[], None] | None = None) -> int:
    """Merge the small files of each month where that pays; how many files went into others.

    Merges are folded in, events of removed people are left out, and typed columns that files lack are filled.
    `settle` takes every month for one that no more events come to. Raises Overtaken.
    """
    merged = 0
    alive = LakeFile.objects.filter(kind=LakeFile.Kind.EVENTS, dead_manifest__isnull=True).order_by("month", "rows")
    for _, rows in groupby(list(alive), key=lambda row: row.month):
        if len(group := _worth_merging(list(rows), settle)) > 1:
            _rewrite(group, still_mine)
            merged += len(group)
    return merged


def forget_removed(*, still_mine: Callable[[], None] | None = None) -> int:
    """Rewrite, without them, the files that hold events of removed or erased people; how many files. Raises Overtaken."""
    alive = LakeFile.objects.filter(kind=LakeFile.Kind.EVENTS, dead_manifest__isnull=True)
    by_rollup = {str(files.absolute(row.rollup_path)): row for row in alive}
    _, removed = _merges_and_removed()
    if not by_rollup or not removed.num_rows:
        return 0
    with workbench() as connection:
        connection.register("removed", removed)
        connection.execute("SET VARIABLE rollups = ?::VARCHAR[]", [list(by_rollup)])
        found = connection.execute(
            "SELECT DISTINCT filename FROM read_parquet(getvariable('rollups'), filename = true) SEMI JOIN removed USING (profile_no)"
        ).fetchall()
    for (rollup,) in found:
        _rewrite([by_rollup[rollup]], still_mine)
    return len(found)


def holding(people: Collection[int]) -> set[int]:
    """Those of these removed profiles (merged ones by their own numbers) of whom a file on the disk still holds something.

    Files that are dead and not yet unlinked count. One that is unlinked meanwhile raises duckdb.IOException: ask again.
    """
    rows = list(LakeFile.objects.all())
    found: set[int] = set()
    with workbench() as connection:
        connection.execute("SET VARIABLE people = ?::UINTEGER[]", [sorted(people)])
        for kind, paths, condition in (
            (LakeFile.Kind.EVENTS, [row.rollup_path for row in rows], "true"),
            (LakeFile.Kind.PROFILES, [row.path for row in rows], _KEPT_OF_THE_GONE),
        ):
            named = [str(files.absolute(p)) for p, row in zip(paths, rows, strict=True) if row.kind == kind and p]
            if named and people:
                connection.execute("SET VARIABLE paths = ?::VARCHAR[]", [named])
                found |= {
                    int(number)
                    for (number,) in connection.execute(
                        "SELECT DISTINCT profile_no FROM read_parquet(getvariable('paths'), union_by_name = true) "
                        f"WHERE list_contains(getvariable('people'), profile_no) AND {condition}"
                    ).fetchall()
                }
    return found


def sweep_files() -> int:
    """Unlink files that have been dead for GRACE and that no pin holds, and files that no manifest ever named; how many."""
    now = timezone.now()
    Pin.objects.filter(expires_at__lt=now - manifest.HELD_AFTER_EXPIRY).delete()
    pins = list(Pin.objects.all())
    dead = LakeFile.objects.filter(dead_at__lt=now - GRACE).order_by("dead_manifest")
    victims = [row for row in dead if not any(_reads(pin, row) for pin in pins)]
    if victims:
        _raise_swept(max(row.dead_manifest or 0 for row in victims))
    for row in victims:
        faults.point("sweep.unlink")
        files.remove(row.path)
        if row.rollup_path:
            files.remove(row.rollup_path)
        faults.point("sweep.unlinked")
        row.delete()
    old = list(files.older_than(STALE_AFTER.total_seconds()))  # before the rows: what is published meanwhile is younger
    known = set(LakeFile.objects.values_list("path", flat=True)) | set(
        LakeFile.objects.values_list("rollup_path", flat=True)
    )
    orphans = [path for path in old if path not in known]
    for path in orphans:
        files.remove(path)
    return len(victims) + len(orphans)


def _worth_merging(rows: Sequence[LakeFile], settle: bool) -> list[LakeFile]:
    """Of one month's files, smallest first, those to merge now: enough of about a size, so that a row is rewritten rarely."""
    group: list[LakeFile] = []
    total = 0
    for row in rows:
        like_the_rest = len(group) < ENOUGH or row.rows <= total
        if row.rows > LARGE / 2 or total + row.rows > LARGE or not like_the_rest:
            break
        group.append(row)
        total += row.rows
    quiet = settle or all(row.created_at < timezone.now() - QUIET for row in rows)
    pays = quiet and len(group) > 1 and (settle or total - group[-1].rows >= group[-1].rows / 4)
    return group if len(group) >= ENOUGH or pays else []


def _rewrite(rows: Sequence[LakeFile], still_mine: Callable[[], None] | None) -> None:
    """Put one file in the place of these, which are of one month."""
    lake_columns.choose_columns()
    typed = lake_columns.property_columns()
    merges, removed = _merges_and_removed()
    faults.point("compact.read")
    with workbench() as connection:
        connection.register("merges", merges)
        connection.register("removed", removed)
        connection.execute("SET VARIABLE inputs = ?::VARCHAR[]", [[str(files.absolute(row.path)) for row in rows]])
        file = stage_month(connection, _MERGED, rows[0].month, typed, origin="compaction")
    faults.point("compact.staged")
    staged: list[Staged] = [file]
    if not file.rows:
        discard(staged)
        staged = []
    with manifest.publishing(staged):
        if still_mine:
            still_mine()
        number = manifest.publish(staged)
        faults.point("compact.published")
        if not manifest.bury(rows, number):
            raise manifest.Overtaken
        faults.point("compact.before_commit")
    faults.point("compact.committed")


def _merges_and_removed() -> tuple[pa.Table, pa.Table]:
    with manifest.one_moment() as cursor:
        merges = hot.read_aliases(cursor)
        query = (
            "SELECT profile_no FROM audiences_profile WHERE state IN ('deleted', 'erased') UNION "
            "SELECT old_no FROM audiences_alias JOIN audiences_profile ON profile_no = survivor_no "
            "WHERE state IN ('deleted', 'erased')"
        )
        removed = pa.Table.from_batches(hot.read(cursor, query, _SCRAP), _SCRAP)
    return merges, removed


def _reads(pin: Pin, row: LakeFile) -> bool:
    """The same as manifest.seen_by, for one row."""
    assert row.dead_manifest is not None
    if row.added_manifest <= pin.manifest:
        return row.dead_manifest > pin.manifest
    return row.origin == "flush" and row.hot_min is not None and row.hot_min <= pin.hot


def _raise_swept(number: int) -> None:
    """From here on snapshots from before this manifest are readable only where a pin holds their files."""
    with transaction.atomic():
        Counter.objects.get_or_create(name="swept")
        Counter.objects.filter(name="swept", value__lt=number).update(value=number)


_KEPT_OF_THE_GONE = "(live OR attributes <> '{}' OR NOT starts_with(bucket_key, 'gone-'))"
_MERGED = """
SELECT event_key, coalesce(survivor_no, profile_no)::UINTEGER AS profile_no,
       name, time_us, received_us, source, NULL::BIGINT AS hot_mark, properties
FROM read_parquet(getvariable('inputs'), union_by_name = true) LEFT JOIN merges ON old_no = profile_no
WHERE coalesce(survivor_no, profile_no) NOT IN (SELECT profile_no FROM removed)
ORDER BY name, time_us, event_key"""
