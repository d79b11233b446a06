"""What the engine keeps, shares and says when the lake changes under it; and what it tells of people and of events as a whole."""

import os
import threading
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import pytest
from django.db import connections
from django.utils import timezone
from pyroaring import BitMap

from audiences.clock import DAY
from audiences.models import Alias, LakeFile, Pin, Profile, ProfileChange
from audiences.people import engines, lake
from audiences.people.engines import asking, views
from audiences.people.engines.base import EventFacts, NameFacts, Needed, Pinned, UnreadableLake, ValueFacts
from audiences.people.engines.cache import Cache
from audiences.people.engines.duckdb import DuckDB
from audiences.people.lake import files
from audiences.segments.advice import Seen
from audiences.segments.judge import Occurrence
from audiences.segments.tree import (
    Attribute,
    Bucket,
    Condition,
    Count,
    KnownFor,
    Measured,
    Occurred,
    Sequence,
    Step,
    Within,
)
from tests.audiences.engine_people import flush
from tests.audiences.lake_people import accept, at, event, profile

pytestmark = pytest.mark.django_db(transaction=True)

AS_OF = at("2026-06-01")
VIEWED = Occurred("view", Count(1, None))


@pytest.fixture(autouse=True)
def own_lake(settings, tmp_path: Path) -> None:
    settings.LAKE_URL = str(tmp_path / "lake")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[DuckDB]:
    made = new_engine(tmp_path)
    yield made
    made.close()


def new_engine(tmp_path: Path) -> DuckDB:
    return DuckDB(memory="500MB", threads=2, folder=tmp_path / "spill", cache=Cache(tmp_path / "cache"))


def now(as_of_us: int = AS_OF) -> Pinned:
    return Pinned(lake.take_snapshot(), as_of_us)


def statements(engine: DuckDB, monkeypatch) -> list[str]:
    """The SQL that the engine runs from now on."""
    said: list[str] = []
    rows = engine._rows

    def note(statement, **tables):
        said.append(statement.sql)
        return rows(statement, **tables)

    monkeypatch.setattr(engine, "_rows", note)
    return said


def test_all_that_is_asked_about_one_event_is_one_statement(engine, monkeypatch):
    accept(event(1, value=3, kind="a"), event(2, profile_no=2, value="4.50"))
    flush()
    said = statements(engine, monkeypatch)
    asked = [
        VIEWED,
        Occurred("view", Count(2, None), Within(30 * DAY)),
        Occurred("view", Count(1, None), None, (Condition("kind", "is", ("a",)),)),
        Measured("view", "sum", "value", "gte", (Decimal("4.5"),)),
        Measured("view", "max", "value", "lt", (Decimal(4),), Within(60 * DAY)),
    ]
    found = engine.members(asked, now())
    assert [set(found[leaf]) for leaf in asked] == [{1, 2}, set(), {1}, {2}, {1}]
    assert len(said) == 1


def test_an_opposite_question_is_answered_from_the_same_answer(engine, monkeypatch):
    profile(1)
    profile(2)
    accept(event(1))
    pin = now()
    assert set(engine.members([VIEWED], pin)[VIEWED]) == {1}
    engine.universe(pin)
    said = statements(engine, monkeypatch)
    never, at_most = Occurred("view", Count(0, 0)), Occurred("view", Count(0, None))
    found = engine.members([never, at_most], pin)
    assert (set(found[never]), set(found[at_most])) == ({2}, {1, 2})
    assert said == []


def test_numbers_beyond_64_bits_are_added_up_in_sql(engine, monkeypatch):
    huge = "9" * 18
    accept(*(event(number, value=huge) for number in range(1, 30)), event(50, profile_no=2, value=1))
    flush()
    accept(event(60, profile_no=2, value="-0.5"))
    said = statements(engine, monkeypatch)
    total = Decimal(huge) * 29
    asked = [
        Measured("view", "sum", "value", "is", (total,)),
        Measured("view", "sum", "value", "is", (Decimal("0.5"),)),
        Measured("view", "avg", "value", "is", (Decimal(huge),)),
        Measured("view", "min", "value", "lt", (Decimal(0),)),
        VIEWED,
    ]
    found = engine.members(asked, now())
    assert [set(found[leaf]) for leaf in asked] == [{1}, {2}, {1}, {2}, {1, 2}]
    assert sum("GROUP BY" in sql for sql in said) == 1


