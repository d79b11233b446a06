"""The pages of the record and of the warehouse, through the client: asked for, made by a job, downloaded by whoever may, gone in time."""

import io
import zipfile
from datetime import timedelta

import pyarrow.parquet as pq
import pytest
from django.utils import timezone

from audiences import clock, jobs
from audiences.models import AuditEntry, Job
from destinations.models import RecordExport, Warehouse
from destinations.record import shape
from destinations.services import record, warehouse
from tests import filled
from tests.audiences.people_in import erase, until_counted

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def world():
    made = filled.fill()
    until_counted()
    return made


def work():
    jobs.run_due_here(["compute"], rounds=1)


def ask(client, key, **fields):
    today = timezone.localdate().isoformat()
    given = {"start": "2026-01-01", "end": today, "tables": [t.name for t in shape.TABLES], "file_format": "parquet"}
    return client.post(f"/audiences/{key}/record/ask/", given | fields)


def downloaded(client, key, pk):
    response = client.post(f"/audiences/{key}/record/{pk}/download/")
    assert response.status_code == 200, response.headers
    return response, zipfile.ZipFile(io.BytesIO(b"".join(response.streaming_content)))


def test_a_record_is_asked_for_made_and_downloaded_with_who_did_it_on_the_trail(world):
    marketer = filled.as_(world, "marketer")
    key = world.cart.key
    assert ask(marketer, key).headers["Location"] == f"/audiences/{key}/record/"
    export = RecordExport.objects.get()
    page = marketer.get(f"/audiences/{key}/record/").content.decode()
    assert "Waiting" in page and "Download" not in page
    work()
    assert "Ready" in marketer.get(f"/audiences/{key}/record/").content.decode()

    response, archive = downloaded(marketer, key, export.pk)

    assert response.headers["Content-Disposition"] == f'attachment; filename="record-{key}-{export.pk}.zip"'
    assert response.headers["Cache-Control"] == "no-store, private"
    assert sorted(archive.namelist()) == sorted(f"{table.name}.parquet" for table in shape.TABLES)
    members = pq.read_table(io.BytesIO(archive.read("memberships.parquet"))).to_pylist()
    assert {row["external_id"] for row in members} == {"ann"}
    verbs = AuditEntry.objects.filter(object_key=key, verb__startswith="record.").order_by("pk")
    assert [(entry.verb, entry.actor_label) for entry in verbs] == [
        ("record.asked", "marketer@example.com"), ("record.downloaded", "marketer@example.com"),
    ]  # fmt: skip
    assert "Record downloaded" in marketer.get(f"/audiences/{key}/record/").content.decode()


def test_days_are_whole_days_where_the_reader_is(world):
    marketer = filled.as_(world, "marketer")  # the workspace is in Berlin
    ask(marketer, world.cart.key, start="2026-07-01", end="2026-07-01")
    export = RecordExport.objects.get()
    assert clock.from_us(export.start_us).isoformat() == "2026-06-30T22:00:00+00:00"
    assert clock.from_us(export.end_us).isoformat() == "2026-07-01T22:00:00+00:00"


def test_csv_in_the_zip_is_csv(world):
    marketer = filled.as_(world, "marketer")
    ask(marketer, world.cart.key, file_format="csv", tables=["audiences", "events"])
    work()
    _, archive = downloaded(marketer, world.cart.key, RecordExport.objects.get().pk)
    assert archive.namelist() == ["audiences.csv", "events.csv"]
    assert archive.read("audiences.csv").startswith(b'"audience_key","name"')


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"start": "2026-02-02", "end": "2026-02-01"}, "before the day on which it begins"),
        ({"tables": []}, "This field is required"),
        ({"tables": ["secrets"]}, "Select a valid choice"),
        ({"file_format": "exe"}, "Select a valid choice"),
        ({"start": "yesterday"}, "Enter a valid date"),
        ({"end": "9999-12-31"}, "There is nothing to say of that year"),
        ({"start": "0001-01-01"}, "There is nothing to say of that year"),
    ],
)
def test_what_cannot_be_made_is_refused_at_its_field(world, given, words):
    response = ask(filled.as_(world, "marketer"), world.cart.key, **given)
    assert response.status_code == 422
    assert words in response.content.decode()
    assert not RecordExport.objects.exists()


def test_somebody_who_is_erased_takes_every_file_with_them(world):
    marketer = filled.as_(world, "marketer")
    ask(marketer, world.cart.key)
    work()
    export = RecordExport.objects.get()
    path = record.path_of(export)
    assert path.exists()
    erase("bob")
    until_counted()

    response = marketer.post(f"/audiences/{world.cart.key}/record/{export.pk}/download/", follow=True)

    assert "not here any more" in response.content.decode()
    assert "Somebody was erased after it was made" in response.content.decode()
    assert not path.exists()
    assert RecordExport.objects.get().state == "withdrawn"


