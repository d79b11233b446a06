"""Counts that may be broken off: between two statements, between two batches of rows, and in the middle of a statement."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_EVERY = 0.05  # seconds between two attempts to interrupt: one that comes before its statement has begun is lost


class Stopped(Exception):
    """The count was broken off; the words say why."""


class Stop:
    """Passed to a count by whoever may want it broken off. Safe to share by threads."""

    def __init__(self) -> None:
        self._why = ""
        self._lock = threading.Lock()
        self._breakers: set[Callable[[], object]] = set()

    def now(self, why: str) -> None:
        """Nothing more is asked, and what is being asked is interrupted. The first reason stays."""
        with self._lock:
            self._why = self._why or why
            for interrupt in self._breakers:
                interrupt()

    def check(self) -> None:
        """Raises Stopped if it was told to stop."""
        if self._why:
            raise Stopped(self._why)

    @contextmanager
    def breaking(self, interrupt: Callable[[], object]) -> Iterator[None]:
        """What runs inside can be interrupted so; if it was, the error it raises becomes Stopped."""
        self.check()
        with self._lock:
            self._breakers.add(interrupt)
        try:
            yield
        except Exception as error:
            if self._why:
                raise Stopped(self._why) from error
            raise
        finally:
            with self._lock:
                self._breakers.discard(interrupt)

    @contextmanager
    def after(self, seconds: float, why: str) -> Iterator[None]:
        """What runs inside is told to stop when it has taken so long, and again until it has."""
        over = threading.Event()

        def watch() -> None:
            pause = seconds
            while not over.wait(pause):
                self.now(why)
                pause = _EVERY

        threading.Thread(target=watch, daemon=True, name="patience").start()
        try:
            yield
        finally:
            over.set()
