"""manage.py erase: privacy requests for the identifiers in a file or on standard input, never on the command line."""

import csv
import secrets
import sys
import time
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from datetime import time as time_of_day
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, CommandParser
from django.utils import timezone

from audiences.management.base import RollcallCommand
from audiences.management.importing import progress_bar
from audiences.models import ImportFile, PrivacyRequest, RefusedRow
from audiences.people import imports, privacy_lists
from audiences.people.imports import ImportRefused
from qa import privacy, privacy_page

Kind, State = PrivacyRequest.Kind, PrivacyRequest.State


class Command(RollcallCommand):
    expected = (ImportRefused,)
    help = (
        "Erase the people whose identifiers (id, e-mail or phone) stand in FILE or on standard input, one a line; or FILE is a"
        " CSV with columns id, email, phone or identifier. They leave every audience at once and every platform ahead of all else,"
        " are then forgotten, and cannot come back. It cannot be undone."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("file", nargs="?", default="-", metavar="FILE", help="left out, or -: standard input")
        parser.add_argument(
            "--suppress", action="store_true", help="do not sell or advertise, which may be lifted later"
        )
        parser.add_argument(
            "--asked-on", type=date.fromisoformat, metavar="DAY", help="when they asked, YYYY-MM-DD (today)"
        )
        parser.add_argument("--reference", default="", help="kept beside each request, such as a ticket; no names")
        parser.add_argument(
            "--wait", type=int, default=0, metavar="SECONDS", help="until no platform is to be told any more"
        )
        parser.add_argument("--json", action="store_true", help="one JSON object")

    def handle(self, *args: Any, **options: Any) -> None:
        path, name = self._file(options["file"])
        if "@" in options["reference"]:
            raise CommandError("--reference is kept after they are forgotten, so it must not hold an e-mail address.")
        asked_on = options["asked_on"]
        if asked_on and asked_on > timezone.localdate():
            raise CommandError("--asked-on: that day is still to come.")
        try:
            row = privacy_lists.start(
                path,
                actor=None,
                kind=Kind.SUPPRESSION if options["suppress"] else Kind.ERASURE,
                source=PrivacyRequest.Source.COMMAND,
                name=name,
                reference=options["reference"],
                asked_at=datetime.combine(asked_on, time_of_day(), tzinfo=UTC).isoformat() if asked_on else "",
                in_background=False,
            )
            bar = progress_bar(self)
            row = imports.run_here(row, lambda now: bar(now.bytes_read, now.bytes_total))
        finally:
            if path.parent == imports.uploads():
                path.unlink(missing_ok=True)
        if row.state == ImportFile.State.FAILED:
            raise CommandError(row.error)
        made = PrivacyRequest.objects.filter(import_file=row)
        if options["wait"]:
            self._wait([request.pk for request in made], options["wait"])
        self._tell(row, privacy_page.lines(made.order_by("pk")), json=options["json"])
        if options["wait"] and made.filter(state__in=(State.RECEIVED, State.REMOVING)).exists():
            raise CommandError("Not out everywhere yet. The pages of the requests say what each platform waits for.")

    def _file(self, given: str) -> tuple[Path, str]:
        """The CSV to read, and what to call it. One identifier a line becomes one, in a file that is gone afterwards."""
        if given == "-":
            if sys.stdin.isatty():
                self.stderr.write("One identifier a line; end with Ctrl-D.")
            return _as_csv(sys.stdin), "standard input"
        path = Path(given)
        if not path.is_file():  # without what was given: it may be an identifier
            raise CommandError(
                "There is no such file. Identifiers are read from a file or standard input, never from arguments."
            )
        if path.name.lower().endswith((".csv", ".csv.gz")):
            return path, path.name[:255]
        with path.open(encoding="utf-8", errors="replace") as lines:
            return _as_csv(lines), path.name[:255]

    def _wait(self, numbers: list[int], seconds: int) -> None:
        until = time.monotonic() + seconds
        waiting = PrivacyRequest.objects.filter(pk__in=numbers, state__in=(State.RECEIVED, State.REMOVING))
        while True:
            privacy.follow()
            if not waiting.exists() or time.monotonic() >= until:
                return
            time.sleep(min(1.0, timedelta(seconds=seconds).total_seconds()))

    def _tell(self, row: ImportFile, lines: list[privacy_page.Line], *, json: bool) -> None:
        refused = RefusedRow.objects.filter(import_file=row).order_by("line").values("line", "field", "reason")
        if json:
            self.print_json(
                {
                    "import": row.pk,
                    "rows": row.rows_read,
                    "refused": list(refused),
                    "requests": [
                        {
                            "request": line.request.pk,
                            "kind": line.request.kind,
                            "state": line.request.state,
                            "people": len(line.request.people),
                            "due": line.request.due_at.isoformat(),
                            "connections": line.receipts,
                            "through": line.settled,
                            "nothing_sent_to": line.request.untouched,
                        }
                        for line in lines
                    ],
                }
            )
            return
        known = sum(bool(line.request.people) for line in lines)
        self.stdout.write(
            f"{len(lines):,} requests taken in from {row.rows_read:,} rows; {known:,} are about people who were known."
        )
        before = row.rows_accepted - len(lines)
        if before > 0:
            self.stdout.write(f"{before:,} had been asked before.")
        for one in refused[:20]:
            self.stdout.write(f"line {one['line']}: {one['reason']}")
        if refused.count() > 20:
            self.stdout.write(f"… and {refused.count() - 20:,} more: manage.py refused --import {row.pk}")
        if lines:
            self.stdout.write(f"Follow them at /privacy/, from request {lines[0].request.pk} on.")


def _as_csv(lines: Iterable[str]) -> Path:
    path = imports.uploads() / f"{secrets.token_hex(8)}.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["identifier"])
        writer.writerows([text] for line in lines if (text := line.strip().replace("\0", "�")))
    path.chmod(0o600)
    return path
