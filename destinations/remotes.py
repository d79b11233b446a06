"""The audience on the platform itself: made, looked at, called and described as it should be, seen to be gone. Who is in it is ledger.py's.

Every call goes through `ask`, which waits as its caller can; none of them changes who is in it. No transaction is open meanwhile.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.formats import date_format

from audiences import jobs
from audiences.services import trail
from destinations import budget, ledger, remote_descriptions, remote_names
from destinations.connectors import registry
from destinations.connectors.base import Connector, ConnectorError, Misconfigured, Rejected, RemoteAudience, Retryable
from destinations.models import TELLS, Destination, Mapping
from destinations.plan import ADD

log = logging.getLogger(__name__)

LOOKED_AT_EVERY = timedelta(hours=1)
UNSURE = timedelta(minutes=5)  # after an answer that said nothing, it is asked again
YOUNG = timedelta(minutes=5)  # what was just made may not be known everywhere there yet
SYNC = "destinations.sync"
LOOK = "destinations.remote"
_LOSING = {"audience_gone": Mapping.Lost.GONE, "blocked": Mapping.Lost.BLOCKED}

Ask = Callable[[Callable[[], Any]], Any]


def make(mapping: Mapping, connector: Connector, ask: Ask) -> None:
    """A new audience there, under its name. Raises Misconfigured where the name does not fit or is another audience's there."""
    name = remote_names.now(mapping)
    if not name.wished:
        raise Misconfigured(name.words)
    if holder := remote_names.holder(mapping, name.wished):
        raise Misconfigured(f"{holder} is called “{name.wished}” there already. Give this connection another name.")
    description = remote_descriptions.of(mapping) or ""
    try:
        remote_id = ask(lambda: connector.create(name.wished, description))
    except Rejected as refused:
        if not description:
            raise
        log.warning("mapping %s is made without a description: %s", mapping.pk, refused)
        remote_id, description = ask(lambda: connector.create(name.wished, "")), ""
    now = timezone.now()
    _keep(mapping, remote_id=remote_id, remote_name=name.wished, remote_description=description)
    _keep(mapping, made_at=now, seen_at=now, renamed_there="", renamed_there_at=None)


def look(mapping: Mapping, connector: Connector, ask: Ask) -> RemoteAudience:
    """What the platform says of it, kept. Raises Misconfigured where it is gone, or nobody may write to it."""
    remote: RemoteAudience = ask(lambda: connector.describe(mapping.remote_id))
    if not remote.usable:
        raise Misconfigured(f"The audience cannot be used there: {remote.state}", code="blocked")
    now = timezone.now()
    if remote.name and remote.name != mapping.remote_name:
        if mapping.remote_name and not mapping.adopted:
            _keep(mapping, renamed_there=remote.name[:400], renamed_there_at=now)
        reason = "somebody renamed it there"
        _note("mapping.renamed_there", mapping, mapping.remote_name, remote.name, reason)
        _keep(mapping, remote_name=remote.name[:400])
    if remote.description is not None and not mapping.adopted:
        _keep(mapping, remote_description=remote.description)
    _keep(
        mapping,
        made_at=None,
        seen_at=now,
        matched_low=remote.matched_low,
        matched_high=remote.matched_high,
        matched_words=remote.matched_words[:200],
        matched_at=remote.at or now,
    )
    return remote


def differs(mapping: Mapping) -> bool:
    """Whether a sync has something to say about it there, though it may have nobody to add or remove."""
    said = remote_descriptions.of(mapping)
    return remote_names.now(mapping).to_rename or (said is not None and said != mapping.remote_description)


def agree(mapping: Mapping, connector: Connector, ask: Ask) -> None:
    """Let it be called and described there as it should be; its id stays. What the platform refuses keeps nobody in and nobody out."""
    name, before = remote_names.now(mapping), mapping.remote_name
    if name.state == remote_names.WAITS:
        try:
            ask(lambda: connector.rename(mapping.remote_id, name.wished))
        except (Rejected, Misconfigured) as refused:
            if isinstance(refused, Misconfigured) and refused.code != "config":
                raise
            log.warning("mapping %s keeps its old name: %s", mapping.pk, refused)
        else:
            by_hand = bool(before) and before == mapping.renamed_there
            reason = "somebody had renamed it there" if by_hand else "it is called so here"
            _note("mapping.renamed", mapping, before, name.wished, reason)
            _keep(mapping, remote_name=name.wished)
    said = remote_descriptions.of(mapping)
    if said is not None and said != mapping.remote_description:
        try:
            ask(lambda: connector.describe_as(mapping.remote_id, said))
        except Rejected as refused:
            log.warning("mapping %s keeps its old description: %s", mapping.pk, refused)
        _keep(mapping, remote_description=said)  # asked once for each text, whatever came of it


