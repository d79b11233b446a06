"""A handful of the simulator's schedules, in a process of their own; `python -m tests.simulation` runs as many as one likes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_random_kills_late_effects_and_changes_leave_the_platform_as_intended():
    environment = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "BROKER_URL")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulation", "--seeds", "40"],
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "40 schedules, 0 failed" in done.stdout
