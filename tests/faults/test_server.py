"""Faults of brokers, beats, databases and deploys (rows 9 to 14, 48 and 49 of the matrix), forced on the services' own commands.

What is about Redis, beat and PostgreSQL is for server mode alone; docs/operations.md says why it cannot be embedded.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from celery import current_app
from django.db import connection

from audiences import pulse
from destinations.models import Operation
from tests.destinations import scene
from tests.faults.shop_at_work import BOUGHT, CART, ShopAtWork, eventually
from tests.journeys.deployment import Deployment, _descendants
from tests.journeys.services import OURS, Services

server = [pytest.mark.slow, pytest.mark.server, pytest.mark.timeout(600)]
slow = [pytest.mark.slow, pytest.mark.timeout(900)]


def marked(*marks):
    def mark(test):
        for one in marks:
            test = one(test)
        return test

    return mark


class ServerShop(ShopAtWork):
    """The shop at work on PostgreSQL and Redis, by docker-compose.yml's own commands."""

    def __init__(self, folder, sandbox, account):
        super().__init__(folder, sandbox, account)
        self.deployment.remove()
        self.deployment = Services(folder)

    @property
    def services(self) -> Services:
        return self.deployment


@pytest.fixture
def shop(tmp_path, sandbox, account_number):
    made = ServerShop(tmp_path / "var", sandbox, account_number)
    yield made
    made.remove()


