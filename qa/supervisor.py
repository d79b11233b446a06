"""Starts the processes of a deployment and keeps them running. What they do is theirs."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

MANAGE = [sys.executable, "manage.py"]
GRACE = 20.0  # seconds between asking a process to stop and making it


@dataclass(slots=True)
class Child:
    name: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    quick_deaths: int = 0

    def start(self) -> None:
        self.started = time.monotonic()
        self.process = subprocess.Popen(self.command, start_new_session=True)  # noqa: S603 (commands are fixed, below)


@dataclass(slots=True)
class Supervisor:
    """Starts each child, starts it again when it dies, and stops them all on SIGTERM, SIGINT or its own parent's end."""

    children: list[Child] = field(default_factory=list)
    say: Callable[[str], None] = print
    stopping: bool = False

    def run(self) -> int:
        """Until stopped: 0, or 1 when a child keeps dying at once."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._asked_to_stop)
        for child in self.children:
            child.start()
        parent, failed = os.getppid(), 0
        while not self.stopping and not failed:
            time.sleep(0.2)
            if os.getppid() != parent and os.environ.get("STOP_WITH_PARENT"):
                break
            failed = self._look_after()
        self._stop_all()
        return failed

    def _look_after(self) -> int:
        for child in self.children:
            assert child.process
            code = child.process.poll()
            if code is None or self.stopping:
                continue
            child.quick_deaths = child.quick_deaths + 1 if time.monotonic() - child.started < 5 else 0
            if child.quick_deaths >= 5:
                self.say(
                    f"{child.name} ended five times in a row within seconds (code {code}); giving up. Its messages are above."
                )
                return 1
            self.say(f"{child.name} ended with code {code}; starting it again.")
            time.sleep(min(0.2 * 2**child.quick_deaths, 3))
            child.start()
        return 0

    def _asked_to_stop(self, *_: object) -> None:
        self.stopping = True

    def _stop_all(self) -> None:
        running = [child.process for child in self.children if child.process and child.process.poll() is None]
        for process in running:
            process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + GRACE
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
