"""The one door to platforms: where a call may go, how long it may take, and what its failure means. Nothing of any platform.

A failure before the request was on its way is Retryable; after it, OutcomeUnknown. Bodies, tokens and query values are in no
log line and in no exception: those of the HTTP library carry the whole request, so they end here.
"""

import email.utils
import functools
import ipaddress
import logging
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpcore
import httpx
import orjson
from django.conf import settings

from destinations.connectors.base import (
    Account,
    ConnectorError,
    Misconfigured,
    OutcomeUnknown,
    Rejected,
    Retryable,
)

log = logging.getLogger(__name__)

CONNECT_SECONDS = 5.0
CALL_SECONDS = 30.0  # the whole call, connecting included
BODY_CAP = 32 * 1024 * 1024
LONGEST_PAUSE = 3600.0
PORTS = (443, 8443)

# Addresses that Python's ipaddress calls global and that still lead inside: translated, tunnelled, shared, multicast.
DENIED = tuple(
    ipaddress.ip_network(block)
    for block in (
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2002::/16",
        "2001::/32",
        "::/96",
        "ff00::/8",
        "100.64.0.0/10",
        "192.88.99.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)

Resolver = Callable[[str, int], list[str]]
Heard = Callable[[str, float], None]
OUTCOMES = ("ok", "refused", "throttled", "failed", "unreachable", "unanswered", "misconfigured")


@contextmanager
def client(
    account: Account, *, seconds: float | None = None, heard: Heard = lambda outcome, seconds: None
) -> Iterator[httpx.Client]:
    """An HTTP client for this account's base URL, whose every failure is a ConnectorError. `seconds`: a whole call's limit.

    `heard` is told how each call ended (a word of OUTCOMES) and how many seconds it took.
    """
    door = Door(
        allow_private=settings.ALLOW_PRIVATE_DESTINATIONS,
        seconds=CALL_SECONDS if seconds is None else seconds,
        heard=heard,
    )
    headers = {"User-Agent": "Rollcall", "Accept": "application/json", "Accept-Encoding": "identity"}
    with httpx.Client(transport=door, base_url=account.base_url, headers=headers, trust_env=False) as opened:
        yield opened


def is_public(address: str) -> bool:
    """Whether an IP address is one that the whole internet reaches, and leads nowhere else."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped:
        ip = ip.ipv4_mapped
    return ip.is_global and not any(ip.version == block.version and ip in block for block in DENIED)


def resolve(host: str, port: int) -> list[str]:
    """All addresses of a host, in the system's order."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Door(httpx.BaseTransport):
    """Sends a request to a checked address and reads its answer whole, within a size and a time. One per client."""

    def __init__(
        self,
        *,
        allow_private: bool = False,
        seconds: float = CALL_SECONDS,
        resolver: Resolver = resolve,
        trust: ssl.SSLContext | None = None,
        heard: Heard = lambda outcome, seconds: None,
    ) -> None:
        self._heard = heard
        self._allow_private = allow_private
        self._seconds = seconds
        self._network = _PinnedNetwork(allow_private, resolver)
        self._pool = httpcore.ConnectionPool(ssl_context=trust or _trust(), network_backend=self._network)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self._refuse_unsafe(request.url)
        host, started = request.url.host, time.monotonic()
        self._network.deadline = started + self._seconds
        try:
            answer = self._send(request)
        except ConnectorError as error:
            failure: ConnectorError = error
        except (httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.PoolTimeout):
            failure = Retryable(f"{host} could not be reached.")
        except (httpcore.TimeoutException, TimeoutError):
            failure = OutcomeUnknown(f"{host} did not answer within {self._seconds:g} seconds.")
        except (httpcore.NetworkError, httpcore.ProtocolError, OSError):
            failure = OutcomeUnknown(f"{host} dropped the connection before it had answered.")
        else:
            self._heard(_outcome(answer.status_code), time.monotonic() - started)
            log.debug("%s %s: %d in %d ms", request.method, host, answer.status_code, _ms_since(started))
            return answer
        self._heard(_ending(failure), time.monotonic() - started)
        log.info("%s %s: %s after %d ms", request.method, host, type(failure).__name__, _ms_since(started))
        raise failure  # outside the except clause, so that no library exception hangs on to it

    def close(self) -> None:
        self._pool.close()

    def _refuse_unsafe(self, url: httpx.URL) -> None:
        if url.scheme not in ("https", "http") or not url.host:
            raise Misconfigured("The address must begin with https:// and name a host.")
        if url.userinfo:
            raise Misconfigured("The address must not hold a user name or password.")
        if self._allow_private:
            return
        if url.scheme != "https":
            raise Misconfigured("Only https:// addresses are called.")
        if (url.port or 443) not in PORTS:
            raise Misconfigured(f"Only the ports {' and '.join(map(str, PORTS))} are called.")

    def _send(self, request: httpx.Request) -> httpx.Response:
        timeouts = {"connect": CONNECT_SECONDS, "read": self._seconds, "write": self._seconds, "pool": CONNECT_SECONDS}
        raw = httpcore.Request(
            method=request.method,
            url=httpcore.URL(
                scheme=request.url.raw_scheme,
                host=request.url.raw_host,
                port=request.url.port,
                target=request.url.raw_path,
            ),
            headers=request.headers.raw,
            content=request.read(),
            extensions={"timeout": timeouts},
        )
        answer = self._pool.handle_request(raw)
        try:
            body = self._read(answer.stream, request.url.host)
        finally:
            answer.close()
        response = httpx.Response(answer.status, headers=answer.headers, content=body, request=request)
        return response

    def _read(self, stream: Any, host: str) -> bytes:
        read = bytearray()
        for part in stream:
            read += part
            if len(read) > BODY_CAP:
                raise OutcomeUnknown(f"{host} answered with more than {BODY_CAP // 2**20} MB.")
        return bytes(read)


class _PinnedNetwork(httpcore.NetworkBackend):
    """Connects to an address that was resolved and checked by the same look-up; the name stays for TLS and the Host header."""

    def __init__(self, allow_private: bool, resolver: Resolver) -> None:
        self._allow_private = allow_private
        self._resolver = resolver
        self._sockets = httpcore.SyncBackend()
        self.deadline = 0.0

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = self._resolver(host, port)
        except OSError:
            addresses = []
        if not addresses:
            raise httpcore.ConnectError("no address")
        if not self._allow_private and not all(is_public(address) for address in addresses):
            raise Misconfigured(f"{host} leads to a private address, and those are not called.")
        for last, address in enumerate(addresses, start=1 - len(addresses)):
            try:
                stream = self._sockets.connect_tcp(address, port, self._left(timeout), local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                if last == 0:
                    raise
            else:
                return _TimedStream(stream, self._left)
        raise AssertionError("unreachable: the last address returns or raises")

    def _left(self, timeout: float | None) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left if timeout is None else min(timeout, left)


class _TimedStream(httpcore.NetworkStream):
    """A stream whose every wait ends with the call's deadline, however slowly the other side drips."""

    def __init__(self, stream: httpcore.NetworkStream, left: Callable[[float | None], float]) -> None:
        self._stream = stream
        self._left = left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._stream.read(max_bytes, self._left(timeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._stream.write(buffer, self._left(timeout))

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        try:
            secured = self._stream.start_tls(ssl_context, server_hostname, self._left(timeout))
        except (TimeoutError, OSError) as error:
            raise httpcore.ConnectError("TLS was refused") from error
        return _TimedStream(secured, self._left)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


# --- What an answer means, where the platform has no own way of saying it.

_Told = TypeVar("_Told", bound=ConnectorError)


def told(error: _Told, response: httpx.Response) -> _Told:
    """The error with the answer's status on it."""
    error.http_status = response.status_code
    return error


def json_object(response: httpx.Response) -> Mapping[str, Any]:
    """The answer's JSON object. Raises OutcomeUnknown where it is something else: a success not understood is none."""
    try:
        answer = orjson.loads(response.content)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise not_understood(response)
    return answer


def not_understood(response: httpx.Response) -> OutcomeUnknown:
    """The verdict on an answer that says yes in a way that is not understood."""
    words = f"{response.request.url.host} answered {response.status_code} with something that could not be understood."
    return told(OutcomeUnknown(words), response)


def pause(response: httpx.Response, *, now: datetime | None = None) -> float | None:
    """Retry-After in seconds from now, as seconds or as a date; between 0 and an hour; None where it is absent or nonsense."""
    said = response.headers.get("Retry-After", "").strip()
    if said.isascii() and said.isdigit():
        seconds = float(said[:9])
    else:
        try:
            moment = email.utils.parsedate_to_datetime(said)
        except ValueError:
            return None
        seconds = (moment.replace(tzinfo=moment.tzinfo or UTC) - (now or datetime.now(UTC))).total_seconds()
    return min(max(seconds, 0.0), LONGEST_PAUSE)


def refusal(response: httpx.Response) -> ConnectorError:
    """The verdict on a status that is not 2xx, by HTTP alone."""
    host, status = response.request.url.host, response.status_code
    error: ConnectorError
    if status == 429:
        error = Retryable(f"{host} asks for fewer calls (429).", after=pause(response), throttled=True)
    elif status == 503:
        error = Retryable(f"{host} is not available (503).", after=pause(response))
    elif status >= 500 or status == 408:
        error = OutcomeUnknown(f"{host} failed ({status}).")
    elif 300 <= status < 400:
        error = Misconfigured(f"{host} redirects elsewhere ({status}); enter the final address.")
    elif status == 401:
        error = Misconfigured(f"{host} does not accept the credentials (401). Reconnect.", code="reconnect")
    elif status == 403:
        error = Misconfigured(f"{host} does not allow this (403).", code="permission")
    elif 200 <= status < 300:
        return not_understood(response)
    else:
        error = Rejected(f"{host} refused the call ({status}).", code=str(status))
    return told(error, response)


def _outcome(status: int) -> str:
    if 200 <= status < 300:
        return "ok"
    return "throttled" if status == 429 else "failed" if status >= 500 else "refused"


def _ending(failure: ConnectorError) -> str:
    if isinstance(failure, Retryable):
        return "unreachable"
    return "misconfigured" if isinstance(failure, Misconfigured) else "unanswered"


@functools.cache
def _trust() -> ssl.SSLContext:
    return httpx.create_ssl_context(trust_env=False)


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
