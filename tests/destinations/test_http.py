"""The one door to platforms: where it goes, how long it waits, what its failures mean, and what it never lets out."""

import datetime as dt
import gc
import ipaddress
import logging
import socket
import ssl
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email.utils import format_datetime

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from django.test import override_settings

from destinations.connectors import http
from destinations.connectors.base import (
    Account,
    ConnectorError,
    Misconfigured,
    OutcomeUnknown,
    Rejected,
    Retryable,
)
from destinations.connectors.http import Door

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}"
CANARY = "canary-9f2c"

Behaviour = Callable[[socket.socket], None]


@contextmanager
def listening(behave: Behaviour) -> Iterator[int]:
    """A server on a port of its own that does `behave` with each connection."""
    server = socket.create_server(("127.0.0.1", 0))
    stopped = threading.Event()

    def serve() -> None:
        while not stopped.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=_one, args=(connection, behave), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield server.getsockname()[1]
    finally:
        stopped.set()
        server.close()


def _one(connection: socket.socket, behave: Behaviour) -> None:
    with connection:
        try:
            behave(connection)
        except OSError:
            return


def read_request(connection: socket.socket) -> bytes:
    """A request's head and whatever of its body came with it."""
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)
    return head


def answering(answer: bytes) -> Behaviour:
    def behave(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)

    return behave


def client(door: Door, base: str = "https://platform.example") -> httpx.Client:
    return httpx.Client(transport=door, base_url=base)


def resolving(*addresses: str) -> Callable[[str, int], list[str]]:
    return lambda host, port: list(addresses)


# --- Where it goes

PUBLIC = ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c", "8.8.8.8", "::ffff:8.8.8.8"]
PRIVATE = [
    "127.0.0.1",
    "127.1.2.3",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "169.254.169.254",
    "100.64.0.1",
    "0.0.0.0",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "192.88.99.1",
    "198.18.0.1",
    "::1",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fd00::1",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::a00:1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::1",
    "2002:7f00:1::",
    "2001::1",
    "::7f00:1",
    "2001:db8::1",
]


@pytest.mark.parametrize("address", PUBLIC)
def test_an_address_of_the_internet_is_public(address):
    assert http.is_public(address)


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_leads_inside_is_not(address):
    assert not http.is_public(address)


def test_the_list_is_needed_as_python_calls_some_of_these_global():
    for address in ("64:ff9b::a00:1", "224.0.0.1"):
        assert ipaddress.ip_address(address).is_global


@pytest.mark.parametrize("address", PRIVATE)
def test_a_host_that_leads_inside_is_refused_before_anything_is_sent(address):
    with client(Door(resolver=resolving(address))) as opened, pytest.raises(Misconfigured, match="private"):
        opened.post("/v1/x", json={})


def test_one_private_address_among_public_ones_refuses_the_host():
    with client(Door(resolver=resolving("8.8.8.8", "10.0.0.1"))) as opened, pytest.raises(Misconfigured):
        opened.get("/")


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0x7f.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]"])
def test_ways_of_writing_this_machine_are_seen_through(host):
    with client(Door(), f"https://{host}") as opened, pytest.raises((Misconfigured, Retryable)) as told:
        opened.get("/")
    assert not isinstance(told.value, Retryable) or host in ("127.1", "2130706433", "0x7f.0.0.1")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://platform.example/", "https"),
        ("https://user:secret@platform.example/", "user name"),
        ("https://platform.example:22/", "ports"),
        ("https://platform.example:6379/", "ports"),
        ("ftp://platform.example/", "https"),
    ],
)
def test_addresses_of_another_shape_are_refused(url, words):
    with httpx.Client(transport=Door(resolver=resolving("8.8.8.8"))) as opened:
        with pytest.raises(Misconfigured, match=words) as told:
            opened.get(url)
        assert "secret" not in str(told.value)


def test_a_name_is_looked_up_once_so_that_a_second_answer_cannot_lead_elsewhere():
    answers = iter([["127.0.0.1"], ["10.0.0.1"]])
    asked = []

    def resolver(host: str, port: int) -> list[str]:
        asked.append(host)
        return next(answers)

    with listening(answering(OK)) as port:
        door = Door(allow_private=True, resolver=resolver)
        with client(door, f"http://rebinding.example:{port}") as opened:
            assert opened.get("/").status_code == 200
    assert asked == ["rebinding.example"]


def test_redirects_are_not_followed():
    answer = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 0\r\n\r\n"
    with listening(answering(answer)) as port, client(Door(allow_private=True), f"http://127.0.0.1:{port}") as opened:
        response = opened.get("/")
        assert response.status_code == 302
        verdict = http.refusal(response)
    assert type(verdict) is Misconfigured and "redirects" in str(verdict)


