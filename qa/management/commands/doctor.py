"""`manage.py doctor`: is this deployment sound, and what to do if not."""

import sys
from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

import orjson
from django.core.management.base import BaseCommand

from qa import soundness

SIGNS = {"ok": "✓", "warning": "!", "problem": "✗"}


class Command(BaseCommand):
    help = "Examine this deployment: each line says what is so and what to do. Exits 1 if anything does not work."
    requires_system_checks = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--json", action="store_true", help="print the findings as JSON")

    def handle(self, *args: Any, **options: Any) -> None:
        findings = list(soundness.examine())
        if options["json"]:
            self.stdout.write(
                orjson.dumps([asdict(finding) for finding in findings], option=orjson.OPT_INDENT_2).decode()
            )
        else:
            for finding in findings:
                self.stdout.write(f"{SIGNS[finding.state]} {finding.question}: {finding.words}")
                if finding.remedy:
                    self.stdout.write(f"    → {finding.remedy}")
        if any(finding.state == "problem" for finding in findings):
            sys.exit(1)
