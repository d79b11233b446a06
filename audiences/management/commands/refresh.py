"""`manage.py refresh`: count audiences now, or as of a past moment without touching what is live."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from audiences.management.base import RollcallCommand
from audiences.management.moments import iso, moment
from audiences.models import Audience, Refresh
from audiences.services import refreshes


class Command(RollcallCommand):
    help = "Count audiences (all of them, or those named) and make the result what is live."
    expected = (refreshes.NothingToCount,)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "keys", nargs="*", metavar="KEY", help="audiences; all that have a published rule if left out"
        )
        parser.add_argument(
            "--as-of",
            type=moment,
            metavar="ISO",
            help="count as of a past moment (a date is midnight UTC), from past events and today's attributes; nothing live is touched",
        )
        parser.add_argument("--json", action="store_true", help="for machines")

    def handle(self, *args: Any, keys: list[str], as_of: int | None, json: bool, **options: Any) -> None:
        audiences = chosen(keys)
        if as_of is not None:
            self._show_past(audiences, as_of, json)
            return
        done = refreshes.refresh(audiences, cause=Refresh.Cause.MANUAL)
        if json:
            self.print_json([_as_data(key, counting) for key, counting in done.items()])
        for key, counting in done.items():
            if not json:
                self.stdout.write(_line(key, counting))
        failed = [key for key, counting in done.items() if counting.state != Refresh.State.DONE]
        if failed:
            raise CommandError(f"Not counted: {', '.join(failed)}. {done[failed[0]].error}")

    def _show_past(self, audiences: list[Audience], as_of: int, json: bool) -> None:
        computed = refreshes.compute_as_of(audiences, as_of)
        if json:
            rows = [
                {
                    "audience": key,
                    "count": len(found.members),
                    "as_of": iso(as_of),
                    "rule_counts": dict(found.rule_counts),
                }
                for key, found in computed.items()
            ]
            self.print_json(rows)
            return
        for key, found in computed.items():
            self.stdout.write(f"{key}  {len(found.members):,} people as of {iso(as_of)}")
        self.stderr.write("Past events, today's attributes. Nothing live was changed.")


def chosen(keys: list[str]) -> list[Audience]:
    """The audiences named, or all that can be counted. Raises CommandError."""
    if not keys:
        found = list(Audience.objects.filter(archived_at=None, live_version__isnull=False).order_by("key"))
        if not found:
            raise CommandError(
                "There is no audience with a published rule yet. Publish one, or `manage.py apply FILE`."
            )
        return found
    rows = {audience.key: audience for audience in Audience.objects.filter(key__in=keys)}
    missing = [key for key in keys if key not in rows]
    if missing:
        raise CommandError(f"There is no audience {', '.join(missing)}.")
    return [rows[key] for key in dict.fromkeys(keys)]


def _line(key: str, counting: Refresh) -> str:
    if counting.state != Refresh.State.DONE:
        return f"{key}  not counted: {counting.error}"
    moves = (
        "" if counting.entered_count is None else f", {counting.entered_count:,} entered, {counting.left_count:,} left"
    )
    return f"{key}  {counting.count:,} people{moves} (v{counting.version.number})"


def _as_data(key: str, counting: Refresh) -> dict[str, Any]:
    return {
        "audience": key,
        "state": counting.state,
        "version": counting.version.number,
        "as_of": iso(counting.as_of_us),
        "count": counting.count,
        "entered": counting.entered_count,
        "left": counting.left_count,
        "rule_counts": counting.rule_counts,
        "error": counting.error,
    }
