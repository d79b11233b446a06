"""Accepting the calls of the Track API: one transaction, and an answer only when it is committed. Wire forms are payloads.py's.

Events between two other calls are taken in together, in order, so that a batch costs a few statements and not a few a call.
"""

import functools
import itertools
import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from django.db import OperationalError, connection, transaction

from audiences import tallies
from audiences.models import ChangeLog, Event, EventKey, PrivacyRequest, RefusedRow, Workspace
from audiences.people import bulk, catalog, keys, merges, privacy, profiles, refused, removal
from audiences.people.normalise import Problem
from audiences.people.payloads import (
    Call,
    Delete,
    Identify,
    Merge,
    ProfileRow,
    Suppress,
    Track,
    Unkept,
    Unsuppress,
    Who,
)
from audiences.people.profiles import Outcome

log = logging.getLogger(__name__)

AT_ONCE = 500  # calls in one transaction: about 50 ms of the write lock
KEPT_OF_A_REFUSED_ROW = 10_000  # characters
DEFAULT_REGION = Workspace._meta.get_field("default_region").default

Answer = TypeVar("Answer")


def accept(calls: Sequence[Call], source: str, *, received_us: int) -> list[Outcome]:
    """Take in calls in their order; one outcome each, and everything in them is committed. `source`: "track_v1", "track_v2"."""
    outcomes: list[Outcome] = []
    for first in range(0, len(calls), AT_ONCE):
        outcomes += _committed(_Waiting(calls[first : first + AT_ONCE], source, received_us))
    tallies.count("intake", source, "accepted", n=sum(outcome.refused is None for outcome in outcomes))
    return outcomes


# --- One commit for all who wait. A commit is a wait for the disk: while one thread of this process waits for it, the calls of
# the others gather, and the next thread takes all of them in at once. Each still answers only when its own are committed.


@dataclass(slots=True)
class _Waiting:
    """The calls of one thread, and what became of them."""

    calls: Sequence[Call]
    source: str
    received_us: int
    outcomes: list[Outcome] | None = None
    failed: bool = False


_gathered: list[_Waiting] = []
_gathering = threading.Lock()
_writing = threading.Lock()


def _committed(mine: _Waiting) -> list[Outcome]:
    if connection.in_atomic_block:  # the caller's transaction: nobody else's calls belong into it
        return _take_in(mine.calls, mine.source, mine.received_us)
    with _gathering:
        _gathered.append(mine)
    with _writing:
        while mine.outcomes is None and not mine.failed:
            _commit_gathered()
    if (
        mine.outcomes is None
    ):  # some of those taken in together could not be: each finds out alone whether it was theirs
        with _writing:
            mine.outcomes = in_transaction(lambda: _take_in(mine.calls, mine.source, mine.received_us))
    return mine.outcomes


def _commit_gathered() -> None:
    """Take in whoever came first, and as many after them as one transaction may hold."""
    taken: list[_Waiting] = []
    with _gathering:
        size = 0
        while _gathered and (not taken or size + len(_gathered[0].calls) <= AT_ONCE):
            taken.append(_gathered.pop(0))
            size += len(taken[-1].calls)
    try:
        all_outcomes = in_transaction(lambda: _take_in_together(taken))
    except BaseException as error:
        for one in taken:
            one.failed = True
        if not isinstance(error, Exception):
            raise
        log.warning("calls are taken in one by one", extra={"calls": size, "error": type(error).__name__})
    else:
        for one, outcomes in zip(taken, all_outcomes, strict=True):
            one.outcomes = outcomes


def _take_in_together(waiting: Sequence[_Waiting]) -> list[list[Outcome]]:
    together: list[list[Outcome]] = []
    for source, group in itertools.groupby(waiting, key=lambda one: one.source):
        some = list(group)
        outcomes = iter(
            _take_in([call for one in some for call in one.calls], source, max(one.received_us for one in some))
        )
        together += [list(itertools.islice(outcomes, len(one.calls))) for one in some]
    return together


