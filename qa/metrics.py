"""What Prometheus reads: the state of everything as the database has it at this moment, and what all processes have counted since.

Labels are of bounded sets (queues, platforms, states, causes) and never about a person. What each means, and when to worry: docs/operations.md.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, F, Min, Q, Sum
from django.utils import timezone
from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from audiences import clock, jobs, pulse, tallies
from audiences.models import Audience, Event, Job, LakeFile, ProfileChange, Worker
from audiences.people import feeds
from destinations import leases
from destinations.models import Hold, Ledger, Operation, Removal, Run
from destinations.models import Mapping as Connection
from destinations.services import runs
from qa import health
from qa.models import Incident, Mail

STANDING = (
    "audiences.flush", "audiences.compact", "audiences.project_profiles", "audiences.sweep_files", "audiences.refresh_due",
    "destinations.look", "destinations.receipts", "destinations.forget", "qa.watch", "qa.watch_slow", "qa.tally_removals",
)  # fmt: skip
LATELY = timedelta(hours=24)
_PREFIX = "rollcall_"


class Everything(Collector):
    """A collector for prometheus_client; asks the database when it is asked."""

    def collect(self) -> Iterator[Metric]:
        now = timezone.now()
        yield from _work(now)
        yield from _people(now)
        yield from _deliveries(now)
        yield from _trouble(now)
        yield from _counted()


def registry() -> CollectorRegistry:
    """For one scrape."""
    made = CollectorRegistry(auto_describe=False)
    made.register(Everything())
    return made


def _work(now: datetime) -> Iterator[Metric]:
    free = Q(due_at__lte=now, lease_until=None) | Q(lease_until__lt=now)
    found = _by(
        Job.objects.values("queue").annotate(
            due=Count("pk", filter=free),
            oldest=Min("due_at", filter=Q(due_at__lte=now, lease_until=None)),
            running=Count("pk", filter=Q(lease_until__gte=now)),
            failing=Count("pk", filter=Q(attempts__gte=3)),
            longest=Min("started_at", filter=Q(lease_until__gte=now)),
        ),
        "queue",
    )
    by_queue: dict[str, Any] = {queue: found.get(queue, {}) for queue in jobs.QUEUES}
    yield _gauge("queue_due", "Jobs that are due and that nobody has begun.", "queue", _each(by_queue, "due"))
    yield _gauge("queue_oldest_seconds", "How long the oldest of them has been due.", "queue", {
        queue: _age(row.get("oldest"), now) for queue, row in by_queue.items()
    })  # fmt: skip
    yield _gauge("queue_running", "Jobs that a worker has in hand.", "queue", _each(by_queue, "running"))
    yield _gauge("queue_longest_seconds", "How long the longest of them has been running.", "queue", {
        queue: _age(row.get("longest"), now) for queue, row in by_queue.items()
    })  # fmt: skip
    yield _gauge("queue_failing", "Jobs that failed three times or more in a row.", "queue", _each(by_queue, "failing"))
    beats = health.beats(now)
    yield _gauge("canary_age_seconds", "Since the queue's canary was last done; absent: never.", "queue", {
        beat.queue: beat.seconds for beat in beats if beat.seconds is not None
    })  # fmt: skip
    alive = list(Worker.objects.filter(seen_at__gt=now - pulse.SILENT))
    for name, words, value in (
        ("workers", "Worker processes that take work from the queue.", lambda worker: 1),
        ("worker_threads", "Their threads.", lambda worker: worker.threads),
        ("worker_threads_busy", "Those of them that have a job in hand.", lambda worker: worker.running),
    ):
        yield _gauge(name, words, "queue", {
            queue: sum(value(worker) for worker in alive if queue in worker.queues) for queue in jobs.QUEUES
        })  # fmt: skip
    ended = dict(Job.objects.filter(task__in=STANDING, attempts=0).values_list("task", "finished_at"))
    yield _gauge("standing_job_age_seconds", "Since this standing job last ended well.", "task", {
        task: (now - at).total_seconds() for task, at in ended.items() if at
    })  # fmt: skip
    yield _gauge("broker_up", "Whether the broker answers (embedded: there is none, and this is 1).", "", {
        "": int(health.broker_answers())
    })  # fmt: skip


def _people(now: datetime) -> Iterator[Metric]:
    oldest = Event.objects.order_by("pk").values_list("received_us", flat=True).first()
    yield _gauge("hot_events", "Accepted events that are not in the lake yet.", "", {"": Event.objects.count()})
    yield _gauge("hot_events_oldest_seconds", "How long ago the first of them was accepted.", "", {
        "": 0 if oldest is None else (clock.now_us() - oldest) / clock.SECOND
    })  # fmt: skip
    yield _gauge("profile_changes", "Changed profiles that the lake's projection does not show yet.", "", {
        "": ProfileChange.objects.count()
    })  # fmt: skip
    files = LakeFile.objects.filter(dead_at=None).values("kind").annotate(n=Count("pk"), size=Sum("bytes"))
    by_kind = _by(files, "kind")
    kinds: dict[str, Any] = {kind: by_kind.get(kind, {}) for kind in LakeFile.Kind.values}
    yield _gauge("lake_files", "Files of the lake that are live.", "kind", _each(kinds, "n"))
    yield _gauge("lake_bytes", "Their size.", "kind", _each(kinds, "size"))
    now_us = clock.now_us()
    stopped = sum(feed.stopped(now_us) for feed in feeds.everything(now_us))
    yield _gauge("feeds_stopped", "Events that have been silent for longer than they may.", "", {"": stopped})
    due = Audience.objects.filter(refresh_due_at__lte=now, archived_at=None, live_version__isnull=False)
    first = due.aggregate(first=Min("refresh_due_at"), n=Count("pk"))
    yield _gauge("counts_due", "Audiences that are due to be counted.", "", {"": first["n"]})
    yield _gauge(
        "counts_oldest_seconds", "How long the first of them has been due.", "", {"": _age(first["first"], now)}
    )


def _deliveries(now: datetime) -> Iterator[Metric]:
    running = Run.objects.filter(state__in=(*runs.ACTIVE, *runs.OPEN)).values("state").annotate(n=Count("pk"))
    states = dict.fromkeys((*runs.OPEN, *runs.ACTIVE), 0) | {row["state"]: row["n"] for row in running}
    yield _gauge("runs", "Syncs that wait or are under way.", "state", {str(k): v for k, v in states.items()})
    lately = Run.objects.filter(created_at__gt=now - LATELY, rehearsal=False, finished_at__isnull=False)
    ended = {row["state"]: row["n"] for row in lately.values("state").annotate(n=Count("pk"))}
    yield _gauge("runs_ended_24h", "Syncs begun in the last 24 hours, by how they ended.", "state", ended)
    sending = Run.objects.filter(state__in=runs.ACTIVE, rehearsal=False).exclude(state=Run.State.COUNTING)
    orphans = sum(
        not leases.holds(pk, leases.BULK, now=now) for pk in sending.values_list("mapping_id", flat=True).distinct()
    )
    yield _gauge(
        "runs_without_lease", "Syncs whose worker is gone and that nobody has taken up yet.", "", {"": orphans}
    )
    yield _pairs("connections", "Connections.", ("platform", "state"), {
        (row["destination__kind"], row["state"]): row["n"]
        for row in Connection.objects.values("destination__kind", "state").annotate(n=Count("pk"))
    })  # fmt: skip
    blocked = Connection.objects.exclude(blocked_reason="").values("destination__kind").annotate(n=Count("pk"))
    yield _gauge("connections_stopped", "Connections that a person must see to before they call again.", "platform", {
        row["destination__kind"]: row["n"] for row in blocked
    })  # fmt: skip
    columns = ("wanted", "present", "unknown", "rejected")
    sums = {column: Sum(f"{column}_count") for column in columns}
    books: Iterable[Any] = (
        Ledger.objects.annotate(platform=F("mapping__destination__kind")).values("platform").annotate(**sums)
    )
    yield _pairs("people", "People wanted, received, of unknown outcome and refused, over all connections.", ("platform", "state"), {
        (row["platform"], column): row[column] or 0 for row in books for column in columns
    })  # fmt: skip
    calls = Operation.objects.filter(open=True).values("state").annotate(n=Count("pk"), first=Min("prepared_at"))
    by_state = _by(calls, "state")
    yield _gauge("calls_open", "Calls of which not everybody's outcome is known.", "state", _each(by_state, "n"))
    yield _gauge("calls_open_oldest_seconds", "How long ago the first of them was prepared.", "state", {
        state: _age(row["first"], now) for state, row in by_state.items()
    })  # fmt: skip
    waiting = Removal.objects.filter(accepted_at=None).values("cause").annotate(n=Count("pk"), first=Min("left_at"))
    by_cause = _by(waiting, "cause")
    yield _gauge("removals_waiting", "Removals that no platform has received yet.", "cause", _each(by_cause, "n"))
    yield _gauge("removals_oldest_seconds", "How long ago the first of them left the audience.", "cause", {
        cause: _age(row["first"], now) for cause, row in by_cause.items()
    })  # fmt: skip


def _trouble(now: datetime) -> Iterator[Metric]:
    standing = Hold.objects.filter(lifted_at=None).filter(Q(until=None) | Q(until__gt=now))
    yield _pairs("holds", "Connections stopped for safety.", ("rule", "direction"), {
        (row["rule"], row["direction"]): row["n"]
        for row in standing.values("rule", "direction").annotate(n=Count("pk"))
    })  # fmt: skip
    open_now = Incident.objects.filter(recovered_at=None).values("kind", "severity").annotate(n=Count("pk"))
    yield _pairs("alerts_open", "Alerts that are open.", ("kind", "severity"), {
        (row["kind"], row["severity"]): row["n"] for row in open_now
    })  # fmt: skip
    mails = Mail.objects.aggregate(
        waiting=Count("pk", filter=Q(state=Mail.State.WAITING, due_at__lte=now)),
        first=Min("created_at", filter=Q(state=Mail.State.WAITING, due_at__lte=now)),
        failed=Count("pk", filter=Q(state=Mail.State.FAILED)),
    )
    yield _gauge("mails_waiting", "Mails that are due to be sent.", "", {"": mails["waiting"]})
    yield _gauge(
        "mails_oldest_seconds", "How long ago the first of them was written.", "", {"": _age(mails["first"], now)}
    )
    yield _gauge("mails_failed", "Mails that were given up.", "", {"": mails["failed"]})


def _counted() -> Iterator[Metric]:
    tallies.flush()
    kept = tallies.read()
    for name, metric in tallies.METRICS.items():
        if not metric.buckets:
            counter = CounterMetricFamily(f"{_PREFIX}{name}", metric.words, labels=list(metric.labels))
            for (kind, key), value in sorted(kept.items()):
                if kind == name:
                    counter.add_metric(list(tallies.split(name, key).values()), value)
            yield counter
            continue
        histogram = HistogramMetricFamily(f"{_PREFIX}{name}", metric.words, labels=list(metric.labels))
        by_key: dict[str, dict[str, float]] = defaultdict(dict)
        for (kind, key), value in kept.items():
            if kind.startswith(f"{name}:"):
                by_key[key][kind.partition(":")[2]] = value
        for key, parts in sorted(by_key.items()):
            histogram.add_metric(
                list(tallies.split(name, key).values()), _rising(metric.buckets, parts), sum_value=parts.get("sum", 0)
            )
        yield histogram


def _rising(bounds: Iterable[float], parts: Mapping[str, float]) -> list[tuple[str, float]]:
    """Prometheus wants of each bucket how many were within it, those of the smaller ones among them."""
    found, total = [], 0.0
    for bound in (*(f"{bound:g}" for bound in bounds), "+Inf"):
        total += parts.get(bound, 0)
        found.append((bound, total))
    return found


def _gauge(name: str, words: str, label: str, values: Mapping[str, float]) -> GaugeMetricFamily:
    return _pairs(name, words, (label,) if label else (), {(key,) if label else (): n for key, n in values.items()})


def _pairs(
    name: str, words: str, labels: tuple[str, ...], values: Mapping[tuple[str, ...], float]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{_PREFIX}{name}", words, labels=labels)
    for key, value in sorted(values.items()):
        family.add_metric([str(part) for part in key], value)
    return family


def _by(rows: Iterable[Any], column: str) -> dict[str, Any]:
    return {row[column]: row for row in rows}


def _each(rows: Mapping[str, Any], column: str) -> dict[str, float]:
    return {key: row.get(column) or 0 for key, row in rows.items()}


def _age(moment: datetime | None, now: datetime) -> float:
    return 0.0 if moment is None else max(0.0, (now - moment).total_seconds())
