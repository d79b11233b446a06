"""Suppression first: the audience of recent buyers that belongs to a retargeting audience, made, found and linked."""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from django.db import transaction

from audiences import naming
from audiences.models import Audience, User
from audiences.segments import grammar
from audiences.segments.recipes import USUAL as USUAL_NAMES
from audiences.services import audiences, versions
from audiences.services import naming as naming_service
from audiences.vocabulary import Problem
from destinations.connectors import registry
from destinations.models import Mapping
from destinations.services import mappings, runs

DAYS, USUAL = range(7, 31), 14
SUPPRESSION = Audience.Purpose.SUPPRESSION


def rule(days: int, event: str) -> dict[str, Any]:
    """Whoever did it in the last days."""
    return {"event": event, "count": {"at_least": 1}, "within": f"{days}d"}


def partners(audience_ids: Iterable[int]) -> dict[int, list[Audience]]:
    """The linked suppression audiences of each. One query."""
    links = (
        Audience.excluded_by.through.objects.filter(
            from_audience__in=list(audience_ids), to_audience__archived_at__isnull=True
        )
        .select_related("to_audience")
        .order_by("to_audience__key")
    )
    found: dict[int, list[Audience]] = {}
    for link in links:
        found.setdefault(link.from_audience_id, []).append(link.to_audience)
    return found


def left_out_of(audience_ids: Iterable[int]) -> Counter[int]:
    """From how many audiences each of these is taken out. One query."""
    links = Audience.excluded_by.through.objects.filter(
        to_audience__in=list(audience_ids), from_audience__archived_at__isnull=True
    )
    return Counter(links.values_list("to_audience_id", flat=True))


def purchase(events: Collection[str]) -> str:
    """What a purchase is called here; "" where none of the usual names has been seen."""
    return next((name for name in USUAL_NAMES["purchase"] if name in events), "")


@dataclass(frozen=True, slots=True)
class Alike:
    """A suppression audience that would do: its days, and where it goes, in words."""

    audience: Audience
    days: int
    places: str


def alike(audience: Audience, *, days: int, event: str, place: int | None = None) -> list[Alike]:
    """Published suppression audiences of the same rule, over as many days as may be chosen, that go to all of the audience's destinations and
    to `place`; to any, where none of these is known yet. Those over exactly these days come first. Two queries and one."""
    places = set(_going(audience).values_list("destination_id", flat=True)) | ({place} if place else set())
    spans = {grammar.sha256(grammar.parse(rule(span, event))): span for span in DAYS}
    rows = Audience.objects.filter(purpose=SUPPRESSION, archived_at=None, live_version__sha256__in=spans)
    rows = rows.exclude(pk=audience.pk).exclude(excludes=audience.pk).select_related("live_version").order_by("key")
    there: dict[int, dict[int, str]] = {}
    mappings = Mapping.objects.filter(audience__in=rows).exclude(state=Mapping.State.RETIRED)
    for row in mappings.select_related("destination").order_by("destination__name"):
        words = f"{row.destination.name} ({row.get_state_display().lower()})"
        there.setdefault(row.audience_id, {})[row.destination_id] = words
    found = [
        Alike(row, spans[row.live_version.sha256], ", ".join(there.get(row.pk, {}).values()))
        for row in rows
        if row.live_version and places <= set(there.get(row.pk, {}))
    ]
    return sorted(found, key=lambda one: (one.days != days, one.audience.key))


def lacking(audience: Audience) -> list[Audience]:
    """Linked suppression audiences that do not go everywhere the audience goes."""
    places = set(_going(audience).values_list("destination_id", flat=True))
    linked = partners([audience.pk]).get(audience.pk, [])
    there: dict[int, set[int]] = {}
    for pk, place in Mapping.objects.filter(audience__in=linked).values_list("audience_id", "destination_id"):
        there.setdefault(pk, set()).add(place)
    return [one for one in linked if places - there.get(one.pk, set())]


