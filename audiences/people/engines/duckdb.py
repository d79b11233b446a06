"""DuckDB inside this process: answers leaves over lake files, hot rows and profiles. What these are made of is views.py's.

A statement each for all counts on one event, all measures on one event, all any-event rules, all attributes, each bucket salt and
each sequence. Counting is done in numpy, because profile numbers are dense: twice as fast as GROUP BY on the same rows.
"""

import itertools
import shutil
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TypeVar

import duckdb
import numpy as np
import pyarrow as pa
from pyroaring import BitMap
from sqlglot import exp

from audiences import bitmaps
from audiences.people import lake
from audiences.people.engines import folding, functions, histories
from audiences.people.engines.base import Pinned, UnreadableLake
from audiences.people.engines.cache import Cache
from audiences.people.engines.histories import Happened
from audiences.people.engines.occurrences import OfEvent, OneEvent, flags, numbers
from audiences.people.engines.views import Views
from audiences.segments import evaluate, grammar, tree
from audiences.segments.judge import ANY_EVENT, Person, judge
from audiences.segments.leaves import EVER_US, Activity, Source, Span, Statement, Writer, span
from audiences.segments.primitives import happened, is_relative, primitive
from audiences.segments.tree import Attribute, Bucket, KnownFor, Leaf, Measured, Moment, Occurred

BATCH = 1_000_000  # rows at a time on the way to numpy: what one question holds in memory, whatever the lake's size
CANDIDATES = 500_000  # profiles whose rows a sequence holds at once
TRIES = 3

Answer = TypeVar("Answer")
Key = TypeVar("Key")
Asked = TypeVar("Asked", bound=Leaf)


