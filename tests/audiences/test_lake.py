"""The lake's doors, one process at a time: what a snapshot and a pin see across flush, compaction, sweep and projection."""

import os
import time
from datetime import timedelta
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.db import OperationalError, connection, transaction
from django.db.models import F
from django.utils import timezone

from audiences import clock, jobs
from audiences.models import Alias, Counter, Event, EventKey, Job, LakeFile, Pin, Profile, ProfileChange
from audiences.people import lake
from audiences.people.lake import files, manifest, upkeep
from audiences.people.lake.staging import sweep_spill
from tests.audiences.lake_people import accept, at, event, profile

pytestmark = pytest.mark.django_db(transaction=True)

LONG_AGO = timedelta(minutes=11)


@pytest.fixture(autouse=True)
def own_lake(settings, tmp_path):
    settings.LAKE_URL = str(tmp_path / "lake")


def rows(snapshot):
    """The events that a snapshot sees, each as often as it is seen."""
    with lake.one_moment():
        contents = lake.contents(snapshot)
        found = lake.hot_events(contents.flushed, snapshot.hot).to_pylist()
    for file in contents.events:
        whole = pq.read_table(file.path).to_pylist()
        found += [row for row in whole if file.only_hot_up_to is None or row["hot_mark"] <= file.only_hot_up_to]
    return found


def numbers(snapshot):
    """Which events they are, by the number in their keys."""
    return sorted(int(row["event_key"], 16) for row in rows(snapshot))


def now():
    return numbers(lake.take_snapshot())


def on_disk():
    return sorted(path.name for path in files.root().rglob("*") if path.is_file())


def flush_one_by_one(*events):
    for each in events:
        accept(each)
        lake.flush()


def die(seconds=LONG_AGO):
    """Let the dead files have died a while ago."""
    LakeFile.objects.filter(dead_at__isnull=False).update(dead_at=timezone.now() - seconds)


def test_an_empty_lake_is_read_as_empty():
    snapshot = lake.take_snapshot()
    contents = lake.contents(snapshot)
    assert (contents.events, contents.profiles, contents.aliases.num_rows, contents.flushed) == ((), None, 0, 0)
    assert lake.hot_events(0, snapshot.hot).num_rows == 0
    assert lake.changed_profiles(snapshot).num_rows == 0
    assert (lake.flush(), lake.compact(), lake.forget_removed(), lake.sweep_files()) == (0, 0, 0, 0)


def test_a_pin_sees_the_same_events_before_and_after_a_flush():
    accept(event(1), event(2))
    lake.flush()
    accept(event(3))
    pinned = lake.pin(0, hold=timedelta(minutes=5))
    accept(event(4))
    assert numbers(pinned.snapshot) == [1, 2, 3]
    lake.flush()
    assert LakeFile.objects.count() == 2
    assert numbers(pinned.snapshot) == [1, 2, 3]
    assert now() == [1, 2, 3, 4]


def test_a_pin_sees_the_same_events_after_compaction_and_sweep_until_it_runs_out():
    flush_one_by_one(event(1), event(2))
    accept(event(3))
    pinned = lake.pin(7, hold=timedelta(minutes=5))
    accept(event(4))
    lake.flush()
    assert lake.compact(settle=True) == 3
    die()
    lake.sweep_files()
    assert numbers(pinned.snapshot) == [1, 2, 3]
    assert now() == [1, 2, 3, 4]
    assert lake.repin(pinned.pin_id, hold=timedelta(hours=1)) == pinned
    Pin.objects.update(expires_at=timezone.now() - timedelta(hours=1))
    lake.sweep_files()
    assert len(on_disk()) == 2
    assert now() == [1, 2, 3, 4]
    with pytest.raises(lake.SnapshotGone):
        lake.contents(pinned.snapshot)
    with pytest.raises(lake.SnapshotGone):
        lake.repin(pinned.pin_id, hold=timedelta(hours=1))


def test_files_flushed_and_merged_after_a_pin_are_kept_only_if_it_reads_them():
    accept(event(1))
    pinned = lake.pin(0, hold=timedelta(minutes=5))
    lake.flush()
    flush_one_by_one(event(2), event(3))
    assert lake.compact(settle=True) == 3
    die()
    lake.sweep_files()
    assert LakeFile.objects.filter(dead_at__isnull=False).count() == 1
    assert numbers(pinned.snapshot) == [1]


def test_a_pin_let_go_holds_nothing():
    flush_one_by_one(event(1), event(2))
    pinned = lake.pin(0, hold=timedelta(minutes=5))
    lake.compact(settle=True)
    die()
    assert lake.sweep_files() == 0
    lake.let_go(pinned)
    assert lake.sweep_files() == 2
    assert now() == [1, 2]


