"""`manage.py up` serves, restarts what dies, stops when asked, and survives a power cut."""

import time

import httpx
import pytest

from tests.journeys.deployment import _descendants

pytestmark = pytest.mark.slow


def test_up_serves_an_empty_folder_and_stops_when_asked(deployment):
    deployment.up()
    assert httpx.get(f"{deployment.url}/health/live").json() == {"live": True}
    assert deployment.stop() == 0


def test_a_killed_process_is_started_again(deployment):
    import os
    import signal

    deployment.up()
    for pid in _descendants(deployment.process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            assert httpx.get(f"{deployment.url}/health/live").status_code == 200
            break
        except httpx.TransportError:
            time.sleep(0.2)
    else:
        raise AssertionError(deployment.log())


def test_everything_killed_starts_again(deployment):
    deployment.up()
    deployment.kill_everything()
    deployment.up()
    assert deployment.stop() == 0


def test_a_taken_port_is_one_clear_line(deployment):
    deployment.up()
    second = deployment.manage("up", check=False)
    assert second.returncode == 1
    assert f"Port {deployment.port} is in use" in second.stderr
    assert len(second.stderr.strip().splitlines()) == 1
