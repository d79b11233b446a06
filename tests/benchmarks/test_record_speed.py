"""The record of a large audience as files: how long it takes, and how much memory however many people and events there are."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests import peak
from tests.benchmarks import report
from tests.benchmarks.shop import shop

pytestmark = [pytest.mark.bench, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
PEOPLE, COUNTS, EVENTS = 1_000_000, 90, int(os.environ.get("ROLLCALL_BENCH_EVENTS") or 20_000_000)
MEMORY_GOAL = 1_000_000_000

_ENTER = "import django; django.setup(); from tests.benchmarks import shop; shop.enter(shop.shop(%d, %d))"


@pytest.mark.parametrize("file_format", ["parquet", "csv"])
def test_a_million_members_and_their_events_are_exported_in_bounded_memory(tmp_path_factory, file_format):
    folder = tmp_path_factory.mktemp("record")
    env = {**os.environ, "DATA_DIR": str(folder), "DATABASE_URL": "", "BROKER_URL": "memory://", "DJANGO_SETTINGS_MODULE": "config.settings",
           "PYTHONPATH": str(ROOT), "LAKE_URL": str(shop(PEOPLE, EVENTS).root), "SECRET_KEY": "x" * 60}  # fmt: skip
    subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.record_people", str(PEOPLE), str(COUNTS)],
        cwd=ROOT,
        env=env,
        check=True,
    )
    subprocess.run([sys.executable, "-c", _ENTER % (PEOPLE, EVENTS)], cwd=ROOT, env=env, check=True)
    out = folder / "out"
    words = ["export_record", "large", "--format", file_format, "--to-folder", str(out)]
    began = time.monotonic()
    done = peak.run("manage.py", *words, env=env)
    seconds = time.monotonic() - began
    assert done.code == 0, done.out
    if file_format == "parquet":
        stays = pq.ParquetFile(out / "memberships.parquet").metadata.num_rows
        events = pq.ParquetFile(out / "events.parquet").metadata.num_rows
        assert stays > PEOPLE and events > 0.9 * EVENTS
    size = sum(path.stat().st_size for path in out.iterdir())
    report.row(
        f"export the record of {PEOPLE:,} members, {COUNTS} counts, {EVENTS:,} events ({file_format}, {size / 1e6:,.0f} MB)",
        ours=f"{seconds:,.0f} s",
        rival="–",
        ratio=None,
        goal="≤ 1 GB of memory",
        note=f"peak memory {done.peak / 1e6:.0f} MB; the whole command",
    )
    assert done.peak <= MEMORY_GOAL
