"""What to tell a platform next: who is wanted, against what it has been told, as bitmaps of identity_no. Pure: no tables, no clock.

What a call and its outcome then change is transitions.py's; who is wanted is ledger.py's and eligibility.py's.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
import numpy.typing as npt
from pyroaring import BitMap

from audiences.bitmaps import from_sorted, to_array

ADD, REMOVE = "add", "remove"

ERASURE, CONSENT, PURCHASE, RULE, IDENTITY = "erasure", "consent", "purchase", "rule", "identity"
REASSERT = "reassert"  # a call's outcome was not known, and whatever it did late must be put right
RETRY = "retry"  # refused before, and due again
WITHDRAW = "withdraw"  # identifier kinds that the mapping no longer sends
DIFF = "diff"  # a comparison of two counts, and nothing more
RESYNC = "resync"  # told again because somebody asked for it, or because the remote audience was not ours

# For people: why somebody is told to a platform.
WORDS = {
    ERASURE: "erased",
    CONSENT: "consent withdrawn",
    PURCHASE: "bought something",
    RULE: "an event that the rule names",
    IDENTITY: "other identifiers",
    REASSERT: "told again: the outcome was not known",
    RETRY: "refused before, tried again",
    WITHDRAW: "identifiers that are sent no more",
    DIFF: "entered or left between two counts",
    RESYNC: "everybody told again",
}

# The order in which removals go, and the causes that no hold on comparisons stops.
REMOVAL_ORDER = (ERASURE, CONSENT, PURCHASE, RULE, IDENTITY, REASSERT, WITHDRAW, DIFF, RESYNC)
COMPARED = frozenset({DIFF, RESYNC})
EVENT_CAUSED = frozenset({ERASURE, CONSENT, PURCHASE, RULE, IDENTITY})
# What a run's removal limit counts: a mistake in a rule looks like this, a person's own act does not.
LIMITED = COMPARED | {RULE}
# A removal for one of these takes the identifier away even where another wanted person carries it too.
VETOING = frozenset({ERASURE, CONSENT, PURCHASE})

_ADD_RETRIES = (timedelta(hours=1), timedelta(hours=6), timedelta(days=1), timedelta(days=3), timedelta(days=7))
_REMOVE_RETRIES = (timedelta(minutes=15), timedelta(hours=1), timedelta(hours=4))


def _empty() -> BitMap:
    return BitMap()


@dataclass(frozen=True, slots=True)
class State:
    """One mapping at one moment. present, unknown and rejected are disjoint; the others overlap them."""

    intent: BitMap
    present: BitMap = field(default_factory=_empty)
    unknown: BitMap = field(default_factory=_empty)
    rejected: BitMap = field(default_factory=_empty)  # refused as adds
    in_flight: BitMap = field(default_factory=_empty)  # in a call whose answer is still to come: hands off
    due: BitMap = field(default_factory=_empty)  # an unknown outcome's settle time has passed: tell again
    waiting: BitMap = field(default_factory=_empty)  # likewise, and it has not passed
    lost: BitMap = field(default_factory=_empty)  # unknown because a worker died: tell now, and again when due
    doubtful: BitMap = field(default_factory=_empty)  # unknown after an add: they may be there
    retry: BitMap = field(default_factory=_empty)  # rejected, and due for another attempt
    refused: BitMap = field(default_factory=_empty)  # removals that were refused and are not due again
    again: BitMap = field(default_factory=_empty)  # told again whatever was said (adoption, resync, new identifiers)
    withdraw: BitMap = field(default_factory=_empty)  # sent with kinds that are not to be sent any more


@dataclass(frozen=True, slots=True)
class Stops:
    """What must not be sent now. A hold on comparisons lets what people did themselves pass; a freeze lets nothing pass."""

    adds: bool = False
    compared_adds: bool = False
    compared_removes: bool = False
    everything: bool = False

    def forbids(self, step: "Step") -> bool:
        """Whether this step must wait."""
        if step.kind == REMOVE:
            return self.everything or (self.compared_removes and step.cause in COMPARED)
        return self.everything or self.adds or (self.compared_adds and step.cause != PURCHASE)


@dataclass(frozen=True, slots=True)
class Step:
    """People to be told of in the same way and for the same reason."""

    kind: str
    cause: str
    ids: BitMap


@dataclass(frozen=True, slots=True)
class Plan:
    """Steps in the order in which they must go. `unchanged`: wanted and there, nothing to say."""

    steps: tuple[Step, ...]
    unchanged: int

    def count(self, kind: str, causes: frozenset[str] | None = None) -> int:
        """How many people the steps of a kind hold, or those of some causes only."""
        return sum(len(s.ids) for s in self.steps if s.kind == kind and (causes is None or s.cause in causes))

    def batches(self, size: int) -> Iterator[Step]:
        """The steps cut into calls."""
        for step in self.steps:
            yield from cut(step, size)


def plan(
    state: State,
    left: Mapping[str, BitMap] | None = None,
    entered: Mapping[str, BitMap] | None = None,
    stops: Stops = Stops(),
) -> Plan:
    """The next things to say. `left` and `entered`: for each event-caused reason the people whom it made leave or enter, where known.

    The steps are disjoint, and no one in flight is in any of them.
    """
    if stops.everything:
        return Plan((), len(state.intent & state.present))
    steps = [step for step in _removes(state, left or {}) if not stops.forbids(step)]
    steps += [step for step in _adds(state, entered or {}) if not stops.forbids(step)]
    return Plan(tuple(steps), len(state.intent & state.present))


def urgent(found: Plan) -> Plan:
    """What of a plan cannot wait for a sync: whom something that happened took out, and whom a purchase brought into suppression."""
    steps = [s for s in found.steps if (s.cause in EVENT_CAUSED if s.kind == REMOVE else s.cause == PURCHASE)]
    return Plan(tuple(steps), found.unchanged)


def still_due(state: State, kind: str, cause: str, ids: BitMap) -> BitMap:
    """Those of `ids` to whom this may still be said, as things stand now."""
    if cause == WITHDRAW:
        return _withdrawable(state) & ids
    due = _leaving(state) if kind == REMOVE else _entering(state)
    return due & ids


def cut(step: Step, size: int) -> Iterator[Step]:
    """A step in pieces of at most `size` people."""
    if len(step.ids) <= size:
        yield step
        return
    numbers = to_array(step.ids)
    for start in range(0, len(numbers), size):
        yield Step(step.kind, step.cause, from_sorted(numbers[start : start + size]))


def _leaving(state: State) -> BitMap:
    there = state.present | state.doubtful | state.due | state.lost | state.again
    open_still = state.waiting - state.present - state.doubtful - state.lost - state.due
    return there - state.intent - state.in_flight - state.refused - open_still


def _entering(state: State) -> BitMap:
    barred = state.rejected - state.retry
    new = state.intent - state.present - state.unknown - barred
    told_again = ((state.due | state.lost | state.again) & state.intent) - barred
    open_still = state.waiting - state.lost - state.due
    return (new | (told_again - open_still)) - state.in_flight - state.withdraw  # what is to be taken back goes first


def _withdrawable(state: State) -> BitMap:
    return (state.withdraw & state.intent) - state.in_flight - state.waiting


def _removes(state: State, left: Mapping[str, BitMap]) -> Iterator[Step]:
    rest = _leaving(state)
    by_cause = {WITHDRAW: _withdrawable(state)}
    for cause in (ERASURE, CONSENT, PURCHASE, RULE, IDENTITY):
        if cause in left:
            by_cause[cause] = rest & left[cause]
            rest = rest - by_cause[cause]
    by_cause[REASSERT] = rest & (state.due | state.lost) - state.present
    rest = rest - by_cause[REASSERT]
    by_cause[RESYNC] = rest & state.again - state.present - state.doubtful
    by_cause[DIFF] = rest - by_cause[RESYNC]
    for cause in REMOVAL_ORDER:
        if by_cause.get(cause):
            yield Step(REMOVE, cause, by_cause[cause])


def _adds(state: State, entered: Mapping[str, BitMap]) -> Iterator[Step]:
    rest = _entering(state)
    if not rest:
        return
    for cause, among in (
        (PURCHASE, entered.get(PURCHASE)),  # a suppression audience: they must not be shown another advertisement
        (REASSERT, state.due | state.lost),
        (RETRY, state.retry),
        (RESYNC, state.again),
    ):
        ids = rest & among if among else BitMap()
        if ids:
            yield Step(ADD, cause, ids)
            rest = rest - ids
    if rest:
        yield Step(ADD, DIFF, rest)


def may_swap(state: State, old: int, new: int) -> bool:
    """Whether a changed identity that carries the same identifiers here may take over its forerunner's place without a call.

    Not while anything is open about either: a late effect must then be put right by a call.
    """
    busy = (state.in_flight, state.due, state.waiting, state.again, state.withdraw, state.unknown, state.rejected)
    if any(old in some or new in some for some in busy):
        return False
    return old in state.present and old not in state.intent and new in state.intent and new not in state.present


def retry_at(kind: str, attempts: int, now: datetime) -> datetime | None:
    """When a refused row is tried again after so many attempts; None: not before a person or a new identifier.

    A removal is never given up.
    """
    if kind == REMOVE:
        return now + _REMOVE_RETRIES[min(attempts, len(_REMOVE_RETRIES)) - 1]
    return now + _ADD_RETRIES[attempts - 1] if attempts <= len(_ADD_RETRIES) else None


def over_limit(plan_: Plan, state: State, percent: int, floor: int) -> int:
    """How many removals there would be that no person's own act explains, if that is more than `percent` of who is there and more than `floor`; else 0."""
    leaving = plan_.count(REMOVE, LIMITED)
    there = len(state.present | state.doubtful)
    return leaving if leaving > floor and leaving * 100 > percent * there else 0


def sample(numbers: BitMap, percent: int) -> BitMap:
    """About so many percent, at least one, and the same people each time; a larger percentage holds the smaller one's."""
    if not numbers or percent >= 100:
        return numbers
    members, mixed = _mixed(numbers)
    chosen = members[mixed < _share(percent)]
    return from_sorted(chosen) if len(chosen) else from_sorted(members[[int(np.argmin(mixed))]])


def sampled(numbers: BitMap, percent: int) -> BitMap:
    """Those of `numbers` who are in such a sample, however many others there are; it may be nobody."""
    if not numbers or percent >= 100:
        return numbers
    members, mixed = _mixed(numbers)
    return from_sorted(members[mixed < _share(percent)])


def _mixed(numbers: BitMap) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.uint64]]:
    members = to_array(numbers)
    return members, (members.astype(np.uint64) * np.uint64(0x9E3779B1)) & np.uint64(0xFFFFFFFF)


def _share(percent: int) -> np.uint64:
    return np.uint64(percent * 2**32 // 100)
