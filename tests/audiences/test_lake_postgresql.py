"""What only PostgreSQL can do to the lake: rows that become visible out of the order of their ids."""

import contextlib
from datetime import timedelta

import psycopg
import pytest
from django.db import connection

from audiences.models import Event
from audiences.people import lake
from tests.audiences.lake_people import accept, event

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def own_lake(settings, tmp_path):
    settings.LAKE_URL = str(tmp_path / "lake")


@contextlib.contextmanager
def writing_in(database):
    """Another session that is in the middle of a transaction which has written."""
    parameters = {**connection.get_connection_params(), "dbname": database}
    wanted = {key: parameters[key] for key in ("dbname", "host", "port", "user", "password") if key in parameters}
    with psycopg.connect(**wanted) as other:
        other.execute("SELECT pg_current_xact_id()")
        yield other


def hot():
    snapshot = lake.take_snapshot()
    with lake.one_moment():
        contents = lake.contents(snapshot)
        return sorted(int(key, 16) for key in lake.hot_events(contents.flushed, snapshot.hot)["event_key"].to_pylist())


if connection.vendor == "postgresql":

    def test_a_row_committed_late_is_neither_passed_over_nor_flushed_around():
        name = connection.settings_dict["NAME"]
        with writing_in(name) as other:
            late = event(1)
            other.execute(
                "INSERT INTO audiences_event (event_key, profile_no, name, time_us, received_us, source, properties)"
                " VALUES (%s, 1, 'view', %s, 0, 'track_v2', '{}')",
                [late.event_key, late.time_us],
            )
            accept(event(2))
            pinned = lake.pin(0, hold=timedelta(minutes=1))
            assert hot() == []
            assert lake.flush() == 0
            other.commit()
        assert hot() == [1, 2]
        assert lake.flush() == 2
        with lake.one_moment():
            contents = lake.contents(pinned.snapshot)
            assert (contents.events, lake.hot_events(contents.flushed, pinned.snapshot.hot).num_rows) == ((), 0)
        assert (hot(), Event.objects.count()) == ([], 0)

    def test_another_databases_long_transaction_keeps_nothing_from_view():
        with writing_in("postgres"):
            accept(event(1))
            assert hot() == [1]
            assert lake.flush() == 1
