"""A request, an answer, and what a dial does to the way between them. What errors look like is each platform's own."""

import base64
import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import cached_property
from typing import Any, Protocol
from urllib.parse import parse_qsl, urlsplit

import orjson

from destinations.sandbox.journal import Dial
from destinations.sandbox.store import Audience, Store

ABSURD_SECONDS = 10**9


class Drop(Exception):
    """Close the connection without an answer."""


@dataclass(frozen=True)
class Request:
    method: str
    target: str  # path and query
    headers: Mapping[str, str]  # names in lower case
    body: bytes = field(default=b"", repr=False)

    @cached_property
    def path(self) -> str:
        return urlsplit(self.target).path

    @cached_property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query, keep_blank_values=True))

    @cached_property
    def fields(self) -> dict[str, Any]:
        """The body's JSON object or form fields; empty where it is neither."""
        if self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return dict(parse_qsl(self.body.decode("utf-8", "replace"), keep_blank_values=True))
        try:
            found = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def bearer(self) -> str:
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""

    def again(self) -> "Request":
        """As it is sent once more when its time has come: no dial meets it, and nobody waits for its answer."""
        return Request(self.method, self.target, {**self.headers, "x-sandbox-late": "1"}, self.body)

    def frozen(self) -> str:
        """The request as text, to be sent again later."""
        parts = [self.method, self.target, dict(self.headers), base64.b64encode(self.body).decode()]
        return json.dumps(parts)

    @classmethod
    def thawed(cls, text: str) -> "Request":
        method, target, headers, body = json.loads(text)
        return cls(method, target, headers, base64.b64decode(body))


@dataclass(frozen=True, slots=True)
class Response:
    status: int
    body: bytes
    headers: tuple[tuple[str, str], ...] = ()


def answer(content: object, status: int = 200, headers: Collection[tuple[str, str]] = ()) -> Response:
    """A JSON answer."""
    return Response(status, orjson.dumps(content), (("Content-Type", "application/json; charset=utf-8"), *headers))


class Room(Protocol):
    """Answers the paths that it handles."""

    def handles(self, path: str) -> bool: ...
    def handle(self, request: Request) -> Response: ...


@dataclass(frozen=True, slots=True)
class Call:
    """What a request asks of a platform."""

    account: str
    op: str  # check, create, describe, rename, delete, add, remove, poll, members
    audience: Audience | None = None
    rows: int = 0


class Platform(Protocol):
    """How a platform words its refusals."""

    name: str

    def throttled(self, call: Call, headers: list[tuple[str, str]]) -> Response: ...
    def failed(self, status: int) -> Response: ...
    def refused(self, call: Call, why: str) -> Response:
        """why: terms, blocked, permission, too_small, poison, expired, revoked."""
        ...


@dataclass(frozen=True, slots=True)
class Wish:
    """What a dial wants of a call that is otherwise done."""

    refused: Collection[int] = ()  # rows, by index
    seconds: float | None = None  # how long its receipt is pending
    applied_last: bool = False  # it takes effect when its receipt is ready, which may be after calls that came later
    failure: str = ""  # why its receipt says that all of it failed


NO_WISH = Wish()
Work = Callable[[Wish], Response]


def perform(
    platform: Platform,
    store: Store,
    request: Request,
    call: Call,
    work: Work,
    values: Callable[[], Collection[str]] = tuple,
) -> Response:
    """Do the call's `work`, unless a dial wants it otherwise, and log it. `values` are what a poisonous one is sought among."""
    at = store.now()
    audience = call.audience.id if call.audience else ""
    is_late = "x-sandbox-late" in request.headers
    dial = None if is_late else store.journal.take_dial(platform.name, call.account, call.op, audience)
    status = 0
    try:
        response = work(NO_WISH) if dial is None else _dialled(platform, store, request, call, work, values, dial)
        status = response.status
        return response
    finally:
        store.journal.log(
            at=at,
            platform=platform.name,
            account=call.account,
            op=call.op,
            audience=audience,
            rows=call.rows,
            status=status,
            dial="late" if is_late else dial.action if dial else "",
        )


def _dialled(
    platform: Platform,
    store: Store,
    request: Request,
    call: Call,
    work: Work,
    values: Callable[[], Collection[str]],
    dial: Dial,
) -> Response:
    params = dial.params
    match dial.action:
        case "throttle" | "budget":
            return platform.throttled(call, _retry_after(params))
        case "error":
            return platform.failed(int(params.get("status", 500)))
        case "hang":
            store.sleep(float(params.get("seconds", 60)))
            if params.get("apply", False):
                return work(NO_WISH)
            raise Drop
        case "drop":  # applied, and nobody hears of it
            work(NO_WISH)
            raise Drop
        case "late":  # nobody hears of it, and it is applied later
            store.journal.put_late(store.now() + float(params.get("seconds", 5)), request.again().frozen())
            raise Drop
        case "garbled":
            if params.get("apply", True):
                work(NO_WISH)
            return Response(200, b"<html><body>It works!</body></html>", (("Content-Type", "text/html"),))
        case "partial":
            return work(Wish(refused=_chosen(params, call.rows)))
        case "poison":
            poison = set(params.get("values", ()))
            return platform.refused(call, "poison") if poison.intersection(values()) else work(NO_WISH)
        case "small_removals":
            people = store.sizes(call.audience)[0] if call.audience else 0
            if call.op == "remove" and people - call.rows < int(params.get("below", 100)):
                return platform.refused(call, "too_small")
            return work(NO_WISH)
        case "processing":
            return work(
                Wish(seconds=float(params.get("seconds", 5)), applied_last=bool(params.get("applied_last", False)))
            )
        case "fail":
            return work(Wish(failure=str(params.get("reason", "PROCESSING_ERROR_REASON_INTERNAL_ERROR"))))
        case "refuse":
            return platform.refused(call, str(params["why"]))
    raise ValueError(f"no dial {dial.action}")


def _chosen(params: dict[str, Any], rows: int) -> Collection[int]:
    """The rows a partial failure refuses: `rows` by index, or every n-th."""
    if "rows" in params:
        return {int(index) for index in params["rows"]}
    return set(range(0, rows, int(params.get("every", 10))))


def _retry_after(params: dict[str, Any]) -> list[tuple[str, str]]:
    """The header of a throttling dial, in each of the ways that platforms have."""
    seconds = float(params.get("seconds", 2))
    match params.get("retry_after", "seconds"):
        case "seconds":
            return [("Retry-After", str(round(seconds)))]
        case "date":
            moment = datetime.now(UTC) + timedelta(seconds=seconds)
            return [("Retry-After", format_datetime(moment, usegmt=True))]
        case "absurd":
            return [("Retry-After", str(ABSURD_SECONDS))]
        case "minutes":  # Meta's own way
            use = {
                "type": "custom_audience",
                "call_count": 100,
                "estimated_time_to_regain_access": max(1, round(seconds / 60)),
            }
            return [("X-Business-Use-Case-Usage", json.dumps({"account": [use]}))]
    return []
