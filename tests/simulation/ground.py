"""A process in which schedules are played: its settings, a database of its own, its platform's files. Nothing of Django before `lay`."""

import atexit
import os
import shutil
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple


class Played(NamedTuple):
    """What became of a schedule. `rule`: what did not hold; empty where all did."""

    seed: int
    rule: str
    words: str
    story: str
    steps: int
    calls: int


_laid: dict[str, Any] = {}


def lay() -> None:
    """Make this process ready to play; where DATABASE_URL names a server, in a database of its own there."""
    folder = tempfile.mkdtemp(prefix="rollcall-simulation-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ["DATA_DIR"] = folder
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    os.environ.setdefault("SECRET_KEY", "only-for-tests-" + "x" * 50)
    os.environ["TEST_SQLITE"] = ":memory:"
    os.environ["LOG_LEVEL"] = "CRITICAL"
    import django

    django.setup()
    from django.db import connection

    if connection.vendor == "postgresql":
        connection.settings_dict["TEST"]["NAME"] = f"simulation_{os.getpid()}"
        atexit.register(connection.creation.destroy_test_db, connection.settings_dict["NAME"], verbosity=0)
    connection.creation.create_test_db(verbosity=0, autoclobber=True)
    from tests.simulation import stage
    from tests.simulation.platform import World

    _laid["stage"], _laid["world"] = stage.build(), World(Path(folder))


def play(seed: int, without: str = "") -> Played:
    """One schedule, in a process that is laid; `without` a protection of weakened.py's, and in a weather that needs it."""
    from tests.simulation import schedule, weakened

    with ExitStack() as stack:
        weather = stack.enter_context(weakened.without(without)) if without else {}
        verdict = schedule.play(_laid["stage"], _laid["world"], seed, **weather)
    return Played(seed, verdict.rule, verdict.words, verdict.story(), verdict.steps, verdict.calls)


def play_in_weather_of(seed: int, protection: str) -> Played:
    """The schedule that `play(seed, protection)` plays, with nothing switched off."""
    from tests.simulation import schedule, weakened

    verdict = schedule.play(_laid["stage"], _laid["world"], seed, **weakened.PROTECTIONS[protection].weather)
    return Played(seed, verdict.rule, verdict.words, verdict.story(), verdict.steps, verdict.calls)
