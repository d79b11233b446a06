"""Loading the record into the customer's PostgreSQL, a part at a time: what came since the last load, merged by key, with how far it got.

Every part is one transaction there that ends with its cursor, so a load that is killed anywhere goes on with the next part, and a
part that comes again changes nothing. All cursors of a load are taken before people are named: whoever turns up later than that
has nothing in what is loaded. Of whom older rows lack (a name that came late, a merge) is kept in `_people`, until they are written.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pyarrow as pa
from django.db.models import Q
from django.utils import timezone
from psycopg import sql
from pyroaring import BitMap

from audiences import clock, faults, stays
from audiences.models import Alias, Audience, Counter, Profile
from audiences.people import called as people
from audiences.people import lake
from audiences.people.lake import Known
from audiences.people.pins import Pinned
from audiences.stays import Position, Progress
from destinations.models import Eligibility, Mapping, Operation
from destinations.record import deliveries, reading, shape
from destinations.record.shape import Column, Table
from destinations.record.staging import stage
from destinations.record.target import PEOPLE, Target

HOLD = timedelta(hours=12)  # how long the lake's files are kept for a load
LATE_COMMIT = timedelta(hours=1)  # a row may carry an earlier number or moment than one that was committed before it
CALLS_AT_ONCE = 100  # of up to ten thousand people each
EVENTS_MISSING, ALL_MISSING = 1, 2

_NAMES = Table(PEOPLE, ("person_no",), (Column("person_no", pa.int64()), Column("external_id", pa.string())))
_MISSING = Table(PEOPLE, ("person_no",), (Column("person_no", pa.int64()), Column("missing", pa.int64())))
_OF_PEOPLE = tuple(table for table in shape.TABLES if table.person)


@dataclass(frozen=True, slots=True)
class Marks:
    """How far this load goes."""

    at: datetime
    pinned: Pinned
    counts: dict[int, Position]  # audience → its last count
    call: int  # the last call
    holdouts: dict[int, int]  # connection → the refresh of its last sync that held anybody out
    profile_no: int  # nobody with a higher number is in any of it


@dataclass
class Load:
    """One load. `run` does all of it; `rows` counts what was written, by table."""

    target: Target
    fence: int
    with_events: bool = True
    tell: Callable[[dict[str, int]], None] = lambda rows: None
    rows: dict[str, int] = field(default_factory=lambda: dict.fromkeys((table.name for table in shape.TABLES), 0))

    def run(self) -> datetime:
        """What was so at the moment returned is there afterwards. Raises Misconfigured, Retryable and Overtaken, and lake.SnapshotGone."""
        with lake.pinned(clock.now_us(), hold=HOLD) as pinned:
            self.marks = _marks(pinned)
            self.called = people.everybody()
            self.merged = people.merged_people()
            self._people()
            self._audiences()
            for audience in Audience.objects.filter(pk__in=self.marks.counts).order_by("key"):
                self._memberships(audience)
            self._calls()
            if self.with_events:
                self._events()
            else:
                self._no_events()
            for connection in self._connections():
                self._holdouts(connection)
            with self._part("end") as cursor:
                cursor.execute(self.target.sql("UPDATE {_people} SET missing = 0 WHERE missing > 0"))
                self.target.keep(cursor, "loaded", {"up_to": self.marks.at.isoformat()})
        return self.marks.at

    # --- People first: who is gone goes, and of whom there is more to tell is marked.

    def _people(self) -> None:
        before = self.target.kept("people")
        known_upto = before.get("profile_no")
        with self._part("people") as cursor:
            stage(cursor, _NAMES, self._directory())
            cursor.execute("CREATE TEMPORARY TABLE gone (external_id text) ON COMMIT DROP")
            cursor.execute(
                self.target.sql(
                    "WITH dropped AS (DELETE FROM {_people} p WHERE NOT EXISTS (SELECT FROM pg_temp.staged s"
                    " WHERE s.person_no = p.person_no AND s.external_id = p.external_id) RETURNING external_id)"
                    " INSERT INTO pg_temp.gone SELECT external_id FROM dropped"
                )
            )
            for table in _OF_PEOPLE:
                cursor.execute(
                    self.target.sql(
                        "DELETE FROM {table} t USING pg_temp.gone WHERE t.external_id = gone.external_id",
                        table=self.target.name(table.name),
                    )
                )
            cursor.execute(
                self.target.sql(
                    "INSERT INTO {_people} (person_no, external_id, missing)"
                    " SELECT person_no, external_id, CASE WHEN person_no <= %s THEN %s ELSE 0 END FROM pg_temp.staged s"
                    " WHERE NOT EXISTS (SELECT FROM {_people} p WHERE p.person_no = s.person_no)"
                ),
                [known_upto or 0, ALL_MISSING],
            )
            if known_upto is not None:
                stage(cursor, _MISSING, [_merged_since(datetime.fromisoformat(before["at"]) - LATE_COMMIT)])
                cursor.execute(
                    self.target.sql(
                        "UPDATE {_people} p SET missing = greatest(p.missing, s.missing::smallint) FROM"
                        " (SELECT person_no, max(missing) AS missing FROM pg_temp.staged GROUP BY person_no) s"
                        " WHERE p.person_no = s.person_no"
                    )
                )
            self.target.keep(cursor, "people", {"profile_no": self.marks.profile_no, "at": self.marks.at.isoformat()})
            cursor.execute(self.target.sql("SELECT person_no, missing FROM {_people} WHERE missing > 0"))
            missing = cursor.fetchall()
        self.missing = {
            level: BitMap(number for number, lacks in missing if lacks >= level)
            for level in (EVENTS_MISSING, ALL_MISSING)
        }

    def _directory(self) -> Iterator[pa.Table]:
        numbers = pa.array(self.called.people, pa.int64())
        for start in range(0, len(numbers), 100_000):
            columns = [numbers.slice(start, 100_000), self.called.ids.slice(start, 100_000)]
            yield pa.table(dict(zip(_NAMES.names, columns, strict=True)))

    # --- The parts.

    def _audiences(self) -> None:
        with self._part("audiences") as cursor:
            rows = reading.audiences(Audience.objects.select_related("live_version").order_by("key"), self.called)
            stage(cursor, shape.AUDIENCES, [rows])
            self._merge(cursor, shape.AUDIENCES)

    def _memberships(self, audience: Audience) -> None:
        part = f"memberships:{audience.key}"
        before, upto = self.target.kept(part), self.marks.counts[audience.pk]
        after = Position(before["as_of_us"], before["refresh"]) if before else None
        # Past days that were computed later, or anew, change what came before.
        whole = after is None or after > upto or stays.counts_up_to(audience.pk, after) != before["counts"]
        missing = self.missing[ALL_MISSING]
        if not whole and after == upto and not missing:
            return
        with self._part("memberships") as cursor:
            if whole:
                after, missing = None, BitMap()
                cursor.execute(self.target.sql("DELETE FROM {memberships} WHERE audience_key = %s"), [audience.key])
            seen = Progress()
            found = stays.read(audience.pk, self.merged, after=after, upto=upto, progress=seen)
            stage(cursor, shape.MEMBERSHIPS, reading.memberships(audience, self.called, found))
            cursor.execute(
                self.target.sql(
                    "UPDATE {memberships} m SET left_at = s.left_at, left_version = s.left_version,"
                    " left_by_new_version = s.left_by_new_version FROM pg_temp.staged s"
                    " WHERE s.entered_at IS NULL AND m.audience_key = s.audience_key AND m.external_id = s.external_id"
                    " AND m.left_at IS NULL"
                )
            )
            self.rows["memberships"] += max(cursor.rowcount, 0)
            self._merge(cursor, shape.MEMBERSHIPS, where="entered_at IS NOT NULL")
            if missing:
                self._forget(cursor, shape.MEMBERSHIPS, ALL_MISSING, "t.audience_key = %s", audience.key)
                again = stays.read(audience.pk, self.merged, upto=upto, only=missing)
                stage(cursor, shape.MEMBERSHIPS, reading.memberships(audience, self.called, again))
                self._merge(cursor, shape.MEMBERSHIPS)
            self.target.keep(
                cursor, part, {"as_of_us": upto.as_of_us, "refresh": upto.refresh_id, "counts": seen.counts}
            )

    def _calls(self) -> None:
        begun = self.target.kept("deliveries").get("call", 0)
        with self.target.transaction() as cursor:
            cursor.execute(self.target.sql("SELECT delivery_id FROM {deliveries} WHERE NOT settled"))
            unsettled = [number for (number,) in cursor.fetchall()]
        calls = Operation.objects.filter(pk__lte=self.marks.call)
        late = calls.filter(pk__gt=begun, prepared_at__gt=self.marks.at - LATE_COMMIT)
        reached = (late.order_by("pk").values_list("pk", flat=True).first() or self.marks.call + 1) - 1
        fresh = calls.filter(Q(pk__gt=begun) | Q(pk__in=unsettled))
        some: list[Operation] = []
        for batch in deliveries.in_order(fresh):
            some += batch
            if len(some) >= CALLS_AT_ONCE:
                self._write_calls(some, max(begun, min(some[-1].pk, reached)))
                some = []
        self._write_calls(some, max(begun, reached))
        missing = self.missing[ALL_MISSING]
        if missing:
            with self._part("calls_again") as cursor:
                self._forget(cursor, shape.DELIVERED_PEOPLE, ALL_MISSING)
                told = (
                    rows
                    for batch in deliveries.in_order(calls)
                    for rows in deliveries.people(batch, self.called, only=missing)
                )
                stage(cursor, shape.DELIVERED_PEOPLE, told)
                self._merge(cursor, shape.DELIVERED_PEOPLE)

    def _write_calls(self, calls: list[Operation], reached: int) -> None:
        with self._part("calls") as cursor:
            stage(cursor, shape.DELIVERIES, [deliveries.deliveries(calls)])
            self._merge(cursor, shape.DELIVERIES)
            stage(cursor, shape.DELIVERED_PEOPLE, deliveries.people(calls, self.called))
            self._merge(cursor, shape.DELIVERED_PEOPLE)
            self.target.keep(cursor, "deliveries", {"call": reached})

    def _events(self) -> None:
        known = Known(**self.target.kept("events"))
        snapshot = self.marks.pinned.snapshot
        parts = lake.read_events(self.marks.pinned, known=known)
        for part, tables in reading.events(parts, self.called):
            reached = Known(part.manifest, known.hot, known.at_us) if part.manifest else None
            with self._part("events") as cursor:
                stage(cursor, shape.EVENTS, tables)
                self._merge(cursor, shape.EVENTS, update=False)
                self._keep_known(cursor, reached or Known(snapshot.manifest, snapshot.hot, self.marks.pinned.as_of_us))
        missing = self.missing[EVENTS_MISSING]
        if missing:
            numbers = missing | BitMap(
                Alias.objects.filter(survivor_no__in=list(missing)).values_list("old_no", flat=True)
            )
            with self._part("events_again") as cursor:
                self._forget(cursor, shape.EVENTS, EVENTS_MISSING)
                parts = lake.read_events(self.marks.pinned, only=numbers)
                again = (rows for _, tables in reading.events(parts, self.called, missing) for rows in tables)
                stage(cursor, shape.EVENTS, again)
                self._merge(cursor, shape.EVENTS, update=False)

    def _no_events(self) -> None:
        """They are not wanted any more: what is there would grow old, and keep people who are gone."""
        if self.target.kept("events"):
            with self._part("no_events") as cursor:
                cursor.execute(self.target.sql("DELETE FROM {events}"))
                cursor.execute(self.target.sql("DELETE FROM {_rollcall} WHERE part = 'events'"))

    def _keep_known(self, cursor: psycopg.Cursor[Any], known: Known) -> None:
        self.target.keep(cursor, "events", {"manifest": known.manifest, "hot": known.hot, "at_us": known.at_us})

    def _connections(self) -> Iterable[Mapping]:
        chosen = Mapping.objects.filter(pk__in=self.marks.holdouts).order_by("pk")
        return chosen.select_related("audience", "destination")

    def _holdouts(self, connection: Mapping) -> None:
        part, upto = f"holdouts:{connection.pk}", self.marks.holdouts[connection.pk]
        after = 0 if self.missing[ALL_MISSING] else self.target.kept(part).get("refresh", 0)
        if after >= upto:
            return
        with self._part("holdouts") as cursor:
            if self.missing[ALL_MISSING]:
                self._forget(cursor, shape.HOLDOUTS, ALL_MISSING, "t.connection_id = %s", connection.pk)
            arms = (rows for number, rows in reading.held_out(connection, self.called, after=after) if number <= upto)
            stage(cursor, shape.HOLDOUTS, arms)
            self._merge(cursor, shape.HOLDOUTS, update=False)
            self.target.keep(cursor, part, {"refresh": upto})

    # --- How.

    @contextmanager
    def _part(self, name: str) -> Iterator[psycopg.Cursor[Any]]:
        """A transaction in which nobody else loads."""
        with self.target.transaction() as cursor:
            self.target.mine(cursor, self.fence)
            yield cursor
            faults.point(f"load.{name}")
        faults.point(f"load.{name}.committed")
        self.tell(self.rows)

    def _merge(self, cursor: psycopg.Cursor[Any], table: Table, *, where: str = "true", update: bool = True) -> None:
        """What is staged becomes rows; whoever is there already is changed if anything about them is, or stays as they are."""
        values = [sql.Identifier(name) for name in table.names if name not in table.key]
        conflict: sql.Composable = sql.SQL("NOTHING")
        if update and values:
            conflict = sql.SQL("UPDATE SET {sets} WHERE ({old}) IS DISTINCT FROM ({new})").format(
                sets=sql.SQL(", ").join(sql.SQL("{0} = excluded.{0}").format(name) for name in values),
                old=sql.SQL(", ").join(sql.SQL("t.{}").format(name) for name in values),
                new=sql.SQL(", ").join(sql.SQL("excluded.{}").format(name) for name in values),
            )
        cursor.execute(
            self.target.sql(
                "INSERT INTO {table} AS t ({columns}) SELECT {columns} FROM pg_temp.staged WHERE {where}"
                " ON CONFLICT ({key}) DO {conflict}",
                table=self.target.name(table.name),
                columns=sql.SQL(", ").join(map(sql.Identifier, table.names)),
                where=sql.SQL(where),
                key=sql.SQL(", ").join(map(sql.Identifier, table.key)),
                conflict=conflict,
            )
        )
        self.rows[table.name] += max(cursor.rowcount, 0)

    def _forget(
        self, cursor: psycopg.Cursor[Any], table: Table, lacking: int, where: str = "true", *values: Any
    ) -> None:
        """Drop the rows of those of whom rows are missing: all of theirs are written anew."""
        cursor.execute(
            self.target.sql(
                "DELETE FROM {table} t USING {_people} p WHERE t.external_id = p.external_id AND p.missing >= %s AND {where}",
                table=self.target.name(table.name),
                where=sql.SQL(where),
            ),
            [lacking, *values],
        )


def _marks(pinned: Pinned) -> Marks:
    counts = {
        pk: position
        for pk in Audience.objects.values_list("pk", flat=True)
        if (position := stays.position_of(pk)) is not None
    }
    syncs = Eligibility.objects.filter(step="holdout", out_count__gt=0).order_by("mapping_id", "refresh_id")
    return Marks(
        at=timezone.now(),
        pinned=pinned,
        counts=counts,
        call=Operation.objects.order_by("pk").values_list("pk", flat=True).last() or 0,
        holdouts=dict(syncs.values_list("mapping_id", "refresh_id")),
        # Last: numbers are given in the order of their commits, so whoever has a higher one came after all of the above.
        profile_no=Counter.objects.filter(name="profile_no").values_list("value", flat=True).first() or 0,
    )


def _merged_since(moment: datetime) -> pa.Table:
    """(person, what they lack) of everybody whom somebody turned out to be since."""
    aliases = list(Alias.objects.filter(merged_at__gte=moment).values_list("old_no", "survivor_no"))
    visitors: set[int] = set()
    for start in range(0, len(aliases), 10_000):
        some = [old for old, _ in aliases[start : start + 10_000]]
        visitors.update(Profile.objects.filter(pk__in=some, kind=Profile.Kind.ANONYMOUS).values_list("pk", flat=True))
    lacks = [EVENTS_MISSING if old in visitors else ALL_MISSING for old, _ in aliases]
    return pa.table(
        {
            "person_no": pa.array([survivor for _, survivor in aliases], pa.int64()),
            "missing": pa.array(lacks, pa.int64()),
        }
    )
