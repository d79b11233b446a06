"""Files are taken in whole: each row once, or set aside with where and why."""

from datetime import UTC, date, datetime
from pathlib import Path

import duckdb
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.core.management import CommandError, call_command
from hypothesis import given
from hypothesis import strategies as st

from audiences.models import EventName, Identity, ImportFile, LakeFile, Profile, PropertyName, RefusedRow
from audiences.people import imports, lake
from audiences.people.lake import files
from audiences.people.normalise import moment_of

pytestmark = pytest.mark.django_db


@pytest.fixture
def file(tmp_path):
    def write(text: str, name: str = "file.csv") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def events_in_lake():
    paths = [
        str(files.absolute(row.path)) for row in LakeFile.objects.filter(kind="events", dead_manifest__isnull=True)
    ]
    if not paths:
        return []
    # The lake's folder is shared by the tests of a session; only what the database names is live.
    return duckdb.sql(
        f"SELECT profile_no, name, time_us, properties FROM read_parquet({paths}, union_by_name=true) ORDER BY event_key"
    ).fetchall()


def import_events(path, **options):
    mapping = options.pop("mapping", {"profile": "who", "time": "at"})
    row = imports.start(path, "events", mapping, event_name=options.pop("event_name", "purchase"), in_background=False)
    return imports.run_here(row)


def import_profiles(path, mapping=None):
    return imports.run_here(imports.start(path, "profiles", mapping or {"id": "who"}, in_background=False))


def test_identical_rows_both_count_and_the_same_file_again_counts_nothing(file):
    path = file("who,at,value\na,1997-01-01,5\na,1997-01-01,5\n")
    done = import_events(path)
    assert (done.rows_read, done.rows_accepted, done.rows_refused) == (2, 2, 0)
    again = imports.start(
        file(path.read_text(), "copy.csv"), "events", {"profile": "who", "time": "at"}, event_name="purchase"
    )
    assert again.pk == done.pk
    assert len(events_in_lake()) == 2


def test_other_columns_become_properties_and_keep_their_text(file):
    import_events(file("who,at,sku,note\na,1997-01-01T10:00:00Z,00042,\n"))
    (profile_no, name, time_us, properties), *rest = events_in_lake()
    assert not rest
    assert name == "purchase"
    assert time_us == 852_112_800_000_000
    assert orjson.loads(properties) == {"sku": "00042"}
    assert Profile.objects.get().profile_no == profile_no
    assert set(PropertyName.objects.values_list("event", "name", "type")) == {("purchase", "sku", "text")}


def test_a_column_may_name_the_event(file):
    import_events(
        file("who,at,what\na,1997-01-01, bought \na,1997-01-02,left\n"),
        mapping={"profile": "who", "time": "at", "name": "what"},
        event_name="",
    )
    assert set(EventName.objects.values_list("name", flat=True)) == {"bought", "left"}


@pytest.mark.parametrize(
    ("row", "field", "words"),
    [
        (",1997-01-01", "who", "is empty"),
        ("a,", "at", "is no time"),
        ("a,tomorrow", "at", "is no time"),
        ("a,1901-01-01", "at", "before 1970"),
        ("a,2990-01-01", "at", "in the future"),
        (f"{'x' * 151},1997-01-01", "who", "longer than 150 bytes"),
        ("a", "", "1 fields where the header has 2"),
    ],
)
def test_a_refused_row_keeps_its_place_its_reason_and_its_text_and_the_rest_goes_on(file, row, field, words):
    done = import_events(file(f"who,at\nb,1997-01-01\n{row}\nc,1997-01-02\n"))
    assert (done.rows_read, done.rows_accepted, done.rows_refused) == (3, 2, 1)
    refused = RefusedRow.objects.get()
    assert (refused.line, refused.field) == (3, field)
    assert words in refused.reason
    assert row.split(",")[0] in refused.raw
    assert len(events_in_lake()) == 2


def test_people_come_in_with_their_identifiers_normalised(file):
    import_profiles(
        file("who,mail,phone,country,tier\n00042, Mary@Example.COM ,0151 23456789,de,gold\n"),
        {"id": "who", "email": "mail"},
    )
    identity = Identity.objects.get()
    assert (identity.external_id, identity.email, identity.country) == ("00042", "mary@example.com", "DE")
    assert orjson.loads(Profile.objects.get().attributes)["tier"] == "gold"


def test_a_malformed_address_is_on_record_but_the_person_comes_in(file):
    done = import_profiles(file("who,email\na,not an address\n"))
    assert (done.rows_accepted, done.rows_refused) == (1, 0)
    assert Identity.objects.get().email == ""
    assert RefusedRow.objects.get().field == "email"


