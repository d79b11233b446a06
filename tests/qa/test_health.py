"""What machines are told that watch this one: who answers, who is ready, whose work gets done; and nothing else."""

from datetime import timedelta

import pytest
from django.db import OperationalError
from django.utils import timezone

from audiences import jobs, pulse
from audiences.models import Job, Worker
from qa import health, soundness

pytestmark = pytest.mark.django_db

PROBE = {"HTTP_HOST": "10.1.2.3:8000"}  # by address, as a container's watcher does


@pytest.fixture(autouse=True)
def _ask_anew():
    health._answers.clear()
    yield
    health._answers.clear()


def canaries(**ages):
    """Each queue's canary was done so many seconds ago."""
    pulse.keep_canaries()
    for queue, seconds in ages.items():
        Job.objects.filter(task="audiences.canary", key=queue).update(
            finished_at=timezone.now() - timedelta(seconds=seconds), due_at=timezone.now() + timedelta(hours=1)
        )


def worker(queues, *, running=0, threads=4, seen=0):
    now = timezone.now()
    return Worker.objects.create(
        name=f"w{len(queues)}@host", queues=queues, running=running, threads=threads, started_at=now, seen_at=now - timedelta(seconds=seen)
    )  # fmt: skip


def test_a_web_process_lives_by_any_name_and_over_plain_http(client, settings):
    settings.SECURE_SSL_REDIRECT = True
    assert client.get("/health/live", **PROBE).json() == {"live": True}
    assert client.post("/health/live", **PROBE).status_code == 405
    assert client.get("/health/nothing", **PROBE).status_code == 404
    assert client.get("/", **PROBE).status_code in (301, 400)


def test_it_is_ready_when_the_database_is_up_to_date_and_the_lake_takes_files(client):
    canaries(urgent=1, sync=1, compute=1, intake=1)
    answer = client.get("/health/ready")
    assert answer.status_code == 200
    assert answer.json() == {"ready": True, "database": True, "migrations": True, "lake": True, "degraded": []}


def test_it_is_not_ready_without_a_lake_to_write_to(client, settings, tmp_path):
    file = tmp_path / "a-file"
    file.touch()
    settings.LAKE_URL = str(file)
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["lake"]) == (503, False)


def test_it_is_not_ready_before_its_migrations(client, monkeypatch):
    monkeypatch.setattr(health, "_known_migrated", False)
    monkeypatch.setattr("django.db.migrations.executor.MigrationExecutor.migration_plan", lambda *_: ["one"])
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["migrations"]) == (503, False)


def test_without_a_database_it_lives_and_is_not_ready(client, monkeypatch):
    def gone(*_):
        raise OperationalError("connection refused")

    with monkeypatch.context() as patched:
        patched.setattr("django.db.backends.base.base.BaseDatabaseWrapper.cursor", gone)
        assert client.get("/health/live").status_code == 200
        assert client.get("/health/ready").json()["database"] is False
        assert client.get("/health/beat").status_code == 503


def test_a_broker_that_is_away_degrades_and_nothing_more(client, settings):
    canaries(urgent=1, sync=1, compute=1, intake=1)
    settings.EMBEDDED, settings.BROKER_URL = False, "redis://127.0.0.1:1/0"
    answer = client.get("/health/ready")
    assert (answer.status_code, answer.json()["degraded"]) == (200, ["broker"])


def test_fault_12_a_queue_whose_canary_is_older_than_two_minutes_fails_the_beat(client):
    canaries(urgent=100, sync=100, compute=100, intake=100)
    assert client.get("/health/beat").json()["beating"] is True
    canaries(sync=121)
    answer = client.get("/health/beat")
    assert answer.status_code == 503
    states = {queue: said["state"] for queue, said in answer.json()["queues"].items()}
    assert states == {"urgent": "ok", "sync": "silent", "compute": "ok", "intake": "ok"}
    assert client.get("/health/ready").json()["degraded"] == ["queue sync"]


def test_fault_12_a_queue_whose_workers_have_no_thread_free_is_busy_and_not_dead(client):
    canaries(urgent=1, sync=300, compute=300, intake=300)
    worker(["sync", "compute"], running=4)
    worker(["intake"], running=4, seen=121)
    states = {queue: said["state"] for queue, said in client.get("/health/beat").json()["queues"].items()}
    assert states == {"urgent": "ok", "sync": "busy", "compute": "busy", "intake": "silent"}


def test_before_any_worker_has_started_nothing_beats_and_no_age_is_made_up(client):
    answer = client.get("/health/beat")
    assert answer.status_code == 503
    assert answer.json()["queues"]["urgent"] == {"seconds": None, "state": "unknown"}


def test_a_canary_is_done_by_whoever_works_its_queue_and_comes_again():
    pulse.keep_canaries()
    assert jobs.run_due_here(["compute"]) == 1
    row = Job.objects.get(task="audiences.canary", key="compute")
    assert row.due_at - timezone.now() <= pulse.EVERY
    assert {beat.queue: beat.state for beat in health.beats()}["compute"] == "ok"


def test_the_doctor_names_the_queues_that_nobody_works():
    canaries(urgent=1, sync=600, compute=1, intake=1)
    found = {finding.question: finding for finding in soundness.examine()}["workers"]
    assert (found.state, "sync (for 10 minutes)" in found.words) == ("problem", True)
    canaries(sync=1)
    assert {finding.question: finding for finding in soundness.examine()}["workers"].state == "ok"
