"""DuckDB inside this process as an engine: its doors, its settings, and a lake whose files may go. How leaves are answered is asking.py's."""

import contextlib
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, nullcontext
from functools import partial
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa
from pyroaring import BitMap

from audiences.clock import MINUTE
from audiences.people import lake
from audiences.people.engines import facts, functions, histories
from audiences.people.engines.asking import Asking
from audiences.people.engines.base import EVERYTHING, EventFacts, Needed, Pinned, Statistics, Stop, UnreadableLake
from audiences.people.engines.cache import Cache
from audiences.people.engines.histories import Happened
from audiences.people.engines.views import Views
from audiences.segments import evaluate, tree
from audiences.segments.advice import LATELY, Seen
from audiences.segments.judge import Person, judge
from audiences.segments.leaves import EVER_US, Span, Statement
from audiences.segments.primitives import primitive
from audiences.segments.tree import Count, Leaf, Occurred

BATCH = 1_000_000  # rows at a time on the way to numpy: what one question holds in memory, whatever the lake's size
TRIES = 3

Answer = TypeVar("Answer")


class DuckDB:
    """An engine (people/engines/base.py). Safe to share by threads; a process has one."""

    def __init__(self, *, memory: str, threads: int, folder: Path, cache: Cache) -> None:
        """`folder`: where DuckDB spills what does not fit in `memory` ("1GB"); this process's own."""
        self._folder = folder
        self._threads = threads
        self._cache = cache
        self._connection = duckdb.connect(
            config={
                "memory_limit": memory,
                "threads": threads,
                "temp_directory": str(folder),
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "python_enable_replacements": False,
                "preserve_insertion_order": False,
            }
        )
        self._connection.execute("SET TimeZone = 'UTC'; SET parquet_metadata_cache = true")
        functions.teach(self._connection)
        self._views = Views(self._connection)
        self._latest: tuple[object, dict[str, Seen]] = None, {}

    def close(self) -> None:
        for _ in range(TRIES):
            try:
                self._connection.close()
                break
            except duckdb.Error:  # another thread is asking: it is broken off first
                with contextlib.suppress(duckdb.ConnectionException):  # or it was closed all the same
                    self._connection.interrupt()
                time.sleep(0.05)
        shutil.rmtree(self._folder, ignore_errors=True)

    def universe(self, pin: Pinned) -> BitMap:
        """The live, identified profiles. Raises UnreadableLake."""
        return self._reading(pin, lambda: self._asking(pin).universe())

    def members(self, leaves: Iterable[Leaf], pin: Pinned, stop: Stop | None = None) -> dict[Leaf, BitMap]:
        """Each leaf's profiles. Raises UnreadableLake, and Stopped."""
        rules = {leaf: primitive(leaf) for leaf in leaves}
        parts = {part: None for rule in rules.values() for _, part in tree.leaves(rule)}
        answers = self._reading(pin, lambda: self._asking(pin, stop).answers(parts))
        compound = any(rule is not leaf for leaf, rule in rules.items())
        universe = self.universe(pin) if compound else BitMap()
        return {
            leaf: answers[leaf] if rule is leaf else evaluate.members(rule, universe, answers)
            for leaf, rule in rules.items()
        }

    def point(self, leaves: Iterable[Leaf], profile_nos: Sequence[int], pin: Pinned) -> dict[Leaf, BitMap]:
        """Each leaf's profiles among these, judged one by one. Raises UnreadableLake."""
        asked = list(leaves)
        people = self.people(profile_nos, pin, histories.needed(asked))
        return {
            leaf: BitMap(number for number, person in people.items() if judge(leaf, person, pin.as_of_us))
            for leaf in asked
        }

    def people(
        self,
        profile_nos: Sequence[int],
        pin: Pinned,
        needed: Needed = EVERYTHING,
    ) -> dict[int, Person]:
        """These profiles as judge.py takes them, with what is needed of their events, the newest first. On no lists.

        Properties that are named come as texts, which judge.py makes no difference of. Raises UnreadableLake.
        """
        found = self._reading(
            pin,
            lambda: histories.occurrences(
                self._rows, self._views.events(pin.snapshot), profile_nos, needed, pin.as_of_us
            ),
        )
        return histories.people(profile_nos, found)

    def events_of(self, profile_no: int, pin: Pinned, limit: int) -> list[Happened]:
        """The person's newest events, the newest first. Raises UnreadableLake."""
        return self._reading(
            pin,
            lambda: histories.newest(self._rows, self._views.events(pin.snapshot), profile_no, pin.as_of_us, limit),
        )

    def statistics(self, pin: Pinned) -> Statistics:
        """What there is to write rules about. A look at every event: for background work. Raises UnreadableLake."""
        return self._reading(pin, lambda: self._statistics(pin))

    def lately(self, pin: Pinned) -> dict[str, Seen]:
        """What came in of each event in the seven days before as_of. Raises UnreadableLake."""
        return self._reading(pin, lambda: self._lately(pin))

    def watermark(self, pin: Pinned) -> int | None:
        """The newest event's time in µs; None if there is no event. Raises UnreadableLake."""
        return self._reading(pin, lambda: self._views.events(pin.snapshot).newest_us or None)

    def _lately(self, pin: Pinned) -> dict[str, Seen]:
        events, after_us = self._views.events(pin.snapshot), pin.as_of_us - LATELY
        asked = (events.digest, pin.as_of_us // MINUTE)
        if self._latest[0] != asked:  # pages ask again and again
            sources = events.sources(Span(after_us, pin.as_of_us))
            rows = self._rows(facts.count_lately(sources, after_us, pin.as_of_us)) if sources else iter(())
            self._latest = asked, facts.seen(rows)
        return self._latest[1]

    def _statistics(self, pin: Pinned) -> Statistics:
        events, profiles = self._views.events(pin.snapshot), self._views.profiles(pin.snapshot)
        sources = events.sources(Span(EVER_US, pin.as_of_us))
        counted = (
            [row for batch in self._rows(facts.count_events(sources, pin.as_of_us)) for row in batch.to_pylist()]
            if sources
            else []
        )
        newest = max((row["newest_us"] for row in counted), default=0)
        universe = self.universe(pin)
        living = pa.table({"profile_no": pa.array(universe, pa.uint32())})
        told = facts.count_properties(sources, newest, events.writer.merged) if counted else None
        carried = facts.names(self._rows(told, universe=living)) if told else {}
        leaves = {row["name"]: Occurred(row["name"], Count(1, None)) for row in counted}
        members = self.members(leaves.values(), pin)
        of_attributes = facts.count_attributes(profiles)
        return Statistics(
            people=len(universe),
            events=tuple(
                EventFacts(
                    name=row["name"],
                    occurrences=row["occurrences"],
                    people=len(members[leaves[row["name"]]] & universe),
                    newest_us=row["newest_us"],
                    recent=of[""].times if (of := carried.get(row["name"], {})) else 0,
                    properties={key: one for key, one in of.items() if key},
                )
                for row in sorted(counted, key=lambda row: (-row["occurrences"], row["name"]))
            ),
            attributes=facts.names(self._rows(of_attributes, universe=living)).get("", {}) if of_attributes else {},
        )

    def _asking(self, pin: Pinned, stop: Stop | None = None) -> Asking:
        return Asking(pin, self._views, partial(self._rows, stop=stop), self._cache, self._threads)

    def _reading(self, pin: Pinned, ask: Callable[[], Answer]) -> Answer:
        """A pin keeps its files, but a projection may be replaced, and a pin may run out: then look again, and say so if it is no use."""
        for _ in range(TRIES):
            try:
                return ask()
            except lake.SnapshotGone as error:
                raise UnreadableLake(str(error)) from error
            except duckdb.IOException as error:
                if all(path.exists() for path in self._views.forget(pin.snapshot)):
                    raise
                missing = error
        raise UnreadableLake(f"a file was missing {TRIES} times") from missing

    def _rows(self, statement: Statement, *, stop: Stop | None = None, **tables: pa.Table) -> Iterator[pa.RecordBatch]:
        """A statement's rows in large batches, streamed, until `stop`. `tables` are relations that it names."""
        with (
            closing(self._connection.cursor()) as cursor,
            stop.breaking(cursor.interrupt) if stop else nullcontext(),
        ):
            for name, table in tables.items():
                cursor.register(name, table)
            for batch in cursor.sql(statement.sql, params=dict(statement.values)).to_arrow_reader(BATCH):
                yield batch
                if stop:
                    stop.check()
