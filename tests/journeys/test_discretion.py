"""Marked people and tokens go through every flow, failures included, at the most talkative log level; then nothing that is not theirs holds a mark."""

import hashlib
import json
import os
import socket
import time

import httpx
import pytest

from tests.journeys.deployment import Deployment
from tests.journeys.services import Services

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

MARK = "zq7marked"
EMAIL = f"{MARK}.person@example.com"
PHONE = "+4915155512387"
TOKEN = f"tok-{MARK}-secret"
OTHERS = [f"{MARK}.p{n}@example.com" for n in range(12)]  # somebody new for each way to fail
MARKS = (
    *(hashlib.sha256(email.encode()).hexdigest().encode() for email in OTHERS),
    MARK.encode(), PHONE.encode(), PHONE[1:].encode(), b"15155512387",
    hashlib.sha256(EMAIL.encode()).hexdigest().encode(), hashlib.sha256(PHONE.encode()).hexdigest().encode(),
    hashlib.sha256(PHONE[1:].encode()).hexdigest().encode(),
)  # fmt: skip

_CONNECT = f"""
from destinations.models import Destination, Mapping
from destinations.sandbox.control import Sandbox
from destinations.services import destinations, mappings
from tests.destinations import scene
import json
owner = scene.workspace()
made = scene.audience("marked", scene.IN)
type(made).objects.update(definition_owner=owner, sync_owner=owner, alert_owner=owner)
target = destinations.create(actor=None, key="meta_marked", kind="meta", base_url={{base_url!r}},
    config={{{{"ad_account_id": {{account!r}}}}}}, credentials={{{{"access_token": {TOKEN!r}}}}})
mapping = scene.allowed(mappings.create(actor=None, audience=made, destination=target, identifiers=["email", "phone", "external_id"]))
mappings.go_live(actor=None, mapping=mapping)
print("made", json.dumps(mapping.pk))
"""
_SYNC = """
from destinations.models import Mapping
from destinations.services import runs
import json
mapping = Mapping.objects.get()
Mapping.objects.update(blocked_reason="")
run = runs.request(actor=None, mapping=Mapping.objects.get())
print("asked", json.dumps(run.pk))
"""
_BREAK = """
from audiences import jobs
from audiences.models import Job
import json
# A bug in the middle of a job, with a person's data in its words, as a database's refusal has.
Job.objects.create(task="audiences.import", key="no-number-but-zq7marked.person@example.com", queue="intake",
    due_at=__import__("django.utils.timezone", fromlist=["now"]).now())
print("asked", json.dumps(1))
"""
_ALERT = """
from audiences.models import Audience, User
from destinations.models import Mapping
from qa import alerts, outbox
from qa.models import Mail
import json
from qa.watch import look
look(slow=True, patient=False)
print("mails", json.dumps(Mail.objects.count()))
"""


@pytest.fixture
def place(tmp_path):
    made = Services(tmp_path / "var") if os.environ.get("DATABASE_URL") else Deployment(tmp_path / "var")
    made.env |= {"LOG_LEVEL": "DEBUG", "LOG_JSON": "1", "EMAIL_URL": ""}
    yield made
    made.remove()


def eventually(question, why, within=60):
    deadline = time.monotonic() + within
    while not (answer := question()):
        assert time.monotonic() < deadline, why()
        time.sleep(0.3)
    return answer


def test_no_log_line_message_job_mail_or_error_holds_a_mark_whatever_fails(place, sandbox, account_number, tmp_path):
    place.up()
    site, _, key = place.manage("create_api_key", "shop").stdout.split()[-1].partition(":")

    http = httpx.Client(base_url=place.url, auth=(site, key), timeout=30, headers={"Connection": "close"})
    track_everything(http)
    import_everything(place, tmp_path)
    place.shell_json(_CONNECT.format(base_url=sandbox.base_url, account=account_number), "made")
    sync_everything(place, sandbox, account_number, http)
    place.shell_json(_BREAK, "asked")
    command(place, "trace", "marked", EMAIL, "--json")
    command(place, "trace", "marked", f"nobody.{EMAIL}")
    pages(place)
    place.shell_json(_ALERT, "mails")
    broken = "SELECT count(*) FROM audiences_job WHERE error <> ''"
    eventually(lambda: place.query(broken)[0][0] >= 1, place.log)
    eventually(lambda: list((place.folder / "outbox").glob("*.eml")), place.log)
    messages = broker(place)
    place.stop()

    assert searched(place, messages) == []


def command(place, *words):
    """A command as cron runs it: what it says beside its answer goes into a log."""
    done = place.manage(*words, check=False)
    with (place.folder / "commands.log").open("a") as log:
        log.write(done.stderr)


def track_everything(http):
    person = f"/api/v1/customers/{EMAIL}"
    good = {"email": EMAIL, "phone": PHONE, "in": "yes", "first_name": MARK}
    assert http.put("/api/v1/customers/m1", json=good).status_code == 200
    assert http.put(person, json=good).status_code == 200
    assert http.post(f"{person}/events", json={"name": "purchase", "data": {"note": MARK}}).status_code == 200
    assert http.post(f"{person}/events", json={"data": {"email": EMAIL}}).status_code == 400
    assert http.put(person, content=b'{"email": "' + EMAIL.encode()).status_code == 400
    assert http.put(person, json=good, auth=(MARK, TOKEN)).status_code == 401
    assert http.get(person).status_code == 405
    assert http.get(f"/api/v1/nothing/{EMAIL}").status_code == 404
    assert http.request("PUT", person, content=b"x" * 600_000).status_code == 413
    batch = [{"type": "person", "action": "identify", "identifiers": {"email": EMAIL}}, {"type": EMAIL}]
    assert http.post("/api/v2/batch", json={"batch": batch}).status_code == 207
    for line in (f"GET /{EMAIL} HTTP/9.9", f"G({MARK}) / HTTP/1.1", f"GET / HTTP/1.1\r\nBad({EMAIL}: x"):
        with socket.create_connection((http.base_url.host, http.base_url.port), timeout=10) as raw:
            raw.sendall(f"{line}\r\n\r\n".encode())
            assert b"400" in raw.recv(1000)


