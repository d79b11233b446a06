"""python -m tests.simulation --seeds 50000: so many schedules, and the story of each that fails.

With --weakened: each protection of the ledger is switched off in turn, until a schedule fails.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

from tests.simulation import ground
from tests.simulation.ground import Played


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument(
        "--seeds", type=int, default=1000, help="how many schedules; with --weakened, at most so many each"
    )
    parser.add_argument("--start", type=int, default=0, help="the first seed")
    parser.add_argument("--processes", type=int, default=1, help="how many play at once")
    parser.add_argument("--story", action="store_true", help="print each schedule's trace")
    parser.add_argument("--without", default="", metavar="PROTECTION", help="with this protection switched off")
    parser.add_argument("--weakened", action="store_true", help="show that each protection is needed")
    given = parser.parse_args()
    if given.weakened:
        return weakened(range(given.start, given.start + given.seeds))
    began, failed, steps, calls = time.monotonic(), 0, 0, 0
    seeds = range(given.start, given.start + given.seeds)
    for done, played in enumerate(all_of(seeds, given.processes, given.without), 1):
        steps, calls = steps + played.steps, calls + played.calls
        if given.story or played.rule:
            print(played.story, flush=True)
        failed += bool(played.rule)
        if done % 500 == 0:
            print(
                f"{done} of {given.seeds}, {failed} failed, {done / (time.monotonic() - began):.1f}/s", file=sys.stderr
            )
    took = time.monotonic() - began
    print(f"{given.seeds} schedules, {failed} failed, {given.seeds / took:.1f}/s, {steps} steps, {calls} calls")
    return 1 if failed else 0


def all_of(seeds: range, processes: int, without: str) -> Iterator[Played]:
    """The schedules of these seeds, in order."""
    if processes == 1:
        ground.lay()
        for seed in seeds:
            yield ground.play(seed, without)
        return
    fresh = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=fresh, initializer=ground.lay) as pool:
        yield from pool.map(ground.play, seeds, [without] * len(seeds), chunksize=20)


def weakened(seeds: range) -> int:
    """Without each protection some schedule fails, which holds with it."""
    ground.lay()
    from tests.simulation.weakened import PROTECTIONS

    blunt = 0
    for name, protection in PROTECTIONS.items():
        broken = next((played for seed in seeds if (played := ground.play(seed, name)).rule), None)
        if broken is None:
            blunt += 1
            print(f"without {name}: {len(seeds)} schedules held, though {protection.means}", flush=True)
        elif ground.play_in_weather_of(broken.seed, name).rule:
            blunt += 1
            print(f"without {name}: seed {broken.seed} fails with it too", flush=True)
        else:
            print(f"without {name}: seed {broken.seed} breaks “{broken.rule}” ({protection.means})", flush=True)
    return 1 if blunt else 0


if __name__ == "__main__":
    sys.exit(main())
