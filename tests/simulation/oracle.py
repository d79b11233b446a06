"""What must hold, judged from outside the ledger: by the platform's own member set, by the wire, and by what people did.

`settled` claims are compared at every step. A claim is settled when no call about the person is open and nothing is to be told
again: then being `present` must mean that the platform has what it was sent, and being absent that it has nothing of it.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db.models import Exists, OuterRef, Q
from pyroaring import BitMap

from audiences.bitmaps import unpack
from audiences.people import bulk
from destinations.delivery import ACTIVE
from destinations.models import Mapping, Operation, Rejection, Run
from destinations.sandbox.store import Audience
from tests.simulation.clockwork import Broken, Clockwork, Process
from tests.simulation.people import KINDS, People, Person, Value
from tests.simulation.platform import Pushed, World

LATE_ADD = 65.0  # seconds after which no add may leave for somebody who has left: a lease, and a little

FALSE_CLAIM, STALE_ADD, LATE, COUNTS, FENCE, OVERLAP, LEFT_IN, WRONG_END, UNRESOLVED = (
    "false claim",
    "add after exit",
    "late add",
    "counts of a call",
    "fence",
    "two calls at once",
    "left in",
    "wrong at the end",
    "unresolved",
)

_LEDGER = (
    "SELECT present, unknown, rejected, ever_sent, reassert, withdraw, refresh_id, bulk_fence, urgent_fence, base "
    "FROM destinations_ledger WHERE mapping_id = %s"
)
_OPERATIONS = "SELECT id, lane, fence, unsettled FROM destinations_operation WHERE mapping_id = %s AND (open OR id > %s) ORDER BY id"
_ALL = "SELECT id, kind, state, count, accepted, rejected FROM destinations_operation WHERE mapping_id = %s ORDER BY id"


@dataclass(slots=True)
class Oracle:
    """Watches one mapping."""

    clock: Clockwork
    people: People
    world: World
    mapping: Mapping
    audience: Audience
    counts: dict[int, tuple[set[int], int]] = field(
        default_factory=dict
    )  # refresh → whom the count found, as of which step
    kinds: tuple[str, ...] = ()
    dirty: bool = True
    last_operation: int = 0
    fences: dict[str, int] = field(default_factory=lambda: {"bulk": 0, "urgent": 0})
    holders: dict[tuple[str, int], str] = field(
        default_factory=dict
    )  # lane and fence → the process that prepared with it
    exits: dict[Value, tuple[int, float]] = field(
        default_factory=dict
    )  # step and time at which nobody wanted carried it any more
    wanted_values: set[Value] = field(default_factory=set)
    barred: dict[Value, set[int]] = field(
        default_factory=dict
    )  # profiles who left and took it with them, whoever else carries it
    took: set[int] = field(
        default_factory=set
    )  # profiles who at some time left like that; the ledger may hear of it late
    unnamed: set[Value] = field(default_factory=set)  # refused as adds by a platform that does not say which
    on_the_way: list[Process] = field(default_factory=list)  # whose requests are
    refused: dict[int, int] = field(default_factory=dict)  # operation → rows that the platform refused
    in_force: int | None = None

    # --- What people did

    def acted(self) -> None:
        """After every act: whose identifiers nobody wanted carries any more, or again."""
        self.took |= {person.no for person in self.people.persons.values() if self.people.vetoes(person)}
        now_wanted: set[Value] = set()
        for person in self.people.persons.values():
            if not self.people.told_out(person):
                now_wanted |= self.people.current(person)
        for value in self.wanted_values - now_wanted:
            self.exits[value] = (self.clock.step, self.clock.t)
        for value in now_wanted - self.wanted_values:
            self.exits.pop(value, None)
        self.wanted_values = now_wanted

    def leaves_for_good(self, person: Person) -> None:
        """By purchase, consent or erasure, out of an audience that they were told to: what they carry must go."""
        if person.identity is None or not self.people.wanted(person):
            return
        sql = "SELECT present FROM destinations_ledger WHERE mapping_id = %s"
        if person.identity in unpack(bulk.fetch(sql, [self.mapping.pk])[0][0]):
            for value in self.people.values(person.identity, self.kinds):
                self.barred.setdefault(value, set()).add(person.no)

    def comes_back(self, person: Person) -> None:
        for holders in self.barred.values():
            holders.discard(person.no)

    # --- What goes over the wire

    def sent(self, pushed: Pushed | None) -> None:
        """A request leaves a process."""
        process = self.clock.current
        if pushed is None or process is None:
            return
        for other in self.on_the_way:
            if other.lane == process.lane and not (other.late or process.late):
                raise Broken(OVERLAP, f"{process.name} calls while a call of {other.name}'s is on the way")
        self.on_the_way.append(process)
        if pushed.kind != "add":
            return
        for value in pushed.values & self.exits.keys():
            step, at = self.exits[value]
            if step < process.prepared_step:
                words = f"{short(value)} left at step {step}, and call {process.operation} was prepared after that"
                raise Broken(STALE_ADD, words)
            if self.clock.t - at > LATE_ADD:
                raise Broken(LATE, f"{short(value)} left {self.clock.t - at:.0f} s before this add was sent")

    def dealt(self, pushed: Pushed, refused: list[int], named: bool) -> None:
        """The platform has dealt with a push, and refused these rows of it."""
        process = self.clock.current
        assert process is not None
        self.on_the_way.remove(process)
        self.dirty = True
        if refused and process.operation is not None:
            self.refused[process.operation] = len(refused)
        if pushed.kind != "add" or named:
            return
        for place, row in enumerate(pushed.rows):
            if place in refused:
                self.unnamed |= row
            else:
                self.unnamed -= row

    # --- What the ledger says, against what the platform has

    def look(self) -> None:
        """At every step at which either may have changed."""
        if not self.dirty:
            return
        self.dirty, process = False, self.clock.current
        with self.clock.aside():
            row = bulk.fetch(_LEDGER, [self.mapping.pk])[0]
            operations = bulk.fetch(_OPERATIONS, [self.mapping.pk, self.last_operation])
        present, unknown, rejected, _, reassert, withdraw = (unpack(field) for field in row[:6])
        self._fences(row[7], row[8])
        self._operations(operations, process)
        self._count_in_force(row[6])
        busy = reassert | withdraw
        for *_, unsettled in operations:
            busy |= unpack(unsettled)
        self._claims(present, unknown, rejected, busy)

    def _claims(self, present: BitMap, unknown: BitMap, rejected: BitMap, busy: BitMap) -> None:
        held = self.world.held(self.audience)
        perhaps = present | unknown | busy
        for identity in self.people.owner:
            if identity in busy or identity in unknown:
                continue
            if identity in present:
                for value in self.people.values(identity, self.kinds) - held:
                    if value not in self.unnamed and not self._taken_by_another(identity, value, perhaps, busy):
                        raise Broken(FALSE_CLAIM, f"identity {identity} is said to be there, and {short(value)} is not")
            else:
                for value in self.people.values(identity) & held:
                    if not any(other in perhaps for other in self.people.carriers(value)):
                        raise Broken(FALSE_CLAIM, f"identity {identity} is said to be out, and {short(value)} is there")

    def _taken_by_another(self, identity: int, value: Value, perhaps: BitMap, busy: BitMap) -> bool:
        """Somebody else who carries it too was, or is being, removed in a way that takes it along."""
        own = self.people.owner[identity]
        for other in self.people.carriers(value):
            if other == identity or (other in perhaps and other not in busy):
                continue
            theirs = self.people.owner[other]
            if other in busy or theirs.no in self.took or not self.people.wanted(own) or own.identity != identity:
                return True
        return False

    def _fences(self, bulk_fence: int, urgent_fence: int) -> None:
        for lane, fence in (("bulk", bulk_fence), ("urgent", urgent_fence)):
            if fence < self.fences[lane]:
                raise Broken(FENCE, f"the {lane} fence fell from {self.fences[lane]} to {fence}")
            self.fences[lane] = fence

    def _operations(self, rows: list[tuple[Any, ...]], process: Process | None) -> None:
        for number, lane, fence, _ in rows:
            if number <= self.last_operation:
                continue
            self.last_operation = number
            if process is None:
                continue
            me = f"{process.name} ({process.number})"
            holder = self.holders.setdefault((lane, fence), me)
            if holder != me:
                raise Broken(FENCE, f"{holder} and {me} both prepared calls with {lane} fence {fence}")

    def _count_in_force(self, refresh: int | None) -> None:
        if refresh == self.in_force:
            return
        self.in_force = refresh
        found = self.counts.get(refresh or 0)
        if found is not None:
            for person in self.people.persons.values():
                person.missed = person.no not in found[0] and person.entered < found[1]
            self.acted()

    # --- At the end

    def calls(self) -> None:
        """accepted + rejected + unknown = sent, of every call."""
        with self.clock.aside():
            rows = bulk.fetch(_ALL, [self.mapping.pk])
        for number, kind, state, count, accepted, rejected in rows:
            words = f"call {number} ({kind}, {state}): {count} sent, {accepted} accepted, {rejected} rejected"
            if accepted < 0 or rejected < 0 or accepted + rejected > count:
                raise Broken(COUNTS, words)
            if state in ("settled", "submitted") and accepted + rejected != count:
                raise Broken(COUNTS, words)
            if state in ("prepared", "unknown") and accepted + rejected not in (0, count):
                raise Broken(COUNTS, words)
            if rejected < self.refused.get(number, 0) and state == "settled":
                raise Broken(COUNTS, f"{words}, and the platform had refused {self.refused[number]}")
            if state == "prepared":
                raise Broken(UNRESOLVED, words)

    def resolved(self, lately: timedelta) -> None:
        """Whatever a worker left behind has been seen to without anybody's asking; what fell due `lately` may still wait, and so
        may what the platform has refused since, or a later run could not say: that waits for the next count, or a hold's end."""
        with self.clock.aside():
            now = self.clock.now()
            behind = Operation.objects.filter(mapping=self.mapping, open=True)
            behind = behind.filter(Q(state="prepared") | Q(reassert_at__lt=now - lately))
            found = Run.objects.filter(mapping=self.mapping, state__in=("done", "partial"))
            behind = behind.exclude(Exists(found.filter(started_at__gte=OuterRef("reassert_at"))))
            refused = BitMap(Rejection.objects.filter(mapping=self.mapping).values_list("identity_no", flat=True))
            words = [
                f"call {number} is still {state}"
                for number, state, packed in behind.values_list("pk", "state", "unsettled")
                if unpack(packed) - refused
            ]
            runs = Run.objects.filter(mapping=self.mapping, state__in=ACTIVE[1:], started_at__lt=now - lately)
            words += [f"run {number} is still {state}" for number, state in runs.values_list("pk", "state")]
        if words:
            raise Broken(UNRESOLVED, "; ".join(words))

    def nobody_left_in(self, waiting: set[Value]) -> None:
        """After lease, settle and a look: whoever is out is out. `waiting`: removals that the platform refuses for now."""
        extra = self.world.held(self.audience) - self._may() - waiting
        if extra:
            raise Broken(LEFT_IN, ", ".join(sorted(map(short, extra))))

    def equal(self) -> None:
        """remote = intent, exactly."""
        if words := self.differences():
            raise Broken(WRONG_END, words)

    def differences(self) -> str:
        """What the platform has and should not, or lacks; empty: remote = intent."""
        held = self.world.held(self.audience)
        if extra := held - self._may():
            return f"there, and not wanted: {', '.join(sorted(map(short, extra)))}"
        if missing := self._must() - held - self.unnamed:
            return f"wanted, and not there: {', '.join(sorted(map(short, missing)))}"
        return ""

    def _may(self) -> set[Value]:
        wanted = self._wanted()
        return {value for value in wanted if not self.barred.get(value)}

    def _must(self) -> set[Value]:
        # Whoever came back and went again between two counts has never come back, as far as anybody can tell.
        left = {person.no for person in self.people.persons.values() if self.people.vetoes(person)} | self.took
        gone = [
            person for person in self.people.persons.values() if person.no in left and not self.people.wanted(person)
        ]
        taken: set[Value] = set()
        for person in gone:
            for identity in person.carries:
                taken |= self.people.values(identity, KINDS)
        return self._wanted() - taken

    def _wanted(self) -> set[Value]:
        found: set[Value] = set()
        for person in self.people.persons.values():
            if self.people.wanted(person):
                found |= self.people.current(person, self.kinds)
        return found


def short(value: Value) -> str:
    return f"{value[0]} {value[1][:8]}"
