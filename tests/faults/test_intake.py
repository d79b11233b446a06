"""Rows 37, 39, 40 and 46 of the fault catalogue, and intake while whatever is not the database is away: accepted is committed, once, and seen."""

import base64
import gzip
import json
import os
import random
import signal
import socket
import threading
import time
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection, transaction
from django.db.models import Max
from django.test import Client
from django.utils import timezone

from audiences import clock, jobs
from audiences.models import ChangeLog, Event, ImportFile, RefusedRow
from audiences.people import intake, lake, payloads
from audiences.people.lake import Known
from audiences.people.payloads import Context
from audiences.services import api_keys
from destinations import changes
from qa import soundness, watch
from qa.checks import facts
from qa.checks.registry import KINDS
from qa.models import Incident
from tests import filled, peak
from tests.audiences.people_in import until_counted
from tests.journeys.deployment import Deployment
from tests.journeys.web import Web, answer

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def own_lake(settings, tmp_path):
    settings.LAKE_URL = str(tmp_path / "lake")


@pytest.fixture
def call():
    """POST JSON to an address of the Track API with a key; the answer."""
    made = api_keys.create("shop", None)
    door = "Basic " + base64.b64encode(f"{made.key.site_id}:{made.secret}".encode()).decode()
    client = Client()

    def post(path, **body):
        return client.post(path, json.dumps(body), content_type="application/json", headers={"Authorization": door})

    return post


# ---- 37: the same id, another body


def test_fault_37_the_first_body_of_an_id_stands_and_each_other_one_is_counted_and_shown(call, client):
    for value in (20, 20, 99, 1_000_000):
        answer = call("/api/v1/customers/ann/events", name="purchase", id="order-1", data={"value": value})
        assert answer.status_code == 200  # the sender can do nothing about it, and would only send it again
    batch = [
        {"type": "person", "action": "event", "identifiers": {"id": "ann"}, "name": "purchase", "id": "order-1",
         "attributes": {"value": value}}
        for value in (20, 98)
    ]  # fmt: skip
    assert call("/api/v2/batch", batch=batch).status_code in (200, 207)

    (event,) = Event.objects.all()
    assert json.loads(event.properties) == {"value": 20}
    conflicts = RefusedRow.objects.filter(field="id", reason="conflict")
    assert sorted(json.loads(row.raw)["attributes"]["value"] for row in conflicts) == [98, 99, 1_000_000]


# ---- 39: clocks that are wrong


def test_fault_39_no_time_is_later_than_five_minutes_after_receipt_and_cursors_follow_the_order_of_arrival(
    call, tmp_path
):
    before, mark = clock.now_us(), changes.final_mark()
    ten_years = int(time.time()) + 10 * 365 * 86_400
    call("/api/v1/customers/ann/events", name="early", timestamp=ten_years)
    call(
        "/api/v2/entity", type="person", action="event", identifiers={"id": "ann"}, name="earlier", timestamp=ten_years
    )
    call("/api/v1/customers/ann/events", name="late", timestamp=1)
    call("/api/v1/customers/ann/events", name="plain")
    file = tmp_path / "events.csv"
    file.write_text(f"who,when\nann,{ten_years}\nann,{int(time.time())}\n")
    words = ["import_events", str(file), "--map", "profile=who", "--map", "time=when", "--name", "bought"]
    call_command(*words)
    until_counted()

    for event in Event.objects.all():
        assert event.time_us <= event.received_us + 5 * clock.MINUTE
    assert ImportFile.objects.get().rows_refused == 1
    assert RefusedRow.objects.filter(reason="is in the future").count() == 1
    flagged = RefusedRow.objects.exclude(source="import")
    assert flagged.count() == 2, list(flagged.values_list("field", "reason"))
    # What reads the log by its mark sees all of it, in the order in which it came, whatever times were said.
    assert [line.name for line in changes.since(mark, None) if line.kind == "event"] == [
        "early",
        "earlier",
        "late",
        "plain",
    ]
    assert all(line.at_us >= before for line in changes.since(mark, None))


# ---- 40: ties, and transactions that end in another order than they began


