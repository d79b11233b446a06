"""`manage.py rename`: what audiences would be called by the convention, and, with --apply, rename them so."""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError

from audiences.management.base import RollcallCommand
from audiences.models import Audience
from audiences.naming import NamingRefused
from audiences.services import naming
from audiences.services.renames import Wish
from destinations import renaming
from destinations.renaming import Planned
from destinations.services import renames

LEFT = 3  # exit code: some of them cannot be called so


class Command(RollcallCommand):
    help = (
        "Say what these audiences (all, if none is named) would be called by the naming convention, why, and what becomes of their names on"
        " platforms. Nothing is written without --apply, which renames all that can be, in one act. Exit code 3: some cannot be."
    )
    expected = (NamingRefused,)

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("keys", nargs="*", metavar="KEY", help="audience keys")
        parser.add_argument("--apply", action="store_true", help="rename them")
        parser.add_argument(
            "--at-once", action="store_true", help="with --apply: on the platforms too, before their next sync"
        )
        parser.add_argument("--reason", default="", help="with --apply: why, for the trail")
        parser.add_argument(
            "--undo", type=int, metavar="ACT", help="give the names of before back to those of this act"
        )
        parser.add_argument("--json", action="store_true", help="one JSON document")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["undo"] is not None:
            self._undo(options["undo"], options["reason"], as_json=options["json"])
            return
        if naming.current() is None:
            raise CommandError("There is no naming convention: every name is free.")
        keys = options["keys"]
        known = set(Audience.objects.filter(key__in=keys, archived_at=None).values_list("key", flat=True))
        if unknown := [key for key in keys if key not in known]:
            raise CommandError(f"There is no audience {', '.join(unknown)}.")
        planned = renaming.plan(keys)
        ready = [one for one in planned if one.ready]
        act = None
        if options["apply"] and ready:
            wishes = [Wish(one.key, one.rename.before, one.rename.after) for one in ready]
            act = renames.carry_out(actor=None, wishes=wishes, reason=options["reason"], at_once=options["at_once"])
        if options["json"]:
            self.print_json(
                {"applied": act is not None, "act": act.pk if act else None, "renames": [_json(one) for one in planned]}
            )
        else:
            self._print(planned, act.pk if act else None, applying=options["apply"])
        if stuck := [one.key for one in planned if not one.ready]:
            raise CommandError(f"Cannot be renamed as they stand: {', '.join(stuck)}.", returncode=LEFT)

    def _print(self, planned: list[Planned], act: int | None, *, applying: bool) -> None:
        for one in planned:
            if one.ready:
                self.stdout.write(f"{one.key}: {one.rename.before} → {one.rename.after}")
                for words in one.rename.why:
                    self.stdout.write(f"    {words}")
                for follow in one.follows:
                    there = f" {follow.before or '(none)'} → {follow.after}," if follow.changes else ""
                    self.stdout.write(f"    {follow.mapping.destination.name}:{there} {follow.words}")
            else:
                self.stdout.write(f"! {one.key}: {one.rename.conflict}")
        ready = sum(one.ready for one in planned)
        if not planned:
            self.stdout.write("Every name follows the convention.")
        elif act is not None:
            self.stdout.write(f"{ready} renamed. `manage.py rename --undo {act}` takes it back.")
        elif not applying:
            self.stdout.write(f"{ready} would be renamed. Nothing was written; --apply does it.")

    def _undo(self, act: int, reason: str, *, as_json: bool) -> None:
        taken = renames.take_back(actor=None, renaming_id=act, reason=reason)
        if as_json:
            self.print_json({"renamed": list(taken.renamed), "left": taken.left})
        else:
            self.stdout.write(f"{len(taken.renamed)} renamed back.")
            for key, why in taken.left.items():
                self.stdout.write(f"! {key} keeps its name. {why}")
        if taken.left:
            raise CommandError(f"Not renamed back: {', '.join(taken.left)}.", returncode=LEFT)


def _json(one: Planned) -> dict[str, Any]:
    return {
        "audience": one.key,
        "before": one.rename.before,
        "after": one.rename.after or None,
        "why": list(one.rename.why),
        "conflict": one.rename.conflict or None,
        "platforms": [
            {
                "destination": follow.mapping.destination.key,
                "before": follow.before or None,
                "after": follow.after or None,
                "words": follow.words,
            }
            for follow in one.follows
        ],
    }
