"""Events and profiles for the lake's tests, written straight into the tables."""

import json
from datetime import UTC, datetime

from audiences import clock
from audiences.models import Event, Profile, ProfileChange


def at(text: str) -> int:
    """Microseconds of an ISO date or datetime, taken as UTC."""
    return clock.to_us(datetime.fromisoformat(text).replace(tzinfo=UTC))


def event(
    number: int, name: str = "view", *, time: str = "2026-05-10T12:00:00", profile_no: int = 1, **properties
) -> Event:
    """A hot event whose key tells its number."""
    return Event(
        event_key=f"{number:032x}",
        profile_no=profile_no,
        name=name,
        time_us=at(time),
        received_us=at("2026-05-11"),
        source="track_v2",
        properties=json.dumps(properties),
    )


def accept(*events: Event) -> None:
    """What intake does with events, as far as the lake can tell."""
    Event.objects.bulk_create(events)


def profile(profile_no: int, **fields) -> Profile:
    """A changed profile. `attributes` is a dict."""
    fields["attributes"] = json.dumps(fields.get("attributes", {}))
    row, _ = Profile.objects.update_or_create(
        profile_no=profile_no,
        defaults={"bucket_key": f"k{profile_no}", "created_us": at("2026-01-01"), **fields},
    )
    ProfileChange.objects.create(profile_no=profile_no)
    return row
