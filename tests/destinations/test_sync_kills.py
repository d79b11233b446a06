"""A sync that is killed anywhere, and started again, ends with exactly the wanted people on the platform. Real processes, real sockets."""

import random
import signal
import time

import pytest

from tests.destinations import scene
from tests.destinations.installation import CHURN, LATE_ADDS, database_url, installation

__all__ = ["database_url", "installation"]
pytestmark = pytest.mark.slow
POINTS = [
    "mid_plan",
    pytest.param("after_prepare", id="fault_02-after_prepare"),
    pytest.param("before_call", id="fault_02-before_call"),
    pytest.param("after_call_before_settle", id="fault_01-after_call_before_settle"),
    "after_settle",
]


@pytest.mark.parametrize("point", POINTS)
def test_a_sync_killed_at_a_named_point_ends_right_when_it_is_started_again(installation, point):
    code, _ = installation.sync(FAULT=point)
    assert code == -signal.SIGKILL
    installation.python(CHURN, "0", "x")  # people leave and change while nobody is at work
    code, errors = installation.sync()
    assert code == 0, errors[-1000:]
    assert installation.held() == installation.wanted()

    installation.python(CHURN, "20", "y")
    code, _ = installation.sync(FAULT=point)
    assert code == -signal.SIGKILL
    code, errors = installation.sync()
    assert code == 0, errors[-1000:]
    assert installation.held() == installation.wanted()
    assert installation.python(LATE_ADDS).strip() == "0"


def test_a_sync_killed_at_random_again_and_again_ends_right_and_adds_nobody_who_had_left(installation):
    dice = random.Random(7)
    bought = set()
    for round_ in range(6):
        process = installation.start_sync()
        time.sleep(dice.uniform(0.6, 3.5))
        process.kill()
        process.communicate()
        installation.python(CHURN, str(round_ * 8), f"r{round_}x")
        bought |= {scene.sha(f"p{n}@example.com") for n in range(round_ * 8, round_ * 8 + 5)}
        code, errors = installation.sync()
        assert code == 0, errors[-1000:]
        assert installation.held() == installation.wanted()
        assert not installation.held() & bought
        assert installation.python(LATE_ADDS).strip() == "0"  # not even for a moment
