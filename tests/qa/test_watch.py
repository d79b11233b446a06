"""The standing jobs: the watch looks by itself, the outbox is emptied, a dead-man switch hears of it and stops hearing when the watch does not look."""

import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from django.test import Client
from django.utils import timezone

from audiences import jobs
from audiences.models import Job
from qa import outbox, watch
from qa.models import Baseline, Incident, Mail
from tests import filled
from tests.qa import moving

pytestmark = pytest.mark.django_db


@pytest.fixture
def heart():
    """Whoever waits for the heartbeat; what it was called with. `answer` is its status."""

    class Ear(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.path)
            self.send_response(server.answer)
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    heard: list[str] = []
    server = HTTPServer(("127.0.0.1", 0), Ear)
    server.answer = 200
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    server.heard = heard
    server.url = f"http://127.0.0.1:{server.server_port}/ping/a-secret"
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def looked(ago: timedelta = timedelta(0), error: str = "") -> None:
    Job.objects.update_or_create(
        task="qa.watch", key="", defaults={"queue": "sync", "finished_at": timezone.now() - ago, "error": error}
    )


def test_a_worker_that_starts_keeps_the_watch_going_and_says_so_once(settings):
    settings.HEARTBEAT_URL = "http://127.0.0.1:1/x"
    watch.keep_watching()
    watch.keep_watching()
    tasks = dict(Job.objects.filter(task__startswith="qa.").values_list("task", "every_seconds"))
    assert tasks == {"qa.watch": 15, "qa.watch_slow": 600, "qa.heartbeat": 60}


def test_without_an_address_no_heart_beats(settings):
    settings.HEARTBEAT_URL = ""
    watch.keep_watching()
    assert not Job.objects.filter(task="qa.heartbeat").exists()
    jobs.keep_doing("qa.heartbeat", "", every=watch.BEAT_EVERY)
    jobs.run_due_here(["compute"])
    assert Job.objects.get(task="qa.heartbeat").every_seconds is None


def test_the_watch_by_itself_opens_mails_and_takes_baselines():
    world = filled.fill()
    world.mapping.first_live_at = timezone.now()
    world.mapping.save()
    cart = moving.audience(world.users["marketer"])
    moving.count(cart, 400)
    watch.keep_watching()
    jobs.run_due_here(["sync"])
    assert Incident.objects.filter(kind="size").count() == 1
    assert Mail.objects.filter(incident__kind="size").count() == 1
    assert Baseline.objects.filter(mapping=world.mapping).exists()
    again = Job.objects.get(task="qa.watch")
    assert again.error == ""
    assert again.due_at > timezone.now()


def test_while_the_sample_shop_is_being_made_nobody_is_alarmed():
    people = filled.users()
    moving.count(moving.audience(people["marketer"]), 400)
    Job.objects.create(
        task="qa.fill_demo", key="demo", queue="intake", lease_until=timezone.now() + timedelta(minutes=1)
    )
    watch.keep_watching()
    jobs.run_due_here(["sync"])
    assert Incident.objects.count() == 0


def test_the_heart_beats_while_the_watch_looks(heart, settings):
    settings.HEARTBEAT_URL = heart.url
    looked()
    jobs.run_now("qa.heartbeat", "", queue="sync")
    assert heart.heard == ["/ping/a-secret"]


@pytest.mark.parametrize(("ago", "error"), [(timedelta(minutes=5), ""), (timedelta(0), "OperationalError in look:12")])
def test_the_heart_stops_when_the_watch_does(heart, settings, ago, error):
    settings.HEARTBEAT_URL = heart.url
    looked(ago, error)
    jobs.run_now("qa.heartbeat", "", queue="sync")
    assert heart.heard == []


def test_a_heartbeat_that_is_not_heard_breaks_nothing_and_keeps_its_address_to_itself(heart, caplog):
    heart.answer = 500
    assert watch.beat(heart.url) is False
    assert watch.beat("http://127.0.0.1:9/ping/a-secret") is False
    assert watch.beat("nonsense") is False
    assert heart.heard == ["/ping/a-secret"]
    assert "a-secret" not in caplog.text


def test_mail_is_asked_for_in_the_transaction_that_writes_it():
    people = filled.users()
    moving.count(moving.audience(people["marketer"]), 400)
    watch.look()
    assert Job.objects.get(task=outbox.TASK).due_at <= timezone.now()


def test_a_page_shows_what_the_watch_found_and_the_count_follows():
    people = filled.users()
    web = Client()
    web.force_login(people["buyer"])
    assert "Nothing has gone wrong yet" in web.get("/alerts/").content.decode()
    moving.count(moving.audience(people["marketer"]), 400)
    watch.look()
    assert "Dropped 60%" in web.get("/alerts/").content.decode()
