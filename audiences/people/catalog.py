"""Which attributes, events and properties have been seen, and what kind of values they hold. A rule may name only what is here.

Everything here runs in the transaction that takes the people or events in, so that a name is known as soon as its first value is.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from django.db.models import F

from audiences.clock import MINUTE
from audiences.models import AttributeName, EventName, PropertyName
from audiences.people import bulk, feeds
from audiences.people.normalise import moment_of

TEXT, NUMBER, BOOLEAN, TIME = (str(kind) for kind in AttributeName.Type.values)

_NUMBER = re.compile(r"-?\d{1,18}(\.\d+)?", re.ASCII)
_PADDED = re.compile(r"-?0\d", re.ASCII)
_SINCE_2001 = 1_000_000_000
LAST_SEEN_EVERY = MINUTE


def type_of(name: str, value: Any) -> str:
    """The type that a first value suggests. Ids are text: `00042` keeps its zeros."""
    if isinstance(value, bool):
        return BOOLEAN
    if isinstance(value, int | float):
        return TIME if name.endswith(("_at", "_on")) and value >= _SINCE_2001 and moment_of(value) else NUMBER
    if isinstance(value, str):
        text = value.strip()
        if text.lower() in ("true", "false"):
            return BOOLEAN
        if _NUMBER.fullmatch(text):
            return TEXT if _PADDED.match(text) else type_of(name, float(text))
        if moment_of(text) is not None:
            return TIME
    return TEXT


def fits(type_: str, value: Any) -> bool:
    """Whether a value can be read as the type. Text takes everything."""
    if type_ == TEXT or value is None or value == "":
        return True
    if type_ == BOOLEAN:
        return isinstance(value, bool) or (isinstance(value, str) and value.strip().lower() in ("true", "false"))
    if type_ == NUMBER:
        if isinstance(value, str):
            return _NUMBER.fullmatch(value.strip()) is not None
        return isinstance(value, int | float) and not isinstance(value, bool)
    return moment_of(value) is not None


def learn_attributes(people: Iterable[Mapping[str, Any]], at_us: int) -> None:
    """Learn from the attributes of some people; values that do not fit the type first seen are counted as conflicts."""
    people = [attributes for attributes in people if attributes]
    first = _first_values(people)
    if not first:
        return
    condition, parameters = bulk.among("name", first)
    known = bulk.fetch(
        f"SELECT name, type, last_seen_us FROM audiences_attributename WHERE {condition}",  # noqa: S608 - only a place-holder
        parameters,
    )
    types = {name: kind for name, kind, _ in known}
    new = [(name, type_of(name, value), 0, at_us, at_us) for name, value in sorted(first.items()) if name not in types]
    fields = ("name", "type", "conflicts", "first_seen_us", "last_seen_us")
    bulk.insert(AttributeName, fields, new, "ON CONFLICT (name) DO NOTHING")
    types.update((name, kind) for name, kind, *_ in new)
    stale = [name for name, _, last in known if last < at_us - LAST_SEEN_EVERY]
    if stale:
        AttributeName.objects.filter(name__in=sorted(stale)).update(last_seen_us=at_us)
    for name, conflicts in sorted(_conflicts(people, types).items()):
        AttributeName.objects.filter(name=name).update(conflicts=F("conflicts") + conflicts)


def learn_events(events: Iterable[tuple[str, Mapping[str, Any]]], at_us: int) -> None:
    """Learn from (name, properties) of some events."""
    by_name: dict[str, list[Mapping[str, Any]]] = {}
    for name, properties in events:
        by_name.setdefault(name, []).append(properties)
    if not by_name:
        return
    condition, parameters = bulk.among("name", by_name)
    known = dict(
        bulk.fetch(f"SELECT name, last_seen_us FROM audiences_eventname WHERE {condition}", parameters)  # noqa: S608 - likewise
    )
    new = [(name, at_us, at_us, 0) for name in sorted(by_name) if name not in known]
    fields = ("name", "first_seen_us", "last_seen_us", "usual_silence_us")
    bulk.insert(EventName, fields, new, "ON CONFLICT (name) DO NOTHING")
    stale = sorted(name for name, last in known.items() if last < at_us - LAST_SEEN_EVERY)
    if stale:
        _heard_of(stale, at_us)
    _learn_properties(by_name, at_us)


def _heard_of(names: list[str], at_us: int) -> None:
    """They came in again after a silence of a minute or more, from which is learnt how long they are usually silent."""
    for event in EventName.objects.filter(name__in=names):
        silence = at_us - event.last_seen_us
        event.usual_silence_us = feeds.learnt(event, silence)
        event.last_seen_us = at_us
        event.save(update_fields=["last_seen_us", "usual_silence_us"])


def _learn_properties(by_event: dict[str, list[Mapping[str, Any]]], at_us: int) -> None:
    first = {event: _first_values(properties) for event, properties in by_event.items()}
    names = {name for values in first.values() for name in values}
    if not names:
        return
    of_event, event_parameters = bulk.among("event", [event for event, values in first.items() if values])
    of_name, name_parameters = bulk.among("name", names)
    known = bulk.fetch(
        "SELECT event, name, type, last_seen_us, id FROM audiences_propertyname "  # noqa: S608 - likewise
        f"WHERE {of_event} AND {of_name}",
        [*event_parameters, *name_parameters],
    )
    types: dict[str, dict[str, str]] = {event: {} for event in first}
    for event, name, kind, _, _ in known:
        types[event][name] = kind
    new = [
        (event, name, type_of(name, value), 0, at_us, at_us)
        for event, values in sorted(first.items())
        for name, value in sorted(values.items())
        if name not in types[event]
    ]
    fields = ("event", "name", "type", "conflicts", "first_seen_us", "last_seen_us")
    bulk.insert(PropertyName, fields, new, "ON CONFLICT (event, name) DO NOTHING")
    for event, name, kind, *_ in new:
        types[event][name] = kind
    stale = [pk for event, name, _, last, pk in known if name in first[event] and last < at_us - LAST_SEEN_EVERY]
    if stale:
        PropertyName.objects.filter(pk__in=sorted(stale)).update(last_seen_us=at_us)
    for event, properties in sorted(by_event.items()):
        for name, conflicts in sorted(_conflicts(properties, types[event]).items()):
            PropertyName.objects.filter(event=event, name=name).update(conflicts=F("conflicts") + conflicts)


def _first_values(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """The first value of each name that says something; a name of which only empty values are seen is not learnt yet."""
    first: dict[str, Any] = {}
    for row in rows:
        for name, value in row.items():
            if name not in first and value is not None and value != "":
                first[name] = value
    return first


def _conflicts(rows: Iterable[Mapping[str, Any]], types: Mapping[str, str]) -> dict[str, int]:
    strict = {name: kind for name, kind in types.items() if kind != TEXT}
    conflicts: dict[str, int] = {}
    if strict:
        for row in rows:
            for name, value in row.items():
                if name in strict and not fits(strict[name], value):
                    conflicts[name] = conflicts.get(name, 0) + 1
    return conflicts
