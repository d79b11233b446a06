"""Files of events: how many a second come in, and how much memory that takes however long the file is."""

import os
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest

from tests import peak
from tests.benchmarks import report

pytestmark = [pytest.mark.bench, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
GOAL, MEMORY_GOAL = 50_000, 1_000_000_000
SIZES = (500_000, 2_000_000)


def write(path, rows):
    duckdb.sql(
        f"""COPY (SELECT format('c{{:06d}}', (hash(i) % 50000)::INT) AS customer_id,
                  strftime(TIMESTAMP '2026-01-01' + INTERVAL (i * 15552000 // {rows}) SECOND, '%Y-%m-%dT%H:%M:%SZ') AS at,
                  ['product_viewed', 'add_to_cart', 'purchase'][1 + (hash(i, 1) % 3)::INT] AS event,
                  round((hash(i, 2) % 20000) / 100.0, 2) AS value,
                  ['shoes', 'shirts', 'bags', 'outlet'][1 + (hash(i, 3) % 4)::INT] AS category,
                  ['ios', 'android', 'web'][1 + (hash(i, 4) % 3)::INT] AS platform
                  FROM range({rows}) t(i)) TO '{path}' (HEADER)"""
    )


def run(folder, path):
    """(seconds, peak bytes) of the whole command, in an installation of its own."""
    words = ["import_events", str(path), "--map", "profile=customer_id", "--map", "time=at", "--map", "name=event"]
    env = {**os.environ, "DATA_DIR": str(folder), "DATABASE_URL": "", "BROKER_URL": "memory://"}
    subprocess.run([sys.executable, "manage.py", "migrate", "-v", "0"], cwd=ROOT, env=env, check=True)
    began = time.monotonic()
    done = peak.run("manage.py", *words, env=env)
    assert done.code == 0, done.out
    return time.monotonic() - began, done.peak


def test_event_files_come_in_fast_and_in_bounded_memory(tmp_path):
    for rows in SIZES:
        path = tmp_path / f"{rows}.csv"
        write(path, rows)
        seconds, taken = run(tmp_path / f"var{rows}", path)
        report.row(
            f"import {rows:,} events (CSV, {path.stat().st_size / 1e6:.0f} MB)",
            ours=f"{rows / seconds:,.0f} events/s",
            rival="–",
            ratio=None,
            goal=f"≥ {GOAL:,} events/s",
            note=f"peak memory {taken / 1e6:.0f} MB (goal ≤ {MEMORY_GOAL / 1e6:.0f}); the whole command, 50,000 people made",
        )
        assert taken <= MEMORY_GOAL
