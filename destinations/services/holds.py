"""Holds: stopped for safety in one direction, by a rule or a person, until somebody who may lifts it."""

from collections.abc import Sequence
from datetime import datetime

from django.db import transaction
from django.utils import timezone

from audiences import jobs
from audiences.access import PERMISSIONS
from audiences.models import User
from audiences.services import trail
from destinations.models import Hold, Mapping
from destinations.services import refuse
from destinations.services.mappings import TASK, name_of

_ON_RELEASE = {
    Hold.Direction.ADDS: "Everybody who is counted then and is not there yet is added with the next sync.",
    Hold.Direction.REMOVES: "Everybody who is no longer counted then is removed with the next sync.",
    Hold.Direction.BOTH: "The next sync adds and removes whoever the count then says.",
}


def set_hold(
    *,
    actor: User | None,
    mapping: Mapping,
    direction: str,
    reason: str,
    rule: str = "person",
    until: datetime | None = None,
    lift_roles: Sequence[str] = (),
    on_release: str = "",
    people: int | None = None,
) -> Hold:
    """Stop adds, removals by comparison, or both. What people's own acts cause goes on. A rule's hold that stands is returned as it is.

    `on_release`: what happens when it is lifted, in words; `people`: how many removals wait, where that is known.
    """
    if not reason.strip():
        raise refuse("say why", "reason")
    if direction not in Hold.Direction.values:
        raise refuse(f"must be one of {', '.join(Hold.Direction.values)}", "direction")
    with transaction.atomic():
        Mapping.objects.select_for_update().get(pk=mapping.pk)
        standing = Hold.objects.filter(mapping=mapping, rule=rule, direction=direction, lifted_at__isnull=True)
        if rule != "person" and (found := standing.first()) is not None:
            return found
        hold = Hold.objects.create(
            mapping=mapping,
            direction=direction,
            rule=rule,
            reason=reason,
            on_release=on_release or _ON_RELEASE[Hold.Direction(direction)],
            people=people,
            set_by=actor,
            until=until,
            lift_roles=list(lift_roles) or sorted(PERMISSIONS["hold.lift"]),
        )
        after = {"hold": hold.pk, "direction": direction, "rule": rule}
        trail.record(actor, "hold.set", "mapping", name_of(mapping), after=after, reason=reason)
    return hold


def lift(*, actor: User | None, hold: Hold, reason: str = "") -> Hold:
    """Let it go on. Raises Refused where it is lifted already, without a reason, or where this person may not.

    A person who lifts a rule's hold takes on what tripped it: the rule does not set it again before that is over.
    """
    if actor is not None and not reason.strip():
        raise refuse("Say why it is lifted: the reason is kept beside your name.", "reason")
    with transaction.atomic():
        row = Hold.objects.select_for_update().get(pk=hold.pk)
        if row.lifted_at is not None:
            raise refuse("It has been lifted already.")
        if actor is not None and actor.role not in row.lift_roles:
            raise refuse(f"Only {' or '.join(row.lift_roles)} may lift it.")
        row.lifted_at, row.lifted_by, row.lift_reason = timezone.now(), actor, reason
        row.excused = actor is not None and row.rule != "person"
        row.save(update_fields=["lifted_at", "lifted_by", "lift_reason", "excused"])
        trail.record(actor, "hold.lifted", "mapping", name_of(row.mapping), after={"hold": row.pk}, reason=reason)
    jobs.ask(TASK, row.mapping_id, queue="sync")
    return row


def over(mapping: Mapping, rules: Sequence[str]) -> None:
    """What tripped these rules is over: their holds are lifted by themselves, and they may trip again."""
    chosen = Hold.objects.filter(mapping=mapping, rule__in=rules)
    for hold in chosen.filter(lifted_at__isnull=True):
        lift(actor=None, hold=hold, reason="What set it is over.")
    chosen.filter(excused=True).update(excused=False)