def until_final():
    """On PostgreSQL the log is read up to what no transaction under way anywhere on the server could precede."""
    newest = ChangeLog.objects.aggregate(newest=Max("xid"))["newest"] or 0
    deadline = time.monotonic() + 120
    while connection.vendor == "postgresql" and changes.final_mark() < newest:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_fault_40_every_committed_event_is_read_once_however_transactions_overlap():
    """On SQLite writers follow one another; on PostgreSQL they overlap, and rows become visible out of the order of their ids."""
    threads, rounds, stop = 6, 25, threading.Event()
    failed: list[BaseException] = []
    known, mark, done = Known(), changes.final_mark(), False

    def write(index):
        dice = random.Random(index)
        try:
            for turn in range(rounds):
                with transaction.atomic():
                    now = clock.now_us()
                    calls = [
                        payloads.event_v1(f"p{index}", {"name": "tie", "id": f"{index}-{turn}-{n}", "timestamp": 1_700_000_000}, Context(now, "US"))
                        for n in range(dice.randint(1, 4))
                    ]  # fmt: skip
                    intake.accept(calls, "track_v1", received_us=now)
                    if connection.vendor == "postgresql":
                        time.sleep(dice.uniform(0, 0.03))
                time.sleep(dice.uniform(0, 0.01))
        except BaseException as error:
            failed.append(error)
        finally:
            connection.close()

    writers = [threading.Thread(target=write, args=(index,)) for index in range(threads)]
    for writer in writers:
        writer.start()
    copied: list[str] = []
    logged: list[int] = []
    while not done:
        done = stop.is_set()
        if not any(writer.is_alive() for writer in writers):
            stop.set()
            until_counted()
            until_final()
        final = changes.final_mark()
        column = "xid" if connection.vendor == "postgresql" else "seq"
        logged += ChangeLog.objects.filter(
            **{f"{column}__gt": mark, f"{column}__lte": final}, kind="event"
        ).values_list("seq", flat=True)
        mark = final
        pinned = lake.pin(clock.now_us(), hold=timedelta(minutes=5))
        for part in lake.read_events(pinned, known=known):
            for batch in part.batches:
                copied += batch.column("event_key").to_pylist()
        known = Known(pinned.snapshot.manifest, pinned.snapshot.hot, pinned.as_of_us)
        lake.let_go(pinned)
        lake.flush(limit=20)
    assert failed == []
    committed = ChangeLog.objects.filter(kind="event").count()
    assert committed > threads * rounds
    assert len(logged) == len(set(logged)) == committed
    assert len(copied) == len(set(copied)) == committed


# ---- What waits is seen


def test_what_waits_to_be_stored_is_on_the_imports_page_in_an_alert_and_in_the_doctors_words(call, monkeypatch):
    people = filled.users()
    client = filled.as_(people, "operator")
    assert "Every event that came in is in the lake." in client.get("/imports/").content.decode()
    for n in range(3):
        call("/api/v1/customers/ann/events", name="purchase", id=f"order-{n}")
    fresh = client.get("/imports/").content.decode()
    assert "3 events came in and are not in the lake yet" in fresh and "manage.py doctor" not in fresh
    assert [reading.finding for reading in KINDS["intake"].look(facts.load())] == [None]

    Event.objects.update(received_us=clock.now_us() - 10 * clock.MINUTE)
    monkeypatch.setattr(lake, "flush", unwritable)
    jobs.ask("audiences.flush", "", queue="intake")
    jobs.run_due_here(["intake"], rounds=1)

    late = client.get("/imports/").content.decode()
    assert "They count already, but should not wait so long" in late and "PermissionError" in late
    (reading,) = KINDS["intake"].look(facts.load())
    assert reading.finding and reading.finding.severity == "warning"
    assert reading.finding.sentence.startswith("3 events that were accepted wait to be stored, the first since")
    assert "PermissionError" in reading.finding.causes[0]
    (said,) = [finding for finding in soundness.examine() if finding.question == "lake"]
    assert (said.state, "3 accepted events wait" in said.words) == ("warning", True)
    now = timezone.now()
    watch.look(now=now)
    watch.look(now=now + timedelta(seconds=30))
    assert Incident.objects.get(kind="intake").owner is not None
    monkeypatch.undo()
    while lake.flush():
        pass
    watch.look(now=now + timedelta(minutes=2))
    watch.look(now=now + timedelta(minutes=4))
    assert Incident.objects.get(kind="intake").recovered_at is not None


def unwritable(**_):
    raise PermissionError("the folder of the lake")


# ---- 46: what is huge


LIMIT_MB = 512


@pytest.fixture
def deployment(tmp_path):
    made = Deployment(tmp_path / "var")
    made.migrate()
    yield made
    made.remove()


def huge(folder: Path, kind: str) -> Path:
    """Files that would fill memory or disk, were they taken whole."""
    path = folder / f"{kind}.csv"
    if kind == "columns":
        path.write_text(",".join(["who", "when", *(f"c{n}" for n in range(1_000_000))]) + "\n" + "ann,1\n")
    elif kind == "bomb":  # a line of 3 GB in 3 MB
        path = folder / "bomb.csv.gz"
        with gzip.open(path, "wb", compresslevel=9) as file:
            file.write(b"who,when\nann,1700000000\n")
            for _ in range(3_000):
                file.write(b"x" * 1_000_000)
            file.write(b"\nbob,1700000000\n")
    elif kind == "bombs":  # many lines that are too long, each of them to be set aside
        path = folder / "bombs.csv.gz"
        with gzip.open(path, "wb", compresslevel=9) as file:
            file.write(b"who,when\n")
            for _ in range(300):
                file.write(b"ann," + b"9" * 2_000_000 + b"\n")
            file.write(b"bob,1700000000\n")
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [
        ("columns", 1, "no CSV header: longer than 1,000,000 bytes"),
        ("bomb", 0, "2 of 3 rows taken in, 1 refused"),
        ("bombs", 0, "1 of 301 rows taken in, 300 refused"),
    ],
)
def test_fault_46_a_file_made_to_fill_memory_is_read_in_little_of_it(deployment, tmp_path, kind, code, words):
    path = huge(tmp_path, kind)
    arguments = ["import_events", str(path), "--map", "profile=who", "--map", "time=when", "--name", "bought"]
    done = peak.run("manage.py", *arguments, env=deployment.env)
    assert (done.code, words in done.out) == (code, True), done.out[-1000:]
    assert done.peak < LIMIT_MB * 1_000_000, f"{done.peak / 1e6:.0f} MB"


