"""The audit trail as pages show it: found by words, person, kind of thing, deed and day; each line with what it changed, in words. Reads only."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import Q, QuerySet
from django.urls import NoReverseMatch, reverse

from audiences.models import AuditEntry
from audiences.segments.literals import clip
from audiences.templatetags.rollcall import DEEDS

# What kinds of things there are, and where they are shown: the name of an address, and whether it takes the object's key.
KINDS: dict[str, tuple[str, str, bool]] = {
    "audience": ("Audience", "qa:audience", True),
    "mapping": ("Connection", "", False),
    "destination": ("Destination", "destinations:destination", True),
    "run": ("Run", "destinations:run", True),
    "import": ("Import", "audiences:import", True),
    "list": ("List", "", False),
    "person": ("Person", "audiences:person", True),
    "user": ("User", "audiences:users", False),
    "api_key": ("API key", "audiences:keys", False),
    "workspace": ("Workspace", "audiences:settings", False),
    "naming": ("Names", "audiences:naming", False),
    "spot_check": ("Spot check", "", False),
    "setup": ("Set-up", "qa:setups", False),
    "incident": ("Alert", "qa:alert", True),
    "mail": ("Mail", "qa:mails", False),
}
_PLAIN = {
    "sync_owner": "match rate owner",
    "cadence_seconds": "seconds between counts",
    "sha256": "fingerprint of the rule",
}
SHOWN = 160  # characters of a value before it is cut
_DULL = {"sha256"}


@dataclass(frozen=True, slots=True)
class Search:
    """What is looked for; empty: anything."""

    words: str = ""
    who: str = ""
    kind: str = ""
    thing: str = ""
    verb: str = ""
    since: date | None = None
    until: date | None = None

    def __bool__(self) -> bool:
        return any((self.words, self.who, self.kind, self.thing, self.verb, self.since, self.until))


@dataclass(frozen=True, slots=True)
class Changed:
    """One thing that a line changed. None: it says nothing about before, or after."""

    label: str
    before: str | None
    after: str | None


@dataclass(frozen=True, slots=True)
class Line:
    entry: AuditEntry
    kind: str
    url: str
    changes: tuple[Changed, ...]

    @property
    def json(self) -> str:
        """Before and after as they were kept, for whoever wants all of it."""
        kept = {"before": self.entry.before, "after": self.entry.after}
        said = {name: value for name, value in kept.items() if value is not None}
        return json.dumps(said, indent=2, ensure_ascii=False) if said else ""


def search(wanted: Search, zone: ZoneInfo) -> QuerySet[AuditEntry]:
    """Newest first. Every word must be in the object, its kind, the deed, the reason or whoever did it; days are the reader's."""
    rows = AuditEntry.objects.order_by("-at", "-pk")
    for word in wanted.words.split()[:10]:
        low = word.casefold()
        deeds = [verb for verb, words in DEEDS.items() if low in words.casefold()]
        kinds = [kind for kind, (label, _, _) in KINDS.items() if low in label.casefold()]
        rows = rows.filter(
            Q(object_key__icontains=word)
            | Q(reason__icontains=word)
            | Q(actor_label__icontains=word)
            | Q(verb__icontains=word)
            | Q(verb__in=deeds)
            | Q(object_type__in=kinds)
        )
    exact = {"actor_label": wanted.who, "object_type": wanted.kind, "object_key": wanted.thing, "verb": wanted.verb}
    rows = rows.filter(**{field: value for field, value in exact.items() if value})
    if wanted.since:
        rows = rows.filter(at__gte=datetime.combine(wanted.since, time(), tzinfo=zone))
    if wanted.until and wanted.until < date.max:
        rows = rows.filter(at__lt=datetime.combine(wanted.until + timedelta(days=1), time(), tzinfo=zone))
    return rows


def choices() -> dict[str, list[tuple[str, str]]]:
    """Who, which kinds and which deeds there are at all, for the drop-downs. Three queries."""
    whos, kinds, verbs = (
        AuditEntry.objects.order_by(field).values_list(field, flat=True).distinct()
        for field in ("actor_label", "object_type", "verb")
    )
    return {
        "who": [(who, who) for who in whos],
        "kind": sorted(((kind, label_of(kind)) for kind in kinds), key=lambda pair: pair[1]),
        "verb": sorted(((verb, DEEDS.get(verb) or _spaced(verb)) for verb in verbs), key=lambda pair: pair[1]),
    }


def lines(entries: Iterable[AuditEntry]) -> list[Line]:
    return [
        Line(entry, label_of(entry.object_type), _url(entry), changes(entry.before, entry.after)) for entry in entries
    ]


def label_of(kind: str) -> str:
    return KINDS[kind][0] if kind in KINDS else _spaced(kind)


def changes(before: Any, after: Any) -> tuple[Changed, ...]:
    """Field by field where both are fields, else as one."""
    if before is None and after is None:
        return ()
    if not all(value is None or isinstance(value, Mapping) for value in (before, after)):
        return (Changed("", _words(before), _words(after)),)
    old, new = before or {}, after or {}
    names = [name for name in dict.fromkeys([*old, *new]) if name not in _DULL and old.get(name) != new.get(name, old)]
    return tuple(
        Changed(
            _PLAIN.get(name) or _spaced(name).lower(),
            _words(old[name]) if name in old else None,
            _words(new[name]) if name in new else None,
        )
        for name in names
    )


def _url(entry: AuditEntry) -> str:
    _, name, takes_key = KINDS.get(entry.object_type, ("", "", False))
    try:
        return reverse(name, args=[entry.object_key] if takes_key else []) if name else ""
    except NoReverseMatch:
        return ""


def _words(value: Any) -> str:
    match value:
        case None | "" | [] | {}:
            return "nothing"
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return f"{value:,}"
        case str():
            return clip(value, SHOWN)
        case list() if all(isinstance(item, str | int) for item in value):
            return clip(", ".join(map(str, value)), SHOWN)
    return clip(json.dumps(value, ensure_ascii=False), SHOWN)


def _spaced(name: str) -> str:
    return name.replace(".", " ").replace("_", " ").capitalize()