def test_dead_files_stay_for_readers_that_hold_no_pin_for_a_while():
    flush_one_by_one(event(1), event(2))
    before = lake.take_snapshot()
    lake.compact(settle=True)
    die(timedelta(minutes=9))
    assert lake.sweep_files() == 0
    assert numbers(before) == [1, 2]


def test_a_file_holds_one_utc_month_sorted_with_its_roll_up():
    accept(
        event(1, "view", time="2026-01-31T23:59:59.999999", profile_no=3),
        event(2, "buy", time="2026-02-01T00:00:00", profile_no=3),
        event(3, "view", time="2026-02-28T23:59:59.999999", profile_no=3),
        event(4, "buy", time="2026-02-14T00:00:00", profile_no=4_294_967_295),
        event(5, "buy", time="1969-12-31T23:59:59.999999"),
    )
    assert lake.flush() == 5
    contents = lake.contents(lake.take_snapshot())
    assert [file.month for file in contents.events] == ["1969-12", "2026-01", "2026-02"]
    february = contents.events[2]
    keys = [int(key, 16) for key in pq.read_table(february.path)["event_key"].to_pylist()]
    assert keys == [2, 4, 3]
    assert (february.min_time_us, february.max_time_us) == (at("2026-02-01"), at("2026-02-28T23:59:59.999999"))
    assert pq.read_table(february.rollup).to_pylist() == [
        {"profile_no": 3, "first_us": at("2026-02-01"), "last_us": at("2026-02-28T23:59:59.999999"), "events": 2},
        {"profile_no": 4_294_967_295, "first_us": at("2026-02-14"), "last_us": at("2026-02-14"), "events": 1},
    ]


def test_an_older_file_lacks_a_later_column_until_it_is_compacted():
    accept(event(1, price="9.50"))
    lake.flush()
    lake.want_columns(["price"])
    accept(event(2, price=20))
    lake.flush()
    accept(event(3, price=None))
    first, second = lake.contents(lake.take_snapshot()).events
    assert first.columns == {}
    assert list(second.columns) == ["price"]
    column = second.columns["price"]
    assert column not in pq.read_schema(first.path).names
    assert lake.hot_events(0, lake.take_snapshot().hot)[column].to_pylist() == [None]
    assert lake.compact(settle=True) == 2
    (merged,) = lake.contents(lake.take_snapshot()).events
    table = pq.read_table(merged.path)
    assert table[column].to_pylist() == ["9.50", "20"]
    assert table[f"{column}_num"].to_pylist() == [Decimal("9.5"), Decimal(20)]
    assert table.schema.field(f"{column}_num").type == pa.decimal128(38, 6)


def test_compaction_folds_merges_in_and_leaves_removed_people_out():
    for number, state in ((1, "live"), (2, "merged"), (3, "erased"), (4, "merged"), (5, "deleted")):
        profile(number, state=state)
    Alias.objects.create(old_no=2, survivor_no=1)
    Alias.objects.create(old_no=4, survivor_no=3)
    flush_one_by_one(*(event(number, profile_no=number) for number in (1, 2, 3, 4, 5)))
    assert lake.contents(lake.take_snapshot()).aliases.to_pylist() == [
        {"old_no": 2, "survivor_no": 1},
        {"old_no": 4, "survivor_no": 3},
    ]
    assert lake.compact(settle=True) == 5
    assert [(int(row["event_key"], 16), row["profile_no"]) for row in rows(lake.take_snapshot())] == [(1, 1), (2, 1)]


def test_removed_people_leave_files_that_no_merge_would_touch():
    profile(1)
    profile(2)
    accept(event(1, profile_no=1), event(2, profile_no=2), event(3, time="2026-03-01", profile_no=2))
    lake.flush()
    accept(event(4, time="2026-04-01", profile_no=1))
    lake.flush()
    Profile.objects.filter(profile_no=2).update(state="erased")
    assert lake.forget_removed() == 2
    assert now() == [1, 4]
    assert lake.forget_removed() == 0
    assert {file.month for file in lake.contents(lake.take_snapshot()).events} == {"2026-04", "2026-05"}


def test_compaction_waits_until_files_are_enough_or_the_month_is_quiet():
    for number in range(7):
        flush_one_by_one(event(number))
    assert lake.compact() == 0
    flush_one_by_one(event(7))
    assert lake.compact() == 8
    flush_one_by_one(event(8))
    assert lake.compact(settle=False) == 0
    assert now() == list(range(9))


