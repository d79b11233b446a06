"""What is counted as it happens, in every process, and kept in one place: for metrics. Bounded names and labels, never about a person.

Each process adds up in memory and writes what it has every few seconds, so that counting costs nothing and one look at the database
tells of all of them, over restarts too. A process that is killed loses its last seconds of counting, which is no harm here.
"""

import logging
import threading
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from django.db import Error, connection, transaction
from django.db.models import F

from audiences.models import Tally

log = logging.getLogger(__name__)

FLUSH_EVERY = 5.0  # seconds
OTHER = "other"
REQUESTS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CALLS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
REMOVALS = (0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 86_400.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """`labels`: name → the values it may have. `buckets`: upper bounds in seconds of a histogram; without them, a counter."""

    words: str
    labels: Mapping[str, tuple[str, ...]]
    buckets: tuple[float, ...] = ()


METRICS = {
    "intake": Metric(
        "Calls of the Track API, each item of a batch on its own, by what became of them.",
        {
            "source": ("track_v1", "track_v2"),
            "outcome": ("accepted", "duplicate", "refused", "unauthorised", "unavailable"),
        },
    ),
    "request_seconds": Metric(
        "Time to answer a request.",
        {"kind": ("page", "fragment", "action", "intake"), "status": ("2xx", "3xx", "4xx", "5xx")},
        REQUESTS,
    ),
    "platform_call_seconds": Metric(
        "Time of HTTP calls to platforms, by how they ended.",
        {
            "platform": ("meta", "google", "openlist", "webhook", OTHER),
            "outcome": ("ok", "refused", "throttled", "failed", "unreachable", "unanswered", "misconfigured"),
        },
        CALLS,
    ),
    "removal_seconds": Metric(
        "Time from leaving an audience until the platform had received the removal.",
        {
            "cause": (
                "erasure",
                "consent",
                "purchase",
                "rule",
                "identity",
                "reassert",
                "withdraw",
                "diff",
                "resync",
                OTHER,
            )
        },
        REMOVALS,
    ),
}

_added: Counter[tuple[str, str]] = Counter()
_adding = threading.Lock()
_written_at = time.monotonic()


def count(name: str, *labels: str, n: float = 1) -> None:
    """Add to a counter. A label's value that is not declared counts as `other`."""
    _add({(name, _key(name, labels)): n})


def observe(name: str, *labels: str, seconds: float, n: int = 1) -> None:
    """Add `n` observations of so many seconds to a histogram."""
    key = _key(name, labels)
    bounds = METRICS[name].buckets
    place = bisect_left(bounds, seconds)
    bound = f"{bounds[place]:g}" if place < len(bounds) else "+Inf"
    _add({(f"{name}:{bound}", key): n, (f"{name}:sum", key): seconds * n})


def read() -> dict[tuple[str, str], float]:
    """(name, labels joined by commas) → value, of all processes. A histogram has `name:<upper bound>`, each bucket alone, and `name:sum`."""
    return {(name, labels): value for name, labels, value in Tally.objects.values_list("name", "labels", "value")}


def flush() -> None:
    """Write what this process has counted since. Not inside a transaction: whoever holds it would hold everybody's counters."""
    global _written_at
    with _adding:
        added = dict(_added)
        _added.clear()
        _written_at = time.monotonic()
    if not added:
        return
    try:
        with transaction.atomic():
            store(added)
    except Error as error:  # the database is away: it is written later
        log.warning("counters not written", extra={"error": type(error).__name__})
        _add(added)


def flush_now_and_then(**_: Any) -> None:
    """`flush`, if the last one is some seconds ago. Web processes call it after a request."""
    if time.monotonic() - _written_at >= FLUSH_EVERY and not connection.in_atomic_block:
        flush()


def store(added: Mapping[tuple[str, str], float]) -> None:
    """Add to what is kept, in the caller's transaction; always in the same order, so that two processes never wait for each other."""
    for (name, labels), value in sorted(added.items()):
        if not Tally.objects.filter(name=name, labels=labels).update(value=F("value") + value):
            Tally.objects.bulk_create([Tally(name=name, labels=labels)], ignore_conflicts=True)
            Tally.objects.filter(name=name, labels=labels).update(value=F("value") + value)


def _key(name: str, labels: tuple[str, ...]) -> str:
    allowed = METRICS[name].labels.values()
    return ",".join(label if label in values else OTHER for label, values in zip(labels, allowed, strict=True))


def split(name: str, key: str) -> dict[str, str]:
    """Label → value of a key as `read` gives it."""
    return dict(zip(METRICS[name].labels, key.split(","), strict=True))


def _add(values: Mapping[tuple[str, str], float]) -> None:
    with _adding:
        _added.update(values)
