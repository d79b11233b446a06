"""Which files and hot rows a computation sees: snapshots, pins, and publication. No file is opened here.

The lake changes by numbered manifests. A mark orders hot rows: it is their id on SQLite and their transaction id on
PostgreSQL, where rows become visible out of id order; all rows up to a snapshot's mark are final. A flush takes the
rows of the lowest marks, so the hot rows that are left all lie above Counter `flushed`.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from django.db import connections, transaction
from django.db.models import Q
from django.utils import timezone

from audiences.models import ImportFile, LakeFile, Pin
from audiences.people.lake import files
from audiences.people.lake.hot import MARK, read_aliases
from audiences.people.lake.staging import STALE_AFTER, Staged, discard
from audiences.people.pins import Pinned, Snapshot

HELD_AFTER_EXPIRY = timedelta(minutes=1)


class SnapshotGone(Exception):
    """Files of this snapshot may have been swept: it was not pinned, or its pin ran out. Take a new one."""


class StagedTooLate(Exception):
    """A staged file waited so long to be published that the orphan sweep may have taken it. Stage it again."""


class Overtaken(Exception):
    """Another worker, or a removal, changed what this work began with. Nothing was changed; try again."""


@dataclass(frozen=True, slots=True)
class EventFile:
    """An events file (paths absolute). Where `only_hot_up_to` is set, only its rows with hot_mark ≤ it count, and the roll-up is of no use."""

    file_id: int
    path: Path
    rollup: Path
    month: str
    min_time_us: int
    max_time_us: int
    rows: int
    columns: Mapping[str, str]
    only_hot_up_to: int | None = None


@dataclass(frozen=True, slots=True)
class ProfileFile:
    """The columnar projection of the profiles; changed_profiles() says which of its rows to overlook."""

    file_id: int
    path: Path
    rows: int
    columns: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a snapshot is made of. Hot rows with a mark in (flushed, snapshot.hot] belong to it too; no other hot row does."""

    snapshot: Snapshot
    events: tuple[EventFile, ...]
    profiles: ProfileFile | None
    aliases: pa.Table  # old_no, survivor_no: uint32
    flushed: int


@contextlib.contextmanager
def one_moment() -> Iterator[Any]:
    """Whatever the lake's readers read inside sees the database as of one moment. Gives a cursor."""
    with transaction.atomic(using="snapshot"), connections["snapshot"].cursor() as cursor:
        yield cursor


def take_snapshot() -> Snapshot:
    """The data as it is now."""
    with one_moment() as cursor:
        cursor.execute(_SNAPSHOT[connections["snapshot"].vendor])
        manifest, hot, profiles, change_seq = cursor.fetchone()
    return Snapshot(manifest=manifest, hot=hot, profiles=profiles, change_seq=change_seq)


def pin(as_of_us: int, *, hold: timedelta) -> Pinned:
    """A snapshot whose files stay readable for as long as `hold`."""
    snapshot = take_snapshot()
    row = Pin.objects.create(
        manifest=snapshot.manifest,
        hot=snapshot.hot,
        profiles=snapshot.profiles,
        change_seq=snapshot.change_seq,
        as_of_us=as_of_us,
        expires_at=timezone.now() + hold,
    )
    return Pinned(snapshot=snapshot, as_of_us=as_of_us, pin_id=row.pk)


def repin(pin_id: int, *, hold: timedelta) -> Pinned:
    """The same pin, held for `hold` from now. Raises SnapshotGone if it ran out."""
    now = timezone.now()
    Pin.objects.filter(pk=pin_id, expires_at__gt=now, expires_at__lt=now + hold).update(expires_at=now + hold)
    row = Pin.objects.filter(pk=pin_id, expires_at__gt=now).first()
    if row is None:
        raise SnapshotGone(f"pin {pin_id} has run out")
    snapshot = Snapshot(manifest=row.manifest, hot=row.hot, profiles=row.profiles, change_seq=row.change_seq)
    return Pinned(snapshot=snapshot, as_of_us=row.as_of_us, pin_id=row.pk)


def let_go(pinned: Pinned) -> None:
    """The pin's files need not be kept any longer."""
    if pinned.pin_id is not None:
        Pin.objects.filter(pk=pinned.pin_id).delete()


@contextlib.contextmanager
def pinned(as_of_us: int, *, hold: timedelta) -> Iterator[Pinned]:
    """A pin until the block ends, and no longer than `hold`."""
    held = pin(as_of_us, hold=hold)
    try:
        yield held
    finally:
        let_go(held)


def contents(snapshot: Snapshot) -> Contents:
    """The files of the snapshot, and from where on its hot rows are still hot. Raises SnapshotGone.

    Read hot events and changed profiles inside the same one_moment(), or a flush in between hides rows.
    """
    with one_moment() as cursor:
        cursor.execute(
            "SELECT (SELECT value FROM audiences_counter WHERE name = 'flushed'),"
            " (SELECT value FROM audiences_counter WHERE name = 'swept')"
        )
        flushed, swept = (value or 0 for value in cursor.fetchone())
        if snapshot.manifest < swept and not _is_held(snapshot):
            raise SnapshotGone(f"manifest {snapshot.manifest} is no longer whole")
        rows = LakeFile.objects.using("snapshot").filter(kind=LakeFile.Kind.EVENTS).filter(seen_by(snapshot))
        events = tuple(_event_file(row, snapshot) for row in rows.order_by("month", "pk"))
        newest = _newest_projection()
        aliases = read_aliases(cursor)
    return Contents(snapshot=snapshot, events=events, profiles=newest, aliases=aliases, flushed=flushed)


