"""One seed, one schedule: the weather is drawn, people act, processes work and die, then it is quiet and everything must come right."""

import dataclasses
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from random import Random
from typing import Any, NamedTuple
from unittest import mock

from django.db import connection, transaction
from pyroaring import BitMap

from audiences import clock as moments
from audiences import jobs
from audiences.bitmaps import pack, unpack
from audiences.models import Audience, Job, Membership, Refresh
from audiences.people.presently import Present
from destinations import changes, errands, fastlane, leases, ledger, remotes, tasks
from destinations.connectors.registry import CONNECTORS
from destinations.models import Account, Hold, Ledger, Mapping, Operation, Rejection, Run
from destinations.sandbox.journal import Dial
from destinations.sandbox.store import KINDS, stored
from destinations.sandbox.web import Response
from destinations.services import Refused, mappings, runs
from tests.simulation import stage as stages
from tests.simulation.acts import Acts
from tests.simulation.clockwork import BEGINNING, Broken, Clockwork, Process
from tests.simulation.oracle import Oracle, short
from tests.simulation.people import People, Value
from tests.simulation.platform import Fate, Pushed, Wire, World
from tests.simulation.stage import Stage
from tests.simulation.weather import Weather, fate

LOOK_EVERY = 90.0  # seconds between two looks of the sweeper
CADENCE = 900
MOST_RUNS = 20  # of syncs in a minute
POINTS = {"mid_plan", "after_prepare", "before_call", "after_call_before_settle", "after_settle", "wire", "answer"}
_TASKS = {
    mappings.TASK: tasks.sync,
    fastlane.TASK: tasks.read_changes,
    errands.TASK: tasks.deliver_urgently,
    "destinations.look": tasks.look,
    "destinations.receipts": tasks.fetch_receipts,
    remotes.LOOK: tasks.look_there,
}


class _Job(NamedTuple):
    number: int
    task: str
    queue: str
    due: datetime | None
    held: datetime | None


@dataclass(slots=True)
class Verdict:
    """How a schedule ended. `rule` is empty where all held."""

    seed: int
    weather: Weather
    rule: str
    words: str
    trace: list[str] = field(repr=False)
    steps: int
    calls: int

    def story(self) -> str:
        return "\n".join([f"seed {self.seed}: {self.weather}", *self.trace, f"=> {self.words or 'all held'}"])


