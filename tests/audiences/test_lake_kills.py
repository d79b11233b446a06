"""No event is lost, doubled or unseen, whoever is killed whenever: real processes on a database and a lake of their own."""

import json
import subprocess
import sys

import pytest

from tests.journeys.deployment import ROOT, Deployment

SHORT, LONG = 5, 30
LENGTHS = [SHORT, pytest.param(LONG, marks=[pytest.mark.slow, pytest.mark.timeout(600)])]


@pytest.fixture
def stage(tmp_path):
    made = Deployment(tmp_path / "var")
    made.migrate()
    yield made
    made.remove()


def play(stage, roles: list[str], seconds: float) -> list[dict]:
    """Run all roles at once; what each has to say at its end."""
    actors = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.audiences.lake_actors", role, str(seconds)],
            cwd=ROOT,
            env={**stage.env, "DJANGO_SETTINGS_MODULE": "config.settings"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for role in roles
    ]
    said = []
    for role, actor in zip(roles, actors, strict=True):
        out, errors = actor.communicate(timeout=seconds + 120)
        assert actor.returncode == 0, f"{role}: {errors}"
        assert "crash" not in errors, f"{role}: {errors}"
        said.append(json.loads(out.splitlines()[-1]))
    print(json.dumps(said))
    return said


def kills(said) -> dict[str, int]:
    found: dict[str, int] = {}
    for one in said:
        for point, times in one.get("killed", {}).items():
            found[point] = found.get(point, 0) + times
    return found


@pytest.mark.parametrize("seconds", LENGTHS)
def test_events_are_seen_once_whoever_is_killed(stage, seconds):
    said = play(stage, ["intake", "intake", "flush", "flush", "compact", "read", "read"], seconds)
    assert [one.get("wrong", []) for one in said] == [[]] * len(said)
    assert [one["unread"] for one in said if one["role"] == "read"] == [0, 0]
    assert sum(one.get("checks", 0) for one in said) > seconds / 2
    assert len(kills(said)) > (15 if seconds == LONG else 2)
    (end,) = play(stage, ["settle"], 0)
    assert end["accepted"] > 40 * seconds
    assert (end["wrong"], end["hot"], end["strays"]) == ([], 0, [])


@pytest.mark.parametrize("seconds", LENGTHS)
def test_profiles_are_seen_as_they_are_whoever_is_killed(stage, seconds):
    said = play(stage, ["profiles", "project", "project", "read_profiles"], seconds)
    assert [one.get("wrong", []) for one in said] == [[]] * len(said)
    assert sum(one.get("checks", 0) for one in said) > seconds / 2
    assert len(kills(said)) > 2


def test_the_readers_notice_a_flush_in_two_transactions(stage):
    said = play(stage, ["intake", "split", "read", "read"], SHORT)
    assert any(one.get("wrong") for one in said)
