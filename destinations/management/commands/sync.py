"""manage.py sync: run the connections of these audiences, or of all, and wait."""

import sys
import time
from datetime import timedelta
from typing import Any

import orjson
from django.core.management.base import BaseCommand, CommandError, CommandParser

from audiences.models import Audience
from destinations import queries
from destinations.models import Mapping, Run
from destinations.services import Refused, runs


class Command(BaseCommand):
    help = "Sync the connections of these audiences (all of them if none is named), and wait until each has ended."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("keys", nargs="*", metavar="KEY", help="audience keys")
        parser.add_argument("--dry-run", action="store_true", help="count and plan, and send nothing")
        parser.add_argument("--json", action="store_true", help="one JSON object a connection, one a line")
        parser.add_argument(
            "--wait",
            type=int,
            default=180,
            metavar="SECONDS",
            help="how long to wait for pauses, receipts and unknown outcomes (180)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        chosen = self._mappings(options["keys"], everything=options["dry_run"])
        failed: list[str] = []
        for mapping in chosen:
            name = f"{mapping.audience.key} → {mapping.destination.key}"
            bar = _Bar(name, quiet=options["json"] or not sys.stderr.isatty())
            try:
                if options["dry_run"]:
                    run = runs.rehearse(actor=None, mapping=mapping, trigger=Run.Trigger.COMMAND, start=False)
                else:
                    run = runs.request(actor=None, mapping=mapping, trigger=Run.Trigger.COMMAND, start=False)
                run = runs.run_to_end(run, patience=timedelta(seconds=options["wait"]), progress=bar.show)
            except Refused as error:
                bar.end()
                failed.append(f"{name}: {error}")
                continue
            bar.end()
            self.stdout.write(_json(run, mapping) if options["json"] else _line(run, name))
            if run.state not in (Run.State.DONE, Run.State.PARTIAL):
                failed.append(f"{name}: {run.get_state_display().lower()}. {run.error}".strip())
        if failed:
            raise CommandError("; ".join(failed))

    def _mappings(self, keys: list[str], *, everything: bool) -> list[Mapping]:
        rows = Mapping.objects.select_related("audience", "destination").order_by("audience__key", "destination__key")
        if keys:
            unknown = set(keys) - set(Audience.objects.filter(key__in=keys).values_list("key", flat=True))
            if unknown:
                raise CommandError(f"There is no audience {', '.join(sorted(unknown))}.")
            rows = rows.filter(audience__key__in=keys)
            connected = set(rows.values_list("audience__key", flat=True))
            if missing := [key for key in keys if key not in connected]:
                raise CommandError(f"{', '.join(missing)} has no connection.")
        # A rehearsal sends nothing, and a freeze forbids it: neither is a failure of a sync of everything.
        rows = rows.exclude(state=Mapping.State.RETIRED) if everything else rows.filter(state__in=runs.SENDS)
        found = sorted(
            rows, key=lambda row: row.audience.purpose != Audience.Purpose.SUPPRESSION
        )  # who must not be sent, first
        if keys and not found:
            raise CommandError("None of these connections sends anything: they are in rehearsal, frozen or retired.")
        return found


class _Bar:
    """One line on the terminal that shows how far a run is."""

    def __init__(self, name: str, *, quiet: bool) -> None:
        self.name, self.quiet, self.shown = name, quiet, 0.0

    def show(self, run: Run) -> None:
        if self.quiet or time.monotonic() - self.shown < 0.1:
            return
        self.shown = time.monotonic()
        planned = max(run.batches_planned, run.batches_done, 1)
        filled = 30 * run.batches_done // planned
        done = f"{run.added + run.removed:,} of {(run.planned_adds or 0) + (run.planned_removes or 0):,}"
        sys.stderr.write(f"\r{self.name}  [{'#' * filled}{'.' * (30 - filled)}]  {done}\x1b[K")
        sys.stderr.flush()

    def end(self) -> None:
        if not self.quiet and self.shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def _line(run: Run, name: str) -> str:
    if run.rehearsal:
        estimate = queries.estimate(run)
        took = f", about {max(1, round(estimate.total_seconds()))} s" if estimate else ""
        return f"{name}: would add {run.planned_adds or 0:,} and remove {run.planned_removes or 0:,} in {run.batches_planned:,} calls{took}"
    parts = [f"added {run.added:,}", f"removed {run.removed:,}", f"unchanged {run.unchanged or 0:,}"]
    parts += [f"refused {run.rejected:,}"] if run.rejected else []
    parts += [f"outcome not known of {run.unknown:,}"] if run.unknown else []
    return f"{name}: {run.get_state_display().lower()}; {', '.join(parts)}"


def _json(run: Run, mapping: Mapping) -> str:
    return orjson.dumps(
        {
            "audience": mapping.audience.key,
            "destination": mapping.destination.key,
            "run": run.pk,
            "state": run.state,
            "dry_run": run.rehearsal,
            "planned_adds": run.planned_adds,
            "planned_removes": run.planned_removes,
            "unchanged": run.unchanged,
            "added": run.added,
            "removed": run.removed,
            "rejected": run.rejected,
            "unknown": run.unknown,
            "calls": run.batches_planned if run.rehearsal else run.batches_done,
            "remote_id": mapping.remote_id,
            "error": run.error,
        }
    ).decode()
