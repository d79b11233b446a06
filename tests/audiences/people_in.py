"""People and events for tests of what is computed from them: taken in by the Track API's own doors, as in life."""

import time
from datetime import UTC, datetime

from django.db import connection, transaction
from django.db.models import Max

from audiences import clock
from audiences.models import Event, PrivacyRequest, ProfileChange, ProfileKey
from audiences.people import intake, lake, payloads, privacy
from audiences.people.payloads import Context


def us(text: str) -> int:
    """Microseconds of an ISO date or datetime, taken as UTC."""
    return clock.to_us(datetime.fromisoformat(text).replace(tzinfo=UTC))


def identify(*ids: str, **attributes) -> None:
    now = clock.now_us()
    calls = [payloads.identify_v1(id, attributes, Context(now, "US")) for id in ids]
    intake.accept(calls, "track_v1", received_us=now)


def track(id: str, name: str, at: int | None = None, **data) -> None:
    """An event of the person with this id, at this moment (now if left out)."""
    now = clock.now_us()
    body = {"name": name, "data": data, "timestamp": (now if at is None else at) // clock.SECOND}
    intake.accept([payloads.event_v1(id, body, Context(now, "US"))], "track_v1", received_us=now)


def until_counted() -> None:
    """On PostgreSQL a count takes in what no transaction still under way could precede, and other databases of the server have those too."""
    if connection.vendor != "postgresql" or connection.in_atomic_block:
        return
    deadline = time.monotonic() + 60
    newest = max(
        Event.objects.aggregate(newest=Max("xid"))["newest"] or 0,
        ProfileChange.objects.aggregate(newest=Max("xid"))["newest"] or 0,
    )
    while lake.take_snapshot().hot < newest:
        assert time.monotonic() < deadline, "another transaction on this server has been under way for a minute"
        time.sleep(0.02)


def merge(survivor: str, old: str) -> None:
    now = clock.now_us()
    call = payloads.merge_v1({"primary": {"id": survivor}, "secondary": {"id": old}}, Context(now, "US"))
    intake.accept([call], "track_v1", received_us=now)


def erase(value: str, kind: str = "id") -> PrivacyRequest:
    """A privacy request of whoever has this identifier."""
    return _ask((kind, value), PrivacyRequest.Kind.ERASURE)


def suppress(value: str, kind: str = "id") -> PrivacyRequest:
    return _ask((kind, value), PrivacyRequest.Kind.SUPPRESSION)


def _ask(key: tuple[str, str], kind: str) -> PrivacyRequest:
    with transaction.atomic():
        taken = privacy.ask([key], kind=kind, source=PrivacyRequest.Source.PAGE, at_us=clock.now_us())
    assert taken.request is not None
    return taken.request


def number(id: str) -> int:
    return ProfileKey.objects.get(kind="id", value=id).profile_no


def numbers(*ids: str) -> set[int]:
    return set(ProfileKey.objects.filter(kind="id", value__in=ids).values_list("profile_no", flat=True))
