"""What a snapshot consists of as relations of this process's DuckDB: lake files, hot rows, changed profiles, merges. Asks no questions of its own.

Hot rows are kept in one table that only grows, by mark; a view reads the marks between what was flushed when it was made and its
snapshot's. What no view needs any more is dropped.
"""

import hashlib
import threading
import weakref
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import duckdb
import pyarrow as pa
from pyroaring import BitMap
from sqlglot import exp

from audiences import bitmaps
from audiences.people import lake
from audiences.people.engines.base import Snapshot
from audiences.segments.leaves import Rollup, Source, Span, Writer

KEPT = 8  # snapshots whose views are kept: those of editors' pins and of the refresh that is running

_HOT = """
CREATE TABLE hot (event_key VARCHAR, profile_no UINTEGER, name VARCHAR, time_us BIGINT, received_us BIGINT, source VARCHAR,
                  hot_mark BIGINT, properties VARCHAR)"""


@dataclass(frozen=True, eq=False)
class Merges:
    """Who became whom, and the table of it. Views of the same merges share one."""

    table: str
    digest: bytes
    old_nos: Mapping[int, Sequence[int]]  # by survivor


@dataclass(frozen=True, eq=False)
class EventView:
    """A snapshot's events. `digest` tells its content apart from any other; `newest_us` is the time of the newest event, 0 if none."""

    files: tuple[lake.EventFile, ...]
    hot: Source | None
    writer: Writer
    merges: Merges | None
    flushed: int
    digest: bytes
    newest_us: int

    def sources(self, wanted: Span, names: Iterable[str] = ()) -> list[Source]:
        """Where to read a span's events: files that have typed columns for the same ones of these properties are read as one."""
        asked = sorted(set(names))
        alike: dict[tuple[object, ...], list[lake.EventFile]] = {}
        for file in self.files:
            if _source([file]).meets(wanted):
                key = (file.only_hot_up_to, *(file.columns.get(name) for name in asked))
                alike.setdefault(key, []).append(file)
        sources = [_source(files) for files in alike.values()]
        if self.hot is not None and self.hot.meets(wanted):
            sources.append(self.hot)
        return sources

    def rollups(self) -> list[Rollup]:
        """The roll-ups, a month's files together."""
        months: dict[str, list[lake.EventFile]] = {}
        for file in self.files:
            if file.only_hot_up_to is None:
                months.setdefault(file.month, []).append(file)
        return [Rollup(_parquet(file.rollup for file in files), _source(files)) for files in months.values()]

    def not_rolled_up(self) -> list[Source]:
        """The events that no roll-up holds."""
        parts = [_source([file]) for file in self.files if file.only_hot_up_to is not None]
        return parts + ([self.hot] if self.hot is not None else [])

    def paths(self) -> list[Path]:
        """Every file that a question may read."""
        return [path for file in self.files for path in (file.path, file.rollup)]

    def namesakes(self, profile_nos: Iterable[int]) -> list[int]:
        """These profiles and those that were merged into them."""
        old_nos = self.merges.old_nos if self.merges else {}
        return sorted({number for wanted in profile_nos for number in (wanted, *old_nos.get(wanted, ()))})


@dataclass(frozen=True, eq=False)
class ProfileView:
    """The profiles: `projected` as of the newest projection, `changed` those of today that it has wrong or lacks."""

    projected: Source | None
    changed: Source | None
    changed_nos: BitMap
    digest: bytes
    path: Path | None

    def sources(self) -> list[Source]:
        """Where to read profiles. What `projected` says of `changed_nos` does not count."""
        return [source for source in (self.projected, self.changed) if source is not None]

    def paths(self) -> list[Path]:
        return [self.path] if self.path else []


View = TypeVar("View", EventView, ProfileView)


