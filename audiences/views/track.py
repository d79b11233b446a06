"""The Track API of Customer.io, v1 and v2, at `/api/v1` and `/api/v2`: authentication, envelopes and status codes.

What a call may hold is people/payloads.py's, what it does people/intake.py's. Devices, objects, relationships and deliveries
are answered 200 and nothing is kept of them; so are calls about suppressed people, as Customer.io does.
"""

import base64
import binascii
import hashlib
import hmac
import logging
from collections.abc import Callable
from datetime import timedelta
from functools import wraps
from typing import Any
from urllib.parse import urlsplit

import orjson
from django.conf import settings
from django.db import OperationalError
from django.http import HttpRequest, HttpResponse
from django.utils import timezone
from django.views.decorators.csrf import csrf_exempt

from audiences import tallies
from audiences.clock import now_us
from audiences.models import ApiKey
from audiences.people import bodies, intake, payloads
from audiences.people.bodies import Refused
from audiences.people.payloads import Call, Context
from audiences.services import lists

log = logging.getLogger(__name__)

V1_BYTES = 500_000  # 300 attributes at their largest fit
ENTITY_BYTES = 32_768
BATCH_BYTES = 512_000
USED_EVERY = timedelta(minutes=1)

_NOBODY = "0" * 64
View = Callable[..., HttpResponse]
Fail = Callable[[int, str], HttpResponse]


# --- Envelopes


def _answer(status: int, body: Any) -> HttpResponse:
    return HttpResponse(orjson.dumps(body), status=status, content_type="application/json")


def _fine() -> HttpResponse:
    return HttpResponse(b"{}", content_type="application/json")


def _v1(status: int, message: str) -> HttpResponse:
    return _answer(status, {"meta": {"errors": [message]}})


def _v1_one(status: int, message: str) -> HttpResponse:
    return _answer(status, {"meta": {"error": message}})


def _v2(status: int, message: str) -> HttpResponse:
    return _answer(status, {"errors": [{"reason": "invalid", "field": "", "message": message}]})


def _v2_error(refused: Refused) -> dict[str, str]:
    return {"reason": refused.kind, "field": refused.field, "message": refused.reason}


# --- At the door


def _api(source: str, at_most: int, fail: Fail, **methods: View) -> View:
    """A view from its methods: who is calling, how large, then the method; refusals in the API's own envelope.

    A method gets the request's body, the Context, and the path's parts; it answers or raises Refused.
    """
    allowed = ", ".join(name.upper() for name in methods)

    @csrf_exempt
    @wraps(next(iter(methods.values())))
    def view(request: HttpRequest, **parts: Any) -> HttpResponse:
        if not _known(request.META.get("HTTP_AUTHORIZATION", "")):
            tallies.count("intake", source, "unauthorised")
            answer = fail(401, "unknown site id or API key")
            answer["WWW-Authenticate"] = 'Basic realm="Rollcall"'
            return answer
        method = methods.get((request.method or "").lower())
        if method is None:
            answer = fail(405, f"use {allowed}")
            answer["Allow"] = allowed
            return answer
        if "HTTP_TRANSFER_ENCODING" in request.META:
            return fail(411, "send the body's length")
        if int(request.META.get("CONTENT_LENGTH") or 0) > at_most:
            return fail(413, f"body: larger than {at_most} bytes")
        try:
            return _run(request, method, source, fail, parts)
        except (
            OperationalError
        ) as error:  # the database is away or busy: nothing was committed, so the caller should try again
            log.error("call not taken in", extra={"error": type(error).__name__})
            tallies.count("intake", source, "unavailable")
            answer = fail(503, "try again")
            answer["Retry-After"] = "1"
            return answer

    return view


def _run(request: HttpRequest, method: View, source: str, fail: Fail, parts: dict[str, Any]) -> HttpResponse:
    try:
        return method(request.body, source, Context(now_us(), ""), request, **parts)
    except Refused as refused:
        tallies.count("intake", source, "refused")
        intake.refuse(source, refused.field, refused.reason, request.body)
        if fail is _v2:
            return _answer(400, {"errors": [_v2_error(refused)]})
        return fail(400, f"{refused.field}: {refused.reason}")


