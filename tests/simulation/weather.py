"""What a schedule is like: how many people and faults, and what befalls a request. Drawn from the schedule's numbers, nothing else.

Each schedule has some faults often and others never: together they would hide one another.
"""

from dataclasses import dataclass
from random import Random
from typing import Any

from destinations.sandbox.journal import Dial
from tests.simulation.people import RETARGETING, SUPPRESSION
from tests.simulation.platform import TIMEOUT, Fate, Pushed

KINDS = ("meta", "google", "openlist")
IDENTIFIERS = {
    "meta": (("email",), ("email", "phone"), ("external_id", "email")),
    "google": (("email",), ("email", "phone")),
    "openlist": (("external_id",), ("email",), ("external_id", "email")),
}
# Pauses, clocks and the way to a platform together stay under a connector's settle time (docs/operations.md says so to operators).
MARGIN = 14.0
LONGEST_STEP, LONGEST_SKEW = 5.0, 2.0

_FATES = {  # what befalls a request: in how many schedules at all
    "slow": 0.5,
    "throttled": 0.3,
    "unavailable": 0.3,
    "failed": 0.3,
    "dropped": 0.5,
    "late": 0.6,
    "hang": 0.3,
    "garbled": 0.4,
    "garbled, not applied": 0.3,
    "partial": 0.4,
    "too small": 0.06,
    "poison": 0.1,
    "token": 0.04,
    "processing": 0.6,
    "applied last": 0.5,
    "fails later": 0.3,
}
_GOOGLE = ("processing", "applied last", "fails later")


@dataclass(frozen=True, slots=True)
class Weather:
    """Chances are per point, or per call for `fates`."""

    kind: str
    purpose: str
    identifiers: tuple[str, ...]
    people: int
    sharing: bool  # some have the same e-mail
    batch: int
    begun: bool  # the platform already has whom it should
    acts: int
    act_every: float  # seconds
    act: float
    switch: float
    kill: float
    kills: int
    stop: float
    stops: int
    machines: int  # on one, a dead holder of a lease is known for dead
    skew: float
    step: float  # of the wall clock
    fates: tuple[tuple[str, float], ...]
    trouble: float  # the chance that a push meets any of them
    lane: bool  # the fast lane reads what happens
    commands: bool  # people run syncs by hand, beside the workers
    rate: float
    controls: bool  # people pause, resync and change the connection meanwhile

    @classmethod
    def drawn(cls, rng: Random, **given: Any) -> "Weather":
        kind = given.get("kind") or rng.choice(KINDS)
        fates = {name: rng.choice((0.3, 1.0, 2.0)) for name, chance in _FATES.items() if rng.random() < chance}
        drawn: dict[str, Any] = {
            "kind": kind,
            "purpose": RETARGETING if rng.random() < 0.75 else SUPPRESSION,
            "identifiers": rng.choice(IDENTIFIERS[kind]),
            "people": rng.randint(3, 7),
            "sharing": rng.random() < 0.3,
            "batch": rng.choice((1, 2, 2, 3, 10)),
            "begun": rng.random() < 0.7,
            "acts": rng.randint(2, 9),
            "act_every": rng.choice((5.0, 20.0, 45.0)),
            "act": rng.choice((0.0, 0.01, 0.03)),
            "switch": rng.choice((0.0, 0.02, 0.1)),
            "kill": rng.choice((0.0, 0.004, 0.015)),
            "kills": rng.randint(0, 3),
            "stop": rng.choice((0.0, 0.004, 0.015)),
            "stops": rng.randint(0, 3),
            "machines": rng.choice((1, 2)),
            "skew": rng.choice((0.0, 0.0, LONGEST_SKEW)),
            "step": rng.choice((0.0, 0.0, 0.003)),
            "fates": tuple((name, weight) for name, weight in fates.items() if kind == "google" or name not in _GOOGLE),
            "trouble": rng.choice((0.1, 0.3, 0.5)),
            "lane": rng.random() < 0.6,
            "commands": rng.random() < 0.4,
            "rate": rng.choice((600.0, 600.0, 20.0)),
            "controls": rng.random() < 0.2,
        }
        return cls(**{**drawn, **given})


def fate(weather: Weather, rng: Random, op: str, pushed: Pushed | None, settle: float) -> Fate:
    """What befalls a request that is no part of quiet."""
    there, back = rng.uniform(0.05, 1.5), rng.uniform(0.05, 1.5)
    if not weather.fates or rng.random() >= (weather.trouble if pushed is not None else weather.trouble / 5):
        return there, back, None
    names = [name for name, _ in weather.fates]
    name = rng.choices(names, [weight for _, weight in weather.fates])[0]
    if pushed is None and name not in ("slow", "throttled", "unavailable", "failed", "dropped", "garbled"):
        return there, back, None
    dial: tuple[str, dict[str, Any]] | None = None
    match name:
        case "slow":
            there = rng.uniform(0.1, 20)
            back = rng.uniform(0.1, TIMEOUT - there - 1)
        case "hang":
            there, back = rng.uniform(0.1, 20), TIMEOUT
        case "throttled":
            dial = "throttle", {"seconds": rng.uniform(1, 50), "retry_after": rng.choice(("seconds", "none"))}
        case "unavailable":
            dial = "error", {"status": 503}
        case "failed":
            dial = "error", {"status": 500}
        case "dropped":
            dial = "drop", {}
        case "late":
            dial = "late", {"seconds": rng.uniform(1, settle - MARGIN)}
        case "garbled":
            dial = "garbled", {"apply": True}
        case "garbled, not applied":
            dial = "garbled", {"apply": False}
        case "partial" if pushed is not None:
            rows = [place for place in range(len(pushed.rows)) if rng.random() < 0.5] or [0]
            dial = "partial", {"rows": rows}
        case "too small":
            dial = "small_removals", {"below": 100}
        case "token":
            dial = "refuse", {"why": "expired"}
        case "processing":
            dial = "processing", {"seconds": rng.uniform(2, 40)}
        case "applied last":
            dial = "processing", {"seconds": rng.uniform(2, settle - MARGIN), "applied_last": True}
        case "fails later":
            dial = "fail", {}
    return there, back, Dial(0, *dial) if dial else None