class DuckDB:
    """An engine (people/engines/base.py). Safe to share by threads; a process has one."""

    def __init__(self, *, memory: str, threads: int, folder: Path, cache: Cache) -> None:
        """`folder`: where DuckDB spills what does not fit in `memory` ("1GB"); this process's own."""
        self._folder = folder
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

    def close(self) -> None:
        self._connection.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def universe(self, pin: Pinned) -> BitMap:
        """The live, identified profiles. Raises UnreadableLake."""
        return self._reading(pin, lambda: self._universe(pin))

    def members(self, leaves: Iterable[Leaf], pin: Pinned) -> dict[Leaf, BitMap]:
        """Each leaf's profiles. Raises UnreadableLake."""
        rules = {leaf: primitive(leaf) for leaf in leaves}
        parts = {part: None for rule in rules.values() for _, part in tree.leaves(rule)}
        answers = self._reading(pin, lambda: self._answers(parts, pin))
        compound = any(rule is not leaf for leaf, rule in rules.items())
        universe = self.universe(pin) if compound else BitMap()
        return {
            leaf: answers[leaf] if rule is leaf else evaluate.members(rule, universe, answers)
            for leaf, rule in rules.items()
        }

    def point(self, leaves: Iterable[Leaf], profile_nos: Sequence[int], pin: Pinned) -> dict[Leaf, BitMap]:
        """Each leaf's profiles among these, judged one by one. Raises UnreadableLake."""
        asked = list(leaves)
        people = self.people(profile_nos, pin, histories.events_needed(asked))
        return {
            leaf: BitMap(number for number, person in people.items() if judge(leaf, person, pin.as_of_us))
            for leaf in asked
        }

    def people(
        self, profile_nos: Sequence[int], pin: Pinned, events: Collection[str] | None = None
    ) -> dict[int, Person]:
        """These profiles as judge.py takes them, with their events of these names, or all. On no lists. Raises UnreadableLake."""
        view = self._views.events
        found = self._reading(
            pin,
            lambda: histories.histories(self._rows, view(pin.snapshot), profile_nos, events, pin.as_of_us),
        )
        return histories.people(profile_nos, found)

    def events_of(self, profile_no: int, pin: Pinned, limit: int) -> list[Happened]:
        """The person's newest events, the newest first. Raises UnreadableLake."""
        view = self._views.events
        found = self._reading(
            pin,
            lambda: histories.histories(self._rows, view(pin.snapshot), [profile_no], None, pin.as_of_us, limit),
        )
        return found.get(profile_no, [])

    # --- Reading a lake whose files may go

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

    # --- Leaves

    def _universe(self, pin: Pinned) -> BitMap:
        key = b"live\0" + self._views.profiles(pin.snapshot).digest
        universe = self._cache.get(key)
        if universe is None:
            universe = self._of_profiles(pin, self._live).get("live", BitMap())
            self._cache.put(key, universe)
        return universe

    def _live(self, source: Source) -> Iterator[tuple[str, BitMap]]:
        seen = folding.Tally()
        for batch in self._rows(Writer().live(source)):
            seen.add(numbers(batch))
        yield "live", seen.members()

    def _answers(self, parts: Collection[Leaf], pin: Pinned) -> dict[Leaf, BitMap]:
        """Primitive leaves, from the cache or asked. A sequence first asks with whom its steps happened at all."""
        known, missing = self._remembered(parts, pin)
        sequences = [leaf for leaf in missing if isinstance(leaf, tree.Sequence)]
        steps = {step: None for sequence in sequences for step in happened(sequence)}
        of_steps, more = self._remembered([step for step in steps if step not in known and step not in missing], pin)
        known |= of_steps
        for leaf, members in self._asked([leaf for leaf in missing + more if leaf not in sequences], pin):
            known[leaf] = members
            self._cache.put(self._key(leaf, pin), members)
        for sequence in sequences:
            known[sequence] = self._follow(sequence, [known[step] for step in happened(sequence)], pin)
            self._cache.put(self._key(sequence, pin), known[sequence])
        return known

    def _remembered(self, leaves: Iterable[Leaf], pin: Pinned) -> tuple[dict[Leaf, BitMap], list[Leaf]]:
        """The answers that the cache has, and the leaves that it does not have."""
        found = {leaf: self._cache.get(self._key(leaf, pin)) for leaf in leaves}
        return (
            {leaf: members for leaf, members in found.items() if members is not None},
            [leaf for leaf, members in found.items() if members is None],
        )

    def _asked(self, leaves: Sequence[Leaf], pin: Pinned) -> Iterator[tuple[Leaf, BitMap]]:
        of_events: dict[str, list[OfEvent]] = defaultdict(list)
        buckets: dict[str, list[Bucket]] = defaultdict(list)
        of_profiles: list[Attribute | KnownFor] = []
        of_activity: list[Occurred | KnownFor] = []
        for leaf in leaves:
            match leaf:
                case Occurred(event) if event == ANY_EVENT:
                    of_activity.append(leaf)
                case Occurred(event) | Measured(event) | Moment(event):
                    of_events[event].append(leaf)
                case Attribute():
                    of_profiles.append(leaf)
                case KnownFor():
                    of_profiles.append(leaf)
                    of_activity.append(leaf)
                case Bucket(salt):
                    buckets[salt].append(leaf)
                case _:
                    raise ValueError(f"not an engine's leaf: {type(leaf).__name__}")
        found: dict[Leaf, BitMap] = {}
        if of_activity:
            found |= self._activity(of_activity, pin)
        if of_profiles:
            of_all = self._profiles(of_profiles, pin)
            found |= {leaf: of_all.get(leaf, BitMap()) | found.get(leaf, BitMap()) for leaf in of_profiles}
        yield from found.items()
        for event, asked in of_events.items():
            yield from self._occurrences(event, asked, pin)
        for salt, drawn in buckets.items():
            found = self._buckets(salt, drawn, pin)
            yield from ((leaf, found.get(leaf, BitMap())) for leaf in drawn)

    def _occurrences(self, event: str, leaves: Sequence[OfEvent], pin: Pinned) -> Iterator[tuple[Leaf, BitMap]]:
        """All that is asked about one event, by one statement; numbers too large for 64 bits are left to SQL."""
        view = self._views.events(pin.snapshot)
        try:
            group = OneEvent(event, leaves, pin.as_of_us)
            sources = view.sources(group.wanted, group.names())
            if sources:
                for batch in self._rows(group.statement(view.writer, sources)):
                    group.add(batch)
            return iter(group.answers())  # worked out here, where TooLarge is caught
        except folding.TooLarge:
            measured = [leaf for leaf in leaves if isinstance(leaf, Measured)]
            rest = [leaf for leaf in leaves if not isinstance(leaf, Measured)]
            sources = view.sources(group.wanted, group.names())
            statement = view.writer.measures(event, measured, sources, pin.as_of_us)
            return itertools.chain(
                self._flagged(statement, measured), self._occurrences(event, rest, pin) if rest else ()
            )

    def _activity(self, leaves: Sequence[Occurred | KnownFor], pin: Pinned) -> dict[Leaf, BitMap]:
        """Any-event counts; of KnownFor the half that the first event tells."""
        view = self._views.events(pin.snapshot)
        asked: dict[Leaf, tuple[Activity, int]] = {}
        for leaf in leaves:
            if isinstance(leaf, KnownFor):
                asked[leaf] = Activity(Span(EVER_US, pin.as_of_us - leaf.duration), exact=False), 1
            else:
                asked[leaf] = Activity(span(leaf.window, pin.as_of_us), exact=leaf.count.low > 1), leaf.count.low
        counted = list(dict.fromkeys(activity for activity, _ in asked.values()))
        tallies = [folding.Tally(counting=activity.exact) for activity in counted]
        statement = view.writer.activity(counted, view.rollups(), view.not_rolled_up())
        for batch in self._rows(statement) if statement else ():
            profile_nos = numbers(batch)
            for at, tally in enumerate(tallies):
                adds = batch.column(f"c{at}").to_numpy()
                tally.add(folding.chosen(profile_nos, adds > 0), folding.chosen(adds, adds > 0))
        return {leaf: tallies[counted.index(activity)].members(low) for leaf, (activity, low) in asked.items()}

    def _profiles(self, leaves: Sequence[Attribute | KnownFor], pin: Pinned) -> dict[Leaf, BitMap]:
        """Attributes; of KnownFor the half that created_us tells."""

        def ask(source: Source) -> Iterator[tuple[Leaf, BitMap]]:
            return self._flagged(Writer().profiles(leaves, source, pin.as_of_us), leaves)

        return self._of_profiles(pin, ask)

    def _buckets(self, salt: str, leaves: Sequence[Bucket], pin: Pinned) -> dict[Leaf, BitMap]:
        def ask(source: Source) -> Iterator[tuple[Leaf, BitMap]]:
            drawn = {leaf: folding.Tally() for leaf in leaves}
            for batch in self._rows(Writer().buckets(salt, source)):
                profile_nos, buckets = numbers(batch), batch.column("bucket").to_numpy()
                for leaf, seen in drawn.items():
                    seen.add(folding.chosen(profile_nos, (buckets >= leaf.start) & (buckets < leaf.end)))
            return ((leaf, seen.members()) for leaf, seen in drawn.items())

        return self._of_profiles(pin, ask)

    def _of_profiles(self, pin: Pinned, ask: Callable[[Source], Iterator[tuple[Key, BitMap]]]) -> dict[Key, BitMap]:
        """An answer from the projection, except for the profiles that have changed since, and one for these."""
        view = self._views.profiles(pin.snapshot)
        found: dict[Key, BitMap] = {}
        for source in view.sources():
            for key, members in ask(source):
                found[key] = found.get(key, BitMap()) | (
                    members - view.changed_nos if source is view.projected else members
                )
        return found

    def _follow(self, sequence: tree.Sequence, happened: Sequence[BitMap], pin: Pinned) -> BitMap:
        """Candidates are those with whom every step happened in some order; their rows tell the order."""
        view, first = self._views.events(pin.snapshot), sequence.steps[0]
        wanted = Span(EVER_US if first.within is None else pin.as_of_us - first.within, pin.as_of_us)
        names = {condition.name for step in sequence.steps for condition in step.where}
        sources = view.sources(wanted, names)
        candidates = bitmaps.to_array(BitMap.intersection(*happened))
        found = BitMap()
        for start in range(0, candidates.size if sources else 0, CANDIDATES):
            some = pa.table({"profile_no": candidates[start : start + CANDIDATES]})
            statement = view.writer.steps(sequence.steps, wanted, exp.to_table("candidates"), sources, pin.as_of_us)
            rows = pa.Table.from_batches(self._rows(statement, candidates=some), _step_columns(len(sequence.steps)))
            columns = [column.to_numpy() for column in rows.columns]
            found |= folding.follow(
                columns[0],
                columns[1],
                [flags.view(np.bool_) for flags in columns[2:]],
                [step.within for step in sequence.steps],
                sequence.complete,
                pin.as_of_us,
            )
        return found

    # --- Statements

    def _flagged(self, statement: Statement, leaves: Sequence[Asked]) -> Iterator[tuple[Asked, BitMap]]:
        """The profiles whose row has a 1 in l0, l1, …"""
        seen = [folding.Tally() for _ in leaves]
        for batch in self._rows(statement):
            profile_nos = numbers(batch)
            for at, one in enumerate(seen):
                one.add(folding.chosen(profile_nos, flags(batch, f"l{at}")))
        return ((leaf, one.members()) for leaf, one in zip(leaves, seen, strict=True))

    def _rows(self, statement: Statement, **tables: pa.Table) -> Iterator[pa.RecordBatch]:
        """A statement's rows in large batches, streamed. `tables` are relations that it names."""
        with closing(self._connection.cursor()) as cursor:
            for name, table in tables.items():
                cursor.register(name, table)
            yield from cursor.sql(statement.sql, params=dict(statement.values)).to_arrow_reader(BATCH)

    # --- Keys

    def _key(self, leaf: Leaf, pin: Pinned) -> bytes:
        """All that an answer depends on: the data, the rule, and as_of where it matters."""
        parts = [grammar.canonical(leaf).encode()]
        if not isinstance(leaf, Attribute | Bucket):
            view = self._views.events(pin.snapshot)
            parts.append(view.digest)
            if is_relative(leaf) or pin.as_of_us < view.newest_us:
                parts.append(str(pin.as_of_us).encode())
        elif is_relative(leaf):
            parts.append(str(pin.as_of_us).encode())
        if isinstance(leaf, Attribute | Bucket | KnownFor):
            parts.append(self._views.profiles(pin.snapshot).digest)
        return b"\0".join(parts)


def _step_columns(steps: int) -> pa.Schema:
    flags = [(f"s{at}", pa.uint8()) for at in range(steps)]
    return pa.schema([("profile_no", pa.uint32()), ("time_us", pa.int64()), *flags])