@pytest.fixture
def embedded(tmp_path, sandbox, account_number, monkeypatch):
    """Embedded, whatever the session runs on."""
    for name in ("DATABASE_URL", "BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    made = ShopAtWork(tmp_path / "var", sandbox, account_number)
    yield made
    made.remove()


def begun(shop, people=60, **env):
    """Filled, up, and everybody is where they should be."""
    shop.fill(people)
    shop.deployment.up(**env)
    eventually(lambda: shop.has(CART, *(f"p{n}" for n in range(people))) and shop.has(BOUGHT, "zoe"), within=120)


def accepted(shop):
    return shop.deployment.query("SELECT count(*) FROM audiences_changelog WHERE kind = 'event' AND name = 'purchase'")[
        0
    ][0]


def sync_all(shop):
    """Have both connections synced now, whatever their rhythm."""
    shop.deployment.shell_json(
        "from destinations.models import Mapping\nfrom destinations.services import runs\nimport json\n"
        "print('asked', json.dumps([runs.request(actor=None, mapping=m).pk for m in Mapping.objects.all()]))",
        "asked",
    )


def calls_and_operations(shop):
    """Calls that changed members as the platform counts them, and as they were written down before."""
    made = [call for audience in (CART, BOUGHT) for op in ("add", "remove") for call in shop.calls(audience, op)]
    return len(made), shop.deployment.query("SELECT count(*) FROM destinations_operation")[0][0]


@marked(*server)
def test_fault_09_two_beats_make_one_run_for_each_due_slot(shop):
    shop.fill(1)
    services = shop.services
    services.up()
    second = subprocess.Popen(services.command("beat"), cwd=Path(__file__).parents[2], env=services.environment("beat"))
    try:
        services.shell_json(
            "from audiences import jobs\nfrom datetime import timedelta\nimport json\n"
            "jobs.keep_doing('audiences.canary', 'slot', every=timedelta(seconds=2), queue='compute')\nprint('kept', json.dumps(1))",
            "kept",
        )
        turns = "SELECT fence FROM audiences_job WHERE task = 'audiences.canary' AND key = 'slot'"
        eventually(lambda: services.query(turns)[0][0] >= 1)
        before, began = services.query(turns)[0][0], time.monotonic()
        time.sleep(20)
        done, slots = services.query(turns)[0][0] - before, (time.monotonic() - began) / 2
    finally:
        second.kill()
        second.wait()
    assert slots / 2 <= done <= slots + 1
    assert services.query(
        "SELECT count(*) FROM (SELECT 1 FROM audiences_job GROUP BY task, key HAVING count(*) > 1) AS twice"
    ) == [(0,)]


@marked(*server)
def test_fault_10_after_redis_was_emptied_all_due_work_begins_within_a_minute_and_nobody_does_anything(shop):
    begun(shop)
    shop.sandbox.dial("hang", platform=shop.kind, account=shop.account, op="remove", seconds=3, apply=True, times=2)
    shop.act("p0")
    for n in range(1, 6):
        shop.act(f"p{n}")
        shop.services.redis.ask("flushall")
    bought = [f"p{n}" for n in range(6)]
    eventually(lambda: shop.lacks(CART, *bought) and shop.has(BOUGHT, *bought), within=60)


@marked(*server)
def test_fault_11_while_redis_is_away_pages_and_intake_answer_and_then_everybody_leaves_all_the_same(shop):
    begun(shop)
    services = shop.services
    services.redis.stop()

    began = time.monotonic()
    bought = [f"p{n}" for n in range(30)]
    for id in bought:
        shop.act(id)  # asserts that each is answered 200
    assert time.monotonic() - began < 30
    assert services.get("/setup/").status_code == 200
    ready = eventually_answer(
        lambda: services.get("/health/ready"), lambda answer: "broker" in answer.json()["degraded"]
    )
    assert (ready.status_code, ready.json()["ready"]) == (200, True)
    assert accepted(shop) == 31
    time.sleep(10)

    services.redis.start()
    eventually(lambda: services.look_after() or (shop.lacks(CART, *bought) and shop.has(BOUGHT, *bought)), within=90)
    eventually(lambda: services.get("/health/ready").json()["degraded"] == [], within=60, every=1)


@marked(*server)
def test_fault_12_a_worker_that_takes_nothing_any_more_fails_the_beat_and_ends_to_be_started_anew(shop):
    shop.fill(1)
    services = shop.services
    services.up(CANARY_SECONDS="24")
    eventually(lambda: services.get("/health/beat").json()["beating"], every=0.5)
    (name,) = [row[0] for row in services.query("SELECT name FROM audiences_worker WHERE name LIKE 'work%'")]
    celery = [
        str(Path(sys.executable).with_name("celery")),
        "--app",
        "config",
        "control",
        "--destination",
        name,
        "--timeout",
        "5",
    ]
    for queue in ("sync", "compute", "intake", f"here.{name}"):
        done = subprocess.run(
            [*celery, "cancel_consumer", queue], env=services.environment("worker"), cwd=Path(__file__).parents[2], capture_output=True, text=True
        )  # fmt: skip
        assert "OK" in done.stdout, done.stdout + done.stderr

    worker = services.running["worker"]
    assert worker.poll() is None
    failed = eventually_answer(
        lambda: services.get("/health/beat"), lambda answer: answer.json()["queues"]["compute"]["state"] == "silent"
    )
    assert failed.status_code == 503
    eventually(lambda: worker.poll() is not None, within=60)
    services.start("worker", CANARY_SECONDS="24")  # as docker's restart policy does
    eventually(lambda: services.get("/health/beat").json()["beating"], within=90, every=0.5)


@pytest.mark.django_db(transaction=True)
def test_fault_12_a_worker_sees_for_itself_that_nothing_arrives_and_one_that_is_full_waits(monkeypatch):
    monkeypatch.setattr(pulse, "SILENT", timedelta(seconds=1))
    monkeypatch.setattr(pulse, "EVERY", timedelta(seconds=0.1))
    monkeypatch.setattr(pulse.SelfCheck, "_note", lambda self: None)
    sent, ended = [], threading.Event()
    monkeypatch.setattr(current_app, "send_task", lambda *args, **kwargs: sent.append(kwargs["queue"]), raising=False)
    full = pulse.SelfCheck(lambda: pytest.fail("a full worker was ended"))
    full.begin("full@host", ["sync"], threads=0)

    pulse.SelfCheck(ended.set).begin("deaf@host", ["sync"], threads=4)

    assert ended.wait(20)
    full.stop()
    assert set(sent) == {"here.deaf@host", "here.full@host"}


@marked(*server)
def test_fault_13_a_task_that_redis_hands_out_again_while_it_runs_makes_no_second_call(shop):
    shop.fill(40)
    shop.sandbox.dial("hang", platform=shop.kind, account=shop.account, op="add", seconds=15, apply=True)
    shop.services.up(VISIBILITY_TIMEOUT="3")
    eventually(lambda: shop.has(CART, *(f"p{n}" for n in range(40))) and shop.has(BOUGHT, "zoe"), within=120)
    eventually(
        lambda: calls_and_operations(shop)[0] >= 2, within=60
    )  # they are on the log when they have hung long enough
    calls, operations = calls_and_operations(shop)
    assert calls == operations
    assert shop.deployment.query("SELECT count(*) FROM destinations_operation WHERE state = 'unknown'") == [(0,)]


@marked(*server)
def test_fault_14_when_the_database_cuts_every_connection_no_call_is_made_that_was_not_written_down(shop):
    begun(shop)
    services = shop.services
    bought = [f"p{n}" for n in range(40)]
    cut = 0
    for number, id in enumerate(bought):
        eventually(lambda id=id: answered(shop, id), within=60, every=0.2)
        if number % 8 == 0:
            sync_all(shop)
            cut += services.terminate_backends()
    assert cut >= 5
    assert accepted(shop) >= 41  # one that was answered by an error may have been taken in all the same
    eventually(
        lambda: services.look_after() or (shop.lacks(CART, *bought) and shop.has(BOUGHT, *bought)),
        within=180,
        every=0.5,
    )
    calls, operations = calls_and_operations(shop)
    assert calls <= operations


@pytest.mark.django_db(transaction=True)
def test_fault_48_no_call_is_made_when_it_could_not_be_written_down_before(sandbox, account_number):
    scene.workspace()
    scene.imported("ann", "bob")
    connected = scene.live(sandbox, account_number, scene.audience("in", scene.IN))
    with disk_full(), pytest.raises(Exception, match="full"):
        connected.sync()
    assert connected.calls("add") == []
    assert not Operation.objects.exists()

    connected.sync()

    assert connected.emails() == scene.hashes("ann", "bob")


class disk_full:
    """The commit that writes a call down fails, as on a disk without room."""

    def __enter__(self):
        with connection.cursor() as cursor:
            if connection.vendor == "sqlite":
                cursor.execute(
                    "CREATE TRIGGER no_room BEFORE INSERT ON destinations_operation BEGIN SELECT RAISE(ABORT, 'database or disk is full'); END"
                )
                return
            cursor.execute(
                "CREATE FUNCTION no_room() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " RAISE EXCEPTION 'could not extend file: disk full' USING ERRCODE = '53100'; END $$"
            )
            cursor.execute(
                "CREATE CONSTRAINT TRIGGER no_room AFTER INSERT ON destinations_operation"
                " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION no_room()"
            )

    def __exit__(self, *_):
        with connection.cursor() as cursor:
            cursor.execute(
                "DROP TRIGGER no_room" + ("" if connection.vendor == "sqlite" else " ON destinations_operation")
            )
            if connection.vendor == "postgresql":
                cursor.execute("DROP FUNCTION no_room()")


@marked(*server)
def test_fault_49_twenty_rolling_restarts_under_load_lose_nothing(shop):
    begun(shop, people=200)
    services = shop.services
    load = Load(shop, 200)
    for turn in range(20):
        name = OURS[turn % len(OURS)]
        code, seconds = services.stop_service(name)
        assert (code, seconds < 30) == (0, True), (name, code, seconds)
        services.start(name)
        eventually(lambda name=name: services.healthy(name), within=90, every=0.3)
    lost_nothing(shop, load)


@marked(*slow)
def test_fault_49_twenty_restarts_of_the_embedded_mode_under_load_lose_nothing(embedded):
    begun(embedded, people=200)
    load = Load(embedded, 200)
    place = embedded.deployment
    began_at = "SELECT max(started_at) FROM audiences_worker"
    for turn in range(20):
        before = place.query(began_at)
        if turn % 5 == 4:
            assert place.stop() == 0
            place.up()
        elif turn % 4 == 1:
            asked_to_stop(place, b"gunicorn")
            eventually(lambda: answers(place), within=60, every=0.2)
            continue
        else:
            asked_to_stop(place, b"manage.py\0work\0")
        eventually(lambda before=before: place.query(began_at) > before, within=60, every=0.2)
    lost_nothing(embedded, load)


class Load:
    """People who buy and people who come, one after the other, for as long as it lasts; each is tried until it is answered."""

    def __init__(self, shop, people):
        self.shop, self.people = shop, people
        self.bought, self.came = [], []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self):
        self._stop.set()
        self._thread.join(90)
        assert not self._thread.is_alive()

    def _run(self):
        for number in range(self.people):
            if self._stop.is_set():
                return
            buyer, fresh = f"p{number}", f"n{number}"
            self._until(lambda buyer=buyer: answered(self.shop, buyer))
            self.bought.append(buyer)
            self._until(lambda fresh=fresh: identified(self.shop, fresh))
            self.came.append(fresh)
            self._stop.wait(0.2)

    def _until(self, question):
        while not question():
            time.sleep(0.2)


