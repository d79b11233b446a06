"""Saying what cannot wait for a sync: who must leave because of something that happened, and who bought and must be suppressed.

Beside any sync, under a lease of its own; whoever is in a call of a sync is taken at its outcome. Who that is, is fastlane.py's to decide.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.utils import timezone
from pyroaring import BitMap

from audiences import jobs
from destinations import calls, eligibility, errands, identities, leases, ledger, plan, remotes
from destinations.calls import Clock, Stopped, Work
from destinations.connectors import registry
from destinations.connectors.base import Connector, Misconfigured, Retryable
from destinations.errands import Due
from destinations.models import TELLS, Destination
from destinations.models import Mapping as Connection

log = logging.getLogger(__name__)

CALL_SECONDS = 10.0  # a platform that hangs must not keep what is urgent elsewhere waiting
PATIENCE = timedelta(seconds=1)
BUSY_AGAIN = timedelta(seconds=1)
FAULT_AGAIN = timedelta(minutes=1)

Opener = Callable[[Destination], AbstractContextManager[Connector]]


@contextmanager
def opened(destination: Destination) -> Iterator[Connector]:
    with registry.open(destination, seconds=CALL_SECONDS) as connector:
        yield connector


@dataclass(frozen=True, slots=True)
class Consenting:
    """An urgent add's guard: nobody is added who, at this moment, is removed, has not consented or has other identifiers by now."""

    purpose: str

    def leaves_out(self, ids: BitMap, profiles: Mapping[int, int]) -> BitMap:
        people = BitMap(profiles[number] for number in ids)
        out = eligibility.gone(people) | eligibility.without_consent(people, eligibility.consents_needed(self.purpose))
        current = identities.current_of(list(people))
        return BitMap(n for n in ids if profiles[n] in out or current.get(profiles[n]) != n)


def deliver(
    destination_id: int,
    *,
    now: Clock = timezone.now,
    sleep: Callable[[float], None] = time.sleep,
    opener: Opener = opened,
) -> datetime | None:
    """Run the errands of a destination until none is due, or this worker is asked to stop. When to come back, if something is left."""
    destination = Destination.objects.get(pk=destination_id)
    while not jobs.stopping() and (due := errands.due(destination_id, now())):
        try:
            with opener(destination) as connector:
                for errand in due:
                    _run(errand, connector, now, sleep)
        except Misconfigured as error:  # it cannot even be opened
            for errand in due:
                remotes.stop(_connection(errand), error, now=now())
                errands.done(errand)
    return errands.next_at(destination_id)


def _run(errand: Due, connector: Connector, now: Clock, sleep: Callable[[float], None]) -> None:
    mapping = _connection(errand)
    if mapping.state not in TELLS or mapping.blocked_reason or mapping.lost:
        errands.done(errand)  # nothing may be said; the sync that comes when it may again says what stands then
        return
    if not mapping.remote_id:
        errands.done(errand)
        jobs.ask(remotes.SYNC, mapping.pk, queue="sync")  # which makes the audience there first
        return
    settle = timedelta(seconds=connector.capabilities.settle_seconds)
    try:
        lease = leases.claim(mapping.pk, leases.URGENT, settle=settle, now=now())
    except leases.Busy as busy:
        errands.done(errand, again=min(busy.until, now() + BUSY_AGAIN))
        return
    work = Work(
        run=None,
        mapping=mapping,
        connector=connector,
        lease=lease,
        watch=Consenting(mapping.audience.purpose),
        left_at=now(),
        now=now,
        sleep=sleep,
        until=now() + PATIENCE,
        version_id=mapping.audience.live_version_id,
    )
    try:
        again = _say(work)
    except Stopped as stopped:
        errands.failed(errand, now=now(), after=stopped.again - now() if stopped.again else None)
    except Retryable as error:
        errands.failed(errand, now=now(), after=None if error.after is None else timedelta(seconds=error.after))
    except Misconfigured as error:
        if error.code == "audience_gone" and remotes.is_young(mapping, now()):
            errands.failed(errand, now=now())
        else:
            remotes.stop(mapping, error, now=now())
            errands.done(errand)
    except leases.LeaseLost:
        errands.failed(errand, now=now())
    except Exception:  # of one connection; the others' must be said all the same
        log.exception("urgent delivery failed", extra={"mapping": mapping.pk})
        errands.failed(errand, now=now(), after=FAULT_AGAIN)
    else:
        errands.done(errand, again=again)
    finally:
        leases.release(lease)


def _say(work: Work) -> datetime | None:
    """Say it, until there is nothing left to say now. When there will be, where that is known."""
    while True:
        view = ledger.look(work.mapping.pk, now=work.now())
        found = plan.urgent(calls.planned(work, view))
        before = work.calls
        for step in found.batches(work.size):
            calls.say(work, step)
        if work.calls == before:
            break
    decided = BitMap().union(*view.left.values(), *view.entered.values())
    if view.next_due_at is not None and decided & (view.state.waiting | view.state.due):
        work.come_back(max(view.next_due_at, work.now() + BUSY_AGAIN))
    return work.again


def _connection(errand: Due) -> Connection:
    return Connection.objects.select_related("audience", "destination").get(pk=errand.mapping_id)
