"""Which audience replaces which, and what one that is published beside another will be called. Reads only; services/replacements.py writes."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from django.db.models import Max, Q, QuerySet

from audiences import naming as grammar
from audiences.models import Audience, Replacement, SegmentVersion
from audiences.naming import NamingRefused
from audiences.services import naming

USUAL = timedelta(days=14)  # from publishing beside to the old one's end, where nobody says
LONGEST_KEY = 100


@dataclass(frozen=True, slots=True)
class Successor:
    """What a version published beside is the first of. `name_reason` where the convention cannot give it a name of its own."""

    key: str
    name: str
    name_tokens: dict[str, str] = field(default_factory=dict)
    name_overrides: dict[str, Any] = field(default_factory=dict)
    name_reason: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """`by`: what takes its place, while a date stands. `of`: whose place it takes or took. Either with both audiences at hand."""

    by: Replacement | None
    of: Replacement | None


def standing(audience: Audience) -> Standing:
    """One query."""
    rows = _rows().filter(Q(old=audience, retires_at__isnull=False) | Q(new=audience))
    by = next((row for row in rows if row.old_id == audience.pk), None)
    return Standing(by, next((row for row in rows if row.new_id == audience.pk), None))


def all_of(audience: Audience) -> list[Replacement]:
    """Everything that was published beside it, newest first; and what it replaces."""
    return list(_rows().filter(Q(old=audience) | Q(new=audience)).order_by("-pk"))


def leaving(audience_ids: Iterable[int]) -> dict[int, Replacement]:
    """Of these audiences, those that are to retire on a date, and what takes their place. One query."""
    rows = _rows().filter(old__in=list(audience_ids), retires_at__isnull=False, old__archived_at=None)
    return {row.old_id: row for row in rows}


def next_number(audience: Audience) -> int:
    """The number of its next version. What replaced it and what it replaced go on counting together, so that no two of their names say the
    same version. Two queries."""
    family = _family(audience)
    last = SegmentVersion.objects.filter(audience__in=family).aggregate(last=Max("number"))["last"]
    return (last or 0) + 1


def moved_to(audience: Audience, number: int) -> str:
    """The key of the audience whose first version this number of this one's drafts became; empty: none, or it has a version of that number."""
    if audience.versions.filter(number=number).exists():
        return ""
    made = SegmentVersion.objects.filter(number=number, audience__replaces__old=audience)
    return made.values_list("audience__key", flat=True).first() or ""


def successor(audience: Audience, version: SegmentVersion) -> Successor:
    """What this draft would be the first version of, were it published beside now: `<key>_v<number>`, called what the convention makes of the
    version and its rule. Where that is the old one's name, or somebody's else, it is a name of its own with a reason."""
    key = _free_key(_root(audience).key, version.number)
    convention = naming.current()
    tokens, after = naming.tokens_of(convention, audience), naming.name_after(audience, version)
    if after.renames:
        try:
            naming.free(None, after.name)
        except NamingRefused:
            pass
        else:
            return Successor(key, after.name, {**tokens, **after.changed}, dict(audience.name_overrides))
    name = key if audience.name == audience.key else _free_name(audience.name, version.number)
    reason = audience.name_reason
    if convention is not None and not reason:
        reason = f"Published beside {audience.key}: the convention gives both the same name"
    return Successor(key, name, tokens, name_reason=reason)


def _rows() -> QuerySet[Replacement]:
    return Replacement.objects.select_related("old__live_version", "new__live_version", "made_by").defer(
        "old__live_version__segment", "new__live_version__segment"
    )


def _family(audience: Audience) -> set[int]:
    """It, all that it replaces, and all that replace any of these, however far."""
    edges = list(Replacement.objects.values_list("old_id", "new_id"))
    found, size = {audience.pk}, 0
    while len(found) > size:
        size = len(found)
        found |= {pk for edge in edges if found & set(edge) for pk in edge}
    return found


def _root(audience: Audience) -> Audience:
    """The first of those that were replaced one by the other."""
    edges = dict(Replacement.objects.values_list("new_id", "old_id"))
    pk = audience.pk
    while pk in edges:
        pk = edges.pop(pk)
    return audience if pk == audience.pk else Audience.objects.get(pk=pk)


def _free_key(base: str, number: int) -> str:
    """`<base>_v<number>`; numbered on where an audience has or had that."""
    tail, again = f"_v{number}", 1
    while True:
        key = f"{base[: LONGEST_KEY - len(tail)]}{tail}"
        if not Audience.objects.filter(key=key).exists():
            return key
        again += 1
        tail = f"_v{number}_{again}"


def _free_name(base: str, number: int) -> str:
    tail, again = f" v{number}", 1
    while True:
        name = f"{base[: grammar.LONGEST - len(tail)]}{tail}"
        if not Audience.objects.filter(name=name, archived_at=None).exists():
            return name
        again += 1
        tail = f" v{number} ({again})"
