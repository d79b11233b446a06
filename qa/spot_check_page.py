"""What the pages of spot checks read: an audience's checks with their results, and one check's people in words, ids masked."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db.models import Prefetch

from audiences import standings
from audiences.models import Audience
from destinations import queries
from qa import spot_check
from qa.models import SpotCheck, SpotCheckPerson
from qa.spot_check import Agreement

GROUPS = {
    SpotCheckPerson.Group.INSIDE: ("Inside", "Members by the count."),
    SpotCheckPerson.Group.LEFT: ("Just left", "Out now, and seen leaving by one of the last counts."),
    SpotCheckPerson.Group.OUTSIDE: ("Just outside", "Kept out by as little as one rule."),
}
SHOWN = 50  # checks of an audience


@dataclass(frozen=True, slots=True)
class Person:
    """`problem`: what is wrong with them, empty if nothing is. `told`: what the platform was told, in words, "" if not compared."""

    row: SpotCheckPerson
    title: str
    problem: str
    rules: tuple[dict[str, Any], ...]  # the smallest ones, as icons
    told: str
    step: str
    step_why: str
    receipt: str
    receipt_at: datetime | None

    @property
    def there(self) -> bool | None:
        return self.row.found if self.row.by_hand is None else self.row.by_hand

    @property
    def depth_rules(self) -> list[tuple[int, dict[str, Any]]]:
        """Every rule and group with how deep it stands."""
        return [(_depth(rule["path"]), rule) for rule in self.row.rules]


@dataclass(frozen=True, slots=True)
class Group:
    label: str
    words: str
    people: tuple[Person, ...]


@dataclass(frozen=True, slots=True)
class Portrait:
    groups: tuple[Group, ...]
    agreement: Agreement
    looked_by_hand: int

    @property
    def people(self) -> int:
        return self.agreement.of


def checks(audience: Audience) -> list[tuple[SpotCheck, Agreement]]:
    """Newest first, each with its result. Two queries."""
    people = SpotCheckPerson.objects.defer("rules")
    rows = audience.spot_checks.select_related("version", "mapping__destination", "asked_by", "signed_by")
    rows = rows.prefetch_related(Prefetch("people", queryset=people)).order_by("-pk")
    return [(row, spot_check.agreement(row.people.all())) for row in rows[:SHOWN]]


def of(check: SpotCheck) -> Portrait:
    """Three queries."""
    rows = list(check.people.order_by("pk"))
    titles = standings.titles(row.profile_no for row in rows)
    people = [_person(row, titles.get(row.profile_no, f"Person no. {row.profile_no}")) for row in rows]
    groups = [
        Group(label, words, tuple(person for person in people if person.row.group == group))
        for group, (label, words) in GROUPS.items()
    ]
    looked = sum(1 for row in rows if row.by_hand is not None)
    return Portrait(tuple(group for group in groups if group.people), spot_check.agreement(rows), looked)


def _person(row: SpotCheckPerson, title: str) -> Person:
    step, why = queries.STEPS.get(row.step, (row.step, "")) if row.step else ("", "")
    return Person(
        row,
        title,
        spot_check.disagreement(row),
        tuple(rule for rule in row.rules if not rule["group"]),
        told_words(row.told, bool(row.receipt.get("wanted")), str(row.receipt.get("kind", ""))),
        step,
        why,
        str(row.receipt.get("request", "")),
        datetime.fromisoformat(row.receipt["at"]) if row.receipt.get("at") else None,
    )


def told_words(told: str, wanted: bool, kind: str) -> str:
    """What a platform was told of somebody, in two or three words."""
    match told:
        case "present":
            return "Added, received"
        case "unknown":
            return "Sent, outcome not known"
        case "rejected":
            return "Refused by the platform"
        case "absent" if kind == "remove":
            return "Taken out, received"
        case "absent":
            return "Waiting to be sent" if wanted else "Never sent"
    return ""


def _depth(path: str) -> int:
    return path.count(".") + 1 if path else 0