def in_transaction(work: Callable[[], Answer]) -> Answer:
    """Run and commit; again if PostgreSQL broke a deadlock by undoing ours."""
    for attempt in range(5):
        try:
            with transaction.atomic():
                return work()
        except OperationalError as error:
            if (
                getattr(error.__cause__, "sqlstate", "") not in ("40P01", "40001")
                or connection.in_atomic_block
                or attempt == 4
            ):
                raise
            log.info("deadlock, tried again", extra={"attempt": attempt})
            time.sleep(0.01 * 2**attempt)
    raise AssertionError("unreachable")


def default_region() -> str:
    """The country of phone numbers without a prefix."""
    return Workspace.objects.values_list("default_region", flat=True).first() or DEFAULT_REGION


def refuse(source: str, field: str, reason: str, raw: Any) -> None:
    """Set a call aside, with why. `raw`: the body's bytes, or the item of a batch."""
    refused.keep([RefusedRow(source=source, field=field[:150], reason=reason[:300], raw=_kept(raw))], default_region())


def _take_in(calls: Sequence[Call], source: str, received_us: int) -> list[Outcome]:
    outcomes: list[Outcome] = []
    together: list[Identify | Track] = []
    for call in calls:
        if isinstance(call, Identify | Track):
            together.append(call)
            if isinstance(call, Track) or not call.anonymous_id:
                continue
        outcomes += _people_and_events(together, source, received_us)
        together = []
        if isinstance(call, Identify):
            if (person_no := outcomes[-1].profile_no) is not None:
                merges.link_visitor(call.anonymous_id, person_no, at_us=received_us, source=source)
        else:
            outcomes.append(_alone(call, source, received_us))
    outcomes += _people_and_events(together, source, received_us)
    return outcomes


def _people_and_events(calls: Sequence[Identify | Track], source: str, received_us: int) -> list[Outcome]:
    said = [
        call.row if isinstance(call, Identify) else ProfileRow(call.who.kind, call.who.value, call.received_us)
        for call in calls
    ]
    outcomes = profiles.upsert(said, source=source, same_email_is_same_person=True)
    events: list[tuple[Track, int]] = []
    noted: list[tuple[Call, Problem]] = []
    for call, outcome in zip(calls, outcomes, strict=True):
        if isinstance(call, Track):
            outcome.problems += call.problems
            if outcome.profile_no is not None:
                events.append((call, outcome.profile_no))
        noted += ((call, problem) for problem in outcome.problems)
        if outcome.refused:
            noted.append((call, outcome.refused))
    if events:
        noted += _store(events, source, received_us)
    rows = [
        RefusedRow(source=source, field=problem.field[:150], reason=problem.reason, raw=_kept(_as_given(call)))
        for call, problem in noted
    ]
    rows += _came_back(outcomes, source)
    if rows:
        refused.keep(rows, default_region())
    return outcomes


def _came_back(outcomes: Sequence[Outcome], source: str) -> list[RefusedRow]:
    """Calls about people who were suppressed or erased, to put on record: once an hour for each, and nothing of what they held."""
    fresh = privacy.came_back(key for outcome in outcomes for key in outcome.buried)
    rows = []
    for outcome in outcomes:
        if fresh & set(outcome.buried):
            fresh -= set(outcome.buried)
            rows.append(RefusedRow(source=source, field=outcome.buried[0][0], reason=refused.WITHHELD[outcome.ignored]))
    return rows


