"""What single people did, for judging them in Python and for showing: one statement whatever the number of people. Sets of people are duckdb.py's."""

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from sqlglot import exp

from audiences.models import Profile
from audiences.people.engines.asking import Rows
from audiences.people.engines.base import Needed
from audiences.people.engines.views import EventView
from audiences.segments import tree
from audiences.segments.judge import Occurrence, Person
from audiences.segments.leaves import EVER_US, Span
from audiences.segments.tree import KnownFor, Leaf, Measured, Moment, Occurred, Window


@dataclass(frozen=True, slots=True)
class Happened:
    """One event as accepted, for showing."""

    name: str
    time_us: int
    properties: Mapping[str, object]
    source: str
    event_key: str


def needed(leaves: Iterable[Leaf]) -> Needed:
    """What these leaves ask about."""
    names: set[str] = set()
    properties: set[str] = set()
    windows: set[Window] = set()
    every = False
    for leaf in leaves:
        windows.add(leaf.window if isinstance(leaf, Occurred | Measured | Moment) else None)
        match leaf:
            case KnownFor() | Occurred(event="*"):
                every = True
            case Occurred(event, where=where) | Measured(event, where=where) | Moment(event, where=where):
                names.add(event)
                properties.update(condition.name for condition in where)
                if isinstance(leaf, Measured):
                    properties.add(leaf.property)
            case tree.Sequence(steps):
                names.update(step.event for step in steps)
                properties.update(condition.name for step in steps for condition in step.where)
    return Needed(None if every else frozenset(names), frozenset(properties), frozenset(windows or {None}))


def occurrences(
    rows: Rows,
    view: EventView,
    profile_nos: Collection[int],
    needed: Needed,
    as_of_us: int,
) -> dict[int, list[Occurrence]]:
    """What is needed of these people's events up to a moment, each person's newest first; there may be more.

    Properties that are named come as texts: rules compare nothing else, and it is quicker.
    """
    properties, wanted = needed.properties, needed.span(as_of_us)
    found: dict[int, list[Occurrence]] = defaultdict(list)
    asked = [] if properties is None else sorted(properties)
    columns = ["properties"] if properties is None else []
    for row in _rows(rows, view, profile_nos, needed.events, wanted, columns=columns, properties=asked):
        given = json.loads(row["properties"]) if properties is None else _given(row, asked)
        found[row["profile_no"]].append(Occurrence(row["name"], row["time_us"], given))
    for own in found.values():
        own.sort(key=lambda occurrence: -occurrence.time_us)
    return found


def newest(rows: Rows, view: EventView, profile_no: int, until_us: int, limit: int) -> list[Happened]:
    """A person's newest events, the newest first."""
    columns = ["properties", "source", "event_key"]
    return [
        Happened(row["name"], row["time_us"], json.loads(row["properties"]), row["source"], row["event_key"])
        for row in _rows(rows, view, [profile_no], None, Span(EVER_US, until_us), columns=columns, newest=limit)
    ]


def _rows(
    rows: Rows,
    view: EventView,
    profile_nos: Collection[int],
    events: Collection[str] | None,
    wanted: Span,
    *,
    columns: Sequence[str],
    properties: Sequence[str] = (),
    newest: int | None = None,
) -> Iterator[dict[str, Any]]:
    sources = view.sources(wanted, properties)
    if not sources or not profile_nos or (events is not None and not events):
        return
    names = None if events is None else sorted(events)
    statement = view.writer.history(
        exp.to_table("wanted"), names, wanted.until, sources, columns=columns, properties=properties, newest=newest
    )
    people = pa.table({"profile_no": pa.array(view.namesakes(profile_nos), pa.uint32())})
    for batch in rows(statement, wanted=people):
        yield from batch.to_pylist()


def _given(row: Mapping[str, Any], properties: Sequence[str]) -> dict[str, str]:
    return {name: text for at, name in enumerate(properties) if (text := row[f"t{at}"]) is not None}


def people(profile_nos: Collection[int], events: Mapping[int, Sequence[Occurrence]]) -> dict[int, Person]:
    """The profiles as they are now, with these events, as judge.py takes them; on no lists. Numbers that no profile has are left out."""
    rows = Profile.objects.using("snapshot").filter(pk__in=profile_nos)
    return {
        number: Person(
            number,
            bucket_key,
            created_us,
            json.loads(attributes),
            tuple(events.get(number, ())),
        )
        for number, bucket_key, created_us, attributes in rows.values_list(
            "profile_no", "bucket_key", "created_us", "attributes"
        )
    }
