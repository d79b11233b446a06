"""Where an audience that replaces another goes, and what keeps the old one from retiring. Reads only; services/replacements.py acts.

Words are about audiences and connections, never about a person: they are mailed.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q
from django.urls import reverse
from django.utils import timezone

from audiences import access, queries
from audiences.models import Audience, Replacement
from audiences.services import locks
from destinations.models import TELLS, Destination, Hold, Mapping
from destinations.services import mappings

State = Mapping.State
SENDS = (State.TRIAL, State.LIVE)


@dataclass(frozen=True, slots=True)
class Hindrance:
    """Why the old one cannot retire, in a sentence that says what to do, and where that is done."""

    words: str
    url: str
    action: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A connection of the old audience and its copy. `copy` None: not made (yet). `waits`: why the copy is a rehearsal still."""

    old: Mapping
    copy: Mapping | None
    waits: str = ""


def pairs(replacement: Replacement) -> list[Pair]:
    """Every connection of the old one, with that of the new one to the same destination. A few queries for each that waits."""
    copies = {row.destination_id: row for row in _connections(replacement.new)}
    found = []
    for old in _connections(replacement.old):
        copy = copies.get(old.destination_id)
        waits = why_it_waits(copy, old) if copy is not None and copy.state == State.REHEARSAL else ""
        if copy is not None or old.state != State.RETIRED:
            found.append(Pair(old, copy, waits))
    return found


def why_it_waits(copy: Mapping, old: Mapping) -> str:
    """Why a copy is a rehearsal still, and what takes it live."""
    if found := mappings.hindrances(copy):
        return found[0]
    if objection := mappings.objection(copy):
        return objection
    who = access.who_may("mapping.edit")
    if old.state not in SENDS:
        return f"As the old one is {old.get_state_display().lower()} there, this one was not started: an {who} takes it live."
    return f"Nothing stands against it: an {who} takes it live."


def hindrances(replacement: Replacement, *, now: datetime | None = None) -> list[Hindrance]:
    """Why the old one could not retire at this moment; empty: it could. About ten queries."""
    old, new = replacement.old, replacement.new
    return [*_of_audiences(old, new), *_of_test(old), *_of_connections(old, new, now or timezone.now())]


def _of_audiences(old: Audience, new: Audience) -> Iterator[Hindrance]:
    if new.archived_at is not None:
        yield Hindrance(
            f"{new.key}, which takes its place, is archived: keep {old.key} after all, or archive it by hand.",
            reverse("qa:audience", args=[new.key]),
            f"Open {new.key}",
        )
    for other in queries.referring(old.key):
        yield Hindrance(
            f"The rule of {other.key} names {old.key}: publish one that names {new.key} instead.",
            reverse("audiences:edit", args=[other.key]),
            f"Edit {other.key}",
        )
    linked = set(new.excludes.values_list("pk", flat=True))
    for other in old.excludes.filter(archived_at=None).order_by("key"):
        if other.pk not in linked:
            yield Hindrance(
                f"{other.key} leaves the people of {old.key} out and not those of {new.key}: link {new.key} to it.",
                reverse("qa:pair", args=[other.key]),
                f"Suppression of {other.key}",
            )


def _of_test(old: Audience) -> Iterator[Hindrance]:
    lock = locks.current(old)
    if lock is not None:
        until = timezone.localtime(lock.until)
        yield Hindrance(
            f"{old.key} is in test until {until.day} {until:%B}: it retires when the test ends.",
            reverse("audiences:test-lock", args=[old.key]),
            "About the test",
        )


def _of_connections(old: Audience, new: Audience, now: datetime) -> Iterator[Hindrance]:
    rows = [row for row in _connections(old) if row.state != State.RETIRED]
    copies = {row.destination_id: row for row in _connections(new)}
    held = set(
        Hold.objects.filter(Q(until=None) | Q(until__gt=now), mapping__in=rows, lifted_at=None)
        .filter(direction__in=(Hold.Direction.REMOVES, Hold.Direction.BOTH))
        .values_list("mapping_id", flat=True)
    )
    for row in rows:
        if words := _of_connection(row, copies.get(row.destination_id), row.pk in held):
            yield Hindrance(words, reverse("destinations:connection", args=[row.pk]), "Open the connection")
    yield from _unguarded(old, new, rows)


def _of_connection(row: Mapping, copy: Mapping | None, held: bool) -> str:
    place = row.destination.name
    if row.state in (State.PAUSED, State.FROZEN):
        how = row.get_state_display().lower()
        return f"Its connection to {place} is {how}: let it go on, or retire it by hand."
    if row.state not in SENDS or not row.remote_id or row.lost == Mapping.Lost.GONE:
        return ""  # nobody is there
    if row.blocked_reason:
        return f"Its connection to {place} is stopped, so nobody can be removed there: {row.blocked_reason}"
    if row.destination.state == Destination.State.REFUSED:
        return f"{place} refuses our access, so nobody can be removed there: connect it again."
    if held:
        return f"Removals to {place} are stopped for safety, so nobody can be removed there: lift the stop."
    if copy is not None and copy.state == State.REHEARSAL:
        return f"{copy.audience.key}, which takes its place, is still a rehearsal on {place}: take that live first."
    return ""


def _unguarded(old: Audience, new: Audience, rows: Sequence[Mapping]) -> Iterator[Hindrance]:
    """Where the old one is the only suppression at work beside retargeting."""
    if old.purpose != Audience.Purpose.SUPPRESSION:
        return
    places = {row.destination_id for row in rows if row.state in TELLS}
    needs = Mapping.objects.filter(audience__excluded_by=old, audience__archived_at=None, destination__in=places)
    needs = needs.filter(audience__purpose=Audience.Purpose.RETARGETING, state__in=SENDS)
    for row in needs.select_related("audience", "destination").order_by("audience__key", "destination__name"):
        others = Mapping.objects.filter(
            audience__excludes=row.audience_id,
            audience__archived_at=None,
            destination=row.destination_id,
            state__in=TELLS,
        )
        if not others.exclude(audience=old).exists():
            words = f"Without it, nothing would keep buyers out of {row.audience.key} on {row.destination.name}: take {new.key} live there first."
            yield Hindrance(words, reverse("destinations:connection", args=[row.pk]), "Open the connection")


def _connections(audience: Audience) -> list[Mapping]:
    rows = Mapping.objects.filter(audience=audience).select_related("audience", "destination")
    return list(rows.defer("destination__credentials").order_by("destination__name", "pk"))