def test_hot_rows_are_fetched_once_and_dropped_when_nothing_needs_them(engine, monkeypatch):
    asked: list[tuple[int, int]] = []
    hot_events = lake.hot_events

    def fetch(after, upto, **options):
        asked.append((after, upto))
        return hot_events(after, upto, **options)

    monkeypatch.setattr(lake, "hot_events", fetch)
    accept(event(1), event(2, profile_no=2))
    first = now()
    assert set(engine.members([VIEWED], first)[VIEWED]) == {1, 2}
    accept(event(3, profile_no=3))
    second = now()
    assert set(engine.members([VIEWED], second)[VIEWED]) == {1, 2, 3}
    assert set(engine.members([VIEWED], first)[VIEWED]) == {1, 2}
    assert asked == [(0, first.snapshot.hot), (first.snapshot.hot, second.snapshot.hot)]
    flush()
    later = now()
    assert set(engine.members([VIEWED], later)[VIEWED]) == {1, 2, 3}
    kept = engine._connection.execute("SELECT count(*) FROM hot").fetchall()
    assert kept == [(3,)]  # the older pins still read them
    for number in range(views.KEPT):
        accept(event(10 + number, profile_no=10 + number))
        engine.members([VIEWED], now())
    assert engine._connection.execute("SELECT count(*) FROM hot WHERE hot_mark <= 3").fetchall() == [(0,)]


def test_a_pin_reads_what_it_saw_while_its_rows_are_flushed_compacted_and_others_come(engine):
    profile(1)
    accept(event(1), event(2, profile_no=2))
    pin = lake.pin(AS_OF, hold=timedelta(minutes=5))
    flush()
    for number in range(3, 14):
        accept(event(number, profile_no=number))
        flush()
    assert lake.compact() > 0
    assert set(engine.members([VIEWED], pin)[VIEWED]) == {1, 2}
    assert set(engine.members([VIEWED], now())[VIEWED]) == set(range(1, 14))


def test_another_process_finds_the_answers_of_this_one(engine, monkeypatch, tmp_path):
    accept(event(1))
    pin = now()
    engine.members([VIEWED], pin)
    other = new_engine(tmp_path)
    try:
        said = statements(other, monkeypatch)
        assert set(other.members([VIEWED], pin)[VIEWED]) == {1}
        assert said == []
    finally:
        other.close()


def test_an_answer_without_a_window_serves_later_moments_until_an_event_comes(engine, monkeypatch):
    accept(event(1))
    snapshot = lake.take_snapshot()
    engine.members([VIEWED], Pinned(snapshot, AS_OF))
    said = statements(engine, monkeypatch)
    engine.members([VIEWED], Pinned(snapshot, AS_OF + DAY))
    assert said == []
    assert not engine.members([VIEWED], Pinned(snapshot, at("2026-05-01")))[VIEWED]
    accept(event(2, profile_no=2))
    assert set(engine.members([VIEWED], now())[VIEWED]) == {1, 2}


def test_an_answer_with_a_window_is_that_of_its_moment_alone(engine):
    profile(1, attributes={"seen": "2026-05-10"})
    accept(event(1))
    snapshot = lake.take_snapshot()
    asked = [
        Occurred("view", Count(1, None), Within(30 * DAY)),
        Occurred("*", Count(1, None), Within(30 * DAY)),
        Attribute(Condition("seen", "within_last", (30 * DAY,))),
        Attribute(Condition("seen", "not_within_last", (60 * DAY,))),
        Sequence((Step("view", 30 * DAY), Step("buy", DAY)), complete=False),
        KnownFor(200 * DAY),
    ]
    told = [
        [len(members) for members in engine.members(asked, Pinned(snapshot, at(day))).values()]
        for day in ("2026-05-09", "2026-06-01", "2026-07-20")
    ]
    assert told == [[0, 0, 0, 1, 0, 0], [1, 1, 1, 0, 1, 0], [0, 0, 0, 1, 0, 1]]


def test_a_changed_profile_counts_as_it_is_now(engine):
    rich = Attribute(Condition("plan", "is", ("pro",)))
    profile(1, attributes={"plan": "pro"})
    profile(2, attributes={"plan": "pro"})
    profile(3, attributes={"plan": "free"})
    lake.project_profiles()
    assert set(engine.members([rich], now())[rich]) == {1, 2}
    profile(1, attributes={"plan": "free"})
    profile(3, attributes={"plan": "pro"})
    profile(4, attributes={"plan": "pro"}, kind=Profile.Kind.ANONYMOUS)
    pin = now()
    found = engine.members([rich, Attribute(Condition("plan", "is_not", ("pro",)))], pin)
    assert set(found[rich] & engine.universe(pin)) == {2, 3}
    assert set(found[Attribute(Condition("plan", "is_not", ("pro",)))]) == {1}


