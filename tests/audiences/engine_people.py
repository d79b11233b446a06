"""Random people put where the product keeps them: as profiles and events, some of them hot, some flushed, some changed since a projection."""

import json
import uuid
from collections.abc import Callable, Sequence

from audiences.models import Alias, Event, Profile, ProfileChange
from audiences.people import lake
from audiences.segments.judge import Person


def accept(
    people: Sequence[Person],
    *,
    chunks: int = 1,
    between: Callable[[int], None] = lambda chunk: None,
    merged: bool = False,
) -> None:
    """Write the people and their events in so many turns; `between` is called after each but the last.

    `merged`: the odd ones among the events come under a profile of their own, merged into the person's.
    """
    numbered = [(number, person, event) for person in people for number, event in enumerate(person.events)]
    for chunk in range(chunks):
        for person in people[chunk::chunks]:
            save(person)
        Event.objects.bulk_create(
            Event(
                event_key=uuid.uuid4().hex,
                profile_no=old_no(person) if merged and number % 2 else person.profile_no,
                name=event.name,
                time_us=event.time_us,
                received_us=event.time_us,
                source="track_v2",
                properties=json.dumps(event.properties, ensure_ascii=False),
            )
            for number, person, event in numbered[chunk::chunks]
        )
        if chunk + 1 < chunks:
            between(chunk)
    if merged:
        for person in people:
            Alias.objects.get_or_create(old_no=old_no(person), defaults={"survivor_no": person.profile_no})
            Profile.objects.get_or_create(
                profile_no=old_no(person),
                defaults={"bucket_key": f"m{person.profile_no}", "state": Profile.State.MERGED, "created_us": 0},
            )
            ProfileChange.objects.create(profile_no=old_no(person))


def old_no(person: Person) -> int:
    """The number under which a person was known before a merge."""
    return 1_000 + person.profile_no


def save(person: Person) -> None:
    """Write the person's profile as it is now."""
    Profile.objects.update_or_create(
        profile_no=person.profile_no,
        defaults={
            "bucket_key": person.bucket_key,
            "created_us": person.created_us,
            "attributes": json.dumps(person.attributes, ensure_ascii=False),
        },
    )
    ProfileChange.objects.create(profile_no=person.profile_no)


def flush() -> None:
    """Move every hot event into the lake."""
    while lake.flush():
        pass