def _store(events: Sequence[tuple[Track, int]], source: str, received_us: int) -> list[tuple[Call, Problem]]:
    """Write what is not there yet; returns the conflicts: an id seen before, with other content."""
    conflicts: list[tuple[Call, Problem]] = []
    fresh: list[tuple[str, Track, int]] = []
    recognisable: dict[str, tuple[str, Track, int]] = {}
    conflict = Problem("id", "conflict")
    for call, profile_no in events:
        made = keys.event_keys(
            profile_no, (call.who.kind, call.who.value), call.name, call.event_id, call.given_us, call.text
        )
        if made is None:
            fresh.append((keys.random_key(), call, profile_no))
        elif made[0] not in recognisable:
            recognisable[made[0]] = (made[1], call, profile_no)
        elif recognisable[made[0]][0] != made[1]:
            conflicts.append((call, conflict))
    if recognisable:
        claimed = bulk.insert_new(
            EventKey,
            ("key", "content", "received_us"),
            [(key, content, received_us) for key, (content, _, _) in sorted(recognisable.items())],
        )
        seen_before = {key: content for key, (content, _, _) in recognisable.items() if key not in claimed}
        if seen_before:
            known = dict(EventKey.objects.filter(key__in=seen_before).values_list("key", "content"))
            conflicts += (
                (recognisable[k][1], conflict) for k, content in seen_before.items() if known.get(k) != content
            )
        fresh += ((key, call, profile_no) for key, (_, call, profile_no) in recognisable.items() if key in claimed)
    if repeated := len(events) - len(fresh):
        transaction.on_commit(functools.partial(tallies.count, "intake", source, "duplicate", n=repeated))
    if fresh:
        bulk.insert(
            Event,
            ("event_key", "profile_no", "name", "time_us", "received_us", "source", "properties"),
            [(key, no, call.name, call.time_us, call.received_us, source, call.text) for key, call, no in fresh],
        )
        profiles.log_changes([(no, ChangeLog.Kind.EVENT, call.name) for _, call, no in fresh], received_us)
        catalog.learn_events([(call.name, call.properties) for _, call, _ in fresh], received_us)
    return conflicts


def _alone(call: Delete | Suppress | Unsuppress | Merge | Unkept, source: str, at_us: int) -> Outcome:
    if isinstance(call, Merge):
        return _merge(call, source, at_us)
    if isinstance(call, Delete):
        removal.delete(_key(call.who), at_us=at_us)
    elif isinstance(call, Suppress):
        _suppress(_key(call.who), at_us)
    elif isinstance(call, Unsuppress):
        privacy.unsuppress(_key(call.who))
    return Outcome()


def _suppress(key: keys.Key, at_us: int) -> None:
    """A privacy request, of whomever this key leads to as every call finds them; nobody need be known."""
    person = removal.find(key)
    kind, source = PrivacyRequest.Kind.SUPPRESSION, PrivacyRequest.Source.API
    privacy.ask([key], kind=kind, source=source, at_us=at_us, people=[] if person is None else [person])


def _merge(call: Merge, source: str, at_us: int) -> Outcome:
    survivor, old = removal.find(_key(call.survivor)), removal.find(_key(call.old))
    if survivor is None:
        return Outcome(refused=Problem("primary", "no such person"))
    if old is None:
        return Outcome(survivor, ignored="unknown")
    merges.merge(survivor, old, at_us=at_us, source=source)
    return Outcome(survivor)


def _key(who: Who) -> keys.Key:
    return who.kind, who.value


def _as_given(call: Call) -> Any:
    """A call as a person can read it in the list of refused rows."""
    if isinstance(call, Identify):
        return {"identifiers": {call.row.kind: call.row.value}, "attributes": dict(call.row.attributes)}
    if isinstance(call, Track):
        return {
            "identifiers": {call.who.kind: call.who.value},
            "name": call.name,
            "id": call.event_id,
            "timestamp": call.given_us and call.given_us / 1_000_000,
            "attributes": dict(call.properties),
        }
    raise TypeError(type(call).__name__)


def _kept(raw: Any) -> str:
    """Storable text of anything that arrived: NUL and half characters are escaped."""
    if isinstance(raw, bytes):
        return raw[:KEPT_OF_A_REFUSED_ROW].decode(errors="backslashreplace").replace("\0", "\\u0000")
    try:
        return json.dumps(raw)[:KEPT_OF_A_REFUSED_ROW]
    except RecursionError:
        return ""