def import_everything(place, tmp_path):
    path = tmp_path / "people.csv"
    path.write_text(
        f"id,mail,tel,in\nm2,{EMAIL},{PHONE},yes\n,{EMAIL},,\nm3,{EMAIL}.{'x' * 400},,\nm4,a@example.com,{PHONE}{MARK},yes\n"
    )
    words = ("--map", "id=id", "--map", "email=mail", "--map", "phone=tel")
    command(place, "import_profiles", str(path), *words)
    path.write_bytes(path.read_bytes() + b"\xff\xfe" + EMAIL.encode())
    command(place, "import_profiles", str(path), *words)
    command(place, "import_events", str(path), "--map", "profile=mail", "--map", "time=tel", "--name", "visit")


def sync_everything(place, sandbox, account, http):
    """Every way in which a platform fails, with marked people in the call."""
    ended = "SELECT count(*) FROM destinations_run WHERE state NOT IN ('queued', 'counting', 'diffing', 'sending', 'confirming')"
    fresh = iter(OTHERS)

    def sync():
        email = next(fresh)
        assert http.put(f"/api/v1/customers/{email}", json={"email": email, "in": "yes"}).status_code == 200
        before = place.query(ended)[0][0]
        place.shell_json(_SYNC, "asked")
        eventually(lambda: place.query(ended)[0][0] > before, place.log, within=90)

    sync()
    for action, params in (
        ("error", {"status": 400}), ("error", {"status": 500}), ("garbled", {}), ("drop", {}), ("throttle", {"seconds": 1}),
        ("partial", {"every": 1}), ("poison", {"values": [hashlib.sha256(OTHERS[7].encode()).hexdigest()]}),
    ):  # fmt: skip
        dial = sandbox.dial(action, platform="meta", account=account, op="add", times=3, **params)
        sync()
        sandbox.clear_dials(dial)
    # At last refused for good, which somebody is mailed about.
    sandbox.dial("refuse", platform="meta", account=account, times=None, why="revoked")
    sync()
    failed = "SELECT count(*) FROM destinations_operation WHERE error <> '' OR rejected > 0"
    assert place.query(failed)[0][0] >= 4
    assert place.query("SELECT count(*) FROM destinations_destination WHERE state = 'refused'")[0][0] == 1


def pages(place):
    with httpx.Client(base_url=place.url, timeout=30, follow_redirects=True) as browser:
        assert browser.get(f"/nothing/{EMAIL}").status_code == 404
        browser.get(f"/people/?q={EMAIL}")
        browser.post("/sign-in/", data={"email": EMAIL, "password": TOKEN})
        assert browser.get("/health/ready").status_code == 200
        assert MARK not in browser.get("/metrics").text
        assert browser.get("/", headers={"Host": f"{MARK}.example.com"}).status_code == 400


def broker(place):
    """Everything that Redis holds at this moment, and everything that passes for a while."""
    if not isinstance(place, Services):
        return b""
    found = []
    for key in place.redis.ask("--raw", "keys", "*").split("\n"):
        kind = place.redis.ask("type", key).strip()
        read = {"list": ("lrange", key, "0", "-1"), "hash": ("hgetall", key), "set": ("smembers", key)}.get(kind)
        found.append(key + (place.redis.ask(*read) if read else place.redis.ask("zrange", key, "0", "-1")))
    return "\n".join(found).encode()


def searched(place, messages):
    """Where a mark was found: names of places, never the line itself."""
    places = {"broker": messages}
    for path in place.folder.rglob("*.log"):
        places[path.name] = path.read_bytes()
    for path in (place.folder / "outbox").glob("*.eml"):
        places[f"mail {path.name}"] = path.read_bytes()
    told = {
        "jobs": "SELECT task, error, progress FROM audiences_job",
        "runs": "SELECT error FROM destinations_run",
        "calls": "SELECT error, request_id FROM destinations_operation",
        "connections": "SELECT blocked_reason, state_reason, matched_words FROM destinations_mapping",
        "destinations": "SELECT state_words, config FROM destinations_destination",
        "rejections": "SELECT code, reason FROM destinations_rejection",
        "alerts": "SELECT sentence, remedy, facts, causes FROM qa_incident",
        "mails": "SELECT subject, text, html, error FROM qa_mail",
        "imports": "SELECT error FROM audiences_importfile",
        "trail": "SELECT verb, object_key, before, after, reason FROM audiences_auditentry",
        "workers": "SELECT name FROM audiences_worker",
        "tallies": "SELECT name, labels FROM audiences_tally",
    }
    for name, sql in told.items():
        rows = place.query(sql)
        places[name] = json.dumps([[str(cell) for cell in row] for row in rows]).encode()
    assert len(places["processes.log"]) > 10_000, "nothing was logged"
    return sorted(f"{mark[:12].decode()} in {name}" for name, text in places.items() for mark in MARKS if mark in text)


def test_the_search_finds_what_it_looks_for(place, tmp_path):
    place.folder.mkdir(parents=True, exist_ok=True)
    (place.folder / "processes.log").write_bytes(b"." * 10_001 + EMAIL.encode())
    place.manage("migrate", "-v0")
    assert searched(place, MARKS[4]) == [f"{MARKS[4][:12].decode()} in broker", "zq7marked in processes.log"]