@pytest.mark.parametrize("allowed", [True, False])
def test_the_setting_decides_on_private_addresses(allowed):
    with listening(answering(OK)) as port, override_settings(ALLOW_PRIVATE_DESTINATIONS=allowed):
        account = Account(f"http://127.0.0.1:{port}", {}, {})
        with http.client(account) as opened:
            if allowed:
                assert opened.get("/").status_code == 200
            else:
                with pytest.raises(Misconfigured):
                    opened.get("/")


def test_a_proxy_of_the_environment_is_not_used(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with listening(answering(OK)) as port, http.client(Account(f"http://127.0.0.1:{port}", {}, {})) as opened:
        assert opened.get("/").status_code == 200


# --- TLS: the pinned address is connected to, the name is checked


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    """(certificate, key) files for platform.example."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "platform.example")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("platform.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "c.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "k.pem").write_bytes(private)
    return str(folder / "c.pem"), str(folder / "k.pem")


@contextmanager
def listening_tls(certificate: tuple[str, str], heard: list[tuple[str | None, bytes]]) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    names: list[str | None] = []
    context.sni_callback = lambda sock, name, ctx: names.append(name)

    def behave(connection: socket.socket) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            heard.append((names[-1] if names else None, read_request(secured)))
            secured.sendall(OK)

    with listening(behave) as port:
        yield port


def test_the_name_stays_in_tls_and_in_the_host_header_while_the_address_is_pinned(certificate):
    heard: list[tuple[str | None, bytes]] = []
    with listening_tls(certificate, heard) as port:
        trust = ssl.create_default_context(cafile=certificate[0])
        door = Door(allow_private=True, resolver=resolving("127.0.0.1"), trust=trust)
        with client(door, f"https://platform.example:{port}") as opened:
            assert opened.get("/").status_code == 200
    name, request = heard[0]
    assert name == "platform.example"
    assert f"Host: platform.example:{port}".encode() in request


@pytest.mark.parametrize("host", ["other.example", "platform.example"])
def test_a_certificate_that_is_not_the_hosts_or_not_trusted_sends_nothing(certificate, host):
    heard: list[tuple[str | None, bytes]] = []
    with listening_tls(certificate, heard) as port:
        trust = ssl.create_default_context(cafile=certificate[0] if host == "other.example" else None)
        door = Door(allow_private=True, resolver=resolving("127.0.0.1"), trust=trust)
        with client(door, f"https://{host}:{port}") as opened, pytest.raises(Retryable):
            opened.post("/", json={"token": CANARY})
    assert not heard


# --- What failures mean


def drop_at_once(connection: socket.socket) -> None:
    read_request(connection)


def half_an_answer(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}")


def no_http(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")


def silence(connection: socket.socket) -> None:
    read_request(connection)
    time.sleep(20)


def drip_body(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)


def drip_head(connection: socket.socket) -> None:
    read_request(connection)
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while True:
        connection.sendall(b"x")
        time.sleep(0.1)


@pytest.mark.parametrize("behave", [drop_at_once, half_an_answer, no_http, silence, drip_body, drip_head])
def test_what_fails_after_the_request_left_is_unknown_and_in_time(behave):
    with listening(behave) as port:
        door = Door(allow_private=True, seconds=1.0)
        started = time.monotonic()
        with client(door, f"http://127.0.0.1:{port}") as opened, pytest.raises(OutcomeUnknown):
            opened.post("/", json={"a": "b"})
        assert time.monotonic() - started < 3


@pytest.mark.parametrize(
    "resolver", [resolving(), resolving("127.0.0.1"), lambda host, port: (_ for _ in ()).throw(socket.gaierror(-2))]
)
def test_what_fails_before_the_request_leaves_was_not_applied(resolver):
    door = Door(allow_private=True, resolver=resolver)
    with client(door, "http://platform.example:9") as opened, pytest.raises(Retryable) as told:
        opened.post("/", json={})
    assert not told.value.throttled


def test_the_next_address_is_tried_where_one_does_not_answer():
    with listening(answering(OK)) as port:
        door = Door(allow_private=True, resolver=resolving("127.0.0.9", "127.0.0.1"))
        with client(door, f"http://platform.example:{port}") as opened:
            assert opened.get("/").status_code == 200


def test_a_connection_that_was_kept_and_dropped_meanwhile_is_never_taken_for_a_refusal():
    """The second request goes out on a connection that the other side has closed: whether it was heard is not known."""
    calls = []

    def behave(connection: socket.socket) -> None:
        calls.append(1)
        read_request(connection)
        connection.sendall(OK)
        if len(calls) == 1:
            read_request(connection)

    with listening(behave) as port, client(Door(allow_private=True), f"http://127.0.0.1:{port}") as opened:
        assert opened.post("/", json={}).status_code == 200
        with pytest.raises(OutcomeUnknown):
            opened.post("/", json={})


def test_an_answer_without_end_is_cut_off():
    def endless(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        while True:
            connection.sendall(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")

    with (
        listening(endless) as port,
        client(Door(allow_private=True), f"http://127.0.0.1:{port}") as opened,
        pytest.raises(OutcomeUnknown, match="MB"),
    ):
        opened.get("/")


# --- What is never let out


def test_no_log_line_and_no_exception_holds_what_was_sent_or_answered(caplog):
    caplog.set_level(logging.DEBUG)
    for behave in (
        drop_at_once,
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n" + CANARY.encode() + b"garbledXX"),
    ):
        with listening(behave) as port, client(Door(allow_private=True), f"http://127.0.0.1:{port}") as opened:
            with pytest.raises(ConnectorError) as told:
                response = opened.post(
                    f"/{CANARY}-path?token={CANARY}",
                    json={"token": CANARY},
                    headers={"Authorization": f"Bearer {CANARY}"},
                )
                http.json_object(response)
            said = "".join(traceback.format_exception(told.value))
            assert CANARY not in str(told.value) and CANARY not in repr(told.value)
            assert "httpcore" not in said and told.value.__cause__ is None
            chain, seen = told.value, []
            while chain is not None:
                seen.append(chain)
                chain = chain.__context__
            assert not any(hasattr(error, "request") for error in seen)
    assert CANARY not in caplog.text


def test_an_account_does_not_show_its_credentials():
    account = Account("https://platform.example", {}, {"access_token": CANARY})
    assert CANARY not in repr(account) and CANARY not in str(account)


# --- What answers mean


def response(status: int, headers: dict[str, str] | None = None, content: bytes = b"") -> httpx.Response:
    request = httpx.Request("POST", "https://platform.example/v1/x")
    return httpx.Response(status, headers=headers, content=content, request=request)


@pytest.mark.parametrize(
    ("status", "verdict", "code"),
    [
        (301, Misconfigured, "config"),
        (304, Misconfigured, "config"),
        (400, Rejected, "400"),
        (401, Misconfigured, "reconnect"),
        (403, Misconfigured, "permission"),
        (404, Rejected, "404"),
        (408, OutcomeUnknown, None),
        (413, Rejected, "413"),
        (422, Rejected, "422"),
        (429, Retryable, None),
        (500, OutcomeUnknown, None),
        (502, OutcomeUnknown, None),
        (503, Retryable, None),
        (504, OutcomeUnknown, None),
        (204, OutcomeUnknown, None),
    ],
)
def test_a_status_alone_has_a_verdict(status, verdict, code):
    told = http.refusal(response(status))
    assert type(told) is verdict and told.http_status == status
    assert code is None or told.code == code
    assert getattr(told, "throttled", False) == (status == 429)


NOW = dt.datetime(2026, 3, 3, 12, 0, tzinfo=dt.UTC)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7.0),
        ("0", 0.0),
        (" 12 ", 12.0),
        ("999999999999999999999999", 3600.0),
        (format_datetime(NOW + dt.timedelta(seconds=90), usegmt=True), 90.0),
        (format_datetime(NOW - dt.timedelta(days=1), usegmt=True), 0.0),
        (format_datetime(NOW + dt.timedelta(days=400), usegmt=True), 3600.0),
        ("soon", None),
        ("", None),
        ("-5", None),
        ("١٢", None),
        ("Wed, 99 Foo 2026 99:99:99 GMT", None),
    ],
)
def test_retry_after_is_read_in_all_its_ways(said, seconds):
    answer = response(429, {"Retry-After": said.encode()}) if said else response(429)
    assert http.pause(answer, now=NOW) == seconds


@pytest.mark.parametrize("content", [b"", b"<html>", b"[]", b"null", b'"yes"', b"{", b"\xff"])
def test_a_success_that_is_no_json_object_is_not_understood(content):
    with pytest.raises(OutcomeUnknown) as told:
        http.json_object(response(200, content=content))
    assert told.value.http_status == 200


def test_clients_leave_no_open_connections():
    with listening(answering(OK)) as port:
        with http.client(Account(f"http://127.0.0.1:{port}", {}, {})) as opened:
            opened.get("/")
        gc.collect()
        with pytest.raises(RuntimeError):
            opened.get("/")
