"""What the store has seen, counted every so often for those who write rules: how often, with how many people, which values are usual."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import TypeVar

from audiences import clock, jobs
from audiences.models import AttributeName, EventName, PropertyName, Survey
from audiences.people import engines, lake
from audiences.people.engines.base import NameFacts, Pinned
from audiences.people.normalise import FIELDS

TASK, EVERY = "audiences.survey", timedelta(minutes=15)
_IDENTIFYING = frozenset(FIELDS) - {"country"}  # whose values are told of nowhere, however many share them
_NOTHING = NameFacts(0, 0)
_AT_A_TIME = 500

Row = TypeVar("Row")


@jobs.job(TASK, queue="compute")
def survey(claim: jobs.Claim) -> None:
    """Count all names anew."""
    take()


def ask() -> None:
    """Have it done soon, for a lot has come in at once."""
    jobs.ask(TASK, "")


def keep_going() -> None:
    jobs.keep_doing(TASK, "", every=EVERY)


def take() -> None:
    """Count every name that has been seen, as of now. Raises UnreadableLake."""
    # The names before the data: one that is learnt in between is not known to be of nobody.
    events, properties = list(EventName.objects.all()), list(PropertyName.objects.all())
    attributes = list(AttributeName.objects.all())
    pin = Pinned(lake.take_snapshot(), clock.now_us())
    told = engines.current().statistics(pin)
    found = {event.name: event for event in told.events}
    for event in events:
        seen = found.get(event.name)
        event.times, event.people = (seen.occurrences, seen.people) if seen else (0, 0)
        event.newest_us = seen.newest_us if seen else None
    for one in properties:
        of = found[one.event].properties if one.event in found else {}
        _tell(one, of.get(one.name, _NOTHING))
    for attribute in attributes:
        _tell(attribute, told.attributes.get(attribute.name, _NOTHING))
    for some in _parts(events):
        EventName.objects.bulk_update(some, ("times", "people", "newest_us"))
    for more in _parts(properties):
        PropertyName.objects.bulk_update(more, ("times", "people", "usual"))
    for rest in _parts(attributes):
        AttributeName.objects.bulk_update(rest, ("times", "people", "usual"))
    Survey.objects.update_or_create(pk=1, defaults={"people": told.people, "as_of_us": pin.as_of_us})


def _tell(row: PropertyName | AttributeName, facts: NameFacts) -> None:
    row.times, row.people = facts.times, facts.people
    told = () if row.name in _IDENTIFYING else facts.values
    row.usual = [[value.text, value.people] for value in told if "@" not in value.text]


def _parts(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """A few hundred at a time: a write of its own each, so that others write in between."""
    for start in range(0, len(rows), _AT_A_TIME):
        yield rows[start : start + _AT_A_TIME]
