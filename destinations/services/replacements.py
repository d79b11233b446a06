"""What a replacement asks of connections: the old one's are copied to the new one, and on the date they are retired and the old one archived.

Each function takes one replacement, is one transaction, and may be asked again at any time: what is done is not done twice.
"""

from datetime import datetime, timedelta

from django.db import transaction
from django.utils import timezone

from audiences import access
from audiences.models import Replacement, User
from audiences.services import audiences
from audiences.services.audiences import AudienceRefused
from destinations import replacements
from destinations.connectors import registry
from destinations.connectors.base import Misconfigured
from destinations.models import Mapping
from destinations.services import Refused, archiving, mappings, runs

TASK = "destinations.replace"
EMPTIED_WITHIN = timedelta(
    hours=1
)  # later than this after its connections have ended, whoever is still there is trouble
S = Mapping.State


def connect(replacement: Replacement) -> list[Mapping]:
    """Copies of the old one's connections, with remote audiences of their own. Each starts as the old one is, where whoever published may
    start connections and no gate objects; else it is a rehearsal, and its page says why."""
    with transaction.atomic():
        row = _held(replacement)
        if row.connected_at is not None or row.new.archived_at is not None:
            return []
        there = set(row.new.mappings.values_list("destination_id", flat=True))
        olds = row.old.mappings.exclude(state=S.RETIRED).select_related("destination").order_by("pk")
        made = [_copy(row, old) for old in olds if old.destination_id not in there]
        Replacement.objects.filter(pk=row.pk).update(connected_at=timezone.now())
    return [mapping for mapping in made if mapping is not None]


def carry_out(replacement: Replacement) -> Replacement:
    """If the date has come: retire the old one's connections, which empties them; once nobody is left there, archive it. What hinders it is
    kept on the row, and nothing is done by halves."""
    with transaction.atomic():
        row, now = _held(replacement), timezone.now()
        if row.retires_at is None or row.retires_at > now or row.old.archived_at is not None:
            return row
        if row.begun_at is None:
            found = [hindrance.words for hindrance in replacements.hindrances(row, now=now)]
            if not found:
                _retire(row)
                row.begun_at = now
                row.save(update_fields=["begun_at"])
        else:
            found = _archive(row, now)
        _note(row, found, now)
    return row


def _copy(row: Replacement, old: Mapping) -> Mapping | None:
    actor = row.made_by
    number = row.new.live_version.number if row.new.live_version else 1
    try:
        made = mappings.create(
            actor=actor,
            audience=row.new,
            destination=old.destination,
            identifiers=old.identifiers,
            cadence_seconds=old.cadence_seconds,
            own_name=_own_name(old, number),
            trial_percent=old.trial_percent,
            removal_limit_percent=old.removal_limit_percent,
        )
    except (Refused, Misconfigured):  # the platform takes it no longer; the page shows that it has no copy
        return None
    if old.state in (S.TRIAL, S.LIVE) and _may_start(actor):
        start = mappings.go_live if old.state == S.LIVE else mappings.start_trial
        try:
            return start(actor=actor, mapping=made, reason=f"As {row.old.key} is, beside which it was published")
        except Refused:
            pass  # a gate objects: the connection's page says what it says
    runs.rehearse(actor=actor, mapping=made)
    return made


def _own_name(old: Mapping, number: int) -> str:
    """A name that a person chose for the old connection is told apart by the version."""
    if not old.own_name:
        return ""
    tail = f" v{number}"
    most = registry.named(old.destination.kind).capabilities.name_length
    return f"{old.own_name[: most - len(tail)]}{tail}"


def _may_start(actor: User | None) -> bool:
    return actor is not None and access.may(actor, "mapping.edit")


def _retire(row: Replacement) -> None:
    for other in row.old.excludes.filter(archived_at=None).order_by("pk"):
        words = f"{row.new.key} has taken the place of {row.old.key}"
        audiences.unlink_suppression(actor=None, audience=other, suppression=row.old, reason=words)
    for mapping in row.old.mappings.exclude(state=S.RETIRED).order_by("pk"):
        mappings.retire(actor=None, mapping=mapping, reason=f"Replaced by {row.new.key}")


def _archive(row: Replacement, now: datetime) -> list[str]:
    """Why it cannot be archived, where it should be by now; empty: it is, or its platforms are being emptied."""
    rows = row.old.mappings.exclude(remote_id="").select_related("destination").order_by("pk")
    left = [mapping for mapping in rows if not runs.is_empty(mapping)]
    if left:
        late = row.begun_at is not None and row.begun_at < now - EMPTIED_WITHIN
        return [_still_there(mapping) for mapping in left if late or mapping.blocked_reason]
    try:
        archiving.archive(
            actor=None, audience=row.old, reason=f"Replaced by {row.new.key}; nobody is left on its platforms"
        )
    except AudienceRefused as refused:
        return [f"{problem.words[:1].upper()}{problem.words[1:]}." for problem in refused.problems]
    return []


def _still_there(mapping: Mapping) -> str:
    place = mapping.destination.name
    if mapping.blocked_reason:
        return f"{place} still has people of it: its connection there is stopped. {mapping.blocked_reason}"
    return f"{place} still has people of it, or has not said that they are gone: see its last run there."


def _note(row: Replacement, found: list[str], now: datetime) -> None:
    since = (row.hindered_since or now) if found else None
    if (row.hindered, row.hindered_since) != (found, since):
        row.hindered, row.hindered_since = found, since
        row.save(update_fields=["hindered", "hindered_since"])


def _held(replacement: Replacement) -> Replacement:
    """Its row and the old one's, held."""
    old = audiences.held(replacement.old)
    row = Replacement.objects.select_for_update(of=("self",)).select_related("new__live_version", "made_by")
    found = row.get(pk=replacement.pk)
    found.old = old
    return found