def _known(header: str) -> bool:
    """Whether HTTP Basic names a key that is not revoked, in the same time for every wrong secret."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return False
    try:
        site_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return False
    if "\0" in site_id:
        return False
    found = ApiKey.objects.filter(site_id=site_id[:40], revoked_at__isnull=True)
    row = found.values_list("pk", "secret_sha256", "last_used_at").first()
    pk, expected, last_used_at = row or (None, _NOBODY, None)
    same = hmac.compare_digest(hashlib.sha256(secret.encode()).hexdigest(), expected)
    if not same or pk is None:
        return False
    now = timezone.now()
    if last_used_at is None or last_used_at < now - USED_EVERY:
        ApiKey.objects.filter(pk=pk).update(last_used_at=now)
    return True


def _load(raw: bytes) -> Any:
    body, storable = bodies.load(raw) if raw.strip() else ({}, True)
    if not storable:
        bodies.check(body, "body")
    return body


def _accept(call: Call, source: str, context: Context) -> None:
    outcome = intake.accept([call], source, received_us=context.received_us)[0]
    if outcome.refused:
        raise Refused(outcome.refused.field, outcome.refused.reason)


# --- v1


def _identify(raw: bytes, source: str, context: Context, request: HttpRequest, *, identifier: str) -> HttpResponse:
    body = _load(raw)
    _accept(payloads.identify_v1(identifier, body, _with_region(context, body)), source, context)
    return _fine()


def _delete(raw: bytes, source: str, context: Context, request: HttpRequest, *, identifier: str) -> HttpResponse:
    _accept(payloads.Delete(payloads.who_in_path(identifier, context)), source, context)
    return _fine()


def _suppress(raw: bytes, source: str, context: Context, request: HttpRequest, *, identifier: str) -> HttpResponse:
    _accept(payloads.Suppress(payloads.who_in_path(identifier, context)), source, context)
    return _fine()


def _unsuppress(raw: bytes, source: str, context: Context, request: HttpRequest, *, identifier: str) -> HttpResponse:
    _accept(payloads.Unsuppress(payloads.who_in_path(identifier, context)), source, context)
    return _fine()


def _event(raw: bytes, source: str, context: Context, request: HttpRequest, *, identifier: str) -> HttpResponse:
    _accept(payloads.event_v1(identifier, _load(raw), context), source, context)
    return _fine()


def _anonymous_event(raw: bytes, source: str, context: Context, request: HttpRequest) -> HttpResponse:
    _accept(payloads.anonymous_event_v1(_load(raw), context), source, context)
    return _fine()


def _merge(raw: bytes, source: str, context: Context, request: HttpRequest) -> HttpResponse:
    body = _load(raw)
    _accept(payloads.merge_v1(body, _with_region(context, body)), source, context)
    return _fine()


def _device(raw: bytes, source: str, context: Context, request: HttpRequest, *, identifier: str) -> HttpResponse:
    payloads.device_v1(identifier, _load(raw), context)
    return _fine()


def _forget_device(
    raw: bytes, source: str, context: Context, request: HttpRequest, *, identifier: str, device: str
) -> HttpResponse:
    payloads.who_in_path(identifier, context)
    return _fine()


def _change_list(add: bool) -> View:
    def change(raw: bytes, source: str, context: Context, request: HttpRequest, *, segment: int) -> HttpResponse:
        wanted = payloads.list_change_v1(request.GET.get("id_type", "id"), _load(raw), context)
        try:
            lists.change_by_segment(segment, wanted.kind, wanted.values, add=add)
        except lists.NoSuchList as error:
            return _v1(404, str(error))
        return _fine()

    return change


def _region(raw: bytes, source: str, context: Context, request: HttpRequest) -> HttpResponse:
    return _answer(200, {"url": urlsplit(settings.PUBLIC_URL).netloc, "data_center": "us", "environment_id": 1})


def _with_region(context: Context, body: Any) -> Context:
    """The workspace's region, looked up only where the body may hold a phone number."""
    if not isinstance(body, dict) or "phone" not in str(body):
        return context
    return Context(context.received_us, intake.default_region())


region = _api("track_v1", V1_BYTES, _v1, get=_region)
customer = _api("track_v1", V1_BYTES, _v1, put=_identify, post=_identify, delete=_delete)
suppress = _api("track_v1", V1_BYTES, _v1, post=_suppress)
unsuppress = _api("track_v1", V1_BYTES, _v1, post=_unsuppress)
customer_event = _api("track_v1", V1_BYTES, _v1, post=_event)
anonymous_event = _api("track_v1", V1_BYTES, _v1, post=_anonymous_event)
merge = _api("track_v1", V1_BYTES, _v1_one, post=_merge)
devices = _api("track_v1", V1_BYTES, _v1, put=_device)
device = _api("track_v1", V1_BYTES, _v1, delete=_forget_device)
add_customers = _api("track_v1", V1_BYTES, _v1, post=_change_list(True))
remove_customers = _api("track_v1", V1_BYTES, _v1, post=_change_list(False))


# --- v2


def _entity(raw: bytes, source: str, context: Context, request: HttpRequest) -> HttpResponse:
    body = _load(raw)
    _accept(payloads.entity_v2(body, _with_region(context, body)), source, context)
    return _fine()


def _batch(raw: bytes, source: str, context: Context, request: HttpRequest) -> HttpResponse:
    """Good items are taken in, bad ones named by their place: 207, or 400 if none was good."""
    body, storable = bodies.load(raw)
    items = payloads.batch_v2(body)
    if b"phone" in raw:
        context = Context(context.received_us, intake.default_region())
    calls: list[Call] = []
    places: list[int] = []
    refused: dict[int, Refused] = {}
    largest = len(raw) > ENTITY_BYTES  # else no item can be larger than one may be
    for place, item in enumerate(items):
        try:
            if not storable:
                bodies.check(item, "body")
            if largest and len(orjson.dumps(item)) > ENTITY_BYTES:
                raise Refused("body", f"larger than {ENTITY_BYTES} bytes")
            calls.append(payloads.entity_v2(item, context))
            places.append(place)
        except Refused as error:
            refused[place] = error
            intake.refuse(source, error.field, error.reason, item)
    outcomes = intake.accept(calls, source, received_us=context.received_us)
    for place, outcome in zip(places, outcomes, strict=True):
        if outcome.refused:
            refused[place] = Refused(outcome.refused.field, outcome.refused.reason)
    if not refused:
        return _fine()
    tallies.count("intake", source, "refused", n=len(refused))
    errors = [{**_v2_error(error), "batch_index": place} for place, error in sorted(refused.items())]
    return _answer(400 if len(refused) == len(items) else 207, {"errors": errors})


entity = _api("track_v2", ENTITY_BYTES, _v2, post=_entity)
batch = _api("track_v2", BATCH_BYTES, _v2, post=_batch)
