"""Intake in server mode with workers killed while it runs: how many calls and events a second, and every accepted one is there afterwards, once."""

import json
import multiprocessing
import os
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.benchmarks import report
from tests.journeys.deployment import Deployment, _descendants
from tests.journeys.web import Web, answer

pytestmark = [
    pytest.mark.bench,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not os.environ.get("DATABASE_URL") or not os.environ.get("BROKER_URL"),
        reason="server mode: set DATABASE_URL and BROKER_URL",
    ),
]
CALLERS, CONNECTIONS, SECONDS = 2, 4, 15.0
EVENTS_A_BATCH = 1_000

# Every event that is stored: how often each id of `accepted` is there, and how many there are altogether.
_COUNT = """
import json
from collections import Counter
from datetime import timedelta
from audiences import clock
from audiences.people import keys, lake
accepted = set()
for line in open({path!r}):
    accepted.update(line.split())
wanted = {{keys.event_keys(0, ("id", ""), "", id, None, "")[0] for id in accepted}}
pinned = lake.pin(clock.now_us(), hold=timedelta(minutes=5))
found = Counter()
for part in lake.read_events(pinned):
    for batch in part.batches:
        found.update(batch.column("event_key").to_pylist())
print("counted", json.dumps({{
    "accepted": len(accepted), "lost": len(wanted - found.keys()), "doubled": sum(times > 1 for times in found.values()),
    "stored": len(found), "hot": __import__("audiences.models", fromlist=["Event"]).Event.objects.count(),
}}))
"""


