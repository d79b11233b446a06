"""Several audiences renamed in one act, and the act taken back. Each has its own line in the trail. What would be renamed is renaming.py's."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import transaction
from django.utils import timezone

from audiences import renaming
from audiences.models import Audience, Renaming, User
from audiences.naming import NamingRefused, Problem
from audiences.services import trail

_FIELDS = ("name", "name_tokens", "name_reason", "name_overrides")
MOST = 1_000  # audiences in one act


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody has seen and agreed to: this audience, called so, is to be called so."""

    key: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class TakenBack:
    """`left`: audience → why it keeps the name it has."""

    renamed: tuple[str, ...]
    left: dict[str, str]


def carry_out(*, actor: User | None, wishes: Sequence[Wish], reason: str = "") -> Renaming:
    """Rename all of these, or none: raises NamingRefused, each problem at an audience's key, where one cannot be called so (any more)."""
    if not 0 < len(wishes) <= MOST:
        raise NamingRefused(Problem("", f"Choose 1 to {MOST:,} audiences."))
    with transaction.atomic():
        held = _held(wish.key for wish in wishes)
        by_key = {rename.audience.key: rename for rename in renaming.plan(list(held))}
        wrong = [Problem(wish.key, words) for wish in wishes if (words := _against(wish, held, by_key))]
        named = {
            wish.key: {
                "name": wish.after,
                "name_tokens": by_key[wish.key].tokens,
                "name_reason": "",
                "name_overrides": held[wish.key].name_overrides,
            }
            for wish in wishes
            if not wrong
        }
        wrong += _twins(held, named)
        if wrong:
            raise NamingRefused(*wrong)
        kept = _rename(actor, held, named, reason or "by the convention")
        return Renaming.objects.create(actor=actor, reason=reason, names=kept)


def take_back(*, actor: User | None, renaming_id: int, reason: str = "") -> TakenBack:
    """Give everybody of this act the name that they had before; whoever was renamed since, or whose name is taken, keeps the one they have.
    Raises NamingRefused where it was taken back already, or there is no such act."""
    with transaction.atomic():
        act = Renaming.objects.select_for_update().filter(pk=renaming_id).first()
        if act is None or act.undone_at is not None:
            raise NamingRefused(Problem("", "It has been taken back already." if act else "There is no such renaming."))
        held = _held(row["key"] for row in act.names)
        left: dict[str, str] = {}
        named: dict[str, dict[str, Any]] = {}
        for row in act.names:
            audience = held.get(row["key"])
            if audience is None or audience.archived_at is not None:
                left[row["key"]] = "It is archived."
            elif audience.name != row["after"]["name"]:
                left[row["key"]] = f"It was renamed since, to “{audience.name}”."
            else:
                named[row["key"]] = row["before"]
        for problem in _twins(held, named):
            left[problem.path] = problem.words
            named.pop(problem.path, None)
        _rename(actor, held, named, reason or "a renaming was taken back")
        act.undone_at, act.undone_by = timezone.now(), actor
        act.save(update_fields=["undone_at", "undone_by"])
    return TakenBack(tuple(named), left)


def _held(keys: Iterable[str]) -> dict[str, Audience]:
    rows = Audience.objects.select_for_update(of=("self",)).filter(key__in=list(keys)).order_by("pk")
    return {audience.key: audience for audience in rows.select_related("live_version")}


def _against(wish: Wish, held: dict[str, Audience], by_key: dict[str, renaming.Rename]) -> str:
    """Why this cannot be done as it was agreed to; empty: it can."""
    audience, rename = held.get(wish.key), by_key.get(wish.key)
    if audience is None or audience.archived_at is not None:
        return "There is no such audience any more."
    if audience.name != wish.before:
        return f"It was renamed meanwhile, to “{audience.name}”."
    if rename is None:
        return "Its name follows the convention by now."
    if rename.after != wish.after:
        return f"It would be called “{rename.after}” by now." if rename.after else rename.conflict
    return rename.conflict


def _twins(held: dict[str, Audience], named: dict[str, dict[str, Any]]) -> list[Problem]:
    """Who would have the name of somebody else, in this act or outside of it."""
    names = Counter(fields["name"] for fields in named.values())
    others = Audience.objects.filter(name__in=list(names), archived_at=None).exclude(key__in=list(named))
    taken = dict(others.values_list("name", "key"))
    return [
        Problem(key, f"“{fields['name']}” is the name of {taken.get(fields['name'], 'another of them')} too.")
        for key, fields in named.items()
        if names[fields["name"]] > 1 or fields["name"] in taken
    ]


def _rename(
    actor: User | None, held: dict[str, Audience], named: dict[str, dict[str, Any]], reason: str
) -> list[dict[str, Any]]:
    """What was renamed, as the act keeps it."""
    kept, lines = [], []
    for key, after in named.items():
        audience = held[key]
        before = {name: getattr(audience, name) for name in _FIELDS}
        for name, value in after.items():
            setattr(audience, name, value)
        kept.append({"key": key, "before": before, "after": after})
        lines.append(trail.Line("audience.renamed", "audience", key, before, after, reason))
    Audience.objects.bulk_update([held[key] for key in named], list(_FIELDS), batch_size=100)
    trail.record_all(actor, lines)
    return kept
