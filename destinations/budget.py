"""The rate budget of a platform account, shared by every worker: tokens, pauses, and a share kept for removals.

It is the account's circuit breaker too: a platform that fails again and again is left alone for ever longer, and then
asked by one call at a time until it answers.
"""

import random
from datetime import datetime, timedelta

from django.db import transaction

from destinations.models import Account
from destinations.plan import REMOVE

LONGEST_PAUSE = timedelta(hours=1)
RESERVED_FOR_REMOVALS = 0.2
FAILURES_IN_A_ROW = 4  # of all workers together
_REST, _LONGEST_REST = 30.0, 600.0  # seconds: the first rest, doubled each time, and the longest
_ONE_AT_A_TIME = timedelta(seconds=15)  # how long others wait for the one call that is tried
_BURST_MINUTES = 0.5
_REMOVAL_WAITS = timedelta(seconds=5)  # how long a waiting removal keeps adds from the next token, unless it asks again


def take(account_id: int, kind: str, calls_per_minute: float, *, now: datetime) -> timedelta:
    """Take a token for one call: zero if it may be made now, else how long to wait before asking again.

    Adds leave a fifth of the tokens to removals, and the next one while a removal waits.
    """
    full = max(2.0, calls_per_minute * _BURST_MINUTES)
    per_second = max(calls_per_minute, 0.001) / 60
    with transaction.atomic():
        account = Account.objects.select_for_update().get(pk=account_id)
        if account.paused_until is not None and account.paused_until > now:
            if kind == REMOVE:
                account.removal_waits_until = account.paused_until + _REMOVAL_WAITS
                account.save(update_fields=["removal_waits_until"])
            return account.paused_until - now
        if account.refilled_at is None:
            account.tokens = full
        else:
            elapsed = max(0.0, (now - account.refilled_at).total_seconds())
            account.tokens = min(full, account.tokens + elapsed * per_second)
        account.refilled_at = now
        need = 1.0 if kind == REMOVE else 1.0 + min(full * RESERVED_FOR_REMOVALS, full - 1.0)
        if kind == REMOVE:
            short = need - account.tokens
            account.removal_waits_until = now + _REMOVAL_WAITS if short > 0 else None
        else:
            yields = account.removal_waits_until is not None and account.removal_waits_until > now
            short = need + yields - account.tokens
        if short <= 0:
            account.tokens -= 1.0
            if account.failures >= FAILURES_IN_A_ROW:
                account.paused_until = now + _ONE_AT_A_TIME
        account.save(update_fields=["tokens", "refilled_at", "removal_waits_until", "paused_until"])
    return timedelta(seconds=max(0.05, short / per_second)) if short > 0 else timedelta(0)


def pause(account_id: int, seconds: float | None, words: str, *, now: datetime, attempt: int = 1) -> datetime:
    """Stop every call to the account until then. What the platform asks for is a floor, with up to a tenth added so that not
    all come back at once; where it asks for nothing, the pause doubles with each attempt. An hour at most. A longer one stands.
    """
    wanted = seconds if seconds is not None else min(2.0**attempt, 300.0)
    length = min(timedelta(seconds=max(0.0, wanted) * (1 + random.random() / 10)), LONGEST_PAUSE)  # noqa: S311 - jitter
    until = now + length
    with transaction.atomic():
        account = Account.objects.select_for_update().get(pk=account_id)
        if account.paused_until is not None and account.paused_until >= until:
            return account.paused_until
        account.paused_until, account.pause_reason, account.failures = until, words[:300], 0
        account.save(update_fields=["paused_until", "pause_reason", "failures"])
    return until


def failed(account_id: int, words: str, *, now: datetime) -> datetime | None:
    """A call got no proper answer. Until when the account is left alone, once that has happened too often in a row."""
    with transaction.atomic():
        account = Account.objects.select_for_update().get(pk=account_id)
        account.failures += 1
        over = account.failures - FAILURES_IN_A_ROW
        if over >= 0:
            rest = timedelta(seconds=min(_REST * 2.0 ** min(over, 10), _LONGEST_REST))
            account.paused_until, account.pause_reason = now + rest, words[:300]
        account.save(update_fields=["failures", "paused_until", "pause_reason"])
    return account.paused_until if over >= 0 else None


def answered(account_id: int) -> None:
    """A call was answered: the account is itself again. Nothing is written where it was so before."""
    failing = Account.objects.filter(pk=account_id, failures__gt=0).values_list("failures", flat=True).first()
    if failing:
        rested = {"paused_until": None} if failing >= FAILURES_IN_A_ROW else {}
        Account.objects.filter(pk=account_id, failures=failing).update(failures=0, **rested)
