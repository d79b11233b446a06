"""How long an event's feed may be silent, as a person sets it. What is usual is learnt in people/feeds.py."""

from django.db import transaction

from audiences.models import EventName, User
from audiences.services import trail

LONGEST_HOURS = 24 * 90


def allow_silence(*, actor: User | None, name: str, hours: int | None) -> EventName:
    """Longer than so many hours and its feed counts as stopped; 0: it never does; None: as is usual.

    Raises EventName.DoesNotExist and ValueError, in words.
    """
    if hours is not None and not 0 <= hours <= LONGEST_HOURS:
        raise ValueError(f"between 1 and {LONGEST_HOURS:,} hours, or 0 for never")
    with transaction.atomic():
        event = EventName.objects.select_for_update().get(pk=name)
        before = event.allowed_silence_seconds
        event.allowed_silence_seconds = None if hours is None else hours * 3600
        event.save(update_fields=["allowed_silence_seconds"])
        trail.record(
            actor,
            "feed.changed",
            "feed",
            name,
            before={"allowed_silence_seconds": before},
            after={"allowed_silence_seconds": event.allowed_silence_seconds},
        )
    return event
