"""How preparing a call, and its outcome, change what is believed of a platform. Pure: rows and locks are ledger.py's.

A call's people are unknown from the moment it is prepared: from there on we do not know. An outcome that stays unknown
is an obligation: when its settle time has passed, those people are told again by what is wanted then. It is discharged
only by a call that was prepared after it fell due; one prepared earlier may have been overtaken by its late effect.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from pyroaring import BitMap

from destinations.plan import ADD, PURCHASE, REASSERT, RESYNC, WITHDRAW, State

# Adds of people who may be there from before. A purchase's are among them: what is urgent does not wait to be told again.
_PERHAPS_THERE = frozenset({REASSERT, RESYNC, PURCHASE})
PREPARED, SUBMITTED, SETTLED, UNKNOWN, UNAPPLIED = "prepared", "submitted", "settled", "unknown", "unapplied"


@dataclass(slots=True)
class Call:
    """An operation that is still open: who in it has not been settled, and from when on they are told again."""

    id: int
    kind: str
    cause: str
    lane: str
    fence: int
    state: str
    unsettled: BitMap
    prepared_at: datetime
    reassert_at: datetime | None = None
    lost: bool = False  # its worker died: nobody saw the answer
    changed: bool = False


@dataclass(slots=True)
class Book:
    """What one platform is believed to hold for one mapping. Methods change it in place; `changed` names the fields touched."""

    present: BitMap = field(default_factory=BitMap)
    unknown: BitMap = field(default_factory=BitMap)
    rejected: BitMap = field(default_factory=BitMap)
    ever_sent: BitMap = field(default_factory=BitMap)
    reassert: BitMap = field(default_factory=BitMap)
    withdraw: BitMap = field(default_factory=BitMap)
    vetoed: BitMap = field(default_factory=BitMap)
    reassert_since: datetime | None = None
    calls: list[Call] = field(default_factory=list)  # open ones, oldest first
    changed: set[str] = field(default_factory=set)

    def state(self, intent: BitMap, now: datetime, *, retry: BitMap, refused: BitMap) -> State:
        """What plan.py works on."""
        in_flight, due, waiting, lost, doubtful = BitMap(), BitMap(), BitMap(), BitMap(), BitMap()
        for call in self.calls:
            if call.kind == ADD:
                doubtful |= call.unsettled
            else:
                doubtful -= call.unsettled
            if call.state == PREPARED:
                in_flight |= call.unsettled
            elif call.reassert_at is not None:
                if call.reassert_at <= now:
                    due |= call.unsettled
                else:
                    waiting |= call.unsettled
                lost = lost | call.unsettled if call.lost else lost - call.unsettled
        return State(
            intent=intent,
            present=self.present,
            unknown=self.unknown,
            rejected=self.rejected,
            in_flight=in_flight,
            due=due,
            waiting=waiting,
            lost=lost & self.unknown,
            doubtful=doubtful & self.unknown,
            retry=retry,
            refused=refused,
            again=self.reassert,
            withdraw=self.withdraw,
        )

    def prepare(self, call: Call, *, veto: bool) -> None:
        """Before the call is made: its people become unknown. `veto`: what they carry may not be sent for anyone else."""
        ids = call.unsettled
        self._set(present=self.present - ids, rejected=self.rejected - ids, unknown=self.unknown | ids)
        if call.kind == ADD:
            self._set(ever_sent=self.ever_sent | ids, vetoed=self.vetoed - ids)
        elif veto:
            self._set(vetoed=self.vetoed | ids)
        self.calls.append(call)

    def accept(self, call: Call, rejected: BitMap, unsure: BitMap, *, pending: bool, again: datetime) -> None:
        """The platform took the call, less `rejected`, and of a removal's `unsure` less some that it does not name. `pending`: a receipt is still to come, and may take some of it back.

        Whoever is refused while an earlier call about them is open may be there, or gone, by that one: that stays unknown, and is
        asked anew at `again`.
        """
        ids, good = call.unsettled, call.unsettled - rejected
        told_before = BitMap() if call.cause == WITHDRAW else self._told_before(call)  # those are told once more anyway
        doubt = (ids & rejected & told_before) | unsure
        late = self._may_land_after(call)
        if call.kind == ADD:
            self._set(present=self.present | good, rejected=self.rejected | ((ids & rejected) - doubt))
            self._set(unknown=self.unknown - (ids - doubt))
        elif (
            call.cause == WITHDRAW
        ):  # they are still in `reassert`, so they stay unknown until they have been added again
            self._set(withdraw=self.withdraw - (good - unsure - late))
        else:
            self._set(present=self.present | ((ids & rejected) - doubt), unknown=self.unknown - (ids - doubt))
            self._set(withdraw=self.withdraw - (good - late))
        self._discharge(call, ids)
        call.state, call.changed = (SUBMITTED if pending else SETTLED), True
        call.unsettled = good | doubt if pending else doubt
        call.reassert_at = again if doubt and not pending else None

    def lose_track(self, call: Call, now: datetime, settle: timedelta) -> None:
        """The outcome is not known: told again, by what is wanted then, when a late effect can no longer land."""
        self._discharge(call, call.unsettled)
        call.state, call.changed = UNKNOWN, True
        call.reassert_at = now + settle

    def take_back(self, call: Call, refused_before: BitMap) -> None:
        """Known not to have been applied: everyone is where they were. `refused_before` have a rejection on record."""
        bound = self.reassert | self.withdraw
        for other in self.calls:
            if other is not call and other.state != SUBMITTED:
                bound = bound | other.unsettled
        free = call.unsettled - bound  # the others stay unknown: an earlier call about them is open
        self._set(unknown=self.unknown - free)
        if call.kind == ADD:
            self._set(rejected=self.rejected | (free & refused_before))
        else:
            self._set(present=self.present | free)
        call.state, call.changed, call.unsettled = UNAPPLIED, True, BitMap()

    def refuse(self, kind: str, ids: BitMap) -> None:
        """Of a call that was taken back, these rows are bad: no more adds of them before their time."""
        if kind == ADD:
            self._set(rejected=self.rejected | (ids - self.present - self.unknown))

    def abandon(self, lane: str, fence: int, now: datetime, settle: timedelta) -> int:
        """Calls that older holders of the lane's lease left in flight: nobody will bring their answer. How many."""
        left = [call for call in self.calls if call.state == PREPARED and call.lane == lane and call.fence < fence]
        for call in left:
            call.state, call.lost, call.changed = UNKNOWN, True, True
            call.reassert_at = now + settle
        return len(left)

    def receive(
        self, call: Call, rejected: BitMap, unsure: BitMap, later: BitMap, *, now: datetime, again: datetime
    ) -> None:
        """A submitted call's receipt. Whoever has been told something else since (`later`: in calls made after it) is told
        that again, because the platform may have taken the two in either order; a removal's `unsure` from `again` on."""
        ids = call.unsettled
        bad, good = ids & rejected, ids - rejected
        if call.kind == ADD:
            doubt = bad if call.cause in _PERHAPS_THERE else bad & later
            overtaken = (good - self.present) | doubt
            refused = bad - doubt
            self._set(present=self.present - bad, rejected=self.rejected | refused)
            self._set(unknown=(self.unknown - refused) | doubt)
        else:
            overtaken = ids & (self.present | self.unknown)
            self._set(present=self.present | (bad - self.unknown))
            self._set(unknown=self.unknown | (unsure - self.present))
        self._set(rejected=self.rejected - self.present - self.unknown)
        call.state, call.changed, call.unsettled = SETTLED, True, overtaken | unsure
        call.reassert_at = now if overtaken else again if unsure else None

    def disown(self, call: Call, at: datetime) -> None:
        """A submitted call came to nothing after all, or its receipt never came: told again from `at` on."""
        ids = call.unsettled
        self._set(present=self.present - ids, rejected=self.rejected - ids, unknown=self.unknown | ids)
        call.state, call.changed, call.reassert_at = UNKNOWN, True, at

    def swap(self, old: int, new: int) -> None:
        """A changed identity with the same identifiers here takes its forerunner's place."""
        self._set(present=(self.present - BitMap([old])) | BitMap([new]), ever_sent=self.ever_sent | BitMap([new]))

    def tell_again(self, ids: BitMap, now: datetime, *, uncertain: BitMap) -> None:
        """These are told again by intent, whatever was said. `uncertain`: of them nothing is known any more."""
        self._set(reassert=self.reassert | ids, rejected=self.rejected - ids)
        self._set(present=self.present - uncertain, unknown=self.unknown | uncertain)
        self.reassert_since = now

    def pardon(self, ids: BitMap) -> None:
        """What these carried may be sent for others again."""
        self._set(vetoed=self.vetoed - ids)

    def forget(self) -> None:
        """The remote audience is no more: nobody is there, and no call about it matters. Vetoes stand: they are about people."""
        nobody = dict.fromkeys(("present", "unknown", "rejected", "ever_sent", "reassert", "withdraw"), BitMap())
        self._set(**nobody)
        self.reassert_since = None
        self.calls.clear()

    def check(self) -> None:
        """The invariants. A breach is a bug, and must not be written."""
        assert not self.present & self.unknown, "present and unknown overlap"
        assert not self.present & self.rejected, "present and rejected overlap"
        assert not self.unknown & self.rejected, "unknown and rejected overlap"
        bound = BitMap(self.reassert)
        for call in self.calls:
            bound |= call.unsettled
        assert self.unknown <= bound, "unknown, with no call to settle it"

    def _told_before(self, call: Call) -> BitMap:
        """Of whom something else is open, or who are told again whatever was said."""
        return self.reassert.union(*(other.unsettled for other in self.calls if other is not call))

    def _may_land_after(self, call: Call) -> BitMap:
        """Whom an earlier call may still reach after this one, with kinds that are being taken back: they are not through with that."""
        return BitMap().union(
            *(o.unsettled for o in self.calls if o is not call and o.reassert_at and o.reassert_at > call.prepared_at)
        )

    def _discharge(self, call: Call, ids: BitMap) -> None:
        """Obligations that had fallen due before this call was prepared are met by it, or taken over by it."""
        for other in self.calls:
            if other is call or other.reassert_at is None or other.reassert_at > call.prepared_at:
                continue
            met = other.unsettled & ids
            if met and call.cause != WITHDRAW:
                other.unsettled, other.changed = other.unsettled - met, True
        if call.cause != WITHDRAW and self.reassert and self.reassert_since and self.reassert_since < call.prepared_at:
            self._set(reassert=self.reassert - ids)

    def _set(self, **fields: BitMap) -> None:
        for name, value in fields.items():
            setattr(self, name, value)
            self.changed.add(name)
