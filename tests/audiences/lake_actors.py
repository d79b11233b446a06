"""The processes of the lake's kill tests: `python -m tests.audiences.lake_actors ROLE SECONDS`; each prints one JSON line at its end.

Writers, flushers, compactors and projectors run in forked children that die by SIGKILL: at a named point, or at any
moment. Readers compare what a snapshot sees with what was accepted up to it, which each intake transaction logs.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter as Tally
from datetime import timedelta

import django

django.setup()  # before anything that has models

import pyarrow.parquet as pq  # noqa: E402
from django.db import OperationalError, connection, connections, transaction  # noqa: E402

from audiences.models import ChangeLog, Event, LakeFile, Profile, ProfileChange  # noqa: E402
from audiences.people import lake  # noqa: E402
from audiences.people.lake import compaction, files, hot, manifest  # noqa: E402
from audiences.people.lake.flush import _delete, _oldest  # noqa: E402

GRACE = timedelta(seconds=2)
STALE_AFTER = timedelta(seconds=20)
FILE_POINTS = ["file.written", "file.synced", "file.renamed", "file.kept"]
POINTS = {
    "flush": [*FILE_POINTS, "stage.events", "stage.rollup"]
    + [f"flush.{step}" for step in ("read", "staged", "published", "deleted", "before_commit", "committed")],
    "compact": [*FILE_POINTS, "stage.events", "stage.rollup", "sweep.unlink", "sweep.unlinked"]
    + [f"compact.{step}" for step in ("read", "staged", "published", "before_commit", "committed")],
    "project": FILE_POINTS + [f"project.{step}" for step in ("staged", "before_commit", "committed", "settling")],
    "intake": [],
    "profiles": [],
}


def intake(_: object) -> None:
    """Accept a few events in a transaction that also logs how many they are and the sum of their numbers."""
    first = int.from_bytes(os.urandom(4)) << 28
    dice = random.Random()
    while True:
        size = dice.choice([1, 5, 60, 200])
        numbers = range(first, first + size)
        first += size
        with transaction.atomic():
            Event.objects.bulk_create(
                Event(
                    event_key=f"{number:032x}",
                    profile_no=number % 97,
                    name=dice.choice(["buy", "view"]),
                    time_us=dice.choice([1_770_000_000_000_000, 1_780_000_000_000_000]) + number % 1_000_000,
                    received_us=0,
                    source="track_v2",
                    properties='{"price": 9.5}',
                )
                for number in numbers
            )
            if connection.vendor == "postgresql":
                time.sleep(dice.uniform(0, 0.03))  # so that transactions overlap and ids are committed out of order
            ChangeLog.objects.create(profile_no=size, kind="event", name=str(sum(numbers)), at_us=0)
        time.sleep(dice.uniform(0.005, 0.03))


def flush_(arm: object) -> None:
    """Flush in a loop."""
    while True:
        _try(lambda: lake.flush(limit=random.choice([50, 400, 2_000])), arm)


def flush_in_two_transactions(arm: object) -> None:
    """The negative control: manifest row and deletion are committed one after the other, so readers must see events twice."""
    while True:
        _, table, ids = _oldest(400)
        if ids:
            staged = lake.stage_events(table, origin="flush")
            with transaction.atomic():
                lake.publish(staged)
            _delete(ids)
        time.sleep(0.02)


def compact(arm: object) -> None:
    """Compact, sweep, and once in a while rewrite."""
    while True:
        _try(lambda: lake.compact(settle=random.random() < 0.5), arm)
        _try(lake.sweep_files, arm)


def profiles(_: object) -> None:
    """Make and change profiles, each change with its row."""
    dice = random.Random()
    while True:
        changed = dice.sample(range(1, 3_000), 40)
        with transaction.atomic():
            for number in sorted(changed):
                attributes = json.dumps({"v": dice.randrange(10**9)})
                fields = {"bucket_key": str(number), "created_us": 0, "attributes": attributes}
                Profile.objects.update_or_create(profile_no=number, defaults=fields)
            ProfileChange.objects.bulk_create(ProfileChange(profile_no=number) for number in changed)
        time.sleep(0.02)


def project(arm: object) -> None:
    """Project in a loop."""
    while True:
        _try(lake.project_profiles, arm)


def read(until: float) -> dict:
    """Compare snapshots with what was accepted: at once, after a nap, and again under a pin; hot rows kept or read anew."""
    reader = _Reader()
    while time.monotonic() < until:
        reader.round()
    return {"checks": reader.checks, "wrong": reader.wrong, "missed": reader.missed, "unread": reader.unread}


class _Reader:
    def __init__(self) -> None:
        self.checks = self.missed = self.unread = 0
        self.wrong: list[str] = []
        self.accepted, self.accepted_upto = (0, 0), 0
        self.kept: list[tuple[int, int]] = []  # (mark, number), as an engine keeps its hot table
        self.have = 0
        self.pins: list = []

    def round(self) -> None:
        for attempt in range(3):
            try:
                self._check_new(nap=random.choice([0, 0, 0.2, 1.0]) if attempt == 0 else 0)
                break
            except (FileNotFoundError, lake.SnapshotGone):
                self.missed += 1
        else:
            self.unread += 1
        for pinned, accepted in list(self.pins):
            try:
                with lake.one_moment():
                    contents = lake.contents(pinned.snapshot)
                    table = lake.hot_events(contents.flushed, pinned.snapshot.hot, columns={})
                self._compare("again", accepted, _in_files(contents) + _numbers(table))
            except (FileNotFoundError, lake.SnapshotGone) as error:
                self.wrong.append(f"a pin lost its files: {error!r}")
            if random.random() < 0.2:
                lake.let_go(pinned)
                self.pins.remove((pinned, accepted))

    def _check_new(self, nap: float) -> None:
        with lake.one_moment() as cursor:
            snapshot = lake.take_snapshot()
            contents = lake.contents(snapshot)
            table = lake.hot_events(max(self.have, contents.flushed), snapshot.hot, columns={})
            self._read_accepted(cursor, snapshot.change_seq)
        self.have = snapshot.hot
        self.kept += zip(table["hot_mark"].to_pylist(), _numbers(table), strict=True)
        self.kept = [row for row in self.kept if row[0] > contents.flushed]
        hot_numbers = [number for _, number in self.kept]
        accepted = self.accepted
        time.sleep(nap)
        self._compare("new", accepted, _in_files(contents) + hot_numbers)
        if len(self.pins) < 2:
            pinned = lake.pin(0, hold=timedelta(minutes=5))
            with lake.one_moment() as cursor:
                self._read_accepted(cursor, pinned.snapshot.change_seq)
            self.pins.append((pinned, self.accepted))

    def _read_accepted(self, cursor, upto: int) -> None:
        mark = "seq" if connections["snapshot"].vendor == "sqlite" else "xid"
        cursor.execute(
            f"SELECT profile_no, name FROM audiences_changelog WHERE {mark} > %s AND {mark} <= %s",
            [self.accepted_upto, upto],
        )
        count, total = self.accepted
        for size, added in cursor.fetchall():
            count, total = count + size, total + int(added)
        self.accepted, self.accepted_upto = (count, total), upto

    def _compare(self, kind: str, accepted: tuple[int, int], seen: list[int]) -> None:
        self.checks += 1
        if (len(seen), sum(seen), len(set(seen))) != (*accepted, accepted[0]):
            self.wrong.append(f"{kind}: accepted {accepted}, seen {len(seen)} ({len(set(seen))} distinct) {sum(seen)}")


def read_profiles(until: float) -> dict:
    """Compare projection and changes, put together, with the profiles of the same moment."""
    checks, wrong, missed = 0, [], 0
    while time.monotonic() < until:
        with lake.one_moment() as cursor:
            snapshot = lake.take_snapshot()
            contents = lake.contents(snapshot)
            changed = lake.changed_profiles(snapshot, columns={})
            mark = hot.MARK[connections["snapshot"].vendor].column
            cursor.execute(
                "SELECT profile_no, attributes FROM audiences_profile WHERE profile_no NOT IN"
                f" (SELECT profile_no FROM audiences_profilechange WHERE {mark} > %s)",
                [snapshot.profiles],
            )
            truth = dict(cursor.fetchall())
        try:
            base = pq.read_table(contents.profiles.path).to_pylist() if contents.profiles else []
        except FileNotFoundError:
            missed += 1
            continue
        seen = {row["profile_no"]: row["attributes"] for row in [*base, *changed.to_pylist()]}
        checks += 1
        if bad := [number for number, attributes in truth.items() if seen.get(number) != attributes]:
            wrong.append(f"{len(bad)} of {len(truth)} profiles are not as they were")
    return {"checks": checks, "wrong": wrong, "missed": missed}


def settle(_: float) -> dict:
    """After the storm: flush all, merge all, sweep all; what is left must be what was accepted, and nothing else on the disk."""
    compaction.GRACE = compaction.STALE_AFTER = timedelta(0)
    while lake.flush():
        pass
    while lake.compact(settle=True):
        pass
    lake.sweep_files()
    reader = _Reader()
    reader._check_new(nap=0)
    named = {path for row in LakeFile.objects.all() for path in (row.path, row.rollup_path) if path}
    there = {path.relative_to(files.root()).as_posix() for path in files.root().rglob("*") if path.is_file()}
    return {
        "accepted": reader.accepted[0],
        "hot": Event.objects.count(),
        "wrong": reader.wrong,
        "strays": sorted(there ^ named),
    }


def nursery(role: str, until: float) -> dict:
    """Raise one child after the other in this role; each is killed at a point or at some moment."""
    points: list[str | None] = [*POINTS.get(role, []), None]
    work = {"flush": flush_, "split": flush_in_two_transactions, "intake": intake, "compact": compact}.get(role)
    work = work or {"profiles": profiles, "project": project}[role]
    killed: Tally = Tally()
    order: list[str | None] = []
    while time.monotonic() < until:
        order = order or random.sample(points, len(points))
        point = order.pop()
        patience = random.uniform(0.3, 1.5) if point is None else 3.0
        if not points[:-1]:
            patience = random.uniform(1.0, 3.0)
        child = os.fork()
        if child == 0:
            try:
                work(_Arm(point))
            except BaseException as error:
                print(json.dumps({"crash": repr(error)}), file=sys.stderr, flush=True)
            finally:
                os._exit(3)
        killed[_see_it_die(child, point, min(time.monotonic() + patience, until))] += 1
    return {"killed": dict(killed)}


class _Arm:
    """Lets a child work in peace for a few rounds before its point becomes deadly."""

    def __init__(self, point: str | None) -> None:
        self.point, self.rounds = point, random.randrange(3)

    def __call__(self) -> None:
        if self.point and self.rounds <= 0:
            os.environ["FAULT"] = self.point
        self.rounds -= 1


def _see_it_die(child: int, point: str | None, deadline: float) -> str:
    while time.monotonic() < deadline:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            assert os.WIFSIGNALED(status), f"the child ended by itself: {status}"
            return point or "?"
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "any moment"


def _try(work, arm) -> None:
    arm()
    try:
        if not work():
            time.sleep(0.02)
    except (lake.Overtaken, lake.StagedTooLate, FileNotFoundError, OperationalError):
        time.sleep(0.01)


def _in_files(contents) -> list[int]:
    found = []
    for file in contents.events:
        table = pq.read_table(file.path, columns=["event_key", "hot_mark"], partitioning=None)
        marks = table["hot_mark"].to_pylist()
        upto = file.only_hot_up_to
        found += [number for number, mark in zip(_numbers(table), marks, strict=True) if upto is None or mark <= upto]
    return found


def _numbers(table) -> list[int]:
    return [int(key, 16) for key in table["event_key"].to_pylist()]


def main() -> None:
    """Play one role until the time is over."""
    role, seconds = sys.argv[1], float(sys.argv[2])
    compaction.GRACE = GRACE
    compaction.STALE_AFTER = manifest.STALE_AFTER = STALE_AFTER
    until = time.monotonic() + seconds
    result = {"read": read, "read_profiles": read_profiles, "settle": settle}.get(role, lambda end: nursery(role, end))(
        until
    )
    print(json.dumps({"role": role, **result}), flush=True)


if __name__ == "__main__":
    main()
