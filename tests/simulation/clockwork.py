"""Virtual time and the processes that live in it. One process runs at a time and may lose the floor, be stopped or die at any point.

Nothing here knows what the processes do. A process is a greenlet: a kill unwinds it, and whatever its `finally` blocks still ask
of the world is refused, as a dead process asks nothing.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

from greenlet import getcurrent, greenlet

BEGINNING = datetime(2020, 1, 1, tzinfo=UTC)  # long ago: what a connector stamps by the real clock is then recent
MOST_STEPS = 20_000  # a schedule has hundreds, a long one a few thousand


class Killed(BaseException):
    """The process is dead. Not an Exception: nobody handles it."""


class Broken(BaseException):
    """Something that must hold does not; `rule` names it. Not an Exception either: the product must not handle it."""

    def __init__(self, rule: str, words: str) -> None:
        super().__init__(f"{rule}: {words}")
        self.rule = rule


@dataclass(eq=False, slots=True)
class Process:
    """`skew`: by how many seconds its machine's clock is ahead."""

    name: str
    machine: int
    number: int
    skew: float
    greenlet: Any
    wakes_at: float
    dead: bool = False
    over: bool = False
    stopped: bool = False
    claim: Any = None  # the job it holds, whose lease its heartbeat renews
    job: int | None = None
    operation: int | None = None  # the call that it last wrote ahead
    prepared_step: int = 0  # and when, by the step counter
    exposed: bool = False  # that call has not reached the platform yet
    lane: str = "bulk"
    late: bool = False  # stopped since it wrote its call ahead: it may have lost its lease and not know it


@dataclass(slots=True)
class Clockwork:
    """`events(process, where)` decides what befalls a process at a point; it returns nothing, or stops, kills, or calls `yield_`."""

    rng: Random
    events: Callable[["Clockwork", Process, str], None]
    t: float = 0.0
    offset: float = 0.0  # of the wall clock that all machines share, beside true time
    step: int = 0
    current: Process | None = None
    processes: list[Process] = field(default_factory=list)
    trace: list[str] = field(default_factory=list)
    made: int = 0
    raised: list[BaseException] = field(default_factory=list)
    _hub: Any = field(default_factory=getcurrent)

    # --- Time

    def now(self) -> datetime:
        """What the clock on the wall says, on the machine that has the floor. No two answers are the same."""
        self.t += 1e-6
        return BEGINNING + timedelta(seconds=self.wall())

    def wall(self) -> float:
        return self.t + self.offset + (self.current.skew if self.current is not None else 0.0)

    def epoch(self) -> float:
        """The platform's clock, which is right: seconds since 1970."""
        return BEGINNING.timestamp() + self.t

    def say(self, words: str) -> None:
        """A line of the trace."""
        who = self.current.name if self.current is not None else ""
        self.trace.append(f"{self.t:8.1f}  {who:4} {words}")

    # --- Inside a process

    def point(self, where: str) -> None:
        """Whatever may befall a process here does."""
        process = self.current
        if process is None:
            return
        if process.dead:
            raise Killed
        self.step += 1
        if self.step > MOST_STEPS:
            raise Broken("no end", f"{process.name} is still at {where} after {MOST_STEPS} steps")
        self.events(self, process, where)

    def alive(self) -> None:
        """A dead process does nothing any more."""
        if self.current is not None and self.current.dead:
            raise Killed

    def die(self, where: str) -> None:
        """kill −9."""
        assert self.current is not None
        self.say(f"killed at {where}")
        self.current.dead = True
        raise Killed

    def stop(self, seconds: float, where: str) -> None:
        """SIGSTOP, and SIGCONT so much later."""
        assert self.current is not None
        self.say(f"stopped for {seconds:.0f} s at {where}")
        self.current.stopped = self.current.late = True
        self._wait(seconds)
        self.current.stopped = False
        self.say("goes on")

    def yield_(self) -> None:
        """Let others go first."""
        self._wait(0.0)

    def sleep(self, seconds: float) -> None:
        """As long as asked or a little longer. Short naps are long here: a machine may be as slow as it likes."""
        process = self.current
        assert process is not None
        if process.dead:
            raise Killed
        self._wait(seconds if seconds >= 1 else self.rng.uniform(2, 8))
        self.point("wake")

    def elapse(self, seconds: float) -> None:
        """Time goes by while this process waits for somebody, and others run."""
        if self.current is not None:
            self.alive()
            self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        process = self.current
        assert process is not None
        process.wakes_at = self.t + max(0.0, seconds)
        self._hub.switch()

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What happens in the block is not the process's doing: no point in it counts."""
        process, self.current = self.current, None
        try:
            yield
        finally:
            self.current = process

    # --- In the hub

    def spawn(self, name: str, machine: int, skew: float, work: Callable[[], None], after: float = 0.0) -> Process:
        """A process that begins so many seconds from now."""
        self.made += 1
        process = Process(name, machine, self.made, skew, None, self.t + after)

        def run() -> None:
            try:
                work()
            except Killed:
                pass
            except BaseException as error:
                self.raised.append(error)
            process.over = True

        process.greenlet = greenlet(run, self._hub)
        self.processes.append(process)
        return process

    def ready(self) -> list[Process]:
        return [process for process in self.processes if process.wakes_at <= self.t]

    def resume(self, process: Process) -> None:
        """Give it the floor until it gives it back."""
        self.current = process
        process.greenlet.switch()
        self.current = None
        if process.over:
            self.processes.remove(process)
        if self.raised:
            raise self.raised.pop()

    def next_wake(self) -> float | None:
        return min((process.wakes_at for process in self.processes), default=None)

    def close(self) -> None:
        """End whoever is left, without a word in the database."""
        for process in list(self.processes):
            process.dead = True
            self.current = process
            if process.greenlet:
                process.greenlet.throw(Killed)
            self.current = None
        self.processes.clear()
        self.raised.clear()