@pytest.mark.slow
def test_fault_46_a_large_file_is_read_in_bounded_memory_and_goes_on_where_it_was_killed(deployment, tmp_path):
    path = tmp_path / "large.csv"
    rows = 400_000
    with path.open("w") as file:
        file.write("who,when,note\n")
        for n in range(rows):
            file.write(f"c{n % 5_000},{1_700_000_000 + n},{'x' * 100}\n")
    deployment.env["IMPORT_CHECKPOINT_ROWS"] = "50000"
    arguments = ["import_events", str(path), "--map", "profile=who", "--map", "time=when", "--name", "bought"]
    process = deployment.launch(*arguments)
    deadline = time.monotonic() + 120
    while not (deployment.query("SELECT rows_read FROM audiences_importfile WHERE rows_read > 0")):
        assert process.poll() is None and time.monotonic() < deadline, deployment.log()
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    ((kept,),) = deployment.query("SELECT rows_read FROM audiences_importfile")
    assert 0 < kept < rows
    deployment_lease_is_over(deployment)
    done = peak.run("manage.py", *arguments, env=deployment.env)
    assert done.code == 0 and f"{rows:,} of {rows:,} rows taken in" in done.out, done.out[-1000:]
    assert done.peak < LIMIT_MB * 1_000_000, f"{done.peak / 1e6:.0f} MB"
    assert deployment.shell_json(SEEN, "seen") == [rows, rows]


SEEN = """
import json
from datetime import timedelta
from audiences import clock, jobs
from audiences.people import lake
pinned = lake.pin(clock.now_us(), hold=timedelta(minutes=5))
keys = [key for part in lake.read_events(pinned) for batch in part.batches for key in batch.column("event_key").to_pylist()]
print("seen", json.dumps([len(keys), len(set(keys))]))
"""


def deployment_lease_is_over(deployment):
    """As if the dead process's lease had run out."""
    done = deployment.manage("shell", "-c", "from audiences.models import Job; Job.objects.update(lease_until=None)")
    assert done.returncode == 0


@pytest.mark.slow
def test_fault_46_what_is_over_the_limit_is_refused_before_any_of_it_is_kept(deployment, tmp_path):
    web = Web(deployment, TMPDIR=str(tmp_path / "tmp"), UPLOAD_DIR=str(tmp_path / "tmp"))
    (tmp_path / "tmp").mkdir()
    web.start()
    try:
        for path, length in (
            ("/imports/new/", 5_000_000_000),
            ("/sign-in/", 50_000_000),
            ("/api/v2/batch", 5_000_000_000),
        ):
            with closing(socket.create_connection(("127.0.0.1", web.port), timeout=20)) as caller:
                head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {length}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
                caller.sendall(head.encode() + f"Authorization: {web.authorization}\r\n\r\n".encode())
                caller.sendall(
                    b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.csv"\r\n\r\n' + b"x" * 100_000
                )
                assert answer(caller.makefile("rb")) == 413, path
        assert sum(file.stat().st_size for file in (tmp_path / "tmp").rglob("*") if file.is_file()) < 1_000_000
    finally:
        web.stop()


# ---- Whatever is not the database may be away


@pytest.mark.slow
@pytest.mark.parametrize("away", ["worker", "broker", "lake"])
def test_while_worker_broker_or_lake_is_away_clients_are_answered_and_nothing_is_lost(deployment, tmp_path, away):
    events, people = 300, 40
    env = {}
    if away == "broker":
        env["BROKER_URL"] = "redis://127.0.0.1:1/0"
    if away == "lake":
        (tmp_path / "not-a-folder").write_text("")
        env["LAKE_URL"] = str(tmp_path / "not-a-folder" / "lake")
    web = Web(deployment, **env)
    web.start()
    try:
        with closing(socket.create_connection(("127.0.0.1", web.port), timeout=20)) as caller:
            stream = caller.makefile("rb")
            for n in range(events):
                caller.sendall(web.event(f"p{n % people}", f"e{n}", value=n))
                assert answer(stream) == 200
        ((waiting,),) = deployment.query("SELECT count(*) FROM audiences_event")
        assert waiting == events
        assert web.process and web.process.poll() is None
    finally:
        web.stop()
    deployment.up()
    deadline = time.monotonic() + 120
    while deployment.query("SELECT count(*) FROM audiences_event") != [(0,)]:
        deployment.manage("shell", "-c", "from audiences.people import lake; lake.flush()")
        assert time.monotonic() < deadline
    assert deployment.shell_json(SEEN, "seen") == [events, events]
