"""Customer.io's own Python client, unmodified, against a real server over TLS."""

import ipaddress
import itertools
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from customerio import CustomerIO, CustomerIOException

from audiences.people import keys
from tests.journeys.deployment import ROOT, Deployment


def _certificate(folder):
    """A self-signed certificate of 127.0.0.1 that is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    certificate, private = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, private


class Server:
    """Rollcall behind gunicorn with TLS, on a database of its own."""

    def __init__(self, folder):
        self.deployment = Deployment(folder / "var")
        self.certificate, private = _certificate(folder)
        self.pair = self.deployment.manage("create_api_key", "python client").stdout.strip().split(":")
        self.port = self.deployment.port
        self.process = subprocess.Popen(
            [
                sys.executable, "-m", "gunicorn", "config.wsgi:application", "--bind", f"127.0.0.1:{self.port}",
                "--worker-class", "gthread", "--threads", "4", "--certfile", self.certificate, "--keyfile", private,
            ],
            cwd=ROOT,
            env=self.deployment.env,
            stdout=(folder / "gunicorn.log").open("wb"),
            stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.log = folder / "gunicorn.log"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            assert self.process.poll() is None, self.log.read_text()
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def client(self, pair=None):
        site_id, api_key = pair or self.pair
        client = CustomerIO(site_id=site_id, api_key=api_key, host="127.0.0.1", port=self.port, retries=0)
        client.http.verify, client.http.trust_env = str(self.certificate), False
        return client

    def rows(self, sql):
        if url := self.deployment.env.get("DATABASE_URL"):
            with psycopg.connect(url) as connection:
                return connection.execute(sql).fetchall()
        with closing(
            sqlite3.connect(f"file:{self.deployment.folder / 'rollcall.sqlite3'}?mode=ro", uri=True)
        ) as connection:
            return connection.execute(sql).fetchall()

    def number(self, external_id):
        return self.rows(f"SELECT profile_no FROM audiences_profilekey WHERE kind = 'id' AND value = '{external_id}'")

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.deployment.remove()


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    made = Server(tmp_path_factory.mktemp("tls"))
    yield made
    made.stop()


@pytest.mark.slow
def test_the_unmodified_python_client_drives_the_whole_track_api(server):
    client = server.client()
    client.identify(id="00042", email="Ann@Example.com", plan="gold", created_at=datetime(2024, 1, 1, tzinfo=UTC))
    ((ann,),) = server.number("00042")
    client.identify(id="ann@example.com", city="Rome")
    ((attributes,),) = server.rows(f"SELECT attributes FROM audiences_profile WHERE profile_no = {ann}")
    assert '"plan":"gold"' in attributes
    assert '"city":"Rome"' in attributes
    assert '"created_at":1704067200' in attributes

    client.track("00042", "purchase", {"value": 12.5, "when": datetime(2026, 1, 1, tzinfo=UTC)}, id="01JCLIENT")
    client.track("00042", "purchase", {"value": 12.5, "when": datetime(2026, 1, 1, tzinfo=UTC)}, id="01JCLIENT")
    client.track("00042", "signed up", timestamp=datetime(2026, 2, 1, tzinfo=UTC))
    client.pageview("00042", "/cart", referrer="search")
    client.backfill("00042", "returned", 1_700_000_000, reason="size")
    client.track_anonymous("visitor-1", "visit", {"page": "/"})
    client.track_anonymous(None, "invited", {"recipient": "x@example.com"})
    names = [name for (name,) in server.rows("SELECT name FROM audiences_event ORDER BY id")]
    assert names == ["purchase", "signed up", "/cart", "returned", "visit"]
    assert server.rows("SELECT time_us FROM audiences_event WHERE name = 'returned'") == [(1_700_000_000_000_000,)]

    client.identify(id="00042", anonymous_id="visitor-1")
    ((visitor,),) = server.rows("SELECT profile_no FROM audiences_event WHERE name = 'visit'")
    assert server.rows("SELECT old_no, survivor_no FROM audiences_alias") == [(visitor, ann)]

    client.add_device("00042", "device-1", "ios", last_used=1_700_000_000)
    client.delete_device("00042", "device-1")

    client.identify(id="43", email="other@example.com", shoe_size="38")
    client.merge_customers("id", "00042", "email", "other@example.com")
    assert server.number("43") == [(ann,)]
    ((attributes,),) = server.rows(f"SELECT attributes FROM audiences_profile WHERE profile_no = {ann}")
    assert '"shoe_size":"38"' in attributes
    client.identify(id=f"cio_{ann:08x}", by_cio_id=True)

    client.suppress("00042")
    client.identify(id="00042", plan="silver")
    client.track("00042", "purchase", {"value": 1})
    assert server.number("00042") == []
    client.unsuppress("00042")
    client.identify(id="00042", plan="silver")
    ((again,),) = server.number("00042")
    assert again != ann

    client.identify(id="a/b ü@", plan="x")
    assert len(server.number("a/b ü@")) == 1
    client.delete("a/b ü@")
    assert server.number("a/b ü@") == []

    client.batch(
        [
            {"type": "person", "action": "identify", "identifiers": {"id": "50"}, "attributes": {"plan": "gold"}},
            {"type": "person", "action": "event", "identifiers": {"id": "50"}, "name": "batched", "id": "01JB"},
            {"type": "object", "action": "identify", "identifiers": {"object_type_id": "1", "object_id": "acme"}},
        ]
    )
    assert len(server.rows("SELECT 1 FROM audiences_event WHERE name = 'batched'")) == 1
    partial = client.batch(
        [{"type": "person", "action": "event", "identifiers": {"id": "50"}, "name": "ok"}, {"type": "person"}]
    )
    assert partial.status_code == 207

    with pytest.raises(CustomerIOException, match="400"):
        client.track("00042", "x" * 101)
    with pytest.raises(CustomerIOException, match="401"):
        server.client((server.pair[0], "wrong")).identify(id="1")
    client.close()


@pytest.mark.slow
def test_nothing_that_was_answered_is_lost_when_the_process_is_killed(tmp_path):
    server = Server(tmp_path)
    answered = []

    def send(index):
        with server.client() as client:
            for n in itertools.count():
                try:
                    client.track(f"p{index}", "purchase", {"n": n}, id=f"{index}-{n}")
                except CustomerIOException:
                    return
                answered.append(f"{index}-{n}")

    threads = [threading.Thread(target=send, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + 60
    while len(answered) < 100 and time.monotonic() < deadline:
        time.sleep(0.01)
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    for pid in (server.process.pid, *children):
        os.kill(int(pid), signal.SIGKILL)
    for thread in threads:
        thread.join()
    server.process.wait()
    stored = [key for (key,) in server.rows("SELECT event_key FROM audiences_event")]
    known = {key for (key,) in server.rows("SELECT key FROM audiences_eventkey")}
    ((logged,),) = server.rows("SELECT COUNT(*) FROM audiences_changelog WHERE kind = 'event'")
    server.deployment.remove()
    assert len(answered) >= 100
    assert {keys.event_keys(0, ("id", ""), "", event_id, None, "")[0] for event_id in answered} <= set(stored)
    assert set(stored) == known
    assert len(stored) == len(known) == logged


@pytest.mark.slow
def test_no_persons_data_reaches_the_log(server):
    client = server.client()
    client.identify(id="quiet@example.com", phone="+4915123456789")
    for wrong in (
        lambda: client.track("quiet@example.com", ""),
        lambda: client.merge_customers("email", "quiet-two@example.com", "id", "1"),
    ):
        with pytest.raises(CustomerIOException):
            wrong()
    with requests.Session() as session:
        session.verify, session.trust_env = str(server.certificate), False
        session.put(f"https://127.0.0.1:{server.port}/api/v1/customers/quiet@example.com", timeout=10)
    logged = server.log.read_text()
    assert "quiet" not in logged
    assert "4915123456789" not in logged
    assert "PUT api/v1/customers/<path:identifier>" in logged