def lost_nothing(shop, load):
    load.end()
    assert len(load.bought) > 10, "there was no load"
    sync_all(shop)
    staying = [f"p{n}" for n in range(load.people) if f"p{n}" not in load.bought]
    expected = {scene.sha(f"{id}@example.com") for id in (*staying, *load.came)}
    suppressed = {scene.sha(f"{id}@example.com") for id in (*load.bought, "zoe")}
    eventually(lambda: shop.emails(CART) == expected and shop.emails(BOUGHT) == suppressed, within=240, every=1)
    assert accepted(shop) >= len(load.bought) + 1
    eventually(lambda: running_without_lease(shop) == 0, within=60, every=1)


def running_without_lease(shop):
    now = (
        "datetime('now')"
        if isinstance(shop.deployment, Deployment) and not isinstance(shop.deployment, Services)
        else "now()"
    )
    return shop.deployment.query(
        "SELECT count(*) FROM destinations_run r JOIN destinations_ledger l ON l.mapping_id = r.mapping_id"
        f" WHERE r.state IN ('diffing', 'sending', 'confirming') AND (l.bulk_until IS NULL OR l.bulk_until < {now})"
    )[0][0]


def answered(shop, id):
    try:
        return (
            shop._http.post(f"/api/v1/customers/{id}/events", json={"name": "purchase", "id": f"buy-{id}"}).status_code
            == 200
        )
    except httpx.TransportError:
        return False


def identified(shop, id):
    try:
        return (
            shop._http.put(f"/api/v1/customers/{id}", json={"email": f"{id}@example.com", "in": "yes"}).status_code
            == 200
        )
    except httpx.TransportError:
        return False


def asked_to_stop(place, command):
    """The deployment's process of this command gets SIGTERM, and is gone within 30 seconds."""
    (old, *_) = [pid for pid in _descendants(place.process.pid) if command in command_of(pid)]
    os.kill(old, signal.SIGTERM)
    eventually(lambda: not Path(f"/proc/{old}").exists(), within=30, every=0.1)


def answers(place):
    try:
        return httpx.get(f"{place.url}/health/live").status_code == 200
    except httpx.TransportError:
        return False


def command_of(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return b""


def eventually_answer(ask, holds, within=60):
    deadline = time.monotonic() + within
    while True:
        answer = ask()
        if holds(answer):
            return answer
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.5)