def seen_by(snapshot: Snapshot) -> Q:
    """The events files that a snapshot reads: those live at its manifest, and rows of its hot part flushed since."""
    return live_at(snapshot.manifest) | Q(
        origin="flush", added_manifest__gt=snapshot.manifest, hot_min__lte=snapshot.hot
    )


def live_at(manifest: int) -> Q:
    """The files that are live in this manifest."""
    return Q(added_manifest__lte=manifest) & (Q(dead_manifest__isnull=True) | Q(dead_manifest__gt=manifest))


@contextlib.contextmanager
def publishing(staged: Sequence[Staged]) -> Iterator[None]:
    """A transaction that publishes staged files; if what is done inside fails, they are unlinked.

    They are left to the orphan sweep where it was the commit that failed: the database may have them all the same.
    """
    inside = True
    try:
        with transaction.atomic():
            yield
            inside = False
    except BaseException:
        if inside:
            discard(staged)
        raise


def publish(staged: Sequence[Staged], *, import_file: ImportFile | None = None) -> int:
    """Make staged files live, in the caller's transaction; the new manifest's number. Raises StagedTooLate."""
    if any(file.age() > STALE_AFTER.total_seconds() / 2 for file in staged):
        raise StagedTooLate
    number = next_manifest()
    LakeFile.objects.bulk_create(
        LakeFile(
            kind=file.kind,
            path=file.path,
            rollup_path=file.rollup_path,
            month=file.month,
            min_time_us=file.min_time_us,
            max_time_us=file.max_time_us,
            rows=file.rows,
            bytes=file.bytes,
            hot_min=file.hot_min,
            hot_max=file.hot_max,
            columns=dict(file.columns),
            origin=file.origin,
            import_file=import_file,
            added_manifest=number,
        )
        for file in staged
    )
    return number


def next_manifest() -> int:
    """Raise the manifest in the caller's transaction. Its row stays locked, so manifests are committed in their order."""
    assert transaction.get_connection().in_atomic_block, "a manifest is raised with what it publishes"
    with connections["default"].cursor() as cursor:
        cursor.execute(
            "INSERT INTO audiences_counter (name, value) VALUES ('manifest', 1)"
            " ON CONFLICT (name) DO UPDATE SET value = audiences_counter.value + 1 RETURNING value"
        )
        return int(cursor.fetchone()[0])


def bury(rows: Sequence[LakeFile], manifest: int) -> bool:
    """Mark files dead from this manifest on, in the caller's transaction. False if one of them was dead already."""
    alive = LakeFile.objects.filter(pk__in=[row.pk for row in rows], dead_manifest__isnull=True)
    return alive.update(dead_manifest=manifest, dead_at=timezone.now()) == len(rows)


def _event_file(row: LakeFile, snapshot: Snapshot) -> EventFile:
    assert row.min_time_us is not None
    assert row.max_time_us is not None
    whole = row.added_manifest <= snapshot.manifest or (row.hot_max or 0) <= snapshot.hot
    return EventFile(
        file_id=row.pk,
        path=files.absolute(row.path),
        rollup=files.absolute(row.rollup_path),
        month=row.month,
        min_time_us=row.min_time_us,
        max_time_us=row.max_time_us,
        rows=row.rows,
        columns=row.columns,
        only_hot_up_to=None if whole else snapshot.hot,
    )


def _newest_projection() -> ProfileFile | None:
    row = (
        LakeFile.objects.using("snapshot")
        .filter(kind=LakeFile.Kind.PROFILES, dead_manifest__isnull=True)
        .order_by("-added_manifest")
        .first()
    )
    if row is None:
        return None
    return ProfileFile(file_id=row.pk, path=files.absolute(row.path), rows=row.rows, columns=row.columns)


def _is_held(snapshot: Snapshot) -> bool:
    held = Pin.objects.using("snapshot").filter(expires_at__gt=timezone.now() - HELD_AFTER_EXPIRY)
    return held.filter(manifest=snapshot.manifest, hot=snapshot.hot).exists()


_SNAPSHOT = {
    "sqlite": f"""
        SELECT coalesce((SELECT value FROM audiences_counter WHERE name = 'manifest'), 0),
               {MARK["sqlite"].highest.format(table="audiences_event")},
               {MARK["sqlite"].highest.format(table="audiences_profilechange")},
               {MARK["sqlite"].highest.format(table="audiences_changelog")}""",
    "postgresql": f"""
        SELECT coalesce((SELECT value FROM audiences_counter WHERE name = 'manifest'), 0), mark, mark, mark
          FROM (SELECT greatest((SELECT value FROM audiences_counter WHERE name = 'flushed'),
                                {MARK["postgresql"].highest}) AS mark) AS final""",
}