def test_two_people_who_change_alike_are_not_taken_for_two_who_have_not_changed(engine):
    rich = Attribute(Condition("plan", "is", ("pro",)))
    for number in (1, 2):
        profile(number, attributes={"plan": "pro"})
    assert set(engine.members([rich], now())[rich]) == {1, 2}
    for number in (1, 2):
        profile(number, attributes={"plan": "free"})
    assert set(engine.members([rich], now())[rich]) == set()


def test_a_projection_that_was_replaced_and_swept_is_looked_for_again(engine):
    profile(1)
    lake.project_profiles()
    pin = now()
    assert set(engine.universe(pin)) == {1}
    lake.project_profiles()
    for row in LakeFile.objects.filter(kind="profiles", dead_manifest__isnull=False):
        files.remove(row.path)
    bucket = Bucket("s", 0, 10_000)
    assert set(engine.members([bucket], pin)[bucket]) == {1}


def test_a_live_file_that_is_gone_makes_the_lake_unreadable(engine, monkeypatch):
    accept(event(1))
    flush()
    row = LakeFile.objects.get()
    files.remove(row.path)
    looked = []
    contents = lake.contents
    monkeypatch.setattr(lake, "contents", lambda snapshot: looked.append(1) or contents(snapshot))
    with pytest.raises(UnreadableLake):
        engine.members([VIEWED], now())
    assert len(looked) == 3


def test_a_pin_that_ran_out_is_refused(engine):
    accept(event(1))
    flush()
    pin = lake.pin(AS_OF, hold=timedelta(minutes=1))
    for number in range(2, 12):
        accept(event(number))
        flush()
    assert lake.compact() > 0
    long_ago = timezone.now() - timedelta(hours=3)
    Pin.objects.update(expires_at=long_ago)
    LakeFile.objects.filter(dead_manifest__isnull=False).update(dead_at=long_ago)
    assert lake.sweep_files() > 0
    with pytest.raises(UnreadableLake):
        engine.members([VIEWED], pin)


def test_threads_ask_at_once_while_events_come_and_are_flushed(engine):
    """Each sees all of its own pin and nothing later; the event of profile n is accepted after that of n − 1."""
    wrong: list[object] = []
    asked: list[int] = []
    accepted = [0]
    done = threading.Event()

    def ask(days: int) -> None:
        leaf = Occurred("view", Count(1, None), Within(days * DAY))
        try:
            while not done.is_set():
                before = accepted[0]
                pin = lake.pin(AS_OF, hold=timedelta(minutes=5))
                after = accepted[0] + 1
                found = engine.members([leaf, VIEWED], pin)
                asked.append(len(found[leaf]))
                if found[leaf] != found[VIEWED] or set(found[leaf]) != set(range(1, asked[-1] + 1)):
                    wrong.append(found)
                if not before <= asked[-1] <= after:
                    wrong.append((before, asked[-1], after))
        except Exception as error:
            wrong.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=ask, args=(days,)) for days in (30, 31, 32, 33)]
    for thread in threads:
        thread.start()
    for number in range(1, 81):
        accept(event(number, profile_no=number))
        accepted[0] = number
        if number % 15 == 0:
            flush()
    done.set()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert len(asked) > 10


def test_a_long_sequence_is_followed_in_parts(engine, monkeypatch):
    monkeypatch.setattr(asking, "CANDIDATES", 2)
    for number in range(1, 8):
        accept(
            event(number, "view", profile_no=number),
            event(100 + number, "buy", profile_no=number, time=f"2026-05-10T{12 + number % 2}:00:00"),
        )
    leaf = Sequence((Step("view"), Step("buy")))
    assert set(engine.members([leaf], now())[leaf]) == {1, 3, 5, 7}


