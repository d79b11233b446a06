"""How long it takes from a purchase being received to the platform having taken the person out, and into suppression, by the platform's own clock.

Meanwhile a million people are being added to another audience of the same account by the same workers, and sixty audiences name the event.
Smaller: $ROLLCALL_BENCH_PEOPLE. On PostgreSQL and Redis: DATABASE_URL and BROKER_URL.
"""

import os
import shutil
import time
from collections import defaultdict

import numpy as np
import pytest

from destinations.sandbox import control
from tests.benchmarks import report, shop
from tests.benchmarks.rush import BOUGHT, BUYERS, Rush

pytestmark = [pytest.mark.bench, pytest.mark.timeout(5400)]

PEOPLE = int(os.environ.get("ROLLCALL_BENCH_PEOPLE", "1000000"))
EVENTS = 20 * PEOPLE
MENTIONING = 60
PLATFORM = os.environ.get("ROLLCALL_BENCH_PLATFORM", "openlist")
A_SECOND = float(os.environ.get("ROLLCALL_BENCH_PURCHASES", "2"))
GOAL = 2.0


@pytest.fixture
def rush(tmp_path):
    made = shop.shop(PEOPLE, EVENTS)
    folder = made.root.parent / f"rush-{os.getpid()}"  # beside the shop, so that its files can be linked
    folder.mkdir()
    try:
        with control.started(tmp_path) as sandbox:
            running = Rush(folder, made, sandbox)
            yield running
            running.remove()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_a_purchase_is_at_the_platform_within_two_seconds_while_a_million_are_added(rush):
    began = time.monotonic()
    rush.fill(platform=PLATFORM, mentioning=MENTIONING)
    filled = time.monotonic() - began
    rush.deployment.up()
    time.sleep(20)  # what starts with it, and counts of what is due

    began = time.monotonic()
    bought = rush.rush(a_second=A_SECOND, most=600)
    lasted = time.monotonic() - began
    added = rush.added()
    settled = time.monotonic() + 60
    while rush.waiting() and time.monotonic() < settled:
        time.sleep(0.1)
    waits = latencies(rush)

    removed, suppressed = waits["remove", BUYERS], waits["add", BOUGHT]
    everything = [one for some in waits.values() for one in some]
    for name, some in (("removed", removed), ("suppressed", suppressed), ("all connections", everything)):
        print(f"{name}: n={len(some)} p50 {np.percentile(some, 50):.3f} p95 {np.percentile(some, 95):.3f} p99 {np.percentile(some, 99):.3f} max {max(some):.3f}")  # fmt: skip
    mode = "PostgreSQL, Redis" if os.environ.get("DATABASE_URL") else "embedded"
    p50, p99 = np.percentile(everything, [50, 99])
    report.row(
        f"purchase received → out of retargeting and in suppression at the platform, {mode}, {PEOPLE:,} people, {EVENTS:,} events",
        f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms, longest {max(everything) * 1000:.0f} ms",
        "–",
        None,
        f"p99 ≤ {GOAL:.0f} s",
        f"{bought} purchases, {len(everything)} people told in {MENTIONING} audiences that name the event, while {added:,} were added in {lasted:.0f} s; load {os.getloadavg()[0]:.1f}",
    )
    print(f"filled in {filled:.0f} s; {bought} bought in {lasted:.0f} s; {added:,} added")
    assert len(removed) >= 0.98 * bought
    assert len(suppressed) == bought
    assert p99 <= GOAL


def latencies(rush: Rush) -> dict[tuple[str, str], list[float]]:
    """(kind, audience) → seconds from received to done by the platform's clock, of each person told urgently.

    A connection's calls of a kind follow one another, so the platform's log has them in the order of our operations.
    """
    audience_of = {pk: key for key, pk in rush.mappings.items()}
    remote = {row["name"]: row["id"] for row in rush.sandbox.audiences(PLATFORM)}
    said = rush.said()
    by_remote: dict[tuple[str, str], list[float]] = defaultdict(list)
    for call in rush.sandbox.calls(PLATFORM):
        if call["status"] in (200, 202):
            by_remote[call["audience"], call["op"]].append(call["at"] + call["ms"] / 1000)
    waits: dict[tuple[str, str], list[float]] = defaultdict(list)
    counted: dict[tuple[int, str], int] = defaultdict(int)
    for one in said:
        counted[one.mapping, one.kind] += 1
    for (mapping, kind), many in counted.items():
        done = by_remote[remote[audience_of[mapping]], kind][-many:]
        calls = [one for one in said if (one.mapping, one.kind) == (mapping, kind)]
        assert len(done) == many
        for call, at in zip(calls, done, strict=True):
            waits[kind, audience_of[mapping]] += [at - received for received in call.received]
    return waits