class Schedule:
    """The state of one. `run()` plays it."""

    def __init__(self, stage: Stage, world: World, seed: int, **weather: Any) -> None:
        self.seed, self.stage, self.world = seed, stage, world
        self.rng = Random(seed)
        self.weather = Weather.drawn(self.rng, **weather)
        self.clock = Clockwork(self.rng, self.events)
        self.people = People(self.clock, self.weather.purpose, self.weather.kind)
        self.mapping = Mapping.objects.get(pk=stage.mappings[self.weather.kind, self.weather.purpose])
        self.settle = float(CONNECTORS[self.weather.kind].capabilities.settle_seconds)
        self.quiet = False
        self.acts_left, self.kills, self.stops = self.weather.acts, self.weather.kills, self.weather.stops
        self.next_act = 0.0
        self.slots = {"w1": 0.0, "w2": 0.0, "u1": 0.0, "u2": 0.0}  # worker → from when on it may begin something
        self.jobs: list[_Job] | None = None
        self.reader: Process | None = None  # of the fast lane, while it waits for something to happen
        self.calls = 0
        self.runs: list[float] = []  # when the latest began
        self.poison: Value | None = None

    # --- Its course

    def run(self) -> Verdict:
        rule = words = ""
        with self._prepared():
            try:
                self._play()
            except Broken as broken:
                rule, words = broken.rule, str(broken)
            except Exception as error:  # told like everything else that must not be; another process could not read it
                rule, words = type(error).__name__, traceback.format_exc()
            finally:
                self.clock.close()
        return Verdict(self.seed, self.weather, rule, words, self.clock.trace, self.clock.step, self.calls)

    @contextmanager
    def _prepared(self) -> Iterator[None]:
        weather, versions = self.weather, self.stage.versions[self.weather.purpose]
        stages.clear(self.stage, self.mapping, versions[0], list(weather.identifiers), CADENCE)
        audience = self.world.begin(self.clock, weather.kind, stages.ACCOUNT, self.stage.descriptions[self.mapping.pk])
        Mapping.objects.filter(pk=self.mapping.pk).update(remote_id=audience.id, seen_at=BEGINNING)
        self.oracle = Oracle(self.clock, self.people, self.world, self.mapping, audience, kinds=weather.identifiers)
        self.actors = Acts(
            self.clock, weather, self.people, self.oracle, self.mapping, versions, self.finished_count, self._by_hand
        )
        self.wire = Wire(self.world, self.fate, self.oracle.sent, self.dealt)
        connector = CONNECTORS[weather.kind]
        small = dataclasses.replace(connector.capabilities, batch_size=weather.batch, calls_per_minute=weather.rate)
        with stages.driven(self.stage, self.clock, self), mock.patch.object(connector, "capabilities", small):
            self.people.begin(weather.people, weather.sharing)
            if weather.begun:
                self._as_if_synced()
            self.oracle.acted()
            for task, key, every, needed in (
                (mappings.TASK, self.mapping.pk, CADENCE, True),
                ("destinations.look", "", LOOK_EVERY, True),
                ("destinations.receipts", "", LOOK_EVERY / 2, weather.kind == "google"),
                (fastlane.TASK, "", LOOK_EVERY, weather.lane),
            ):
                if needed:
                    queue = "urgent" if task == fastlane.TASK else "sync"
                    jobs.keep_doing(task, key, every=timedelta(seconds=every), queue=queue)
            yield

    def _as_if_synced(self) -> None:
        """An earlier sync has told everybody."""
        wanted = [person for person in self.people.persons.values() if self.people.wanted(person)]
        refresh = self.finished_count(Refresh.Cause.SYNC)
        rows = [
            [
                (KINDS.index(kind), stored(value))
                for kind, value in sorted(self.people.current(one, self.weather.identifiers))
            ]
            for one in wanted
        ]
        self.world.store.add(self.oracle.audience, rows)
        ids = pack(BitMap(person.identity for person in wanted))
        Ledger.objects.filter(mapping=self.mapping).update(
            refresh=refresh, base=ids, present=ids, ever_sent=ids, change_seq=refresh.change_seq
        )

    def _play(self) -> None:
        self.next_act = self.rng.expovariate(1 / self.weather.act_every)
        while self.acts_left > 0:
            self._until(self.next_act)
        self._until(self.clock.t + self.rng.uniform(0, 60))
        self._become_quiet()
        patience = leases.LEASE.total_seconds() + 2 * self.settle + 2 * LOOK_EVERY
        self._rest(patience, asked=False)
        self.oracle.resolved(timedelta(seconds=2 * LOOK_EVERY))
        self._ask_for_a_sync()
        self._rest(patience)
        self._look()
        self.oracle.nobody_left_in(self._refused_removals())
        self._cure(patience)
        self._look()
        self.oracle.calls()
        self.oracle.equal()

    def _rest(self, patience: float, *, asked: bool = True) -> None:
        """So many seconds in which nobody disturbs; less where all is said, as then nothing happens. One in ten sits it out.
        Where nobody has asked for a sync, it is enough that no call is open."""
        end = self.clock.t + patience
        while self.clock.t < end:
            self._until(min(end, self.clock.t + LOOK_EVERY / 3))
            if self.seed % 10 and self._all_is_said() and not (asked and self.oracle.differences()):
                return

    def _all_is_said(self) -> bool:
        busy = any(process is not self.reader for process in self.clock.processes)
        if busy or self.world.next_late() is not None or (self.weather.lane and self.reader is None):
            return False
        if any(job.task == errands.TASK and (job.due or job.held) for job in self._jobs()):
            return False
        under_way = Run.objects.filter(state__in=(*runs.ACTIVE, *runs.OPEN))
        return not Operation.objects.filter(open=True).exists() and not under_way.exists()

    def _become_quiet(self) -> None:
        """No more faults. Whoever was stopped goes on, and what is on its way lands."""
        self.quiet = True
        self.clock.say("— quiet —")
        for process in self.clock.processes:
            process.wakes_at = min(process.wakes_at, self.clock.t + 45)
        self.slots = {name: min(until, self.clock.t + 20) for name, until in self.slots.items()}
        self._unblock()
        Hold.objects.filter(mapping=self.mapping).delete()
        paused = Account.objects.filter(pk=self.mapping.destination.account_id).values_list("paused_until", flat=True)[
            0
        ]
        moments_ = [
            self.clock.t,
            self.world.next_late() or 0.0,
            *(process.wakes_at for process in self.clock.processes),
        ]
        if paused is not None:
            moments_.append(self._seconds(paused))
        self._until(max(moments_))
        self._unblock()  # by an answer that was on its way

    def _unblock(self) -> None:
        Mapping.objects.filter(pk=self.mapping.pk).update(state="live", blocked_reason="", state_until=None, lost="")

    def _ask_for_a_sync(self) -> None:
        self.clock.say("a sync is asked for")
        runs.request(actor=None, mapping=Mapping.objects.get(pk=self.mapping.pk))

    def _look(self) -> None:
        self.oracle.dirty = True
        self.oracle.look()

    def _refused_removals(self) -> set[Value]:
        """Removals that the platform refuses for now, and says so: they are tried again, later."""
        found: set[Value] = set()
        refused = Rejection.objects.filter(mapping=self.mapping, kind="remove").values_list("identity_no", flat=True)
        unsure = Operation.objects.filter(mapping=self.mapping, kind="remove", state="settled", open=True)
        for identity in [
            *refused,
            *(one for packed in unsure.values_list("unsettled", flat=True) for one in unpack(packed)),
        ]:
            found |= self.people.values(identity)
        return found

    def _cure(self, patience: float) -> None:
        """What was refused is tried again at once, and what was put off for an hour is waited for."""
        for _ in range(4):
            again = Operation.objects.filter(mapping=self.mapping, open=True).values_list("reassert_at", flat=True)
            moments_ = [moment for moment in again if moment is not None]
            rejected = ledger.forget_rejections(self.mapping.pk, now=self.clock.now())
            if not moments_ and not rejected:
                return
            if moments_:
                self._until(max(self.clock.t, self._seconds(max(moments_)) + 1))
            self._ask_for_a_sync()
            self._rest(patience)

    # --- Turns: whoever is ready runs; where nobody is, time goes on

    def _until(self, end: float) -> None:
        clock = self.clock
        while True:
            self._start_what_is_due()
            if ready := clock.ready():
                process = ready[0] if len(ready) == 1 else self.rng.choice(ready)
                clock.resume(process)
                if process.over:
                    self._over(process)
                self.oracle.look()
                continue
            moment = self._next()
            if moment > end:
                clock.t = max(clock.t, end)
                return
            clock.t = max(clock.t, moment)
            if self.world.apply_late():
                clock.say("a late effect lands")
                self._look()
            if not self.quiet and clock.t >= self.next_act:
                self._act()
                if self.acts_left <= 0:
                    return

    def _next(self) -> float:
        """When something happens next."""
        moments_ = [self.clock.next_wake(), self.world.next_late(), self._next_job()]
        if not self.quiet and self.acts_left > 0:
            moments_.append(self.next_act)
        return min(moment for moment in moments_ if moment is not None)

    def _act(self) -> None:
        self.acts_left -= 1
        self.next_act = self.clock.t + self.rng.expovariate(1 / self.weather.act_every)
        self.actors.act()

    def _start_what_is_due(self) -> None:
        free = {
            queue: [
                n for n, since in self.slots.items() if n[0] == queue[0].replace("s", "w") and since <= self.clock.t
            ]
            for queue in ("sync", "urgent")
        }
        if not any(free.values()):
            return
        now, at_it = self.clock.now(), {process.job for process in self.clock.processes if not process.stopped}
        for job in self._jobs():
            if job.number in at_it or not (
                job.due is not None and job.due <= now if job.held is None else job.held < now
            ):
                continue
            # A hint may come twice: whoever claims the row first has the job.
            hints = 2 if not self.quiet and self.rng.random() < 0.1 else 1
            for name in free[job.queue][:hints]:
                self._start(name, job.number, job.task)
            free[job.queue] = free[job.queue][hints:]

    def _start(self, name: str, number: int, task: str) -> None:
        self._beat()
        self.slots[name] = float("inf")
        skew = self.rng.uniform(-1, 1) * self.weather.skew
        delay = 0.0 if self.quiet else self.rng.uniform(0, 1)
        process = self.clock.spawn(name, self._machine(name), skew, lambda: _TASKS[task](number), after=delay)
        process.job, process.lane = number, "urgent" if task == errands.TASK else "bulk"

    def _by_hand(self) -> None:
        """`manage.py sync`, in a process of its own."""

        def command() -> None:
            try:
                run = runs.request(actor=None, mapping=Mapping.objects.get(pk=self.mapping.pk), start=False)
            except Refused:
                return
            runs.run_to_end(run, patience=timedelta(seconds=40), sleep=self.clock.sleep)

        name = f"c{self.clock.made}"
        self.clock.spawn(name, self._machine(name), 0.0, command)

    def _machine(self, name: str) -> int:
        return 1 if self.weather.machines == 1 or name == "w1" else 2

    def _over(self, process: Process) -> None:
        if process.name in self.slots:
            self.slots[process.name] = self.clock.t + (self.rng.uniform(1, 20) if process.dead else 0.0)

    def _beat(self) -> None:
        """The heartbeats of all who live and are not stopped, whenever it matters: before somebody looks at the leases of jobs."""
        for process in self.clock.processes:
            if process.claim is not None and not process.stopped and not process.dead:
                try:
                    process.claim.prolong()
                except jobs.LeaseLost:
                    process.claim = None

    def _jobs(self) -> list[_Job]:
        if self.jobs is None:
            rows = Job.objects.order_by("pk").values_list("pk", "task", "queue", "due_at", "lease_until")
            self.jobs = [_Job(*row) for row in rows]
        return self.jobs

    def _next_job(self) -> float | None:
        """When a job can next be begun by a worker of its queue."""
        at_it = {process.job for process in self.clock.processes if not process.stopped}
        found = []
        for job in self._jobs():
            free = min(since for name, since in self.slots.items() if (name[0] == "u") == (job.queue == "urgent"))
            if (moment := job.held or job.due) is not None and job.number not in at_it and free < float("inf"):
                found.append(max(free, self._seconds(moment) + (0.001 if job.held else 0.0)))
        return min(found, default=None)

    def _seconds(self, moment: datetime) -> float:
        """In true time, when the wall clock will say so."""
        return (moment - BEGINNING).total_seconds() - self.clock.offset

    # --- What befalls a process at a point

    def events(self, clock: Clockwork, process: Process, where: str) -> None:
        inside = connection.in_atomic_block
        if not inside and self.oracle.dirty:
            self.oracle.look()
        if where == "after_prepare":
            process.operation, process.prepared_step = self.oracle.last_operation, clock.step
            process.exposed, process.late = True, False
        if self.quiet:
            return
        weather, chance, named = self.weather, self.rng.random(), where in POINTS
        if self.kills > 0:
            if chance < weather.kill * (6 if named else 0.3 if inside else 1):
                self.kills -= 1
                clock.die(where)
            chance = self.rng.random()
        if inside:
            return
        if self.stops > 0 and chance < weather.stop * (6 if named else 1):
            self.stops -= 1
            clock.stop(self.rng.choice((self.rng.uniform(2, 30), self.rng.uniform(50, 300))), where)
            return
        chance = self.rng.random()
        if self.acts_left > 0 and chance < weather.act * (3 if named else 1):
            with clock.aside():
                self._act()
        elif chance > 1 - weather.step:
            self.actors.step_clock()
        elif self.rng.random() < weather.switch:
            clock.yield_()

    # --- Seams

    def wrote(self, sql: str) -> None:
        """A statement is about to change rows."""
        if sql.startswith('INSERT INTO "destinations_run"'):
            self.runs = [since for since in self.runs if since > self.clock.t - 60] + [self.clock.t]
            if len(self.runs) > MOST_RUNS:
                raise Broken("storm", f"{len(self.runs)} syncs within a minute")
        if "audiences_job" in sql:
            self.jobs = None
        elif "audiences_changelog" in sql and self.reader is not None:
            delay = self.rng.uniform(0.02, 0.1 if self.quiet else 2.0)
            self.reader.wakes_at = min(self.reader.wakes_at, self.clock.t + delay)
        elif "destinations_ledger" in sql or "destinations_operation" in sql:
            self.oracle.dirty = True

    def fate(self, op: str, pushed: Pushed | None) -> Fate:
        self.calls += 1
        if self.quiet:
            return 0.2, 0.2, None
        there, back, dial = fate(self.weather, self.rng, op, pushed, self.settle)
        if pushed is not None and pushed.kind == "add":
            if self.poison is None and any(name == "poison" for name, _ in self.weather.fates):
                self.poison = self.rng.choice(sorted(pushed.values))
            if self.poison in pushed.values:
                dial = Dial(0, "poison", {"values": [self.poison[1]]})
        return there, back, dial

    def dealt(self, pushed: Pushed | None, dial: Dial | None, answer: Response | None) -> None:
        what = dial.action if dial else ""
        if pushed is None:
            if what:
                self.clock.say(f"a question meets {what}")
            return
        process = self.clock.current
        assert process is not None
        process.exposed = False
        values = " + ".join(sorted("/".join(sorted(map(short, row))) for row in pushed.rows))
        met = f", {what}" if what else ""
        self.clock.say(
            f"{pushed.kind} {values}{met}: {answer.status if answer else 'no answer'} (call {process.operation})"
        )
        refused, named = [], self.weather.kind == "openlist"
        if what == "partial" and answer is not None and dial is not None:
            refused = [place for place in dial.params["rows"] if place < len(pushed.rows)]
        self.oracle.dealt(pushed, refused, named)

    def nap(self, _: float) -> None:
        """The fast lane's sleep between two looks: until something has happened."""
        process = self.clock.current
        assert process is not None
        self.reader = process
        try:
            self.clock.elapse(LOOK_EVERY)
        finally:
            self.reader = None
        self.clock.point("look")

    def present(self, since: dict[int, int], _: Any) -> Present:
        """In the place of presently.people: whether the rule takes somebody in, now and before what has just come in."""
        known = self.people.persons
        now = {number: self.people.found(known[number]) for number in since}
        before = {number: self.people.found_before(known[number], since[number]) for number in since}
        return Present(now, before, moments.to_us(self.clock.now()))  # type: ignore[arg-type]

    def count(self, audiences: Sequence[Audience], *, cause: str, **_: Any) -> dict[str, Refresh]:
        """In the place of refreshes.refresh: whom the rule finds at one pin, after the while that a count takes."""
        audience = audiences[0]
        with self.clock.aside():
            members, counting = self._pin(cause)
        self.clock.elapse(0.1 if self.quiet else self.rng.uniform(0.1, 6))
        self.clock.point("counted")
        if not self.quiet and self.rng.random() < 0.02:
            Refresh.objects.filter(pk=counting.pk).update(state=Refresh.State.FAILED, error="It broke off.")
            counting.state, counting.error = Refresh.State.FAILED, "It broke off."
            return {audience.key: counting}
        return {audience.key: self._record(counting, members)}

    def finished_count(self, cause: str) -> Refresh:
        """A count that somebody else has made and kept, in no time."""
        members, counting = self._pin(cause)
        return self._record(counting, members)

    def _pin(self, cause: str) -> tuple[set[int], Refresh]:
        counting = Refresh.objects.create(
            audience_id=self.mapping.audience_id,
            version_id=self.stage.versions[self.weather.purpose][self.people.version - 1],
            cause=cause,
            as_of_us=moments.to_us(self.clock.now()),
            hot=self.clock.step,
            change_seq=changes.final_mark(),
        )
        return self.people.members(), counting

    def _record(self, counting: Refresh, members: set[int]) -> Refresh:
        """As refreshes._record: what is newer stays, and what was merged meanwhile is one."""
        with transaction.atomic():
            version = Audience.objects.values_list("live_version_id", flat=True).get(pk=counting.audience_id)
            before = Membership.objects.filter(audience_id=counting.audience_id).select_related("refresh").first()
            if before is not None and (before.refresh.hot, before.refresh.pk) > (counting.hot, counting.pk):
                counting.delete()
                return before.refresh
            if version != counting.version_id:
                counting.delete()
                counting.state, counting.error = Refresh.State.FAILED, "Another version went live meanwhile."
                return counting
            merged = [(one.no, one.became) for one in self.people.persons.values() if one.became]
            for old, survivor in merged:
                if old in members:
                    members = (members - {old}) | {survivor}
            counting.state, counting.count = Refresh.State.DONE, len(members)
            counting.save(update_fields=["state", "count"])
            values = {"refresh": counting, "members": pack(BitMap(members)), "count": len(members)}
            if before is None:
                Membership.objects.create(audience_id=counting.audience_id, **values)
            else:
                Membership.objects.filter(pk=before.pk).update(**values)
        self.oracle.counts[counting.pk] = (members, counting.hot)
        return counting


def play(stage: Stage, world: World, seed: int, **weather: Any) -> Verdict:
    """One schedule."""
    return Schedule(stage, world, seed, **weather).run()