def test_people_come_with_their_events_under_every_number_they_had(engine):
    profile(1, attributes={"plan": "pro"})
    profile(2, attributes={"plan": "free"})
    Alias.objects.create(old_no=9, survivor_no=1)
    accept(event(1, value=1), event(2, "buy", profile_no=9, time="2026-05-11", value=2))
    flush()
    accept(event(3, "buy", profile_no=2), event(4, time="2026-07-01"))
    people = engine.people([1, 2, 77], now(), Needed(frozenset({"buy"})))
    assert set(people) == {1, 2}
    assert people[1].events == (Occurrence("buy", at("2026-05-11"), {"value": 2}),)
    assert people[1].attributes == {"plan": "pro"}
    assert [one.name for one in engine.people([1], now())[1].events] == ["buy", "view"]
    newest = engine.events_of(1, now(), 1)
    assert [(one.name, one.properties, one.source, int(one.event_key, 16)) for one in newest] == [
        ("buy", {"value": 2}, "track_v2", 2)
    ]
    assert engine.events_of(77, now(), 5) == []


def test_point_asks_one_statement_for_all_leaves_and_people(engine, monkeypatch):
    profile(1)
    profile(2)
    accept(event(1), event(2, "buy", profile_no=2))
    flush()
    said = statements(engine, monkeypatch)
    bought, old = Occurred("buy", Count(1, None)), KnownFor(30 * DAY)
    assert engine.point([bought, VIEWED], [1, 2], now()) == {bought: BitMap([2]), VIEWED: BitMap([1])}
    assert len(said) == 1
    assert engine.point([old], [1], now()) == {old: BitMap([1])}
    assert engine.point([Bucket("s", 0, 10_000)], [1, 2], now()) == {Bucket("s", 0, 10_000): BitMap([1, 2])}
    assert len(said) == 2


def test_statistics_tell_how_many_how_recent_and_with_how_many_people(engine):
    profile(1, attributes={"plan": "pro", "city": "Bonn"})
    profile(2, attributes={"plan": "free"})
    lake.project_profiles()
    profile(2, attributes={"age": 3})
    profile(3, attributes={"plan": "x"}, state=Profile.State.DELETED)
    accept(event(1, value=1), event(2, value=2, kind="a"), event(3, "buy", profile_no=2, time="2026-05-01"))
    flush()
    accept(event(4, profile_no=3), event(5, time="2026-07-01", late=1))
    told = engine.statistics(now())
    once = NameFacts(1, 1)
    assert (told.people, told.attributes) == (2, {"plan": once, "city": once, "age": once})
    assert told.events == (
        EventFacts("view", 3, 1, at("2026-05-10T12:00:00"), 2, {"value": NameFacts(2, 1), "kind": once}),
        EventFacts("buy", 1, 1, at("2026-05-01"), 0, {}),
    )
    assert engine.watermark(now()) == at("2026-07-01")


def test_statistics_name_the_usual_values_and_none_that_may_tell_who_somebody_is(engine):
    for number in range(1, 13):
        plan = "pro" if number <= 10 else "free"
        profile(number, attributes={"plan": plan, "vip": number <= 11, "mail": f"p{number}@shop.example", "odd": None})
    lake.project_profiles()
    accept(*(event(n, profile_no=n, kind='say "a/b~c"', size=12.0, **{"a/b~c": 1}) for n in range(1, 12)))
    accept(event(20, kind='say "a/b~c"', tags=["x"], long="y" * 90))
    accept(*(event(30 + n, "buy", profile_no=n, kind="rare") for n in range(1, 10)))
    flush()
    accept(event(40, profile_no=12, kind='say "a/b~c"'))
    told = engine.statistics(now())
    assert told.attributes["plan"] == NameFacts(12, 12, (ValueFacts("pro", 10, 10),))
    assert told.attributes["vip"] == NameFacts(12, 12, (ValueFacts("true", 11, 11),))
    assert told.attributes["mail"] == told.attributes["odd"] == NameFacts(12, 12)
    of = {one.name: one.properties for one in told.events}
    assert of["view"]["kind"] == NameFacts(13, 12, (ValueFacts('say "a/b~c"', 13, 12),))
    assert of["view"]["size"] == NameFacts(11, 11, (ValueFacts("12", 11, 11),))
    assert of["view"]["a/b~c"] == NameFacts(11, 11, (ValueFacts("1", 11, 11),))
    assert of["view"]["tags"] == of["view"]["long"] == NameFacts(1, 1)
    assert of["buy"]["kind"] == NameFacts(9, 9)  # nine people are too few