class Callers:
    """Processes that call without a pause. A call that got no answer is made again, as clients do; only what was answered 200 is accepted."""

    def __init__(self, folder: Path, port: int, make, seconds: float) -> None:
        self.folder, self.port, self.make, self.seconds = folder, port, make, seconds

    def run(self, while_at_it) -> tuple[float, int]:
        """(answers a second, how many calls had to be made again)"""
        context = multiprocessing.get_context("fork")
        results = context.Queue()
        processes = [context.Process(target=self._call, args=(caller, results)) for caller in range(CALLERS)]
        for process in processes:
            process.start()
        while_at_it()
        found = [results.get(timeout=self.seconds + 120) for _ in processes]
        for process in processes:
            process.join()
        return sum(rate for rate, _, _ in found), sum(again for _, again, _ in found)

    def _call(self, caller: int, results) -> None:
        answered, again, wrong = [0] * CONNECTIONS, [0] * CONNECTIONS, []
        begun = time.perf_counter()
        end = begun + self.seconds

        def one(index: int) -> None:
            stream = connection = None
            with (self.folder / f"accepted-{time.time_ns()}-{caller}-{index}").open("w") as accepted:
                while time.perf_counter() < end:
                    ids, request = self.make(caller, index, answered[index])
                    while True:
                        try:
                            if connection is None:
                                connection = socket.create_connection(("127.0.0.1", self.port), timeout=30)
                                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                                stream = connection.makefile("rb")
                            connection.sendall(request)
                            status = answer(stream)
                        except OSError:
                            if connection is not None:
                                connection.close()
                            connection = None
                            again[index] += 1
                            time.sleep(0.02)
                            continue
                        if status == 200:
                            break
                        again[index] += 1
                        if status not in (502, 503):
                            wrong.append(status)
                            return
                    accepted.write(" ".join(ids) + "\n")
                    answered[index] += 1

        threads = [threading.Thread(target=one, args=(index,)) for index in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong, wrong
        results.put((sum(answered) / (time.perf_counter() - begun), sum(again), wrong))


def processes(deployment: Deployment) -> dict[int, tuple[int, str]]:
    """pid → (parent, command line) of everything that the deployment runs."""
    found = {}
    for pid in _descendants(deployment.process.pid):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
            parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        except (FileNotFoundError, ProcessLookupError):
            continue
        found[pid] = (parent, command)
    return found


def kill_one(deployment: Deployment, kind: str) -> None:
    """SIGKILL to one gunicorn worker (not the one that watches them), or to the Celery worker that stores events."""
    there = processes(deployment)
    if kind == "web":
        chosen = [
            pid
            for pid, (parent, command) in there.items()
            if "gunicorn" in command and "gunicorn" in there.get(parent, (0, ""))[1]
        ]
    else:
        chosen = [
            pid
            for pid, (_, command) in there.items()
            if "celery" in command and "worker" in command and "intake" in command
        ]
    assert chosen, there
    os.kill(chosen[0], signal.SIGKILL)


def test_nothing_accepted_is_lost_when_workers_are_killed_while_calls_and_batches_come_in(tmp_path):
    deployment = Deployment(tmp_path / "var")
    try:
        web = Web(deployment)
        deployment.up(WEB_PROCESSES="2", wait=90)
        accepted = tmp_path / "accepted"
        accepted.mkdir()

        def single(caller, index, n):
            id = f"s{caller}-{index}-{n}"
            return [id], web.event(f"c{(n * 7 + index) % 5_000}", id, value=n % 100 + 0.5, sku=f"{n:08d}")

        def batch(caller, index, n):
            ids = [f"b{caller}-{index}-{n}-{at}" for at in range(EVENTS_A_BATCH)]
            rows = [
                {"type": "person", "action": "event", "identifiers": {"id": f"c{(at * 31 + n) % 50_000}"}, "name": "purchase",
                 "id": id, "attributes": {"value": at % 100 + 0.5, "sku": f"{at:08d}"}}
                for at, id in enumerate(ids)
            ]  # fmt: skip
            return ids, web.request("POST", "/api/v2/batch", json.dumps({"batch": rows}).encode())

        def kills():
            for kind in ("web", "worker", "web"):
                time.sleep(SECONDS / 4)
                kill_one(deployment, kind)

        Callers(accepted, web.port, lambda c, i, n: single(c + 10, i, n), 2).run(lambda: None)  # warm
        calm, _ = Callers(accepted, web.port, lambda c, i, n: single(c + 20, i, n), SECONDS / 2).run(lambda: None)
        rate, again = Callers(accepted, web.port, single, SECONDS).run(kills)
        batches, batches_again = Callers(accepted, web.port, batch, SECONDS).run(kills)

        whole = tmp_path / "all"
        whole.write_text("".join(path.read_text() for path in accepted.iterdir()))
        deadline = time.monotonic() + 240
        while deployment.query("SELECT count(*) FROM audiences_event") != [(0,)]:
            assert time.monotonic() < deadline, "the events are not stored"
            time.sleep(1)
        counted = deployment.shell_json(_COUNT.format(path=str(whole)), "counted")
    finally:
        deployment.remove()
    note = f"server mode, {CALLERS * CONNECTIONS} connections, 2 gunicorn processes, 2 of them and the storing Celery worker killed −9 meanwhile"
    report.row(
        "one event a call, server mode",
        f"{rate:,.0f}/s",
        f"{calm:,.0f}/s (nobody killed)",
        rate / calm,
        "–",
        f"{note}; {again} calls made again",
    )
    report.row(
        f"events in batches of {EVENTS_A_BATCH:,}, server mode", f"{batches * EVENTS_A_BATCH:,.0f}/s", "–", None, "≥ 10,000/s",
        f"the same; {batches_again} calls made again",
    )  # fmt: skip
    report.row(
        "accepted events that are there afterwards", f"{counted['accepted'] - counted['lost']:,} of {counted['accepted']:,}", "–", None, "all, once",
        f"{counted['doubled']} twice; {counted['stored'] - counted['accepted']} stored whose answer never came",
    )  # fmt: skip
    assert (counted["lost"], counted["doubled"]) == (0, 0)
    assert again + batches_again > 0  # the kills were felt
