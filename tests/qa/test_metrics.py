"""What Prometheus reads is what happened, from every process, in labels of bounded sets, and for nobody but those who may."""

import base64
import os
import re
import subprocess
import sys
from datetime import timedelta

import pytest
from django.db import OperationalError, connection
from django.test import Client
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families

from audiences import jobs, pulse, tallies
from audiences.models import Event, Job, Tally, Worker
from audiences.services import api_keys
from destinations.models import Removal
from destinations.services import holds
from qa import latencies
from tests import filled
from tests.audiences.people_in import identify
from tests.destinations import scene

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _count_anew():
    tallies._added.clear()
    yield
    tallies._added.clear()


def scraped():
    """(name, labels as sorted pairs) → value."""
    text = Client().get("/metrics").content.decode()
    return {
        (sample.name.removeprefix("rollcall_"), tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found, name, **labels):
    return found.get((name, tuple(sorted(labels.items()))))


def test_only_who_knows_the_token_may_read_them(client, settings):
    settings.METRICS_TOKEN = "a-token"
    assert client.get("/metrics").status_code == 401
    assert client.get("/metrics", headers={"Authorization": "Bearer another"}).status_code == 401
    allowed = client.get("/metrics", headers={"Authorization": "Bearer a-token"}, HTTP_HOST="web:8000")
    assert allowed.status_code == 200
    assert allowed["Content-Type"].startswith("text/plain")


def test_without_a_token_this_machine_alone_may_and_nobody_through_a_proxy(client):
    assert client.get("/metrics").status_code == 200
    assert client.get("/metrics", REMOTE_ADDR="10.0.0.9").status_code == 403
    assert client.get("/metrics", headers={"X-Forwarded-For": "10.0.0.9"}).status_code == 403


def test_queues_are_told_by_what_waits_and_how_long(client):
    now = timezone.now()
    Job.objects.create(task="a", queue="sync", due_at=now - timedelta(seconds=90))
    Job.objects.create(task="b", queue="sync", due_at=now - timedelta(seconds=10))
    Job.objects.create(
        task="c", queue="sync", lease_until=now + timedelta(seconds=30), started_at=now - timedelta(seconds=5)
    )
    Job.objects.create(task="d", queue="compute", due_at=now + timedelta(hours=1), attempts=3)
    Worker.objects.create(name="w", queues=["sync"], threads=4, running=1, started_at=now, seen_at=now)
    found = scraped()
    assert value(found, "queue_due", queue="sync") == 2
    assert 90 <= value(found, "queue_oldest_seconds", queue="sync") < 120
    assert value(found, "queue_running", queue="sync") == 1
    assert value(found, "queue_failing", queue="compute") == 1
    assert value(found, "queue_due", queue="urgent") == 0
    assert (value(found, "workers", queue="sync"), value(found, "workers", queue="urgent")) == (1, 0)
    assert value(found, "worker_threads_busy", queue="sync") == 1
    assert value(found, "canary_age_seconds", queue="sync") is None
    pulse.keep_canaries()
    jobs.run_due_here(["urgent"])
    assert value(scraped(), "canary_age_seconds", queue="urgent") < 60


def test_intake_is_counted_by_source_and_what_became_of_each_call(client):
    made = api_keys.create(actor=None, name="shop")
    pair = base64.b64encode(f"{made.key.site_id}:{made.secret}".encode()).decode()
    auth = {"Authorization": f"Basic {pair}"}

    def event(id):
        body = {"name": "purchase", "id": id, "data": {}}
        return client.post("/api/v1/customers/c1/events", body, content_type="application/json", headers=auth)

    for id in ("e1", "e2", "e2"):
        assert event(id).status_code == 200
    client.post("/api/v1/customers/c1/events", {"data": 1}, content_type="application/json", headers=auth)
    client.post("/api/v1/customers/c1/events", {"name": "x"}, content_type="application/json")
    batch = {
        "batch": [
            {"type": "person", "action": "identify", "identifiers": {"id": "c2"}},
            {"type": "person", "action": "no"},
        ]
    }
    assert client.post("/api/v2/batch", batch, content_type="application/json", headers=auth).status_code == 207
    found = scraped()
    by_outcome = {outcome: value(found, "intake_total", source="track_v1", outcome=outcome) for outcome in ("accepted", "duplicate", "refused", "unauthorised")}  # fmt: skip
    assert by_outcome == {"accepted": 3, "duplicate": 1, "refused": 1, "unauthorised": 1}
    assert value(found, "intake_total", source="track_v2", outcome="refused") == 1
    assert value(found, "request_seconds_count", kind="intake", status="2xx") == 4
    assert value(found, "request_seconds_count", kind="intake", status="4xx") == 2
    assert value(found, "hot_events") == Event.objects.count() == 2


def test_what_every_process_has_counted_is_added_up(tmp_path):
    tallies.count("intake", "track_v1", "accepted", n=2)
    tallies.flush()
    tallies.count("intake", "track_v1", "accepted")
    tallies.count("intake", "elsewhere", "accepted")
    tallies.observe("request_seconds", "page", "2xx", seconds=0.02)
    tallies.observe("request_seconds", "page", "2xx", seconds=99)
    found = scraped()
    assert value(found, "intake_total", source="track_v1", outcome="accepted") == 3
    assert value(found, "intake_total", source="other", outcome="accepted") == 1
    within = {
        le: value(found, "request_seconds_bucket", kind="page", status="2xx", le=le)
        for le in ("0.01", "0.025", "10", "+Inf")
    }
    assert within == {"0.01": 0, "0.025": 1, "10": 1, "+Inf": 2}
    assert value(found, "request_seconds_sum", kind="page", status="2xx") == pytest.approx(99.02)


def test_a_database_that_is_away_loses_no_count(monkeypatch):
    def away(added):
        raise OperationalError

    tallies.count("intake", "track_v1", "refused")
    with monkeypatch.context() as patched:
        patched.setattr(tallies, "store", away)
        tallies.flush()
    assert not Tally.objects.exists()
    tallies.flush()
    assert Tally.objects.get().value == 1


def test_calls_people_and_removals_are_told_by_platform_and_cause(sandbox, account_number):
    scene.workspace()
    scene.imported("ann", "bob", "cleo")
    connected = scene.live(sandbox, account_number, scene.audience("in", scene.IN))
    connected.sync()
    identify("bob", **{"in": "no"})
    connected.sync()
    sandbox.dial("error", platform="meta", account=account_number, op="describe", status=400, times=1)
    holds.set_hold(actor=None, mapping=connected.mapping, direction="adds", reason="for the test")
    found = scraped()
    assert value(found, "people", platform="meta", state="present") == 2
    assert value(found, "platform_call_seconds_count", platform="meta", outcome="ok") >= 2
    assert value(found, "holds", rule="person", direction="adds") == 1
    assert value(found, "connections", platform="meta", state="live") == 1
    assert sum(v for (name, _), v in found.items() if name == "runs_ended_24h") == 2

    def moved(**fields):
        Removal.objects.update(**fields)

    received = timezone.now() - timedelta(seconds=40)
    moved(accepted_at=received, left_at=received - timedelta(seconds=1.5))
    jobs.keep_doing("qa.tally_removals", "", every=timedelta(seconds=20))
    latencies.Counter.objects.create(name=latencies.CURSOR, value=0)
    for _ in range(2):  # a second look counts nothing twice
        Job.objects.filter(task="qa.tally_removals").update(due_at=timezone.now())
        jobs.run_due_here(["compute"])
    found = scraped()
    cause = Removal.objects.get().cause
    assert value(found, "removal_seconds_count", cause=cause) == 1
    assert value(found, "removal_seconds_bucket", cause=cause, le="1") == 0
    assert value(found, "removal_seconds_bucket", cause=cause, le="2") == 1
    assert value(found, "removal_seconds_sum", cause=cause) == pytest.approx(1.5)
    moved(accepted_at=None, left_at=timezone.now() - timedelta(seconds=60))
    found = scraped()
    assert value(found, "removals_waiting", cause=cause) == 1
    assert 60 <= value(found, "removals_oldest_seconds", cause=cause) < 100


def test_no_metric_says_anything_of_a_person_and_the_number_of_series_is_bounded():
    filled.fill()
    text = Client().get("/metrics").content.decode()
    assert "@" not in text
    assert not re.search(r"[0-9a-f]{32}", text)
    assert len(text.splitlines()) < 700
    assert {family.name.split("_")[0] for family in text_string_to_metric_families(text)} == {"rollcall"}


def test_a_process_that_ends_writes_what_it_has_counted():
    """As gunicorn's workers do at their end."""
    code = "import config.wsgi; from audiences import tallies; tallies.count('intake', 'track_v1', 'unavailable')"
    env = {**os.environ}
    if connection.vendor == "sqlite":
        env["DATABASE_URL"] = f"sqlite:///{connection.settings_dict['NAME']}"
    else:
        env["DATABASE_URL"] = env["DATABASE_URL"].rsplit("/", 1)[0] + "/" + connection.settings_dict["NAME"]
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    assert Tally.objects.get(name="intake").value == 1
