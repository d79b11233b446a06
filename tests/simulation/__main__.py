"""python -m tests.simulation --seeds 50000 --start 0: so many schedules, and the story of each that fails."""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many schedules")
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--story", action="store_true", help="print each schedule's trace")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rollcall-simulation-") as folder:
        os.environ["DATA_DIR"] = folder
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
        os.environ.setdefault("SECRET_KEY", "only-for-tests-" + "x" * 50)
        os.environ["TEST_SQLITE"] = ":memory:"
        os.environ["LOG_LEVEL"] = "CRITICAL"
        import django

        django.setup()
        from django.db import connection

        connection.creation.create_test_db(verbosity=0)
        from tests.simulation import stage as stages
        from tests.simulation.platform import World
        from tests.simulation.schedule import play

        stage = stages.build()
        world = World(Path(folder))
        began, failed, steps, calls = time.monotonic(), 0, 0, 0
        for seed in range(given.start, given.start + given.seeds):
            verdict = play(stage, world, seed)
            steps, calls = steps + verdict.steps, calls + verdict.calls
            if given.story or verdict.rule:
                print(verdict.story(), flush=True)
            failed += bool(verdict.rule)
        took = time.monotonic() - began
        print(f"{given.seeds} schedules, {failed} failed, {given.seeds / took:.1f}/s, {steps} steps, {calls} calls")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