def make(*, actor: User | None, audience: Audience, days: int = USUAL, event: str = "purchase") -> Audience:
    """The suppression audience that goes with this one: published, owned by the same people, linked, and connected to the same
    destinations as a rehearsal. Asked again, it is the one that is there. Raises AudienceRefused and changes nothing."""
    if days not in DAYS:
        raise audiences.AudienceRefused(Problem("days", f"must be from {DAYS[0]} to {DAYS[-1]}"))
    if audience.purpose == SUPPRESSION:
        raise audiences.AudienceRefused(Problem("", "is a suppression audience itself"))
    tree = versions.parse(rule(days, event))
    digest = grammar.sha256(tree)
    with transaction.atomic():
        audience = Audience.objects.select_for_update(of=("self",)).get(pk=audience.pk)
        standing = audience.excluded_by.filter(archived_at=None, live_version__sha256=digest).first()
        if standing is not None:
            connect(actor=actor, audience=audience, suppression=standing)
            return standing
        key = key_of(audience, days, event)
        pair = audiences.create(
            actor=actor,
            key=key,
            purpose=SUPPRESSION,
            description=f"Whoever did “{event}” in the last {days} days. Made for {audience.key}, which must not be shown to them.",
            definition_owner=audience.definition_owner or actor,
            sync_owner=audience.sync_owner or actor,
            alert_owner=audience.alert_owner or actor,
            backup_owner=audience.backup_owner,
            cadence_seconds=audience.cadence_seconds,
        )
        _name(actor, pair, audience, days)
        draft = versions.save_draft(actor=actor, audience=pair, segment=tree)
        versions.publish(actor=actor, version=draft, reason=f"Suppression for {audience.key}")
        link(actor=actor, audience=audience, suppression=pair)
    return Audience.objects.get(pk=pair.pk)


def link(*, actor: User | None, audience: Audience, suppression: Audience) -> None:
    """Take its people out of what the audience sends, and bring it to the same destinations. Raises AudienceRefused."""
    with transaction.atomic():
        audiences.link_suppression(actor=actor, audience=audience, suppression=suppression)
        connect(actor=actor, audience=audience, suppression=suppression)


def connect(*, actor: User | None, audience: Audience, suppression: Audience) -> list[Mapping]:
    """Rehearsals of the suppression audience wherever the audience goes and it does not yet."""
    there = set(suppression.mappings.values_list("destination_id", flat=True))
    made = []
    for mapping in _going(audience).select_related("destination"):
        connector = registry.CONNECTORS.get(mapping.destination.kind)
        if mapping.destination_id in there or connector is None or SUPPRESSION not in connector.capabilities.purposes:
            continue
        new = mappings.create(
            actor=actor,
            audience=suppression,
            destination=mapping.destination,
            identifiers=mapping.identifiers,
            cadence_seconds=mapping.cadence_seconds,
        )
        runs.rehearse(actor=actor, mapping=new)
        made.append(new)
    return made


def key_of(audience: Audience, days: int, event: str) -> str:
    """`<channel>_suppress_<event>_<days>d`, numbered where that is taken. The channel is the first word of the audience's own key where
    it is a platform's name."""
    channel = audience.key.partition("_")[0].lower()
    what = "purchasers" if event == "purchase" else re.sub(r"[^a-z0-9]+", "_", event.lower()).strip("_") or "event"
    words = [channel] if channel in registry.CONNECTORS else []
    return free("_".join([*words, "suppress", what, f"{days}d"]))


def free(wanted: str) -> str:
    """A key that no audience has or had: this one, or numbered."""
    wanted = wanted[:90]
    taken = set(Audience.objects.filter(key__startswith=wanted).values_list("key", flat=True))
    number, key = 1, wanted
    while key in taken:
        number += 1
        key = f"{wanted}_{number}"
    return key


def _name(actor: User | None, pair: Audience, audience: Audience, days: int) -> None:
    """By the convention, where there is one and its values allow it; else its key is its name."""
    convention = naming_service.current()
    if convention is None:
        return
    channel = convention.of_kind(naming.CHANNEL)
    theirs = naming_service.tokens_of(convention, audience)
    tokens = naming.guess(convention, f"suppress purchasers {days}d {pair.key}", pair.key)
    if channel and theirs.get(channel.name):
        tokens[channel.name] = theirs[channel.name]
    try:
        naming_service.rename_by_convention(actor=actor, audience=pair, tokens=tokens)
    except naming.NamingRefused:
        return


def _going(audience: Audience) -> Any:
    return Mapping.objects.filter(audience=audience).exclude(state=Mapping.State.RETIRED)