def test_files_are_swept_when_their_time_is_over_or_somebody_was_erased(world):
    marketer = filled.as_(world, "marketer")
    for _ in range(2):
        ask(marketer, world.cart.key)
    work()
    old, young = RecordExport.objects.order_by("pk")
    RecordExport.objects.filter(pk=old.pk).update(kept_until=timezone.now() - timedelta(seconds=1))
    assert record.sweep() == 1
    assert (record.path_of(old).exists(), record.path_of(young).exists()) == (False, True)
    erase("ann")
    assert record.sweep() == 1
    assert not record.path_of(young).exists()
    assert [export.state for export in RecordExport.objects.order_by("pk")] == ["expired", "withdrawn"]


def test_one_that_is_stopped_while_it_waits_is_never_made(world):
    marketer = filled.as_(world, "marketer")
    ask(marketer, world.cart.key)
    export = RecordExport.objects.get()
    marketer.post(f"/audiences/{world.cart.key}/record/{export.pk}/discard/")
    work()
    assert RecordExport.objects.get().state == "expired"
    assert not record.path_of(export).exists()


def test_what_breaks_off_again_and_again_is_given_up_with_words(world, monkeypatch):
    ask(filled.as_(world, "marketer"), world.cart.key)
    monkeypatch.setattr(record, "KEPT", "nonsense")  # what makes the file ready fails
    for _ in range(4):
        Job.objects.filter(task=record.TASK).update(due_at=timezone.now())
        jobs.run_due_here(["compute"], rounds=1)
    export = RecordExport.objects.get()
    assert (export.state, export.error) == ("failed", "It broke off 4 times (TypeError); the log has the details.")


def test_no_more_than_a_few_are_made_at_once(world):
    marketer = filled.as_(world, "marketer")
    for _ in range(record.AT_ONCE):
        assert ask(marketer, world.cart.key).status_code == 302
    assert "are being made already" in ask(marketer, world.cart.key).content.decode()


def test_the_warehouse_is_named_without_its_password_being_shown_again(world):
    operator = filled.as_(world, "operator")
    assert "No warehouse yet" in operator.get("/settings/warehouse/").content.decode()
    url = "postgresql://loader:a-secret-word@127.0.0.1:1/shop"
    given = {"url": url, "schema": "rollcall", "cadence_seconds": "3600", "with_events": "on"}
    response = operator.post("/settings/warehouse/", given, follow=True)
    page = response.content.decode()
    assert "127.0.0.1 could not be reached." in page
    assert "loader@127.0.0.1:1/shop" in page
    assert "a-secret-word" not in page + str(list(AuditEntry.objects.values_list("after", "before")))
    assert Warehouse.objects.get().state == "failing"

    operator.post("/settings/warehouse/start/")
    assert Job.objects.get(task=warehouse.TASK).every_seconds == 3600
    work()
    row = Warehouse.objects.get()
    assert (row.state, row.loaded_at) == ("failing", None)
    page = operator.get("/settings/warehouse/").content.decode()
    assert "By its cadence" in page and "Nothing yet" in page
    operator.post("/settings/warehouse/", {**given, "url": "", "cadence_seconds": "900"})
    assert Job.objects.get(task=warehouse.TASK).every_seconds == 900
    operator.post("/settings/warehouse/stop/")
    assert Job.objects.get(task=warehouse.TASK).every_seconds is None
    assert "Stopped" in operator.get("/settings/warehouse/").content.decode()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"url": "mysql://a:b@host/x"}, "Is not an address"),
        ({"url": "postgresql://a:b@host/x?options=-c%20role%3Dpostgres"}, "May hold sslmode and nothing else"),
        ({"url": "postgresql://a:b@host:port/x"}, "Is not an address"),
        ({"url": ""}, "Is needed"),
        ({"schema": "public"}, "Is not for us alone"),
        ({"schema": 'x"; DROP SCHEMA public; --'}, "Must be 1 to 63 small letters"),
        ({"cadence_seconds": "7"}, "Select a valid choice"),
    ],
)
def test_a_warehouse_that_cannot_be_is_refused_at_its_field(world, given, words):
    base = {"url": "postgresql://a:b@db.example/x", "schema": "rollcall", "cadence_seconds": "3600"}
    response = filled.as_(world, "operator").post("/settings/warehouse/", base | given)
    assert response.status_code == 422
    assert words in response.content.decode()
    assert not Warehouse.objects.exclude(address="").exists()
