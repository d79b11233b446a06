"""People and events for tests of what is computed from them: taken in by the Track API's own doors, as in life."""

from datetime import UTC, datetime

from audiences import clock
from audiences.models import ProfileKey
from audiences.people import intake, payloads
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


def merge(survivor: str, old: str) -> None:
    now = clock.now_us()
    call = payloads.merge_v1({"primary": {"id": survivor}, "secondary": {"id": old}}, Context(now, "US"))
    intake.accept([call], "track_v1", received_us=now)


def number(id: str) -> int:
    return ProfileKey.objects.get(kind="id", value=id).profile_no


def numbers(*ids: str) -> set[int]:
    return set(ProfileKey.objects.filter(kind="id", value__in=ids).values_list("profile_no", flat=True))
