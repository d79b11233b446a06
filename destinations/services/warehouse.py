"""The customer's warehouse: named, checked, loaded by its cadence, stopped, emptied. What a load does is record/loading.py's."""

import uuid
from contextlib import AbstractContextManager
from datetime import datetime, timedelta
from typing import Any

from django.db import transaction
from django.utils import timezone

from audiences import jobs
from audiences.models import User
from audiences.people import lake
from audiences.services import trail
from destinations import secrets
from destinations.connectors.base import ConnectorError, Misconfigured
from destinations.models import Warehouse
from destinations.record import target
from destinations.record.loading import Load
from destinations.record.target import Address, Target
from destinations.services import refuse

TASK = "destinations.load_warehouse"
KEY = "1"
CADENCES = (900, 3600, 21_600, 86_400)  # seconds
AAD = "warehouse:1"
COMMITTED_WITHIN = timedelta(minutes=1)  # whoever left at a moment is seen to have left so long after it


def get() -> Warehouse:
    """The one row; unsaved, without an address, where nobody has named one yet."""
    return Warehouse.objects.filter(pk=1).first() or Warehouse(pk=1)


def save(
    *,
    actor: User | None,
    url: str = "",
    schema: str,
    cadence_seconds: int,
    with_events: bool,
) -> Warehouse:
    """Name the warehouse, or change what is said of it; `url` left empty stays. Then `check`. Raises Refused.

    Another schema or database begins empty, and what was loaded into the one before stays there as it is.
    """
    row = get()
    problem = target.schema_problem(schema)
    if problem:
        raise refuse(problem, "schema")
    if cadence_seconds not in CADENCES:
        raise refuse("is not a cadence that there is", "cadence_seconds")
    if not url and not row.credentials:
        raise refuse("is needed", "url")
    where = None
    if url:
        try:
            where = target.address(url)
        except target.NotAnAddress as error:
            raise refuse(str(error), "url") from None
    with transaction.atomic():
        Warehouse.objects.get_or_create(pk=1)
        row = Warehouse.objects.select_for_update().get(pk=1)
        before = _told(row)
        if where:
            row.address = str(where)
            row.credentials = secrets.seal({"url": url.strip()}, AAD)
            row.credentials_by, row.credentials_at = actor, timezone.now()
        row.schema, row.cadence_seconds, row.with_events = schema, cadence_seconds, with_events
        row.state, row.state_words = Warehouse.State.UNTESTED, ""
        if before["address"] and (before["address"], before["schema"]) != (row.address, row.schema):
            row.loaded_at = row.loaded_up_to = None
            row.rows = {}
        row.save()
        if row.running:
            jobs.keep_doing(TASK, KEY, every=timedelta(seconds=cadence_seconds))
        after = {**_told(row), **({"credentials": ["url"]} if where else {})}
        trail.record(actor, "warehouse.changed", "warehouse", KEY, before=before, after=after)
    return row


def check(*, actor: User | None) -> Warehouse:
    """Ask the database whether we may write there; the answer is in `state` and `state_words`."""
    row = get()
    try:
        with _opened(row) as there:
            words, state = there.look(), Warehouse.State.CONNECTED
    except Misconfigured as error:
        words, state = str(error), Warehouse.State.REFUSED
    except ConnectorError as error:
        words, state = str(error), Warehouse.State.FAILING
    with transaction.atomic():
        Warehouse.objects.filter(pk=1).update(state=state, state_words=words, checked_at=timezone.now())
        after = {"state": state.value, "words": words}
        trail.record(actor, "warehouse.checked", "warehouse", KEY, before={"state": row.state}, after=after)
    return get()


def start(*, actor: User | None) -> None:
    """Load it now, and by its cadence from now on. Raises Refused."""
    row = get()
    if not row.credentials:
        raise refuse("Say first where the warehouse is.")
    with transaction.atomic():
        Warehouse.objects.filter(pk=1).update(running=True)
        jobs.keep_doing(TASK, KEY, every=timedelta(seconds=row.cadence_seconds))
        jobs.ask(TASK, KEY)
        if not row.running:
            trail.record(actor, "warehouse.started", "warehouse", KEY)