# --- Gone.


def stop(mapping: Mapping, error: Misconfigured, *, now: datetime) -> bool:
    """A person must act before anything else is called. Whether there is nothing left to be done instead: the audience of a connection
    that has ended is gone, and everybody in it with it."""
    lost = _LOSING.get(error.code)
    if error.code == "reconnect":
        Destination.objects.filter(pk=mapping.destination_id).update(
            state=Destination.State.REFUSED, state_words=str(error), checked_at=now
        )
    if lost is None or not mapping.remote_id:
        Mapping.objects.filter(pk=mapping.pk).update(blocked_reason=str(error))
        return False
    if lost == Mapping.Lost.GONE and mapping.state == Mapping.State.RETIRED:
        ledger.start_anew(mapping.pk, wanted=False, now=now)
        return True
    if Mapping.objects.filter(pk=mapping.pk, lost="").update(lost=lost, lost_at=now, blocked_reason=str(error)):
        _note("mapping.lost", mapping, None, {"lost": str(lost), "remote_id": mapping.remote_id}, str(error))
    return False


def is_young(mapping: Mapping, now: datetime) -> bool:
    """Whether it was made so lately that the platform may not know it everywhere yet; what was seen there once is not young."""
    return mapping.made_at is not None and now - mapping.made_at < YOUNG


def found_again(mapping: Mapping) -> None:
    """It is there after all: it goes on as it was."""
    changed = Mapping.objects.filter(pk=mapping.pk).exclude(lost="")
    if changed.update(lost="", lost_at=None, blocked_reason=""):
        _note("mapping.found_again", mapping, {"lost": mapping.lost}, None, "the platform knows it again")
        jobs.ask(SYNC, mapping.pk, queue="sync")


def lost_words(lost: str, place: str, at: datetime | None) -> str:
    """`Deleted on Meta EU, seen 3 May 2026, 10:02 UTC`; empty: it is there."""
    if not lost:
        return ""
    seen = f", seen {date_format(timezone.localtime(at), 'j F Y, H:i T')}" if at else ""
    return f"{'Deleted' if lost == Mapping.Lost.GONE else 'Blocked'} on {place}{seen}"


# --- Looked at outside of syncs, so that a rename or a deletion there is seen though there is nobody to send.


def see(mapping: Mapping) -> timedelta | None:
    """Ask the platform about it, keep what is seen, and put right its name and description where it sends. When to ask again, if early.

    A name that somebody has just given it there is put right by the next sync and not here, so that it is seen before.
    """
    try:
        with registry.open(mapping.destination) as connector:
            ask = _at_once(mapping, connector)
            before = mapping.remote_name
            look(mapping, connector, ask)
            if mapping.lost:
                found_again(mapping)
            if mapping.remote_name == before and mapping.state in TELLS and differs(mapping):
                agree(mapping, connector, ask)
    except Retryable as error:
        seconds = error.after if error.after is not None else 60.0
        if error.throttled:
            budget.pause(mapping.destination.account_id, error.after, str(error), now=timezone.now())
        return timedelta(seconds=max(seconds, 1.0))
    except Misconfigured as error:
        _keep(mapping, seen_at=timezone.now())
        if error.code in _LOSING and is_young(mapping, timezone.now()):
            return UNSURE
        stop(mapping, error, now=timezone.now())
    except ConnectorError as error:  # not known
        log.warning("mapping %s was not seen: %s", mapping.pk, error)
        _keep(mapping, seen_at=timezone.now())
        return UNSURE
    return None


def _at_once(mapping: Mapping, connector: Connector) -> Ask:
    """Asks now, or not at all: a look waits for nobody, and leaves the tokens of removals alone."""

    def ask(call: Callable[[], Any]) -> Any:
        rate = connector.capabilities.calls_per_minute
        if wait := budget.take(mapping.destination.account_id, ADD, rate, now=timezone.now()):
            raise Retryable("The account's rate budget is used up.", after=wait.total_seconds())
        return call()

    return ask


def _keep(mapping: Mapping, **fields: Any) -> None:
    for name, value in fields.items():
        setattr(mapping, name, value)
    Mapping.objects.filter(pk=mapping.pk).update(**fields)


def _note(verb: str, mapping: Mapping, before: Any, after: Any, reason: str) -> None:
    key = f"{mapping.audience.key} → {mapping.destination.key}"
    trail.record(None, verb, "mapping", key, before=before, after=after, reason=reason)
