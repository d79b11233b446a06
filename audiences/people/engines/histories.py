"""What single people did, for judging them in Python and for showing: one statement whatever the number of people. Sets of people are duckdb.py's."""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from audiences.models import Profile
from audiences.people.engines.views import EventView
from audiences.segments import tree
from audiences.segments.judge import Occurrence, Person
from audiences.segments.leaves import EVER_US, Span, Statement
from audiences.segments.tree import KnownFor, Leaf, Measured, Moment, Occurred

Rows = Callable[[Statement], Iterator[pa.RecordBatch]]


@dataclass(frozen=True, slots=True)
class Happened:
    """One event as accepted, for showing."""

    name: str
    time_us: int
    properties: Mapping[str, object]
    source: str
    event_key: str


def events_needed(leaves: Iterable[Leaf]) -> frozenset[str] | None:
    """The names of the events that these leaves ask about; None: every event there is."""
    names: set[str] = set()
    for leaf in leaves:
        match leaf:
            case KnownFor() | Occurred(event="*"):
                return None
            case Occurred(event) | Measured(event) | Moment(event):
                names.add(event)
            case tree.Sequence(steps):
                names.update(step.event for step in steps)
    return frozenset(names)


def histories(
    rows: Rows,
    view: EventView,
    profile_nos: Collection[int],
    events: Collection[str] | None,
    until_us: int,
    newest: int | None = None,
) -> dict[int, list[Happened]]:
    """These people's events up to a moment, all or of these names (the newest so many of all), each person's newest first."""
    found: dict[int, list[Happened]] = defaultdict(list)
    sources = view.sources(Span(EVER_US, until_us))
    if not sources or not profile_nos or (events is not None and not events):
        return found
    names = None if events is None else sorted(events)
    numbers = view.namesakes(profile_nos)
    for batch in rows(view.writer.history(numbers, names, until_us, sources, newest)):
        for row in batch.to_pylist():
            found[row["profile_no"]].append(
                Happened(row["name"], row["time_us"], json.loads(row["properties"]), row["source"], row["event_key"])
            )
    return found


def people(profile_nos: Collection[int], events: Mapping[int, Sequence[Happened]]) -> dict[int, Person]:
    """The profiles as they are now, with these events, as judge.py takes them; on no lists. Numbers that no profile has are left out."""
    rows = Profile.objects.using("snapshot").filter(pk__in=profile_nos)
    return {
        number: Person(
            number,
            bucket_key,
            created_us,
            json.loads(attributes),
            tuple(Occurrence(event.name, event.time_us, event.properties) for event in events.get(number, ())),
        )
        for number, bucket_key, created_us, attributes in rows.values_list(
            "profile_no", "bucket_key", "created_us", "attributes"
        )
    }