class Views:
    """Makes and keeps the views of one DuckDB database. Safe to share by threads."""

    def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
        self._connection = connection
        self._lock = threading.RLock()
        self._events: OrderedDict[Snapshot, EventView] = OrderedDict()
        self._profiles: OrderedDict[Snapshot, ProfileView] = OrderedDict()
        self._in_use: weakref.WeakSet[EventView] = weakref.WeakSet()
        self._loaded = 0  # the mark up to which hot rows are in the table
        self._dropped = 0
        self._made = 0
        self._last_merges: weakref.ref[Merges] | None = None
        self._garbage: list[str] = []  # tables of views that are gone
        connection.execute(_HOT)

    def events(self, snapshot: Snapshot) -> EventView:
        """Raises lake.SnapshotGone."""
        with self._lock:
            return _kept(self._events, snapshot, self._event_view)

    def profiles(self, snapshot: Snapshot) -> ProfileView:
        """Raises lake.SnapshotGone."""
        with self._lock:
            return _kept(self._profiles, snapshot, self._profile_view)

    def forget(self, snapshot: Snapshot) -> list[Path]:
        """Make this snapshot's views anew when they are next asked for. The files of those there were."""
        with self._lock:
            events, profiles = self._events.pop(snapshot, None), self._profiles.pop(snapshot, None)
        return [*(events.paths() if events else []), *(profiles.paths() if profiles else [])]

    def _event_view(self, snapshot: Snapshot) -> EventView:
        with lake.one_moment():
            contents = lake.contents(snapshot)
            after = max(self._loaded, contents.flushed)
            fresh = lake.hot_events(after, snapshot.hot, columns={}) if snapshot.hot > after else None
        with closing(self._connection.cursor()) as cursor:
            if fresh is not None:
                if fresh.num_rows:
                    cursor.register(
                        "fresh",
                        fresh.select(
                            [
                                "event_key",
                                "profile_no",
                                "name",
                                "time_us",
                                "received_us",
                                "source",
                                "hot_mark",
                                "properties",
                            ]
                        ),
                    )
                    cursor.execute("INSERT INTO hot SELECT * FROM fresh")
                self._loaded = snapshot.hot
            self._drop_unneeded(cursor, contents.flushed)
            span = [contents.flushed, snapshot.hot]
            rows, xor, earliest, latest = cursor.execute(
                "SELECT count(*), bit_xor(hash(hash(event_key, profile_no))), min(time_us), max(time_us) FROM hot"
                " WHERE hot_mark > ? AND hot_mark <= ?",
                span,
            ).fetchall()[0]
            merges = self._merges(cursor, contents.aliases)
        digest = hashlib.sha256(f"{rows} {xor}".encode() + (merges.digest if merges else b""))
        for file in contents.events:
            digest.update(f"\n{file.path} {file.only_hot_up_to}".encode())
        hot = None
        if rows:
            mark = exp.column("hot_mark")
            only = (mark > exp.Literal.number(span[0]), mark <= exp.Literal.number(span[1]))
            hot = Source(exp.to_table("hot"), only=only, earliest=earliest, latest=latest)
        view = EventView(
            files=contents.events,
            hot=hot,
            writer=Writer(merged=exp.to_table(merges.table) if merges else None),
            merges=merges,
            flushed=contents.flushed,
            digest=digest.digest(),
            newest_us=max([latest or 0, *(file.max_time_us for file in contents.events)]),
        )
        self._in_use.add(view)
        return view

    def _profile_view(self, snapshot: Snapshot) -> ProfileView:
        with lake.one_moment():
            projection = lake.contents(snapshot).profiles
            changed = lake.changed_profiles(snapshot, columns={})
        # Hashed twice: a row's hash is its columns' by xor, so that two rows which change alike would cancel each other out.
        digest = hashlib.sha256(str(projection and projection.path).encode())
        source, table = None, None
        if changed.num_rows:
            table = self._name("changed")
            with closing(self._connection.cursor()) as cursor:
                cursor.register("fresh", changed)
                cursor.execute(f"CREATE TABLE {table} AS SELECT * FROM fresh")  # noqa: S608 - our own name
                found = cursor.execute(f"SELECT count(*), bit_xor(hash(hash(t))) FROM {table} AS t").fetchall()  # noqa: S608 - our own name
            digest.update(repr(found).encode())
            source = Source(exp.to_table(table))
        view = ProfileView(
            projected=Source(_parquet([projection.path]), projection.columns) if projection else None,
            changed=source,
            changed_nos=bitmaps.from_sorted(changed["profile_no"].to_numpy()),
            digest=digest.digest(),
            path=projection.path if projection else None,
        )
        if table:
            weakref.finalize(view, self._garbage.append, table)
        return view

    def _merges(self, cursor: duckdb.DuckDBPyConnection, aliases: pa.Table) -> Merges | None:
        """The merges, as before if they are the same; None if there are none."""
        if not aliases.num_rows:
            return None
        aliases = aliases.sort_by("old_no").combine_chunks()
        digest = hashlib.sha256()
        for name in ("old_no", "survivor_no"):
            digest.update(aliases[name].to_numpy().tobytes())
        kept = self._last_merges() if self._last_merges else None
        if kept is not None and kept.digest == digest.digest():
            return kept
        table = self._name("merges")
        cursor.register("fresh", aliases)
        cursor.execute(f"CREATE TABLE {table} AS SELECT old_no, survivor_no FROM fresh")  # noqa: S608 - our own name
        old_nos: dict[int, list[int]] = defaultdict(list)
        for old_no, survivor_no in zip(aliases["old_no"].to_pylist(), aliases["survivor_no"].to_pylist(), strict=True):
            old_nos[survivor_no].append(old_no)
        merges = Merges(table, digest.digest(), old_nos)
        weakref.finalize(merges, self._garbage.append, table)
        self._last_merges = weakref.ref(merges)
        return merges

    def _drop_unneeded(self, cursor: duckdb.DuckDBPyConnection, flushed: int) -> None:
        """Tables of views that are gone, and hot rows that were flushed before any view in use was made."""
        while self._garbage:
            cursor.execute(f"DROP TABLE IF EXISTS {self._garbage.pop()}")
        oldest = min([flushed, *(view.flushed for view in self._in_use)])
        if oldest > self._dropped:
            cursor.execute("DELETE FROM hot WHERE hot_mark <= ?", [oldest])
            self._dropped = oldest

    def _name(self, kind: str) -> str:
        self._made += 1
        return f"{kind}_{self._made}"


def _kept(kept: OrderedDict[Snapshot, View], snapshot: Snapshot, make: Callable[[Snapshot], View]) -> View:
    view = kept.get(snapshot)
    if view is None:
        view = kept[snapshot] = make(snapshot)
    kept.move_to_end(snapshot)
    while len(kept) > KEPT:
        kept.popitem(last=False)
    return view


def _source(files: list[lake.EventFile]) -> Source:
    """Files with the same typed columns, so far as they matter, as one relation."""
    limit = files[0].only_hot_up_to
    only = () if limit is None else (exp.column("hot_mark") <= exp.Literal.number(limit),)
    return Source(
        _parquet(file.path for file in files),
        files[0].columns,
        only,
        earliest=min(file.min_time_us for file in files),
        latest=max(file.max_time_us for file in files),
    )


def _parquet(paths: Iterable[Path]) -> exp.Expr:
    return exp.Anonymous(
        this="read_parquet", expressions=[exp.Array(expressions=[exp.Literal.string(str(path)) for path in paths])]
    )