def test_statistics_count_who_was_merged_as_one(engine):
    for number in range(1, 12):
        profile(number)
    accept(*(event(n, profile_no=n, kind="a") for n in range(1, 12)))
    flush()
    profile(11, state=Profile.State.MERGED)
    Alias.objects.create(old_no=11, survivor_no=10)
    (view,) = engine.statistics(now()).events
    assert view.people == 10 and view.properties["kind"] == NameFacts(11, 10, (ValueFacts("a", 11, 10),))


def test_lately_tells_of_seven_days_from_which_platforms_and_whom(engine):
    accept(event(1, time="2026-05-20", platform="ios"), event(2, "old", time="2026-05-20"))
    accept(
        event(3, time="2026-05-31", platform="ios", logged_in=True), event(4, "buy", time="2026-05-31", currency="EUR")
    )
    flush()
    accept(
        event(5, time="2026-05-31T12:00", platform="ios", logged_in=True),
        event(6, time="2026-05-30", profile_no=2, platform="web", logged_in=False),
        event(7, time="2026-05-30", profile_no=2),
        event(8, "buy", time="2026-05-30", profile_no=2, currency="USD", platform={"odd": 1}),
        event(9, "buy", time="2026-06-02", currency="GBP"),
    )
    assert engine.lately(now()) == {
        "view": Seen(4, {"ios": 1, "web": 1}, {True: 1, False: 1}, {}),
        "buy": Seen(2, {'{"odd":1}': 1}, {}, {"EUR": 1, "USD": 1}),
    }
    assert engine.lately(now(at("2020-01-01"))) == {}


def test_an_empty_lake_has_statistics_and_no_watermark(engine):
    assert engine.watermark(now()) is None
    told = engine.statistics(now())
    assert (told.people, told.events, told.attributes) == (0, (), {})


def test_an_engine_is_made_once_a_process_and_anew_after_it_was_closed(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    first = engines.current()
    assert engines.current() is first
    ProfileChange.objects.all().delete()
    engines.close()
    assert engines.current() is not first
    assert engines.current().universe(now()) == BitMap()


def test_what_a_killed_process_spilled_goes_a_day_later(settings, tmp_path):
    settings.DATA_DIR = tmp_path
    engines.close()
    names = (f"{engines._mine()}4000000000", f"{engines._mine()}4000000001", f"{engines._mine()}{os.getpid()}")
    old, young, mine = (tmp_path / "spill" / name for name in names)
    for folder in (old, young, mine):
        folder.mkdir(parents=True)
    for folder in (old, mine):
        os.utime(folder, (0, 0))
    engines.current()
    assert (old.exists(), young.exists(), mine.exists()) == (False, True, True)


def test_a_merge_changes_answers_though_no_event_came(engine):
    accept(event(1, profile_no=9))
    assert set(engine.members([VIEWED], now())[VIEWED]) == {9}
    Alias.objects.create(old_no=9, survivor_no=1)
    profile(1)
    assert set(engine.members([VIEWED], now())[VIEWED]) == {1}


def test_views_of_the_same_merges_share_one_table_and_let_it_go(engine):
    Alias.objects.create(old_no=9, survivor_no=1)
    accept(event(1, profile_no=9))
    assert set(engine.members([VIEWED], now())[VIEWED]) == {1}
    for number in range(2, 2 + 2 * views.KEPT):
        accept(event(number))
        engine.members([VIEWED], now())
    assert len(tables(engine, "merges")) == 1
    Alias.objects.create(old_no=8, survivor_no=1)
    for number in range(40, 42 + views.KEPT):
        accept(event(number, profile_no=8))
        engine.members([VIEWED], now())
    assert len(tables(engine, "merges")) == 1
    assert set(engine.members([VIEWED], now())[VIEWED]) == {1}


def tables(engine: DuckDB, kind: str) -> list[str]:
    found = engine._connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
    return [name for (name,) in found if name.startswith(kind)]


def test_extensions_and_the_variables_of_this_process_are_out_of_reach(engine):
    hidden = 1
    for sql in ("INSTALL httpfs", "SELECT * FROM hidden"):
        with pytest.raises(Exception, match=r"hidden|httpfs|extension"):
            engine._connection.execute(sql)
    assert hidden
    settings_of = dict(
        engine._connection.execute(
            "SELECT name, value FROM duckdb_settings() WHERE name IN"
            " ('autoinstall_known_extensions', 'autoload_known_extensions', 'TimeZone', 'threads')"
        ).fetchall()
    )
    assert settings_of == {
        "autoinstall_known_extensions": "false",
        "autoload_known_extensions": "false",
        "TimeZone": "UTC",
        "threads": "2",
    }
