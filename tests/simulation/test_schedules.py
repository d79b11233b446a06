"""A thousand of the simulator's schedules, and proof that they would notice; `python -m tests.simulation` plays as many as one likes."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

SEEDS = int(os.environ.get("SIMULATION_SEEDS") or 1_000)
PROTECTIONS = (
    "write-ahead", "fence", "lease", "re-assert", "settle", "per-row outcome", "sweeper", "current-intent resume", "watch",
)  # fmt: skip

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3_000)]


def simulate(*words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "BROKER_URL")}
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *words],
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_random_kills_late_effects_and_changes_leave_the_platform_as_intended():
    done = simulate("--seeds", str(SEEDS))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"{SEEDS} schedules, 0 failed" in done.stdout


@pytest.fixture(scope="module")
def without_each() -> str:
    return simulate("--weakened", "--seeds", "150").stdout


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_schedules_fail_once_a_protection_is_switched_off(protection, without_each):
    assert re.search(rf"^without {protection}: seed \d+ breaks ", without_each, re.MULTILINE), without_each
    assert len(without_each.splitlines()) == len(PROTECTIONS)
