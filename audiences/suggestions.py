"""What the fields of a rule may say: names and usual values that have been seen, how often, when last, and with which share of the people.

Reads only, as people/survey.py last counted them. What has not been counted yet is None, never 0.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from audiences.models import AttributeName, Audience, EventName, PersonList, PropertyName, Survey
from audiences.segments import outline
from audiences.segments.outline import Item
from audiences.segments.outline_items import meant, shown

OFFERED = 500  # names of a kind
BY_TEXT = (
    "is",
    "is_not",
    "in",
    "not_in",
    "contains",
    "starts_with",
    "ends_with",
)  # tests that a usual value helps with


@dataclass(frozen=True, slots=True)
class Name:
    """A name or value as a field says it: `amount` of `unit` there are, `share` of all people have it. None: not known, or of no such kind."""

    name: str
    amount: int | None = None
    unit: str = ""
    share: float | None = None
    seen_us: int | None = None


@dataclass(frozen=True, slots=True)
class Offered:
    """Lists of names by their ids, and which list a field offers."""

    lists: Mapping[str, Sequence[Name]] = field(default_factory=dict)
    properties: Mapping[str, str] = field(default_factory=dict)  # by event
    values: Mapping[tuple[str, str], str] = field(default_factory=dict)  # by event ("" for attributes) and name

    def of(self, item: Item, event: str = "") -> dict[str, str]:
        """Field → the id of its list, for a rule, a step or a condition. `event`: of which a condition's property is."""
        kind = item.get("kind", "")
        if kind in ("audience", "list", "customerio"):
            return {"key": f"{kind}s", "number": "segments"}
        if "name" in item:
            known = self.properties.get(event, "") if event else "attributes"
            usual = self.values.get((event, meant(item["name"])), "") if item["op"] in BY_TEXT else ""
            return {"name": known, "value": usual, "values": usual}
        return {"event": "events", "property": self.properties.get(meant(item.get("event", "")), "")}


def of(edited: Item) -> Offered:
    """What the fields of this outline offer; what was seen last comes first. Seven queries."""
    survey = Survey.objects.filter(pk=1).first()
    asked = dict.fromkeys(_asked(edited))
    events = list(dict.fromkeys(event for event, _ in asked if event))
    lists: dict[str, Sequence[Name]] = {**_names(survey), **_kept(survey)}
    properties = {event: f"properties-{at}" for at, event in enumerate(events)}
    lists |= dict.fromkeys(properties.values(), ())
    values: dict[tuple[str, str], str] = {}

    def offer(event: str, name: str, usual: list[tuple[str, int]] | None, unit: str) -> None:
        if (event, name) in asked and usual:
            at = values[event, name] = f"values-{len(values)}"
            lists[at] = [Name(shown(text), people, unit, _share(people, survey)) for text, people in usual]

    of_event: dict[str, list[Name]] = {}
    if events:
        rows = PropertyName.objects.filter(event__in=events[:OFFERED]).order_by("-last_seen_us")
        for row in rows[: 10 * OFFERED]:
            told = Name(shown(row.name), row.times, "in 7 days", _share(row.people, survey), row.last_seen_us)
            of_event.setdefault(row.event, []).append(told)
            offer(row.event, row.name, row.usual, "people in 7 days")
    lists |= {properties[event]: names for event, names in of_event.items()}
    attributes = [name for event, name in asked if not event and name]
    if attributes:
        for name, usual in AttributeName.objects.filter(name__in=attributes[:OFFERED]).values_list("name", "usual"):
            offer("", name, usual, "people")
    return Offered(lists, properties, values)


def _asked(edited: Item) -> Iterator[tuple[str, str]]:
    """(event, property) and ("", attribute) as the outline names them; (event, "") for each event."""
    for _, item in outline.walk(edited):
        if item["kind"] == "attribute":
            yield "", meant(item["name"])
        for holder in (item, *item.get("steps", ())):
            if event := meant(holder.get("event", "")):
                yield event, ""
                yield from ((event, meant(condition["name"])) for condition in holder.get("where", ()))


def _names(survey: Survey | None) -> dict[str, list[Name]]:
    events = EventName.objects.order_by("-last_seen_us")[:OFFERED]
    attributes = AttributeName.objects.order_by("-last_seen_us").defer("usual")[:OFFERED]
    return {
        "events": [
            Name(shown(row.name), row.times, "times", _share(row.people, survey), _happened(row, survey))
            for row in events
        ],
        "attributes": [
            Name(shown(row.name), row.people, "people", _share(row.people, survey), row.last_seen_us)
            for row in attributes
        ],
    }


def _kept(survey: Survey | None) -> dict[str, list[Name]]:
    """Audiences and lists, with their members as of the last count."""
    audiences = Audience.objects.filter(archived_at=None, live_version__isnull=False).order_by("key")
    rows = audiences.values_list("key", "membership__count", "membership__refresh__as_of_us")[:OFFERED]
    lists = list(PersonList.objects.order_by("key").values_list("key", "count", "customerio_segment")[:OFFERED])
    return {
        "audiences": [Name(key, people, "people", _share(people, survey), us) for key, people, us in rows],
        "lists": [Name(key, people, "people", _share(people, survey)) for key, people, _ in lists],
        "segments": [
            Name(str(number), people, f"people, list {key}", _share(people, survey))
            for key, people, number in lists
            if number is not None
        ],
    }


def _share(people: int | None, survey: Survey | None) -> float | None:
    return people / survey.people if people is not None and survey and survey.people else None


def _happened(row: EventName, survey: Survey | None) -> int:
    """When it last did: an import of old events came in just now."""
    counted = survey is not None and row.newest_us is not None and row.last_seen_us <= survey.as_of_us
    return row.newest_us if counted and row.newest_us is not None else row.last_seen_us