def test_two_compactions_of_the_same_files_do_not_both_count(monkeypatch):
    flush_one_by_one(event(1), event(2))
    publish = manifest.publish

    def overtaken(staged, **options):
        monkeypatch.setattr(manifest, "publish", publish)
        with transaction.atomic():
            manifest.bury(list(LakeFile.objects.filter(dead_at__isnull=True)[:1]), manifest.next_manifest())
        return publish(staged, **options)

    monkeypatch.setattr(manifest, "publish", overtaken)
    with pytest.raises(lake.Overtaken):
        lake.compact(settle=True)
    assert now() == [1, 2]
    assert len(on_disk()) == 4


def test_a_flush_that_finds_rows_gone_changes_nothing(monkeypatch):
    accept(event(1), event(2))
    publish = manifest.publish

    def overtaken(staged, **options):
        Event.objects.filter(event_key=f"{1:032x}").delete()
        return publish(staged, **options)

    monkeypatch.setattr(manifest, "publish", overtaken)
    with pytest.raises(lake.Overtaken):
        lake.flush()
    assert (on_disk(), LakeFile.objects.count(), Counter.objects.filter(name="manifest").count()) == ([], 0, 0)
    assert now() == [1, 2]  # what happened inside the flush's transaction was undone with it
    monkeypatch.undo()
    Event.objects.filter(event_key=f"{1:032x}").delete()
    assert lake.flush() == 1
    assert now() == [2]


def test_a_commit_whose_answer_was_lost_keeps_its_files(monkeypatch):
    accept(event(1))
    commit, publish = connection.commit, manifest.publish

    def unheard():
        commit()
        raise OperationalError("the connection was lost")

    def publish_unheard(staged, **options):
        monkeypatch.setattr(connection, "commit", unheard)
        return publish(staged, **options)

    monkeypatch.setattr(manifest, "publish", publish_unheard)
    with pytest.raises(OperationalError):
        lake.flush()
    monkeypatch.undo()
    assert (Event.objects.count(), now()) == (0, [1])


def test_a_flusher_that_lost_its_job_writes_nothing():
    accept(event(1))
    with pytest.raises(jobs.LeaseLost), jobs.held("audiences.flush", "") as claim:
        Job.objects.update(fence=F("fence") + 1)  # as a worker does that takes the job over
        lake.flush(still_mine=claim.guard)
    assert (on_disk(), Event.objects.count()) == ([], 1)


def test_the_standing_jobs_move_old_events_and_changed_profiles_into_the_lake():
    profile(1)
    accept(event(1), event(2))
    upkeep.keep_going()
    assert jobs.run_due_here() == 6
    assert list(Job.objects.exclude(error="")) == []
    assert (Event.objects.count(), ProfileChange.objects.count()) == (0, 0)
    assert now() == [1, 2]


def test_an_event_that_just_came_stays_hot():
    accept(Event(event_key="1", profile_no=1, name="view", time_us=0, received_us=clock.now_us(), source="track_v2"))
    upkeep.keep_going()
    jobs.run_due_here()
    assert Event.objects.count() == 1


def test_a_flush_takes_the_oldest_and_leaves_the_rest_hot():
    for number in range(5):
        accept(event(number))
    assert lake.flush(limit=3) == 3
    assert sorted(Event.objects.values_list("event_key", flat=True)) == [f"{number:032x}" for number in (3, 4)]
    snapshot = lake.take_snapshot()
    contents = lake.contents(snapshot)
    assert lake.hot_events(0, contents.flushed).num_rows == 0
    assert lake.hot_events(contents.flushed, snapshot.hot).num_rows == 2
    assert lake.flush(limit=3) == 2
    assert lake.take_snapshot().hot >= snapshot.hot
    assert now() == [0, 1, 2, 3, 4]


def test_an_import_stages_first_and_publishes_with_its_checkpoint():
    schema = lake.EVENTS
    table = pa.Table.from_pylist(
        [
            {"event_key": f"{number:032x}", "profile_no": number, "name": "buy", "time_us": at(f"2026-0{number}-01"),
             "received_us": 0, "source": "import", "hot_mark": None, "properties": "{}"}
            for number in (1, 2)
        ],
        schema,
    )  # fmt: skip
    staged = lake.stage_events(table, origin="import")
    before = lake.pin(0, hold=timedelta(minutes=1))
    assert now() == []
    with transaction.atomic():
        number = lake.publish(staged)
    assert LakeFile.objects.filter(added_manifest=number, origin="import").count() == 2
    assert now() == [1, 2]
    assert numbers(before.snapshot) == []


