"""Connections of audiences to destinations: made, changed, moved from state to state, retired. Syncing one is services/runs.py's."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone
from pyroaring import BitMap

from audiences import jobs
from audiences.models import Audience, Identity, User, Workspace
from audiences.services import trail
from audiences.vocabulary import Problem
from destinations import identities, ledger, remotes, signals
from destinations.connectors import registry
from destinations.connectors.base import ConnectorError
from destinations.models import Destination, Ledger, Mapping
from destinations.services import Refused, Stopped, refuse
from destinations.transitions import Book

TASK = remotes.SYNC
CADENCE = range(60, 30 * 24 * 3600 + 1)  # seconds
S = Mapping.State
_SENDING = (S.TRIAL, S.LIVE)
_FROM: dict[str, tuple[str, ...]] = {
    S.TRIAL: (S.REHEARSAL,),
    S.LIVE: (S.REHEARSAL, S.TRIAL),
    S.PAUSED: (S.TRIAL, S.LIVE),
    S.FROZEN: (S.TRIAL, S.LIVE, S.PAUSED),
    S.RETIRED: (S.REHEARSAL, S.TRIAL, S.LIVE, S.PAUSED, S.FROZEN),
}


def create(
    *,
    actor: User | None,
    audience: Audience,
    destination: Destination,
    identifiers: Sequence[str],
    cadence_seconds: int = 900,
    own_name: str = "",
    trial_percent: int = 1,
    removal_limit_percent: int = 50,
) -> Mapping:
    """A new connection, in rehearsal: it sends nothing. Raises Refused."""
    checked = check(
        destination,
        identifiers=list(identifiers),
        cadence_seconds=cadence_seconds,
        own_name=own_name,
        trial_percent=trial_percent,
        removal_limit_percent=removal_limit_percent,
    )
    purposes = registry.named(destination.kind).capabilities.purposes
    if audience.purpose not in purposes:
        raise refuse(f"{destination.name} does not take {audience.get_purpose_display().lower()} audiences", "audience")
    try:
        with transaction.atomic():
            mapping = Mapping.objects.create(audience=audience, destination=destination, **checked)
            Ledger.objects.create(mapping=mapping)
            trail.record(actor, "mapping.created", "mapping", name_of(mapping), after=checked)
    except IntegrityError as error:
        raise refuse(f"{audience.key} is connected to {destination.key} already", "destination") from error
    return mapping


def change(*, actor: User | None, mapping: Mapping, reason: str = "", **fields: Any) -> Mapping:
    """Change identifiers, cadence_seconds, own_name, trial_percent or removal_limit_percent. Raises Refused.

    With other identifiers everybody is told again, and kinds that are no longer chosen are taken back at the platform.
    """
    checked = check(mapping.destination, **fields)
    with transaction.atomic():
        row = _locked(mapping)
        before = {name: getattr(row, name) for name in checked}
        for name, value in checked.items():
            setattr(row, name, value)
        row.save(update_fields=list(checked))
        if "identifiers" in checked and checked["identifiers"] != before["identifiers"]:
            dropped = [kind for kind in before["identifiers"] if kind not in checked["identifiers"]]
            ledger.withdraw(row.pk, dropped, now=timezone.now())
        trail.record(actor, "mapping.changed", "mapping", name_of(row), before=before, after=checked, reason=reason)
    if row.state in _SENDING:
        keep_syncing(row)
    return row


def start_trial(*, actor: User | None, mapping: Mapping, reason: str = "") -> Mapping:
    """Only a sample goes from now on. Raises Refused."""
    return _start(actor, mapping, S.TRIAL, reason)


def go_live(*, actor: User | None, mapping: Mapping, reason: str = "") -> Mapping:
    """Everybody goes from now on. Raises Refused."""
    return _start(actor, mapping, S.LIVE, reason)


def pause(*, actor: User | None, mapping: Mapping, reason: str = "") -> Mapping:
    """Nobody is added any more; removals go on."""
    return _move(actor, mapping, S.PAUSED, reason)


def freeze(*, actor: User | None, mapping: Mapping, reason: str, until: datetime) -> Mapping:
    """Nothing is sent, removals included, until then. It needs a reason and an end. Raises Refused."""
    if not reason.strip():
        raise refuse("say why it is frozen", "reason")
    if until <= timezone.now():
        raise refuse("must be in the future", "until")
    return _move(actor, mapping, S.FROZEN, reason, until=until)


def resume(*, actor: User | None, mapping: Mapping, reason: str = "", by_itself: bool = False) -> Mapping:
    """Back to what it was before it was paused or frozen. The way back to sending passes the gates; `by_itself`, at the end of a
    freeze, nobody asks, as nothing is begun then. Raises Refused."""
    if not by_itself and (mapping.state_before or S.LIVE) in _SENDING:
        _ask_the_gates(mapping)
    with transaction.atomic():
        row = _locked(mapping)
        if row.state not in (S.PAUSED, S.FROZEN):
            raise refuse(f"It is {row.get_state_display().lower()}, not paused or frozen.")
        after = _set_state(row, row.state_before or S.LIVE, reason)
        trail.record(actor, "mapping.resumed", "mapping", name_of(row), after=after, reason=reason)
    if row.state in _SENDING:
        keep_syncing(row)
    return row


def thaw(*, now: datetime) -> int:
    """Freezes whose time is over end; how many."""
    over = list(Mapping.objects.filter(state=S.FROZEN, state_until__lte=now))
    for mapping in over:
        resume(actor=None, mapping=mapping, reason="The freeze came to its end.", by_itself=True)
    return len(over)


def retire(*, actor: User | None, mapping: Mapping, reason: str = "") -> Mapping:
    """The end of it. Everybody who was sent is removed at the platform first; an adopted audience keeps what was there before."""
    with transaction.atomic():
        row = _move(actor, mapping, S.RETIRED, reason)
        if row.lost == Mapping.Lost.GONE:
            ledger.start_anew(row.pk, wanted=False, now=timezone.now())
            Mapping.objects.filter(pk=row.pk).update(blocked_reason="")
    if row.remote_id and row.lost != Mapping.Lost.GONE:
        jobs.keep_doing(TASK, row.pk, every=timedelta(seconds=row.cadence_seconds), queue="sync")
        jobs.ask(TASK, row.pk, queue="sync")
    else:
        jobs.stop_doing(TASK, row.pk)
    return row


def adopt(*, actor: User | None, mapping: Mapping, remote_id: str, add_only: bool = False) -> Mapping:
    """Use an audience that is on the platform already. Raises Refused.

    What is in it is unknown until replaced: everybody known here is told again, in or out. With `add_only`, leftovers stay.
    """
    if mapping.remote_id:
        raise refuse("It has an audience on the platform already.", "remote_id")
    try:
        with registry.open(mapping.destination) as connector:
            remote = connector.describe(remote_id)
            readable = connector.capabilities.can_read_members
            inside = list(connector.read_members(remote_id)) if readable and not add_only else None
    except ConnectorError as error:
        raise refuse(str(error), "remote_id") from error
    with transaction.atomic():
        row = _locked(mapping)
        row.remote_id, row.remote_name, row.adopted, row.add_only = remote_id, remote.name, True, add_only
        row.save(update_fields=["remote_id", "remote_name", "adopted", "add_only"])
        after = {"remote_id": remote_id, "add_only": add_only}
        trail.record(actor, "mapping.adopted", "mapping", name_of(row), after=after)
    if not add_only:
        there = _known_here(inside)
        ledger.tell_again(
            row.pk, lambda book, intent: (there, there - book.present - book.rejected), now=timezone.now()
        )
    return row


def resync(*, actor: User | None, mapping: Mapping, reason: str = "") -> int:
    """Everybody who is or ever was sent is told again, in or out; how many. Nothing is forgotten, so nobody is left behind."""

    def everyone(book: Book, intent: BitMap) -> tuple[BitMap, BitMap]:
        return book.present | book.unknown | book.ever_sent, book.present | (book.ever_sent - intent)

    told = ledger.tell_again(mapping.pk, everyone, now=timezone.now(), epoch=True)
    trail.record(actor, "mapping.resynced", "mapping", name_of(mapping), after={"people": told}, reason=reason)
    jobs.ask(TASK, mapping.pk, queue="sync")
    return told


def override(*, actor: User | None, mapping: Mapping, by: str, reason: str, until: datetime | None = None) -> Mapping:
    """Let it pass the gates that would stop it, on record. Raises Refused."""
    if not reason.strip():
        raise refuse("say why", "override.reason")
    with transaction.atomic():
        row = _locked(mapping)
        before = row.override
        row.override = {"by": by, "reason": reason, "until": until.isoformat() if until else None}
        row.save(update_fields=["override"])
        trail.record(
            actor, "mapping.overridden", "mapping", name_of(row), before=before, after=row.override, reason=reason
        )
    return row


def recreate(*, actor: User | None, mapping: Mapping, reason: str = "") -> Mapping:
    """Its audience was deleted on the platform: the next sync makes a new one, with an id of its own, and sends everybody again.
    Raises Refused where it is not known to be deleted."""
    now = timezone.now()
    with transaction.atomic():
        row = _locked(mapping)
        if row.lost != Mapping.Lost.GONE:
            raise refuse("Its audience is not known to be deleted there. Look again first.")
        before = {"remote_id": row.remote_id, "lost_at": row.lost_at.isoformat() if row.lost_at else None}
        fresh: dict[str, Any] = {
            **dict.fromkeys(("remote_id", "remote_name", "remote_description", "renamed_there", "lost"), ""),
            **dict.fromkeys(("made_at", "seen_at", "renamed_there_at", "lost_at", "matched_at"), None),
            **dict.fromkeys(
                ("matched_low", "matched_high", "drift_missing", "drift_foreign", "drift_left", "drift_at"), None
            ),
            **dict.fromkeys(("adopted", "add_only"), False),
            "matched_words": "",
            "blocked_reason": "",
        }
        for name, value in fresh.items():
            setattr(row, name, value)
        row.save(update_fields=list(fresh))
        people = ledger.start_anew(row.pk, wanted=True, now=now)
        after = {"people_untold": people}
        trail.record(actor, "mapping.recreated", "mapping", name_of(row), before=before, after=after, reason=reason)
    if row.state in _SENDING:
        keep_syncing(row)
    return row


def look_again(*, actor: User | None, mapping: Mapping) -> Mapping:
    """Ask the platform now, and not in an hour, what it says of the audience; one that was lost goes on if it is there again. Raises Refused
    where it is not there, or does not answer."""
    if again := remotes.see(mapping):
        raise refuse(f"The platform does not answer just now. Try again in {again.total_seconds():.0f} seconds.")
    row = Mapping.objects.select_related("audience", "destination").get(pk=mapping.pk)
    if row.lost:
        raise refuse(f"It is not there: {row.blocked_reason}")
    if row.blocked_reason and not mapping.blocked_reason:
        raise refuse(row.blocked_reason)
    if mapping.lost:
        trail.record(actor, "mapping.looked_again", "mapping", name_of(row))
    return row


def unblock(*, actor: User | None, mapping: Mapping, reason: str = "") -> Mapping:
    """Somebody has seen to what stopped it: it may call again. Raises Refused while its audience is lost: see `look_again`."""
    with transaction.atomic():
        row = _locked(mapping)
        if row.lost:
            raise refuse(
                "Its audience is gone there, and nothing is sent to one that nobody has seen since. Look again."
            )
        before, row.blocked_reason = row.blocked_reason, ""
        row.save(update_fields=["blocked_reason"])
        trail.record(actor, "mapping.unblocked", "mapping", name_of(row), before={"blocked": before}, reason=reason)
    if row.state in _SENDING:
        jobs.ask(TASK, row.pk, queue="sync")
    return row


def name_of(mapping: Mapping) -> str:
    """How the audit trail names a connection."""
    return f"{mapping.audience.key} → {mapping.destination.key}"


def keep_syncing(mapping: Mapping) -> None:
    """A sync at its cadence from now on, the first one at once."""
    jobs.keep_doing(TASK, mapping.pk, every=timedelta(seconds=mapping.cadence_seconds), queue="sync")
    jobs.ask(TASK, mapping.pk, queue="sync")


def _start(actor: User | None, mapping: Mapping, state: str, reason: str) -> Mapping:
    if problems := _problems(mapping):
        raise Refused(problems[0])
    _ask_the_gates(mapping)
    row = _move(actor, mapping, state, reason)
    keep_syncing(row)
    return row


def hindrances(mapping: Mapping) -> list[str]:
    """Why it could not start, in words, but for what gates say; empty: it could."""
    return [problem.words for problem in _problems(mapping)]


def _problems(mapping: Mapping) -> list[Problem]:
    found = []
    if mapping.audience.live_version_id is None:
        found.append(Problem("", "The audience has no published rule yet."))
    if not Workspace.objects.filter(pk=1, consent_policy__isnull=False).exists():
        words = "Nothing is sent before the consent policy is answered: opt-in or opt-out (Settings, Workspace)."
        found.append(Problem("", words))
    if not mapping.identifiers:
        found.append(Problem("identifiers", "Choose at least one identifier."))
    return found


def objection(mapping: Mapping) -> str:
    """What a gate would say if it went live now; empty: nothing."""
    try:
        _ask_the_gates(mapping)
    except Stopped as stopped:
        return str(stopped)
    return ""


def _ask_the_gates(mapping: Mapping) -> None:
    mapping = Mapping.objects.select_related("audience", "destination").get(pk=mapping.pk)  # an exception may be new
    try:
        signals.preflight.send(sender=Mapping, mapping=mapping, run=None, plan=None)
    except signals.Objection as error:
        raise Stopped(Problem("", str(error))) from error


def _move(actor: User | None, mapping: Mapping, state: str, reason: str, until: datetime | None = None) -> Mapping:
    with transaction.atomic():
        row = _locked(mapping)
        if row.state not in _FROM[state]:
            words = S(state).label.lower()
            raise refuse(f"It is {row.get_state_display().lower()}; from there it cannot become {words}.", "state")
        before = row.state
        after = _set_state(row, state, reason, until)
        trail.record(
            actor, f"mapping.{state}", "mapping", name_of(row), before={"state": before}, after=after, reason=reason
        )
    return row


def _set_state(row: Mapping, state: str, reason: str, until: datetime | None = None) -> dict[str, Any]:
    if state in (S.PAUSED, S.FROZEN):
        row.state_before = row.state
    else:
        row.state_before = ""
    row.state, row.state_reason, row.state_until, row.state_at = state, reason, until, timezone.now()
    if state == S.LIVE and row.first_live_at is None:
        row.first_live_at = row.state_at
    row.save(update_fields=["state", "state_before", "state_reason", "state_until", "state_at", "first_live_at"])
    return {"state": str(state), "until": until.isoformat() if until else None}


def _locked(mapping: Mapping) -> Mapping:
    Mapping.objects.select_for_update().get(pk=mapping.pk)
    return Mapping.objects.select_related("audience", "destination").get(pk=mapping.pk)


def check(destination: Destination, **fields: Any) -> dict[str, Any]:
    """The fields that are given (not None), in the form in which they are kept. Raises Refused."""
    capabilities = registry.named(destination.kind).capabilities
    given = {name: value for name, value in fields.items() if value is not None}
    if (kinds := given.get("identifiers")) is not None:
        given["identifiers"] = kinds = list(dict.fromkeys(kinds))
        if unknown := [kind for kind in kinds if kind not in capabilities.identifiers]:
            allowed = ", ".join(capabilities.identifiers)
            raise refuse(f"{destination.name} does not take {', '.join(unknown)}; it takes {allowed}", "identifiers")
        if not any(kind in identities.NAMING for kind in kinds):
            raise refuse(f"needs at least one of {', '.join(identities.NAMING)}", "identifiers")
    if given.get("cadence_seconds", CADENCE[0]) not in CADENCE:
        raise refuse("must be between a minute and 30 days", "cadence_seconds")
    for name in ("trial_percent", "removal_limit_percent"):
        if not 1 <= given.get(name, 1) <= 100:
            raise refuse("must be between 1 and 100", name)
    if "own_name" in given:
        given["own_name"] = given["own_name"].strip()
        if len(given["own_name"]) > capabilities.name_length:
            raise refuse(f"must be at most {capabilities.name_length} characters there", "own_name")
        if "\0" in given["own_name"]:
            raise refuse("holds a NUL character", "own_name")
    return given


def _known_here(external_ids: Sequence[str] | None) -> BitMap:
    """The identities in force, or those of these external ids only."""
    rows = Identity.objects.filter(replaced_at__isnull=True, erased_at__isnull=True)
    if external_ids is None:
        return BitMap(rows.values_list("identity_no", flat=True).iterator(chunk_size=10_000))
    found = BitMap()
    for start in range(0, len(external_ids), 500):
        chosen = rows.filter(external_id__in=external_ids[start : start + 500])
        found.update(chosen.values_list("identity_no", flat=True))
    return found
