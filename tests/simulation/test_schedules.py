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
    return subprocess.run(
        [sys.executable, "-m", "tests.simulation", *words],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
        check=False,
    )


def all_hold(seeds: int) -> None:
    done = simulate("--seeds", str(seeds))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert f"{seeds} schedules, 0 failed" in done.stdout


@pytest.mark.embedded
def test_random_kills_late_effects_and_changes_leave_the_platform_as_intended():
    all_hold(SEEDS)


@pytest.mark.server
def test_on_postgresql_they_do_as_well():
    all_hold(SEEDS // 20)


@pytest.fixture(scope="module")
def without_each() -> str:
    return simulate("--weakened", "--seeds", "150").stdout


@pytest.mark.embedded
@pytest.mark.parametrize("protection", PROTECTIONS)
def test_schedules_fail_once_a_protection_is_switched_off(protection, without_each):
    assert re.search(rf"^without {protection}: seed \d+ breaks ", without_each, re.MULTILINE), without_each
    assert len(without_each.splitlines()) == len(PROTECTIONS)
