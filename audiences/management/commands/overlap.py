"""`manage.py overlap`: how many people two audiences share, for every pair."""

from argparse import ArgumentParser
from typing import Any

from audiences import overlap
from audiences.management.base import RollcallCommand
from audiences.management.commands.refresh import chosen
from audiences.management.moments import iso


class Command(RollcallCommand):
    help = "Count the people that audiences share: every pair of those named, or of all."
    expected = (overlap.NotCounted,)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("keys", nargs="*", metavar="KEY", help="audiences; all that have been counted if left out")
        parser.add_argument("--json", action="store_true", help="for machines")

    def handle(self, *args: Any, keys: list[str], json: bool, **options: Any) -> None:
        if keys:
            chosen(keys)  # a key that does not exist is told apart from one that has not been counted
        found = overlap.matrix(keys or None)
        if json:
            self.print_json(_as_data(found))
            return
        shared = [
            (found.counts[row][column], row, column)
            for row in range(len(found.keys))
            for column in range(row + 1, len(found.keys))
            if found.counts[row][column]
        ]
        for count, row, column in sorted(shared, key=lambda pair: (-pair[0], pair[1], pair[2])):
            left, right = found.keys[row], found.keys[column]
            self.stdout.write(
                f"{left} and {right}: {count:,} people,"
                f" {found.share(row, column):.1%} of {left}, {found.share(column, row):.1%} of {right}"
            )
        if not shared:
            self.stdout.write(f"No two of {len(found.keys)} audiences share anybody.")


def _as_data(found: overlap.Matrix) -> dict[str, Any]:
    size = range(len(found.keys))
    return {
        "audiences": [
            {"key": found.keys[at], "count": found.counts[at][at], "as_of": iso(found.as_of_us[at])} for at in size
        ],
        "pairs": [
            {
                "a": found.keys[row],
                "b": found.keys[column],
                "count": found.counts[row][column],
                "share_of_a": found.share(row, column),
                "share_of_b": found.share(column, row),
            }
            for row in size
            for column in range(row + 1, len(found.keys))
        ],
    }
