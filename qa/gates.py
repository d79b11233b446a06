"""Who objects before a connection goes live: no retargeting without a suppression audience beside it. Where it is asked is `preflight`."""

from collections.abc import Iterable
from typing import Any

from django.dispatch import receiver

from audiences.models import Audience
from destinations import queries
from destinations.models import TELLS, Mapping
from destinations.signals import Objection, preflight

RETARGETING, SUPPRESSION = Audience.Purpose.RETARGETING, Audience.Purpose.SUPPRESSION


@receiver(preflight, dispatch_uid="qa.gates.suppression_first")
def suppression_first(sender: Any, *, mapping: Mapping, run: Any = None, **_: Any) -> None:
    """Stops a retargeting connection that is about to go live where nothing keeps buyers out. Runs of a live one pass: they may
    carry removals, and an incident says what is missing."""
    if run is not None or mapping.audience.purpose != RETARGETING:
        return
    if suppressed(mapping) or excepted(mapping):
        return
    raise Objection(objection(mapping))


def suppressed(mapping: Mapping) -> bool:
    """Whether a linked suppression audience is at work on the same destination."""
    return mapping.pk in suppressed_among([mapping])


def suppressed_among(mappings: Iterable[Mapping]) -> set[int]:
    """Those of these connections (their numbers) that have one. One query."""
    places = {(mapping.audience_id, mapping.destination_id): mapping.pk for mapping in mappings}
    rows = Mapping.objects.filter(
        audience__excludes__in={audience for audience, _ in places},
        destination__in={destination for _, destination in places},
        audience__purpose=SUPPRESSION,
        audience__archived_at=None,
        state__in=TELLS,  # in rehearsal it has told the platform nobody; paused, its people stay there and removals go on
    ).values_list("audience__excludes", "destination_id")
    return {places[place] for place in rows if place in places}


def excepted(mapping: Mapping) -> bool:
    """Whether a named person's written exception holds."""
    exemption = queries.exemption(mapping)
    return exemption is not None and exemption.holds


def objection(mapping: Mapping) -> str:
    """What is missing, in words that say what to do."""
    audience, place = mapping.audience, mapping.destination.name
    linked = list(audience.excluded_by.filter(archived_at=None).values_list("key", flat=True)[:3])
    if not linked:
        return (
            f"No suppression audience is linked to {audience.key}, so people who have just bought would go on seeing its ads on {place}."
            " Make the suppression pair, or write an exception."
        )
    names = " or ".join(linked)
    there = Mapping.objects.filter(
        audience__key__in=linked, destination=mapping.destination_id, state=Mapping.State.REHEARSAL
    )
    if there.exists():
        return f"Its suppression audience {names} is still in rehearsal on {place}: take that live first, or write an exception."
    return f"Its suppression audience {names} is not connected to {place}: connect it there and take it live first, or write an exception."
