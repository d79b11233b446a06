"""Random people put where the product keeps them: as profiles, hot events and lake files, by a random course of writing, flushing,
projecting and compacting. And what a rule then means for them, by judge.py.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta

from django.db import transaction
from hypothesis import strategies as st
from pyroaring import BitMap

from audiences.clock import DAY, HOUR
from audiences.models import Alias, Event, LakeColumn, LakeFile, Profile, ProfileChange
from audiences.people import lake
from audiences.people.engines.base import Pinned
from audiences.segments.judge import Occurrence, Person, judge, verdicts
from audiences.segments.tree import Node
from tests.audiences import strategies
from tests.audiences.strategies import AS_OF

ACTIONS = ("flush", "flush", "columns", "project", "compact", "change", "ask", "pin")
TURNS = 3


@dataclass(frozen=True)
class Course:
    """What happens: `people` as they end up, and for each of the turns which of their events are accepted and what is done then."""

    people: list[Person]
    turns: list[int]  # of each event, in the order of `events`
    actions: list[list[str]]
    merged: bool
    as_of_us: int

    def events(self) -> list[tuple[int, Person, Occurrence]]:
        return list(
            zip(
                self.turns,
                (person for person in self.people for _ in person.events),
                (event for person in self.people for event in person.events),
                strict=True,
            )
        )


@st.composite
def courses(draw: st.DrawFn) -> Course:
    people = draw(strategies.people())
    events = sum(len(person.events) for person in people)
    return Course(
        people,
        draw(st.lists(st.integers(0, TURNS - 1), min_size=events, max_size=events)),
        draw(st.lists(st.lists(st.sampled_from(ACTIONS), max_size=3), min_size=TURNS, max_size=TURNS)),
        draw(st.booleans()),
        draw(st.sampled_from((AS_OF, AS_OF, AS_OF - 10 * DAY, AS_OF - 45 * DAY, AS_OF + HOUR))),
    )


def take(course: Course, ask) -> tuple[Pinned, list[Person]]:
    """Let it happen in an empty database; the pin, the first taken or one at the end, and the people as judged at it.

    `ask` is called with a pin now and then, as if somebody asked something.
    """
    flush()  # what is left of the course before: no reader expects hot rows to vanish
    with transaction.atomic():
        for model in (Alias, Event, LakeFile, LakeColumn, Profile, ProfileChange):
            model.objects.all().delete()
    save(*(replace(person, attributes={"plan": "stale"}) for person in course.people))
    if course.merged:
        Alias.objects.bulk_create(
            Alias(old_no=old_no(person), survivor_no=person.profile_no) for person in course.people
        )
        save(
            *(replace(person, profile_no=old_no(person), created_us=0) for person in course.people),
            state=Profile.State.MERGED,
        )
    save(replace(course.people[0], profile_no=900), state=Profile.State.DELETED)
    save(replace(course.people[0], profile_no=901), kind=Profile.Kind.ANONYMOUS)
    pinned: tuple[Pinned, list[Person]] | None = None
    for turn, actions in enumerate(course.actions):
        accept(course, turn)
        for action in actions:
            match action:
                case "flush":
                    flush()
                case "columns":
                    lake.want_columns(strategies.PROPERTIES[turn:], strategies.ATTRIBUTES[turn:])
                case "project":
                    lake.project_profiles()
                case "compact":
                    lake.compact(settle=True)
                case "change":
                    save(*course.people[turn::TURNS])
                case "ask":
                    ask(Pinned(lake.take_snapshot(), course.as_of_us))
                case "pin" if pinned is None:
                    save(*course.people)  # what a pin says of profiles may be as of any moment since
                    pinned = lake.pin(course.as_of_us, hold=timedelta(minutes=5)), people_after(course, turn)
    save(*course.people)
    return pinned or (Pinned(lake.take_snapshot(), course.as_of_us), course.people)


def people_after(course: Course, turn: int) -> list[Person]:
    """The people with the events that had been accepted by the end of a turn."""
    known: dict[int, list[Occurrence]] = {person.profile_no: [] for person in course.people}
    for when, person, event in course.events():
        if when <= turn:
            known[person.profile_no].append(event)
    return [replace(person, events=tuple(known[person.profile_no])) for person in course.people]


def accept(course: Course, turn: int) -> None:
    """The events of a turn become hot. After a merge every other one still comes under the old number."""
    Event.objects.bulk_create(
        Event(
            event_key=uuid.uuid4().hex,
            profile_no=old_no(person) if course.merged and number % 2 else person.profile_no,
            name=event.name,
            time_us=event.time_us,
            received_us=event.time_us,
            source="track_v2",
            properties=json.dumps(event.properties, ensure_ascii=False),
        )
        for number, (when, person, event) in enumerate(course.events())
        if when == turn
    )


def old_no(person: Person) -> int:
    """The number under which a person was known before a merge."""
    return 1_000 + person.profile_no


def save(*people: Person, **fields: str) -> None:
    """Write the profiles as they are now."""
    rows = [
        Profile(
            profile_no=person.profile_no,
            bucket_key=person.bucket_key,
            created_us=person.created_us,
            attributes=json.dumps(person.attributes, ensure_ascii=False),
            **fields,
        )
        for person in people
    ]
    with transaction.atomic():
        Profile.objects.filter(pk__in=[row.pk for row in rows]).delete()
        Profile.objects.bulk_create(rows)
        ProfileChange.objects.bulk_create(ProfileChange(profile_no=row.pk) for row in rows)


def flush() -> None:
    """Move every hot event into the lake."""
    while lake.flush():
        pass


def lists_of(people: Sequence[Person]) -> dict[str, BitMap]:
    return {key: BitMap(one.profile_no for one in people if key in one.lists) for key in strategies.LIST_KEYS}


def judged(tree: Node, people: Sequence[Person], as_of_us: int) -> tuple[set[int], dict[str, int]]:
    """Whom the rule takes in, and how many people each rule and group has."""
    each = [verdicts(tree, person, as_of_us) for person in people]
    members = {person.profile_no for person in people if judge(tree, person, as_of_us)}
    return members, {path: sum(one[path] for one in each) for path in each[0]}
