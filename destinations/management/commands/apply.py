"""`manage.py apply`: make this workspace as a file says."""

from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from audiences.management.base import RollcallCommand
from audiences.services.audiences import AudienceRefused
from audiences.services.users import UserRefused
from destinations import blueprint
from destinations.blueprint.planning import CHANGE, CREATE, SAME, Change, Plan
from destinations.services import Refused

SIGNS = {CREATE: "+", CHANGE: "~", SAME: "="}


class Command(RollcallCommand):
    help = (
        "Apply a file (YAML, or JSON where its name ends in .json): settings, lists, audiences with their rules, destinations, mappings."
        " Prints what changes; applying it again changes nothing. What the file leaves out stays as it is."
    )
    expected = (AudienceRefused, Refused, UserRefused, ValueError)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", type=Path)
        parser.add_argument("--dry-run", action="store_true", help="print the plan and change nothing")
        parser.add_argument("--json", action="store_true", help="the plan for machines")

    def handle(self, *args: Any, file: Path, dry_run: bool, json: bool, **options: Any) -> None:
        try:
            plan = blueprint.load(file)
        except blueprint.BlueprintRefused as refused:
            if json:
                self.print_json(_refusal(refused))
            lines = "\n  ".join(map(str, refused.problems))
            raise CommandError(f"{file} was not applied, nothing was changed:\n  {lines}") from None
        if not json:
            self._show(plan)
        if not dry_run:
            plan.carry_out()
        if json:
            self.print_json(_as_data(plan, applied=not dry_run))
        if plan.stopped:
            lines = "\n  ".join(f"{stopped.path} stays as it was. {stopped.words}" for stopped in plan.stopped)
            raise CommandError(f"{file} was applied, except that a gate stopped:\n  {lines}", returncode=3)
        if dry_run and plan.changed and not json:
            self.stdout.write("A dry run: nothing was changed.")

    def _show(self, plan: Plan) -> None:
        for note in plan.notes:
            self.stderr.write(note)
        for change in plan.changes:
            self.stdout.write(f"{SIGNS[change.action]} {change.kind} {change.key}")
            for detail in change.details:
                after = detail.after or "nothing"
                words = after if change.action == CREATE else f"{detail.before or 'nothing'} → {after}"
                self.stdout.write(f"    {detail.field}: {words}")
        for advice in plan.advice:
            where = f" at {advice.finding.path}" if advice.finding.path else ""
            self.stdout.write(f"! {advice.audience}{where} ({advice.finding.code}): {advice.finding.why}")
        created, changed, same = (_number(plan, action) for action in (CREATE, CHANGE, SAME))
        self.stdout.write(f"{created} to create, {changed} to change, {same} unchanged.")


def _number(plan: Plan, action: str) -> int:
    return sum(change.action == action for change in plan.changes)


def _as_data(plan: Plan, *, applied: bool) -> dict[str, Any]:
    return {
        "applied": applied,
        "notes": plan.notes,
        "changes": [_change(change) for change in plan.changes],
        "findings": _findings(plan.advice),
        "stopped": [{"mapping": stopped.path, "reason": stopped.words} for stopped in plan.stopped],
    }


def _refusal(refused: blueprint.BlueprintRefused) -> dict[str, Any]:
    """Nothing was planned; what is doubtful is said all the same."""
    problems = [{"path": problem.path, "words": problem.words} for problem in refused.problems]
    return {"applied": False, "problems": problems, "findings": _findings(refused.advice)}


def _findings(advice: Iterable[blueprint.Advice]) -> list[dict[str, str]]:
    return [
        {"audience": one.audience, "code": one.finding.code, "path": one.finding.path, "why": one.finding.why}
        for one in advice
    ]


def _change(change: Change) -> dict[str, Any]:
    details = [{"field": one.field, "before": one.before, "after": one.after} for one in change.details]
    return {"action": change.action, "kind": change.kind, "key": change.key, "details": details}
