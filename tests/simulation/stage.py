"""The database that schedules are played on, and the seams at which the product is driven: its clocks, its way out, its counts.

Everything else of the product is as it is. Made once in a process; `set` gives each schedule the same empty rows again.
"""

import functools
import random
import traceback
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from unittest import mock

from django.apps import apps
from django.db import connection
from django.db.models import AutoField, BigAutoField, ForeignKey, Model
from django.db.transaction import Atomic
from django.db.utils import ConnectionHandler
from django.dispatch import Signal
from django.utils import timezone

from audiences import faults, jobs
from audiences.models import Alias, Audience, ChangeLog, Consent, Identity, Job, Profile, Refresh
from audiences.services import refreshes, trail
from audiences.services.refreshes import Rules
from destinations import budget, delivery, fastlane, holders, remote_descriptions, signals, urgent, verdicts
from destinations.connectors import http
from destinations.models import Ledger, LogCursor, Mapping, Operation, Run
from destinations.services import mappings
from tests.audiences.people_in import track
from tests.destinations import scene
from tests.simulation.clockwork import Broken, Clockwork, Killed
from tests.simulation.platform import Line, Wire

ACCOUNT = "1001"
KINDS = ("meta", "google", "openlist")
_PEOPLE = (Alias, ChangeLog, Consent, Identity, Job, LogCursor, Profile)
_FREE = {"fence": 0, "until": None, "holder": ""}
NAME = "audience"


@dataclass(frozen=True, slots=True)
class Stage:
    """The rows that all schedules share, by platform kind and purpose."""

    mappings: dict[tuple[str, str], int]
    audiences: dict[str, int]
    versions: dict[str, tuple[int, ...]]
    trees: dict[tuple[str, int], Any]  # audience's key and live version → its rule, as refreshes.rules_of says
    descriptions: dict[int, str]  # mapping → what its platform is told of it


@contextmanager
def one_database() -> Iterator[None]:
    """`snapshot` is `default`: nobody else writes while a process reads, as processes lose the floor only outside transactions."""
    by_alias = ConnectionHandler.__getitem__

    def found(self: ConnectionHandler, alias: str) -> Any:
        return by_alias(self, "default" if alias == "snapshot" else alias)

    with mock.patch.object(ConnectionHandler, "__getitem__", found):
        yield


@one_database()
def build() -> Stage:
    """Audiences with published rules, an account on each platform, and a connection for each pair."""
    scene.workspace()
    scene.imported("seed")
    track("seed", "purchase")
    track("seed", "add_to_cart")
    rule = {"all": [scene.IN, {"event": "purchase", "count": {"exactly": 0}}]}
    narrower = {"all": [*rule["all"], {"event": "add_to_cart", "count": {"at_least": 1}}]}
    cart = scene.audience("cart", rule)
    first = cart.live_version_id
    trees = {("cart", first): refreshes.rules_of([cart]).trees["cart"]}
    cart = scene.audience("cart", narrower)
    buyers = scene.audience("buyers", {"event": "purchase"}, "suppression")
    audiences = {"retargeting": cart, "suppression": buyers}
    made: dict[tuple[str, str], int] = {}
    for kind in KINDS:
        nowhere = mock.Mock(base_url="http://127.0.0.1:9")
        target = scene.destination(nowhere, ACCOUNT, kind)
        for purpose, audience in audiences.items():
            made[kind, purpose] = mappings.create(
                actor=None, audience=audience, destination=target, identifiers=["email"]
            ).pk
    rows = Mapping.objects.select_related("audience__live_version", "destination")
    return Stage(
        mappings=made,
        audiences={purpose: audience.pk for purpose, audience in audiences.items()},
        versions={"retargeting": (first, cart.live_version_id), "suppression": (buyers.live_version_id,) * 2},
        trees=trees | {(a.key, a.live_version_id): refreshes.rules_of([a]).trees[a.key] for a in audiences.values()},
        descriptions={row.pk: remote_descriptions.of(row) or "" for row in rows},
    )


@functools.cache
def _emptied() -> tuple[list[str], list[tuple[str, str]]]:
    """The tables that hold a schedule's rows, those that refer to others first; and the columns that number them."""
    found: set[type[Model]] = {Operation, Run, Refresh, *_PEOPLE}
    while more := {one for one in apps.get_models() if _parents(one) & {Mapping, *found}} - found - {Ledger}:
        found |= more
    order: list[type[Model]] = []
    while found:
        free = [one for one in found if not any(one in _parents(other) - {other} for other in found)]
        order += sorted(free, key=lambda one: one._meta.db_table)
        found -= set(free)
    numbered = [one for one in order if isinstance(one._meta.pk, AutoField | BigAutoField)]
    return [one._meta.db_table for one in order], [(one._meta.db_table, one._meta.pk.column) for one in numbered]


def _parents(model: type[Model]) -> set[Any]:
    return {field.related_model for field in model._meta.get_fields() if isinstance(field, ForeignKey)}


