"""The ledger's protections, each of which can be switched off: then schedules must fail, or they would prove nothing.

What stands in a function's place here is that function without its protection, and nothing else of it changed.
"""

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

from pyroaring import BitMap

from audiences import jobs
from destinations import calls, holders, leases, ledger, plan, rows, transitions
from destinations.connectors.base import Receipt
from destinations.ledger import Count, Lease, Outcome, Watch
from destinations.models import Operation
from destinations.plan import ADD, State
from destinations.transitions import Book, Call

Patch = tuple[Any, str, Any]


@dataclass(frozen=True, slots=True)
class Protection:
    """`means`: what it protects from. `weather`: in which that happens often."""

    means: str
    patches: tuple[Patch, ...]
    weather: dict[str, Any] = field(default_factory=dict)


@contextmanager
def without(name: str) -> Iterator[dict[str, Any]]:
    """The product without this protection; the weather to play in."""
    protection = PROTECTIONS[name]
    with ExitStack() as stack:
        for owner, attribute, instead in protection.patches:
            stack.enter_context(mock.patch.object(owner, attribute, instead))
        yield protection.weather


# --- Write-ahead: nobody knows of a call whose worker has died.


def _forget_in_flight(book: Book, lane: str, fence: int, now: datetime, settle: timedelta) -> int:
    left = [c for c in book.calls if c.state == transitions.PREPARED and c.lane == lane and c.fence < fence]
    for call in left:
        book.take_back(call, BitMap())
    return len(left)


# --- Fence: whoever lost the lease prepares and settles as before.


def _hold(row: Any, lease: Lease, now: datetime) -> tuple[str, ...]:
    return leases._hold(row, lease.lane, getattr(row, f"{lease.lane}_fence"), now)


def _settle(lease: Lease, operation_id: int, outcome: Outcome, *, now: datetime) -> Count:
    with ledger.transaction.atomic():
        row = rows.locked(lease.mapping_id)
        if not Operation.objects.filter(pk=operation_id, open=True).exists():
            return Count()
        return ledger._settle(row, lease, operation_id, outcome, now)


# --- Re-assert: an outcome that is not known stays so.


def _lose_track(book: Book, call: Call, now: datetime, settle: timedelta) -> None:
    _OWN["lose_track"](book, call, now, settle)
    call.reassert_at = None


def _abandon(book: Book, lane: str, fence: int, now: datetime, settle: timedelta) -> int:
    found: int = _OWN["abandon"](book, lane, fence, now, settle)
    for call in book.calls:
        call.lost, call.reassert_at = False, None
    return found


# --- Settle time: told again at once, and a late effect of the first call may land after it.


def _lose_track_briefly(book: Book, call: Call, now: datetime, settle: timedelta) -> None:
    _OWN["lose_track"](book, call, now, timedelta(0))


def _abandon_briefly(book: Book, lane: str, fence: int, now: datetime, settle: timedelta) -> int:
    found: int = _OWN["abandon"](book, lane, fence, now, timedelta(0))
    return found


# --- Per-row outcome: a call that was taken was taken whole.


def _understood(work: Any, receipt: Receipt, step: plan.Step, empty: Any) -> Outcome:
    outcome: Outcome = _OWN["_understood"](
        work, dataclasses.replace(receipt, rejected={}, rejected_unnamed=0), step, empty
    )
    return outcome


# --- Sweeper: nobody looks for what is due and was not asked for.


def _keep_doing(task: str, *given: Any, **also: Any) -> None:
    if task != "destinations.look":
        _OWN["keep_doing"](task, *given, **also)


# --- Current intent: what was on its way is said again as it was, whoever is wanted by now.


def _state(row: Any, believed: Book, wanted: BitMap, now: datetime, using: str = "default") -> State:
    state: State = _OWN["state"](row, believed, wanted, now, using)
    intent = BitMap(state.intent)
    for call in believed.calls:
        if call.reassert_at is not None:
            intent = intent | call.unsettled if call.kind == ADD else intent - call.unsettled
    return dataclasses.replace(state, intent=intent)


_OWN: dict[str, Any] = {
    "lose_track": Book.lose_track,
    "abandon": Book.abandon,
    "_understood": calls._understood,
    "keep_doing": jobs.keep_doing,
    "state": rows.state,
}

_DEADLY = {"kill": 0.015, "kills": 3, "begun": False}
_SLEEPY = {
    "stop": 0.012,
    "stops": 2,
    "machines": 2,
    "trouble": 0.0,
    "lane": False,
    "purpose": "retargeting",
    "people": 7,
    "batch": 10,
    "begun": False,
    "acts": 20,
    "act_every": 10.0,
    "act": 0.0,
}
_LATE = {"fates": (("late", 1.0), ("dropped", 0.5), ("hang", 0.5)), "trouble": 0.5}

PROTECTIONS: dict[str, Protection] = {
    "write-ahead": Protection(
        "a worker dies after the platform was told, and before that was kept",
        ((Book, "abandon", _forget_in_flight),),
        _DEADLY,
    ),
    "fence": Protection(
        "a worker that was stopped past its lease goes on beside its successor",
        ((leases, "hold", _hold), (leases, "renew", lambda lease, *, now: None), (ledger, "settle", _settle)),
        _SLEEPY,
    ),
    "lease": Protection(
        "two workers at the same connection at once",
        ((holders, "is_dead", lambda holder: True),),
        {
            "begun": False,
            "batch": 1,
            "commands": True,
            "switch": 0.1,
            "act_every": 5.0,
            "acts": 9,
            "fates": (("slow", 1.0),),
            "trouble": 0.5,
        },
    ),
    "re-assert": Protection(
        "an answer that never came is nobody's business",
        ((Book, "lose_track", _lose_track), (Book, "abandon", _abandon)),
        _LATE,
    ),
    "settle": Protection(
        "the late effect of an earlier call lands after people were told again",
        ((Book, "lose_track", _lose_track_briefly), (Book, "abandon", _abandon_briefly)),
        {
            "fates": (("late", 1.0),),
            "trouble": 0.5,
            "begun": False,
            "acts": 9,
            "act_every": 5.0,
            "act": 0.03,
            "lane": True,
        },
    ),
    "per-row outcome": Protection(
        "the platform refuses some rows of a call that it takes",
        ((calls, "_understood", _understood),),
        {"fates": (("partial", 1.0),), "trouble": 0.5},
    ),
    "sweeper": Protection(
        "a worker dies, and nobody looks after what it had at hand",
        ((jobs, "keep_doing", _keep_doing),),
        _DEADLY,
    ),
    "current-intent resume": Protection(
        "somebody leaves while an add of them is not known to have arrived",
        ((rows, "state", _state),),
        _LATE | {"acts": 9, "act_every": 20.0},
    ),
    "watch": Protection(
        "somebody leaves between the count and the call",
        ((Watch, "leaves_out", lambda watch, ids, profiles: BitMap()),),
        {"begun": False, "act": 0.03, "acts": 9, "lane": False},
    ),
}