def test_the_same_person_twice_in_a_file_is_one_person_with_the_later_word(file):
    import_profiles(file("who,tier\na,silver\na,gold\n"))
    assert orjson.loads(Profile.objects.get().attributes)["tier"] == "gold"


def test_parquet_is_read_like_csv(tmp_path):
    path = tmp_path / "events.parquet"
    pq.write_table(pa.table({"who": ["a"], "at": [852_112_800], "value": [1.5]}), path)
    import_events(path)
    ((_, _, time_us, properties),) = events_in_lake()
    assert time_us == 852_112_800_000_000
    assert orjson.loads(properties) == {"value": 1.5}


@pytest.mark.parametrize(
    ("mapping", "name", "words"),
    [
        ({"profile": "who"}, "purchase", "Say which column holds the time"),
        ({"profile": "nobody", "time": "at"}, "purchase", "the file has no column “nobody”"),
        ({"profile": "who", "time": "at", "color": "who"}, "purchase", "there is no field “color”"),
        ({"profile": "who", "time": "at"}, "", "Say what the events are called"),
    ],
)
def test_a_wrong_mapping_is_refused_before_anything_is_read(file, mapping, name, words):
    with pytest.raises(imports.ImportRefused, match=words):
        imports.start(file("who,at\na,1997-01-01\n"), "events", mapping, event_name=name)
    assert not ImportFile.objects.exists()


def test_a_cancelled_import_keeps_what_it_took_in_and_can_go_on(file, monkeypatch):
    monkeypatch.setattr(imports, "ROWS_AT_ONCE", 10)
    monkeypatch.setattr(imports.Reader, "chunk_size", 10)
    path = file("who,at\n" + "".join(f"p{n},1997-01-01\n" for n in range(100)))
    row = imports.start(path, "events", {"profile": "who", "time": "at"}, event_name="purchase", in_background=False)
    seen = []

    def cancel_at_the_third(now):
        seen.append(now)
        if len(seen) == 3:
            imports.cancel(row, actor=None)

    stopped = imports.run_here(row, cancel_at_the_third)
    assert stopped.state == ImportFile.State.CANCELLED
    assert stopped.rows_accepted == len(events_in_lake()) == 30
    done = import_events(path)
    assert (done.pk, done.state, done.rows_accepted) == (row.pk, ImportFile.State.DONE, 100)
    assert len(events_in_lake()) == 100


def test_a_checkpoint_that_fails_leaves_no_event_and_no_file(file, monkeypatch):
    path = file("who,at\na,1997-01-01\n")
    row = imports.start(path, "events", {"profile": "who", "time": "at"}, event_name="purchase", in_background=False)

    def broken(*args, **kwargs):
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(lake, "publish", broken)
        with pytest.raises(RuntimeError):
            imports.run_here(row)
    assert not LakeFile.objects.exists()
    assert import_events(path).rows_accepted == 1


def test_the_command_says_what_became_of_the_rows(file, capsys):
    path = file("who,at\na,1997-01-01\nb,never\n")
    call_command("import_events", str(path), "--map", "profile=who", "--map", "time=at", "--name", "purchase")
    assert "1 of 2 rows taken in, 1 refused." in capsys.readouterr().out
    call_command("refused")
    assert 'import,file.csv,3,at,"is no time' in capsys.readouterr().out


@pytest.mark.parametrize("content", ["", "\n", "a,a\n1,2\n", ",".join(f"c{n}" for n in range(10_000)) + "\n"])
def test_the_command_fails_with_one_line_on_a_file_it_cannot_read(file, content):
    with pytest.raises(CommandError) as failure:
        call_command("import_profiles", str(file(content)), "--map", "id=who")
    assert len(str(failure.value).splitlines()) == 1


@given(
    st.lists(
        st.one_of(
            st.datetimes(min_value=datetime(1970, 1, 1), max_value=datetime(2100, 1, 1)).map(datetime.isoformat),
            st.dates(min_value=date(1970, 1, 1), max_value=date(2100, 1, 1)).map(date.isoformat),
            st.datetimes(timezones=st.just(UTC)).map(datetime.isoformat),
            st.integers(0, 10**10).map(str),
            st.text(alphabet="0123456789-:TZ+. ", max_size=25),
        ),
        max_size=4,
    )
)
def test_moments_read_at_once_are_those_read_one_by_one(values):
    assert imports._moments(values) == [moment_of(value) for value in values]
