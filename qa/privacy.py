"""How a privacy request goes from received to done: out everywhere, then forgotten on every floor, then out of the files.

Taking one in is audiences/people/privacy.py's, its receipts are destinations/services/erasures.py's. Each step is written down
before the next begins and may be done again, so a worker that dies anywhere is followed by one that goes on.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import duckdb
from django.db import transaction
from django.db.models import Q
from django.utils import timezone

from audiences import faults, jobs
from audiences.clock import now_us
from audiences.models import Alias, PrivacyRequest, Tombstone
from audiences.models.privacy import OPEN
from audiences.people import intake, lake, refused, removal
from audiences.people.lake import upkeep
from destinations.services import erasures, warehouse
from qa.models import SpotCheckPerson

TASK, FILES = "qa.privacy", "qa.privacy_files"
EVERY, FILES_EVERY = timedelta(seconds=5), timedelta(minutes=1)
REWRITTEN_AFTER = timedelta(minutes=10)  # one rewriting of the files serves all who asked meanwhile
REMOVED_WITHIN = timedelta(hours=24)  # our own promise for the platforms

State = PrivacyRequest.State


def keep_following() -> None:
    """Have requests seen to for as long as the installation lives."""
    jobs.keep_doing(TASK, "", every=EVERY, queue="sync")
    jobs.keep_doing(FILES, "", every=FILES_EVERY)


@jobs.job(TASK, queue="sync")
def follow_job(claim: jobs.Claim) -> None:
    """Look at what platforms were told, and forget whoever is out everywhere."""
    follow(claim)


@jobs.job(FILES)
def files_job(claim: jobs.Claim) -> None:
    """See whether the files still hold anything of those who are forgotten, and have them rewritten where they do."""
    look_at_files()


def follow(claim: jobs.Claim | None = None) -> None:
    """One look at every open request."""
    now = timezone.now()
    removing = list(PrivacyRequest.objects.filter(state__in=(State.RECEIVED, State.REMOVING)).order_by("pk"))
    told = erasures.books() if any(request.identities for request in removing) else []
    for request in removing:
        settled = erasures.look(request, told, now=now) if request.identities else True
        _step(request, settled, now)
        if claim is not None:
            claim.renew()
    faults.point("privacy.looked")
    out = list(PrivacyRequest.objects.filter(state=State.CONFIRMED, forgotten_at=None).order_by("pk"))
    if out:
        _forget(out, claim)


def look_at_files() -> None:
    """Requests whose people no file holds any more, nor the warehouse, are done; for the others the files are to be rewritten."""
    waiting = list(PrivacyRequest.objects.filter(state=State.CONFIRMED).exclude(forgotten_at=None).order_by("pk"))
    if not waiting:
        return
    whole = _with_merged(number for request in waiting for number in request.people)
    try:
        held = lake.holding(whole.keys())
    except duckdb.IOException:  # a file was unlinked while it was being read
        return
    kept = {whole[number] for number in held}
    for request in waiting:
        if not kept & set(request.people) and not warehouse.still_holds(request.created_at):
            _done(request)
    if kept:
        upkeep.rewrite_without_the_removed(after=REWRITTEN_AFTER)


def late(now: datetime) -> Q:
    """Which requests `overdue` says something of."""
    removing = Q(state__in=(State.RECEIVED, State.REMOVING), created_at__lt=now - REMOVED_WITHIN)
    return Q(state__in=OPEN, due_at__lt=now) | removing


def overdue(request: PrivacyRequest, now: datetime) -> str:
    """What has taken longer than it may, in words; empty where nothing has."""
    if not request.is_open:
        return ""
    if request.due_at < now:
        return "past the legal deadline"
    if request.state in (State.RECEIVED, State.REMOVING) and request.created_at < now - REMOVED_WITHIN:
        return "not out everywhere after 24 hours"
    return ""


def _step(request: PrivacyRequest, settled: bool, now: datetime) -> None:
    """Removing, or out everywhere."""
    with transaction.atomic():
        rows = PrivacyRequest.objects.filter(pk=request.pk, state__in=(State.RECEIVED, State.REMOVING))
        more = removal.take_from_latecomers(request.people, request.removal, at_us=now_us()) if settled else []
        if more:
            rows.update(state=State.REMOVING, identities=[*request.identities, *more])
        elif settled:
            names = erasures.untouched(request)
            rows.update(state=State.CONFIRMED, confirmed_at=now, untouched=names)
        elif request.state == State.RECEIVED:
            rows.update(state=State.REMOVING)


def _forget(requests: Sequence[PrivacyRequest], claim: jobs.Claim | None) -> None:
    """Identifiers and samples of each; then, once for all, what is kept of refused rows."""
    for request in requests:
        people = set(_with_merged(request.people))
        with transaction.atomic():
            erasures.forget(request)
            SpotCheckPerson.objects.filter(profile_no__in=people).update(rules=[], receipt={}, note="")
            faults.point("privacy.before_forget_commit")
    faults.point("privacy.forgotten")
    removals = [request.removal for request in requests]
    digests = set(Tombstone.objects.filter(removal__in=removals).values_list("kind", "digest"))
    region, after = intake.default_region(), 0
    while digests:
        with transaction.atomic():
            _, last = refused.forget(digests, region, after)
        if last is None:
            break
        after = last
        if claim is not None:
            claim.renew()
    faults.point("privacy.rows_forgotten")
    now = timezone.now()
    PrivacyRequest.objects.filter(pk__in=[request.pk for request in requests]).update(forgotten_at=now)
    warehouse.hasten()
    for request in requests:
        if not request.people:
            _done(request)


def _done(request: PrivacyRequest) -> None:
    now = timezone.now()
    rows = PrivacyRequest.objects.filter(pk=request.pk, state=State.CONFIRMED)
    rows.update(state=State.DONE, events_at=now, done_at=now)
    rows = PrivacyRequest.objects.filter(pk=request.pk, state=State.DONE)
    rows.exclude(lifted_at=None).update(state=State.LIFTED)


def _with_merged(people: Iterable[int]) -> dict[int, int]:
    """Every number under which something may be kept → the person."""
    whole = {number: number for number in people}
    return whole | dict(Alias.objects.filter(survivor_no__in=list(whole)).values_list("old_no", "survivor_no"))
