"""The lake's doors, one process at a time: what a snapshot and a pin see across flush, compaction, sweep and projection."""

from datetime import timedelta

import pyarrow.parquet as pq
import pytest

from audiences.models import LakeFile
from audiences.people import lake
from tests.audiences.lake_people import accept, event

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def own_lake(settings, tmp_path):
    settings.LAKE_URL = str(tmp_path / "lake")


def numbers(snapshot):
    """Which events a snapshot sees, by the number in their keys, each as often as it is seen."""
    found = []
    with lake.one_moment():
        contents = lake.contents(snapshot)
        hot = lake.hot_events(contents.flushed, snapshot.hot)
    for file in contents.events:
        for row in pq.read_table(file.path, columns=["event_key", "hot_mark"]).to_pylist():
            if file.only_hot_up_to is None or row["hot_mark"] <= file.only_hot_up_to:
                found.append(int(row["event_key"], 16))
    return sorted(found + [int(key, 16) for key in hot["event_key"].to_pylist()])


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
    assert numbers(lake.take_snapshot()) == [1, 2, 3, 4]
