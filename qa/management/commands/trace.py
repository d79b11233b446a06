"""`manage.py trace`: one person and one audience: in or out and why, since when, and what each platform was told."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from audiences import clock
from audiences.management.base import RollcallCommand
from audiences.management.commands.refresh import chosen
from audiences.people import biography, intake
from audiences.people.engines.base import UnreadableLake
from qa import tracing
from qa.tracing import Told, Tracing


class Command(RollcallCommand):
    help = (
        "Say whether a person is in an audience, by which rules, since when, and what each platform was told of them."
    )
    expected = (UnreadableLake,)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("key", metavar="KEY", help="the audience")
        parser.add_argument("person", metavar="PROFILE_ID", help="the person's id at your end, or an e-mail or a phone")
        parser.add_argument("--json", action="store_true", help="for machines")

    def handle(self, *args: Any, key: str, person: str, json: bool, **options: Any) -> None:
        audience = chosen([key])[0]
        profile_no = biography.find(person, intake.default_region())
        life = biography.of(profile_no) if profile_no is not None else None
        if life is None:
            raise CommandError("Nobody answers to this id, e-mail or phone. It must be whole.")
        found = tracing.of(life, audience)
        if found is None:
            raise CommandError(f"{key} has no published rule, so nobody is in it or out of it.")
        if json:
            self.print_json(tracing.as_data(found, person))
            return
        for line in _lines(found):
            self.stdout.write(line)


def _lines(found: Tracing) -> list[str]:
    standing, version = found.standing, found.audience.live_version
    now = {True: "In", False: "Not in", None: "Not known in"}[standing.now]
    lines = [f"{now} {found.audience.key} (v{version.number if version else '?'}), judged this moment."]
    if standing.counted is None:
        lines.append("It has not been counted yet.")
    else:
        at = f", {_day(found.counted_us)}" if found.counted_us is not None else ""
        lines.append(f"The last count{at} had them {'in' if standing.counted else 'out'}.")
    lines.append(came_and_went(found))
    if standing.problem:
        lines.append(standing.problem)
    for part in standing.rule.flat() if standing.rule else ():
        depth = part.path.count(".") + 1 if part.path else 0
        lines.append(f"  {'  ' * depth}{'✓' if part.holds else '✗'} {part.words}")
    if not found.told:
        lines.append("It is connected to no platform.")
    for told in found.told:
        lines += _of(told)
    return lines


def _of(told: Told) -> list[str]:
    step, why = told.step
    lines = [f"{told.connection.destination.name}: {told.words}"]
    if step:
        lines.append(f"  Not sent: {step}. {why}")
    if told.trace and (last := told.trace.last):
        verb = "Added" if last.kind == "add" else "Taken out"
        request = f", request {last.request_id}" if last.request_id else ""
        lines.append(f"  Last call: {verb.lower()}, {last.sent_at:%-d %b %Y %H:%M:%S} UTC{request}")
    return lines


def came_and_went(found: Tracing) -> str:
    """Entered 3 Nov 2026 under v2."""
    stay = found.stay
    if stay is None:
        return "Never in, by any count on record."
    if stay.left_us is not None:
        return f"Left {_day(stay.left_us)} under v{stay.left_version}, in since {_day(stay.entered_us)}."
    if stay.since_before:
        return f"In since before the first count on record, {_day(stay.entered_us)}."
    return f"Entered {_day(stay.entered_us)} under v{stay.entered_version}."


def _day(us: int | None) -> str:
    return f"{clock.from_us(us):%-d %b %Y %H:%M} UTC" if us is not None else "never"
