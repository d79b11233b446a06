"""incidents: what is wrong now, for people and for machines."""

import json
from typing import Any

from django.core.management.base import BaseCommand, CommandParser
from django.utils import timezone

from qa import incidents


class Command(BaseCommand):
    help = "List open incidents, the worst first; --all lists those that are over too. Always exits with 0."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--json", action="store_true", help="a list of objects")
        parser.add_argument("--all", action="store_true", help="those that are over too")
        parser.add_argument("--audience", default="", metavar="KEY", help="of this audience and its connections only")

    def handle(self, *args: Any, **options: Any) -> None:
        wish = incidents.Wish(state="" if options["all"] else "open", audience=options["audience"])
        rows = list(incidents.found(wish, timezone.now()))
        if options["json"]:
            self.stdout.write(json.dumps(incidents.as_values(rows), indent=2, ensure_ascii=False))
            return
        if not rows:
            self.stdout.write("No incident on record." if options["all"] else "Nothing is wrong now.")
            return
        for row in rows:
            word = "OVER" if row.recovered_at else row.severity.upper()
            place = f" on {incidents.place(row)}" if incidents.place(row) else ""
            owner = row.owner.email if row.owner else "nobody"
            self.stdout.write(
                f"{word:8}  {row.since:%Y-%m-%d %H:%M}Z  {incidents.name(row)}{place} · {incidents.label(row.kind)} · {owner}"
            )
            self.stdout.write(f"          {row.sentence}")
