"""When the lake is flushed, compacted, swept and projected: the jobs, and how often. The work itself is in its own modules."""

import time
from collections.abc import Callable
from datetime import timedelta

from django.db import connection

from audiences import jobs
from audiences.clock import DAY, SECOND, now_us
from audiences.models import Event, LakeFile, ProfileChange
from audiences.people import keys, lake
from audiences.people.lake.flush import LIMIT
from audiences.people.lake.staging import sweep_spill

HOT_FOR_US = 60 * SECOND  # an event waits no longer than this before it is worth a file of its own
KEYS_FOR_US = 30 * DAY
_TRIES = 5


def keep_going() -> None:
    """Have all of it done for as long as the installation lives."""
    jobs.keep_doing("audiences.flush", "", every=timedelta(seconds=10), queue="intake")
    jobs.keep_doing("audiences.project_profiles", "", every=timedelta(seconds=30))
    jobs.keep_doing("audiences.compact", "", every=timedelta(minutes=1))
    jobs.keep_doing("audiences.sweep_files", "", every=timedelta(minutes=5))
    jobs.keep_doing("audiences.forget_removed", "", every=timedelta(days=1))
    jobs.keep_doing("audiences.forget_event_keys", "", every=timedelta(hours=1), queue="intake")


def rewrite_without_the_removed(*, after: timedelta) -> None:
    """Have events and projection written anew without people who are gone, at the latest then."""
    jobs.ask("audiences.forget_removed", "", after=after)
    jobs.ask("audiences.project_profiles", "now", after=after)


@jobs.job("audiences.flush", queue="intake")
def flush(claim: jobs.Claim) -> None:
    """Flush while there is a file's worth of events, or one that has waited long."""
    while _worth_a_flush():
        claim.renew()
        _again_if_overtaken(lambda: lake.flush(still_mine=claim.guard))


@jobs.job("audiences.compact")
def compact(claim: jobs.Claim) -> None:
    """Merge files until no merge pays. The key `settle` asks to do so as if no more events came."""
    while _again_if_overtaken(lambda: lake.compact(settle=claim.key == "settle", still_mine=claim.guard)):
        claim.renew()


@jobs.job("audiences.forget_removed")
def forget_removed(claim: jobs.Claim) -> None:
    """Take removed people's events out of the files."""
    _again_if_overtaken(lambda: lake.forget_removed(still_mine=claim.guard))


@jobs.job("audiences.forget_event_keys", queue="intake")
def forget_event_keys(claim: jobs.Claim) -> None:
    """Drop what tells repeats of events older than 30 days; as long as it held the lock, it lets others write."""
    before = now_us() - KEYS_FOR_US
    while True:
        began = time.monotonic()
        if not keys.forget_event_keys(before):
            return
        claim.renew()
        time.sleep(min(time.monotonic() - began, 1.0))


@jobs.job("audiences.sweep_files")
def sweep_files(claim: jobs.Claim) -> None:
    """Unlink what nobody reads."""
    lake.sweep_files()
    sweep_spill()


@jobs.job("audiences.project_profiles")
def project_profiles(claim: jobs.Claim) -> None:
    """Project the profiles anew when so many have changed that reading them beside it costs more. The key `now` always does."""
    if claim.key == "now" or _worth_a_projection():
        _again_if_overtaken(lambda: lake.project_profiles(still_mine=claim.guard))


def _worth_a_flush() -> bool:
    oldest = Event.objects.order_by("pk").values_list("received_us", flat=True).first()
    if oldest is None:
        return False
    return oldest < now_us() - HOT_FOR_US or Event.objects.order_by("pk")[LIMIT[connection.vendor] - 1 :].exists()


def _worth_a_projection() -> bool:
    newest = LakeFile.objects.filter(kind=LakeFile.Kind.PROFILES).order_by("-added_manifest").first()
    enough = max(1_000, newest.rows // 50) if newest else 1
    return ProfileChange.objects.order_by("pk")[enough - 1 :].exists()


def _again_if_overtaken(work: Callable[[], int]) -> int:
    for _ in range(_TRIES - 1):
        try:
            return work()
        except lake.Overtaken:
            continue
    return work()