def test_orphans_are_swept_by_age_and_a_file_that_old_is_not_published():
    staged = lake.stage_events(lake.EVENTS.empty_table(), origin="import")
    assert staged == []
    accept(event(1))
    lake.flush()
    hot = lake.hot_events(0, 0)
    assert hot.num_rows == 0
    orphan = files.absolute("events/2026-05/x.parquet.part")
    orphan.write_bytes(b"torn")
    assert lake.sweep_files() == 0
    for path in files.root().rglob("*"):
        if path.is_file():
            os.utime(path, (time.time() - 8_000,) * 2)
    assert lake.sweep_files() == 1
    assert not orphan.exists()
    assert now() == [1]
    old = lake.Staged(
        kind="events", path="events/x", rows=1, bytes=1, columns={}, origin="import", made_at=time.monotonic() - 4_000
    )
    with transaction.atomic(), pytest.raises(lake.StagedTooLate):
        lake.publish([old])


def projected(snapshot):
    """The profiles as a reader puts them together: the projection, overlaid by what has changed since."""
    with lake.one_moment():
        contents = lake.contents(snapshot)
        changed = lake.changed_profiles(snapshot)
    found = (
        {row["profile_no"]: row for row in pq.read_table(contents.profiles.path).to_pylist()}
        if contents.profiles
        else {}
    )
    found.update({row["profile_no"]: row for row in changed.to_pylist()})
    return found


def test_the_projection_and_what_changed_since_are_the_profiles():
    lake.want_columns(attributes=["country", "age"])
    profile(1, attributes={"country": "DE", "age": 30.0})
    profile(2, kind="anonymous")
    profile(3, state="deleted")
    before = projected(lake.take_snapshot())
    assert lake.project_profiles() == 3
    assert ProfileChange.objects.count() == 0
    assert projected(lake.take_snapshot()) == before
    assert [before[number]["live"] for number in (1, 2, 3)] == [True, False, False]
    contents = lake.contents(lake.take_snapshot())
    country, age = (contents.profiles.columns[name] for name in ("country", "age"))
    assert (before[1][country], before[1][age], before[1][f"{age}_num"]) == ("DE", "30", Decimal(30))
    profile(1, attributes={"country": "FR"})
    profile(4)
    after = projected(lake.take_snapshot())
    assert (after[1][country], after[1][age], sorted(after)) == ("FR", None, [1, 2, 3, 4])
    assert lake.project_profiles() == 4
    assert projected(lake.take_snapshot()) == after
    die()
    assert lake.sweep_files() == 1
    assert projected(lake.take_snapshot()) == after


def test_a_projection_that_another_overtook_is_not_published(monkeypatch):
    profile(1)
    publish = manifest.publish

    def overtaken(staged, **options):
        monkeypatch.setattr(manifest, "publish", publish)
        with transaction.atomic():
            publish(
                [lake.Staged(kind="profiles", path="profiles/other", rows=0, bytes=0, columns={}, origin="projection")]
            )
        return publish(staged, **options)

    monkeypatch.setattr(manifest, "publish", overtaken)
    with pytest.raises(lake.Overtaken):
        lake.project_profiles()
    assert ProfileChange.objects.count() == 1


def test_text_survives_the_way_through_database_and_file():
    odd = {
        "a": 'quote " comma , line\nbreak \\ back\ttab',
        "é": "ß€😀",
        "empty": "",
        "null": None,
        "nested": {"x": [1, 2.5]},
    }
    accept(event(1, 'näme, "quoted"\nline', **odd))
    profile(1, attributes=odd, bucket_key="")
    snapshot = lake.take_snapshot()
    (hot,) = lake.hot_events(0, snapshot.hot).to_pylist()
    (changed,) = lake.changed_profiles(snapshot).to_pylist()
    stored = Event.objects.get()
    assert (hot["name"], hot["properties"]) == (stored.name, stored.properties)
    assert (changed["bucket_key"], changed["attributes"]) == ("", Profile.objects.get().attributes)
    lake.flush()
    (kept,) = rows(lake.take_snapshot())
    assert kept == {**hot, "hot_mark": kept["hot_mark"]}


def test_what_a_killed_process_spilled_goes_a_day_later(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    old, young, engine = (tmp_path / "spill" / name for name in ("lake-1", "lake-2", "engine-1"))
    for folder in (old, young, engine):
        folder.mkdir(parents=True)
        (folder / "block.tmp").write_bytes(b"x")
    for folder in (old, engine):
        os.utime(folder, (time.time() - 100_000,) * 2)
    assert sweep_spill() == 1
    assert [folder.exists() for folder in (old, young, engine)] == [False, True, True]


@pytest.mark.django_db
def test_the_keys_of_events_are_kept_for_thirty_days():
    now = clock.now_us()
    for key, age in (("old", 31), ("young", 29)):
        EventKey.objects.create(key=key, content="", received_us=now - age * clock.DAY)
    jobs.run_now("audiences.forget_event_keys", "")
    assert list(EventKey.objects.values_list("key", flat=True)) == ["young"]