def clear(stage: Stage, mapping: Mapping, version: int, identifiers: list[str], cadence: int) -> None:
    """Everything as before the first schedule, numbers included; only this connection is live."""
    tables, numbered = _emptied()
    with connection.cursor() as cursor:
        cursor.execute("UPDATE destinations_ledger SET refresh_id = NULL")
        for table in tables:
            cursor.execute(f"DELETE FROM {table}")
        if connection.vendor == "sqlite":
            cursor.execute(f"DELETE FROM sqlite_sequence WHERE name IN ({', '.join(map(repr, tables))})")
        else:
            parts = (f"setval(pg_get_serial_sequence('{table}', '{key}'), 1, false)" for table, key in numbered)
            cursor.execute(f"SELECT {', '.join(parts)}")
        cursor.execute(
            "UPDATE destinations_account SET tokens = 0, refilled_at = NULL, paused_until = NULL, removal_waits_until = NULL, failures = 0"
        )
        cursor.execute("UPDATE destinations_mapping SET state = 'rehearsal'")
    bitmaps = ("base", "present", "unknown", "rejected", "ever_sent", "reassert", "vetoed", "withdraw")
    counts = ("wanted", "present", "unknown", "rejected", "ever_sent")
    Ledger.objects.filter(mapping=mapping).update(
        **dict.fromkeys(bitmaps, b""),
        **{f"{name}_count": 0 for name in counts},
        **{f"{lane}_{name}": value for lane in ("urgent", "bulk") for name, value in _FREE.items()},
        reassert_since=None,
        withdraw_kinds=[],
        change_seq=0,
        epoch=0,
    )
    Mapping.objects.filter(pk=mapping.pk).update(
        state="live",
        identifiers=identifiers,
        remote_name=NAME,
        own_name=NAME,
        cadence_seconds=cadence,
        blocked_reason="",
        matched_at=None,
        lost="",
        renamed_there="",
        remote_description=stage.descriptions[mapping.pk],
        state_until=None,
        state_before="",
    )
    Audience.objects.filter(pk=mapping.audience_id).update(live_version=version)


class _Heartbeat:
    """In the place of jobs._heartbeat, whose thread renews a job's lease: here the schedule does, for every process that is not stopped."""

    def __init__(self, claim: jobs.Claim) -> None:
        self.claim = claim

    def __enter__(self) -> None:
        if (process := _clock().current) is not None:
            process.claim = self.claim

    def __exit__(self, *_: object) -> None:
        if (process := _clock().current) is not None:
            process.claim = None


_running: list[Clockwork] = []


def _clock() -> Clockwork:
    return _running[-1]


class Seams(Protocol):
    """What a schedule puts in the place of the world around the product."""

    count: Any  # refreshes.refresh
    wire: Wire  # the way to platforms
    present: Any  # presently.people
    nap: Any  # how the fast lane waits

    def wrote(self, sql: str) -> None: ...


@contextmanager
def driven(stage: Stage, clock: Clockwork, seams: Seams) -> Iterator[None]:
    """The product on this clock, with these seams. Wherever it asks the database, an event may befall the process that does."""
    _running.append(clock)

    def me() -> str:
        process = clock.current
        return "m0:1:0:1" if process is None else f"m{process.machine}:1:{process.number}:1"

    def known(number: int) -> str:
        """As the machine that asks sees it."""
        alive = (process for process in clock.processes if process.number == number and not process.dead)
        return next((f"m{process.machine}:1:{number}:1" for process in alive), "")

    enter = Atomic.__enter__

    def begin(self: Atomic) -> None:
        if not connection.in_atomic_block:
            clock.point("begin")
        enter(self)

    def statement(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        process = clock.current
        if process is not None:
            if process.dead:
                raise Killed
            if not sql.startswith("BEGIN"):
                clock.point("statement")
        if not sql.startswith("SELECT"):
            seams.wrote(sql)
        return execute(sql, params, many, context)

    def rules_of(audiences: Iterable[Audience]) -> Rules:
        return Rules({one.key: stage.trees[one.key, one.live_version_id] for one in audiences}, {})

    settle = jobs._settle

    def settled(claim: jobs.Claim, error: Exception | None) -> None:
        if error is not None:
            where = " < ".join(
                f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)[:-5:-1]
            )
            raise Broken("fault of ours", f"{type(error).__name__} {error} in {where}")
        settle(claim, error)

    patched = (
        (jobs, "_settle", settled),
        (timezone, "now", clock.now),
        (jobs, "_heartbeat", _Heartbeat),
        (trail, "record", lambda *_, **__: None),
        (signals, "preflight", Signal()),
        (holders, "me", me),
        (holders, "_process", known),
        (budget, "random", random.Random(clock.rng.random())),
        (http, "Door", lambda *, seconds, **_: Line(seams.wire, seconds)),
        (faults, "point", clock.point),
        (refreshes, "refresh", seams.count),
        (refreshes, "rules_of", rules_of),
        (verdicts, "judge", lambda tree, inside, as_of_us: inside),
        (verdicts.presently, "people", seams.present),
        (jobs, "go_on", lambda: True),
        (jobs, "nap", clock.sleep),
        (Atomic, "__enter__", begin),
    )
    with ExitStack() as stack:
        for owner, name, value in patched:
            stack.enter_context(mock.patch.object(owner, name, value))
        stack.enter_context(one_database())
        stack.enter_context(mock.patch.dict(delivery.sync.__kwdefaults__, now=clock.now, sleep=clock.sleep))
        stack.enter_context(mock.patch.dict(urgent.deliver.__kwdefaults__, now=clock.now, sleep=clock.sleep))
        stack.enter_context(mock.patch.dict(fastlane.run.__kwdefaults__, now=clock.now, sleep=seams.nap))
        stack.enter_context(connection.execute_wrapper(statement))
        try:
            yield
        finally:
            _running.pop()