def stop(*, actor: User | None) -> None:
    """No more loads; what is there stays as it is, whoever is removed or erased meanwhile."""
    with transaction.atomic():
        Warehouse.objects.filter(pk=1).update(running=False)
        jobs.stop_doing(TASK, KEY)
        trail.record(actor, "warehouse.stopped", "warehouse", KEY)


def empty(*, actor: User | None) -> int:
    """Stop, and drop the tables that we have made there; how many. Raises ConnectorError, and jobs.Busy where a load is under way."""
    stop(actor=actor)
    with jobs.held(TASK, KEY, wait=timedelta(seconds=5)), _opened(get()) as there:
        dropped = there.empty(str(get().installation))
    with transaction.atomic():
        Warehouse.objects.filter(pk=1).update(loaded_at=None, loaded_up_to=None, rows={})
        trail.record(actor, "warehouse.emptied", "warehouse", KEY, after={"tables": dropped})
    return dropped


def begin_anew() -> None:
    """Our own database came back from a backup: what was loaded after it never was, so the next load writes everything."""
    Warehouse.objects.update(era=uuid.uuid4())


def hasten() -> None:
    """Somebody has left who must not wait there for the next load."""
    if get().running:
        jobs.ask(TASK, KEY)


def still_holds(since: datetime) -> str:
    """Why whoever left at this moment may still be in the warehouse, in words; empty: they are not."""
    row = get()
    if row.loaded_up_to is None or row.loaded_up_to > since + COMMITTED_WITHIN:
        return ""
    if not row.running:
        return "The warehouse holds them still, for loading it is stopped. Start it, or empty it, in Settings."
    if row.state != Warehouse.State.CONNECTED:
        return f"The warehouse holds them still, for it cannot be loaded: {row.state_words}"
    return "The warehouse holds them until its next load, which is asked for."


def load_here() -> Warehouse:
    """Load it in this process; the row as it is afterwards. Raises Refused, jobs.Busy, and ConnectorError in words."""
    if not get().credentials:
        raise refuse("No warehouse is named yet: Settings, Warehouse.")
    with jobs.held(TASK, KEY, wait=timedelta(minutes=1)) as claim:
        load(claim)
    return get()


def load(claim: jobs.Claim) -> None:
    """What is new goes there; how it went is on the row. Raises Misconfigured and Retryable in words, and jobs.LeaseLost."""
    row = get()
    try:
        with _opened(row) as there:
            there.prepare(str(row.installation), str(row.era), claim.fence)
            work = Load(there, claim.fence, row.with_events, tell=lambda rows: claim.progress(**rows))
            up_to = work.run()
    except (target.Overtaken, lake.SnapshotGone) as error:
        raise jobs.LeaseLost(str(error)) from None
    except ConnectorError as error:
        state = Warehouse.State.REFUSED if isinstance(error, Misconfigured) else Warehouse.State.FAILING
        Warehouse.objects.filter(pk=1).update(state=state, state_words=str(error), tried_at=timezone.now())
        raise
    now = timezone.now()
    Warehouse.objects.filter(pk=1).update(
        state=Warehouse.State.CONNECTED,
        state_words=f"Connected to {row.address}; writes to the schema {row.schema}.",
        tried_at=now,
        loaded_at=now,
        loaded_up_to=up_to,
        rows=work.rows,
    )


def _opened(row: Warehouse) -> AbstractContextManager[Target]:
    return target.opened(_address(row), row.schema)


def _address(row: Warehouse) -> Address:
    try:
        return target.address(secrets.unseal(row.credentials, AAD).get("url", ""))
    except secrets.Unreadable as error:
        raise Misconfigured(f"{error} Enter the address again.") from None
    except target.NotAnAddress:
        raise Misconfigured("Say first where the warehouse is.") from None


def _told(row: Warehouse) -> dict[str, Any]:
    return {
        "address": row.address,
        "schema": row.schema,
        "cadence_seconds": row.cadence_seconds,
        "with_events": row.with_events,
    }
