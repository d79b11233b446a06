"""Audiences, destinations and connections as one file: read it, see what would change, carry it out, write it. These are its doors."""

import os
from collections.abc import Mapping
from pathlib import Path

from destinations.blueprint import advice, connections, names
from destinations.blueprint.entries import Blueprint, parse, read
from destinations.blueprint.notation import Advice, BlueprintRefused
from destinations.blueprint.planning import Change, Detail, Plan, Planner
from destinations.blueprint.writing import export

__all__ = ["Advice", "Blueprint", "BlueprintRefused", "Change", "Detail", "Plan", "export", "parse", "plan", "read"]


def plan(blueprint: Blueprint, source: str, environment: Mapping[str, str] | None = None) -> Plan:
    """Compare the file's entries with what is there. Nothing is written before `carry_out()`.

    `source` names the file in the reasons on record; `environment` holds the secrets that the file points to.
    Raises BlueprintRefused with all that is wrong.
    """
    planner = Planner(blueprint, source, os.environ if environment is None else environment)
    planner.settings()
    names.convention(planner)
    planner.lists()
    planner.audiences()
    connections.destinations(planner)
    connections.mappings(planner)
    planner.users()
    said = advice.of(planner)
    if planner.problems:
        refused = BlueprintRefused(*planner.problems)
        refused.advice = said
        raise refused
    planner.plan.advice = said
    return planner.plan


def load(path: Path) -> Plan:
    """`plan` of the file at this path."""
    return plan(read(path), path.name)
