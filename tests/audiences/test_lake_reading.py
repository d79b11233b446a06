"""Events read whole out of the lake: a copy that goes on from where it was misses nothing, whatever the lake did meanwhile."""

import random
from datetime import timedelta

import pytest
from pyroaring import BitMap

from audiences import clock
from audiences.models import Event
from audiences.people import lake
from audiences.people.lake import EVENTS, Known
from tests.audiences.lake_people import accept, at, event

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def own_lake(settings, tmp_path):
    settings.LAKE_URL = str(tmp_path / "lake")


def copied(**options):
    """(numbers of the events in the order read, what is known then)."""
    pinned = lake.pin(clock.now_us(), hold=timedelta(minutes=5))
    found = []
    try:
        for part in lake.read_events(pinned, **options):
            for batch in part.batches:
                found += [int(key, 16) for key in batch.column("event_key").to_pylist()]
    finally:
        lake.let_go(pinned)
    return found, Known(pinned.snapshot.manifest, pinned.snapshot.hot, pinned.as_of_us)


def imported(*events):
    """What an import does with events."""
    rows = [
        {name: getattr(row, name) for name in EVENTS.names if name != "hot_mark"} | {"hot_mark": None} for row in events
    ]
    import pyarrow as pa

    staged = lake.stage_events(pa.Table.from_pylist(rows, schema=EVENTS), origin="import")
    with lake.publishing(staged):
        lake.publish(staged)


def test_a_copy_that_goes_on_gets_every_event_whatever_the_lake_did_meanwhile():
    dice = random.Random(11)
    there, known, copy, again = 0, Known(), set(), 0
    for _ in range(60):
        act = dice.choice(("accept", "accept", "import", "flush", "flush", "compact", "copy"))
        if act in ("accept", "import"):
            made = [
                event(there + n + 1, time=dice.choice(("2026-04-10T12:00:00", "2026-05-10T12:00:00")))
                for n in range(dice.randint(1, 3))
            ]
            for one in made:
                one.received_us = clock.now_us()
            there += len(made)
            (accept if act == "accept" else imported)(*made)
        elif act == "flush":
            lake.flush()
        elif act == "compact":
            lake.compact(settle=True)
        else:
            found, known = copied(known=known)
            assert len(found) == len(set(found))
            again += len(copy & set(found))
            copy |= set(found)
            assert copy == set(range(1, there + 1))
    whole, _ = copied()
    assert sorted(whole) == list(range(1, there + 1))


def test_what_was_merged_into_new_files_long_after_it_was_copied_is_not_read_again():
    old = clock.now_us() - 30 * clock.DAY
    for number in (1, 2, 3):
        one = event(number)
        one.received_us = old
        accept(one)
        lake.flush()
    found, known = copied()
    assert sorted(found) == [1, 2, 3]
    assert lake.compact(settle=True) == 3
    fresh = event(4)
    fresh.received_us = clock.now_us()
    accept(fresh)
    lake.flush()
    lake.compact(settle=True)
    assert copied(known=known)[0] == [4]


def test_a_period_and_some_people_can_be_read_alone_in_files_and_hot():
    accept(event(1, time="2026-04-30T23:59:59", profile_no=1), event(2, time="2026-05-01", profile_no=1))
    accept(event(3, time="2026-05-01", profile_no=2), event(4, time="2026-06-01", profile_no=1))
    period = {"start_us": at("2026-05-01"), "end_us": at("2026-06-01")}
    assert sorted(copied(**period)[0]) == [2, 3]
    assert copied(**period, only=BitMap([1]))[0] == [2]
    lake.flush()
    assert Event.objects.count() == 0
    assert sorted(copied(**period)[0]) == [2, 3]
    assert copied(**period, only=BitMap([2]))[0] == [3]
    assert copied(only=BitMap())[0] == []
