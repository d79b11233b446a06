"""How fast calls are taken in, through gunicorn and real sockets: single calls beside an empty view, and batches."""

import json
import multiprocessing
import socket
import statistics
import threading
import time
from contextlib import closing

import pytest

from tests.benchmarks import report
from tests.journeys.deployment import Deployment
from tests.journeys.web import Web, answer

CONNECTIONS = 8
ROUNDS = 5
SECONDS = 3.0
EVENTS_A_BATCH = 1_000


@pytest.fixture
def web(tmp_path):
    made = Web(Deployment(tmp_path / "var"))
    made.start()
    yield made
    made.stop()
    made.deployment.remove()


def _drive(port, requests, seconds, results):
    """A caller in a process of its own: `CONNECTIONS` connections, each with the next request as soon as it is answered."""
    counts = [0] * CONNECTIONS
    wrong = []

    def one(index):
        with closing(socket.create_connection(("127.0.0.1", port))) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            stream = connection.makefile("rb")
            while time.perf_counter() < end:
                connection.sendall(requests[(index + counts[index] * CONNECTIONS) % len(requests)])
                if (status := answer(stream)) != 200:
                    wrong.append(status)
                counts[index] += 1

    begun = time.perf_counter()
    end = begun + seconds
    threads = [threading.Thread(target=one, args=(index,)) for index in range(CONNECTIONS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    results.put((sum(counts) / (time.perf_counter() - begun), wrong[:3]))


def _rate(port, requests, seconds=SECONDS):
    """Answers a second. Every one of them must be 200."""
    results = multiprocessing.get_context("fork").Queue()
    process = multiprocessing.get_context("fork").Process(target=_drive, args=(port, requests, seconds, results))
    process.start()
    rate, wrong = results.get(timeout=seconds + 60)
    process.join()
    assert wrong == []
    return rate


def _events(web, serial, count):
    """Calls as a shop's server makes them: known and new people, an id for each event, some data."""
    return [
        web.event(
            f"c{(serial + n) % 5_000}", f"01J{serial + n:020d}", value=n % 100 + 0.5, category="shoes", sku=f"{n:08d}"
        )
        for n in range(count)
    ]


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_a_single_call_is_at_least_40_percent_as_fast_as_an_empty_view(web):
    empty = [web.request("GET", "/api/v1/accounts/region")]
    identify = [
        web.request(
            "PUT", f"/api/v1/customers/c{n}", json.dumps({"email": f"c{n}@example.com", "plan": "gold"}).encode()
        )
        for n in range(5_000)
    ]
    _rate(web.port, empty, 1)
    _rate(web.port, _events(web, 10**9, 5_000), 1)
    rates = {"empty": [], "event": [], "identify": []}
    for turn in range(ROUNDS):
        rates["empty"].append(_rate(web.port, empty))
        rates["event"].append(_rate(web.port, _events(web, turn * 100_000, 20_000)))
        rates["identify"].append(_rate(web.port, identify))
    middle = {what: statistics.median(values) for what, values in rates.items()}
    for what in ("event", "identify"):
        report.row(
            f"one {what} a call",
            f"{middle[what]:,.0f}/s",
            f"{middle['empty']:,.0f}/s (empty view)",
            middle[what] / middle["empty"],
            "≥ 0.4 ×",
            f"{CONNECTIONS} connections, one gunicorn process, committed before each answer; median of {ROUNDS}",
        )
    assert middle["event"] >= 0.4 * middle["empty"]


@pytest.mark.bench
@pytest.mark.timeout(600)
def test_batches_are_taken_in_at_ten_thousand_events_a_second(web):
    def batches(serial, count):
        return [
            web.request("POST", "/api/v2/batch", json.dumps({"batch": [
                {
                    "type": "person", "action": "event", "identifiers": {"id": f"c{(serial + b * 31 + n) % 50_000}"},
                    "name": "purchase", "id": f"01B{serial + b:012d}{n:05d}",
                    "attributes": {"value": n % 100 + 0.5, "category": "shoes", "sku": f"{n:08d}"},
                }
                for n in range(EVENTS_A_BATCH)
            ]}).encode())
            for b in range(count)
        ]  # fmt: skip

    _rate(web.port, batches(10**9, 20), 2)
    rates = [EVENTS_A_BATCH * _rate(web.port, batches(turn * 1_000, 150)) for turn in range(ROUNDS)]
    single = _rate(web.port, _events(web, 10**10, 5_000))
    middle = statistics.median(rates)
    report.row(
        f"events in batches of {EVENTS_A_BATCH:,}",
        f"{middle:,.0f}/s",
        f"{single:,.0f}/s (one a call)",
        middle / single,
        "≥ 10,000/s",
        f"{CONNECTIONS} connections, one gunicorn process; median of {ROUNDS}",
    )
    assert middle > single
