"""One question to DuckDB: leaves at a pin. How they are grouped into statements, and how rows become sets of people.

A statement each for all that is asked about one event, all any-event rules, all attributes, each bucket salt and each sequence; as
many at once as there are threads, for counting them in numpy keeps one core busy beside DuckDB's own. Counting in numpy is twice as
fast as GROUP BY on the same rows, because profile numbers are dense.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa
from pyroaring import BitMap
from sqlglot import exp

from audiences import bitmaps
from audiences.people.engines import folding
from audiences.people.engines.base import Pinned
from audiences.people.engines.cache import Cache
from audiences.people.engines.occurrences import OfEvent, OneEvent, flags, numbers
from audiences.people.engines.views import EventView, ProfileView, Views
from audiences.segments import grammar, tree
from audiences.segments.judge import ANY_EVENT
from audiences.segments.leaves import EVER_US, Activity, Source, Span, Statement, Writer, span
from audiences.segments.primitives import happened, is_relative
from audiences.segments.tree import Attribute, Bucket, KnownFor, Leaf, Measured, Moment, Occurred

CANDIDATES = 500_000  # profiles whose rows a sequence holds at once

Answers = dict[Leaf, BitMap]
Key = TypeVar("Key")
Asked = TypeVar("Asked", bound=Leaf)


class Rows(Protocol):
    """Runs a statement: its rows in large batches, streamed. `tables` are relations that it names."""

    def __call__(self, statement: Statement, **tables: pa.Table) -> Iterator[pa.RecordBatch]: ...


class Asking:
    """Answers primitive leaves (segments/primitives.py) at a pin, from the cache where it can. Used by one thread."""

    def __init__(self, pin: Pinned, views: Views, rows: Rows, cache: Cache, threads: int) -> None:
        self._snapshot = pin.snapshot
        self._as_of_us = pin.as_of_us
        self._views = views
        self._rows = rows
        self._cache = cache
        self._threads = threads

    # Made on first use, which is in the asking thread, for they read the database: a key is made before a statement.

    @cached_property
    def _events(self) -> EventView:
        return self._views.events(self._snapshot)

    @cached_property
    def _profiles(self) -> ProfileView:
        return self._views.profiles(self._snapshot)

    def universe(self) -> BitMap:
        """The live, identified profiles."""
        key = b"live\0" + self._profiles.digest
        universe = self._cache.get(key)
        if universe is None:
            universe = self._combined(["live"], self._live)["live"]
            self._cache.put(key, universe)
        return universe

    def answers(self, leaves: Collection[Leaf]) -> Answers:
        """Each leaf's profiles. A sequence first asks with whom its steps happened at all."""
        known, missing = self._remembered(leaves)
        sequences = [leaf for leaf in missing if isinstance(leaf, tree.Sequence)]
        steps = {step: None for sequence in sequences for step in happened(sequence)}
        of_steps, more = self._remembered([step for step in steps if step not in known and step not in missing])
        known |= of_steps
        known |= self._at_once(self._statements([leaf for leaf in missing + more if leaf not in sequences]))
        known |= self._at_once(
            [partial(self._follow, sequence, [known[step] for step in happened(sequence)]) for sequence in sequences]
        )
        return known

    def _remembered(self, leaves: Iterable[Leaf]) -> tuple[Answers, list[Leaf]]:
        """The answers that the cache has, and the leaves that it does not have."""
        found = {leaf: self._cache.get(self._key(leaf)) for leaf in leaves}
        return (
            {leaf: members for leaf, members in found.items() if members is not None},
            [leaf for leaf, members in found.items() if members is None],
        )

    def _at_once(self, statements: Sequence[Callable[[], Answers]]) -> Answers:
        """Ask them, so many at a time, and remember what they say."""
        known: Answers = {}
        with ThreadPoolExecutor(self._threads, thread_name_prefix="leaves") as pool:
            # A single one, such as a preview's, needs no other thread.
            for answers in pool.map(_call, statements) if len(statements) > 1 else map(_call, statements):
                for leaf, members in answers.items():
                    self._cache.put(self._key(leaf), members)
                known |= answers
        return known

    def _statements(self, leaves: Sequence[Leaf]) -> list[Callable[[], Answers]]:
        """What to ask for these leaves. Each asks one statement, or one of the projection and one of what has changed since."""
        of_events: dict[str, list[OfEvent]] = defaultdict(list)
        buckets: dict[str, list[Bucket]] = defaultdict(list)
        of_profiles: list[Attribute] = []
        of_activity: list[Occurred] = []
        ages: list[KnownFor] = []
        for leaf in leaves:
            match leaf:
                case Occurred(event) if event == ANY_EVENT:
                    of_activity.append(leaf)
                case Occurred(event) | Measured(event) | Moment(event):
                    of_events[event].append(leaf)
                case Attribute():
                    of_profiles.append(leaf)
                case KnownFor():
                    ages.append(leaf)
                case Bucket(salt):
                    buckets[salt].append(leaf)
                case _:
                    raise ValueError(f"not an engine's leaf: {type(leaf).__name__}")
        asks: list[Callable[[], Answers]] = []
        # The longest first, so that none is left alone at the end.
        for event, asked in sorted(of_events.items(), key=lambda one: -len(one[1])):
            asks.append(partial(self._occurrences, event, asked))
        if of_activity or ages:
            asks.append(partial(self._activity, of_activity, ages))
        if of_profiles:
            asks.append(partial(self._of_profiles, of_profiles))
        for salt, drawn in buckets.items():
            asks.append(partial(self._buckets, salt, drawn))
        return asks

    def _occurrences(self, event: str, leaves: Sequence[OfEvent]) -> Answers:
        """All that is asked about one event, by one statement; numbers too large for 64 bits are left to SQL."""
        group = OneEvent(event, leaves, self._as_of_us)
        sources = self._events.sources(group.wanted, group.names())
        try:
            if sources:
                for batch in self._rows(group.statement(self._events.writer, sources)):
                    group.add(batch)
            return dict(group.answers())
        except folding.TooLarge:
            measured = [leaf for leaf in leaves if isinstance(leaf, Measured)]
            others = [leaf for leaf in leaves if not isinstance(leaf, Measured)]
            statement = self._events.writer.measures(event, measured, sources, self._as_of_us)
            return self._flagged(statement, measured) | (self._occurrences(event, others) if others else {})

    def _activity(self, leaves: Sequence[Occurred], ages: Sequence[KnownFor]) -> Answers:
        """Any-event counts. An age is told by created_us or, if that is earlier, by the first event of any name."""
        asked: dict[Leaf, tuple[Activity, int]] = {
            leaf: (Activity(span(leaf.window, self._as_of_us), exact=leaf.count.low > 1), leaf.count.low)
            for leaf in leaves
        }
        for age in ages:
            asked[age] = Activity(Span(EVER_US, self._as_of_us - age.duration), exact=False), 1
        counted = list(dict.fromkeys(activity for activity, _ in asked.values()))
        tallies = [folding.Tally(counting=activity.exact) for activity in counted]
        view = self._events
        statement = view.writer.activity(counted, view.rollups(), view.not_rolled_up())
        for batch in self._rows(statement) if statement else ():
            profile_nos = numbers(batch)
            for at, tally in enumerate(tallies):
                adds = batch.column(f"c{at}").to_numpy()
                tally.add(folding.chosen(profile_nos, adds > 0), folding.chosen(adds, adds > 0))
        found = {leaf: tallies[counted.index(activity)].members(low) for leaf, (activity, low) in asked.items()}
        for leaf, members in self._of_profiles(ages).items():
            found[leaf] |= members
        return found

    def _of_profiles(self, leaves: Sequence[Attribute | KnownFor]) -> Answers:
        """Attributes; of KnownFor the half that created_us tells."""
        if not leaves:
            return {}
        return self._combined(
            leaves, lambda source: self._flagged(Writer().profiles(leaves, source, self._as_of_us), leaves)
        )

    def _buckets(self, salt: str, leaves: Sequence[Bucket]) -> Answers:
        def drawn(source: Source) -> dict[Bucket, BitMap]:
            seen = {leaf: folding.Tally() for leaf in leaves}
            for batch in self._rows(Writer().buckets(salt, source)):
                profile_nos, buckets = numbers(batch), batch.column("bucket").to_numpy()
                for leaf, tally in seen.items():
                    tally.add(folding.chosen(profile_nos, (buckets >= leaf.start) & (buckets < leaf.end)))
            return {leaf: tally.members() for leaf, tally in seen.items()}

        return self._combined(leaves, drawn)

    def _live(self, source: Source) -> dict[str, BitMap]:
        seen = folding.Tally()
        for batch in self._rows(Writer().live(source)):
            seen.add(numbers(batch))
        return {"live": seen.members()}

    def _combined(self, keys: Iterable[Key], ask: Callable[[Source], Mapping[Any, BitMap]]) -> dict[Key, BitMap]:
        """An answer from the projection, except for the profiles that have changed since, and one for these."""
        found = {key: BitMap() for key in keys}
        for source in self._profiles.sources():
            for key, members in ask(source).items():
                stale = self._profiles.changed_nos if source is self._profiles.projected else BitMap()
                found[key] |= members - stale
        return found

    def _follow(self, sequence: tree.Sequence, steps_happened: Sequence[BitMap]) -> Answers:
        """Candidates are those with whom every step happened in some order; their rows tell the order."""
        steps, first = sequence.steps, sequence.steps[0]
        wanted = Span(EVER_US if first.within is None else self._as_of_us - first.within, self._as_of_us)
        sources = self._events.sources(wanted, {condition.name for step in steps for condition in step.where})
        candidates = bitmaps.to_array(BitMap.intersection(*steps_happened))
        found = BitMap()
        for start in range(0, candidates.size if sources else 0, CANDIDATES):
            some = pa.table({"profile_no": candidates[start : start + CANDIDATES]})
            statement = self._events.writer.steps(steps, wanted, exp.to_table("candidates"), sources, self._as_of_us)
            rows = pa.Table.from_batches(self._rows(statement, candidates=some), _step_columns(len(steps)))
            profile_nos, times, *taken = (column.to_numpy() for column in rows.columns)
            found |= folding.follow(
                profile_nos,
                times,
                [flags.view(np.bool_) for flags in taken],
                [step.within for step in steps],
                sequence.complete,
                self._as_of_us,
            )
        return {sequence: found}

    def _flagged(self, statement: Statement, leaves: Sequence[Asked]) -> dict[Asked, BitMap]:
        """The profiles whose row has a 1 in l0, l1, …"""
        seen = {leaf: folding.Tally() for leaf in leaves}
        for batch in self._rows(statement):
            profile_nos = numbers(batch)
            for at, tally in enumerate(seen.values()):
                tally.add(folding.chosen(profile_nos, flags(batch, f"l{at}")))
        return {leaf: tally.members() for leaf, tally in seen.items()}

    def _key(self, leaf: Leaf) -> bytes:
        """All that an answer depends on: the data, the rule, and as_of where it matters."""
        parts = [grammar.canonical(leaf).encode()]
        of_events = not isinstance(leaf, Attribute | Bucket)
        if of_events:
            parts.append(self._events.digest)
        if isinstance(leaf, Attribute | Bucket | KnownFor):
            parts.append(self._profiles.digest)
        if is_relative(leaf) or (of_events and self._as_of_us < self._events.newest_us):
            parts.append(str(self._as_of_us).encode())
        return b"\0".join(parts)


def _call(ask: Callable[[], Answers]) -> Answers:
    return ask()


def _step_columns(steps: int) -> pa.Schema:
    flags = [(f"s{at}", pa.uint8()) for at in range(steps)]
    return pa.schema([("profile_no", pa.uint32()), ("time_us", pa.int64()), *flags])
