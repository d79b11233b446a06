"""The audit trail as pages show it: found by words, person, kind of thing, deed and day; each line with what it changed, in words. Reads only."""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from django.db.models import Q, QuerySet
from django.urls import NoReverseMatch, reverse
from django.utils import timezone

from audiences.models import AuditEntry
from audiences.segments.literals import clip
from audiences.templatetags.rollcall import DEEDS, OWNERS, OWNERS_CHANGED, exact

# What kinds of things there are, and where they are shown: the name of an address, and whether it takes the object's key.
KINDS: dict[str, tuple[str, str, bool]] = {
    "audience": ("Audience", "qa:audience", True),
    "mapping": ("Connection", "", False),
    "destination": ("Destination", "destinations:destination", True),
    "run": ("Run", "destinations:run", True),
    "import": ("Import", "audiences:import", True),
    "list": ("List", "", False),
    "person": ("Person", "audiences:person", True),
    "privacy": ("Privacy request", "qa:privacy-request", True),
    "user": ("User", "audiences:users", False),
    "api_key": ("API key", "audiences:keys", False),
    "workspace": ("Workspace", "audiences:settings", False),
    "naming": ("Names", "audiences:naming", False),
    "spot_check": ("Spot check", "", False),
    "set_up": ("Set-up", "qa:setups", False),
    "incident": ("Alert", "qa:alert", True),
    "mail": ("Mail", "qa:mails", False),
}
_PLAIN = {
    "sync_owner": "match rate owner",
    "cadence_seconds": "seconds between counts",
    "sha256": "fingerprint of the rule",
}
LISTED = 8  # changes of one line
SHOWN = 160  # characters of a value before it is cut
_DULL = {"sha256"}
_NOTHING: tuple[Any, ...] = (None, "", [], {})
_UNSAID = object()
_MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?\+\d\d:\d\d")


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
    whole: bool = True  # nothing was cut or is inside


@dataclass(frozen=True, slots=True)
class Line:
    entry: AuditEntry
    kind: str
    url: str
    changes: tuple[Changed, ...]

    @property
    def json(self) -> str:
        """Before and after as they were kept, where the words do not say all of it."""
        if len(self.changes) <= LISTED and all(change.whole for change in self.changes):
            return ""
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
        about_owners = (
            Q(verb="audience.changed", after__has_any_keys=OWNERS) if low in OWNERS_CHANGED.casefold() else Q()
        )
        rows = rows.filter(
            Q(object_key__icontains=word)
            | Q(reason__icontains=word)
            | Q(actor_label__icontains=word)
            | Q(verb__icontains=word)
            | Q(verb__in=deeds)
            | Q(object_type__in=kinds)
            | about_owners
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


def lines(entries: Iterable[AuditEntry], zone: ZoneInfo) -> list[Line]:
    """Moments in words are the reader's."""
    with timezone.override(zone):
        return [
            Line(entry, label_of(entry.object_type), _url(entry), changes(entry.before, entry.after))
            for entry in entries
        ]


def label_of(kind: str) -> str:
    return KINDS[kind][0] if kind in KINDS else _spaced(kind)


def changes(before: Any, after: Any) -> tuple[Changed, ...]:
    """Field by field where both are fields, else as one."""
    if before is None and after is None:
        return ()
    if not all(value is None or isinstance(value, Mapping) for value in (before, after)):
        return (_changed("", before, after),)
    old, new = before or {}, after or {}
    return tuple(
        _changed(_PLAIN.get(name) or _spaced(name).lower(), old.get(name, _UNSAID), new.get(name, _UNSAID))
        for name in dict.fromkeys([*old, *new])
        if name not in _DULL and _says(name, old, new)
    )


def _changed(label: str, before: Any, after: Any) -> Changed:
    told = [None if value is _UNSAID else _words(value) for value in (before, after)]
    whole = all(_is_short(value) for value in (before, after))
    return Changed(label, told[0], told[1], whole)


def _is_short(value: Any) -> bool:
    return value is _UNSAID or value in _NOTHING or (not isinstance(value, Mapping) and len(_words(value)) <= SHOWN)


def _says(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    """Not what stayed the same, nor what something new does not have, nor the version, which the deed names."""
    if name == "version" and name not in old:
        return False
    if name in old and name in new:
        return bool(old[name] != new[name])
    return old.get(name) not in _NOTHING or new.get(name) not in _NOTHING


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
        case str() if _MOMENT.fullmatch(value):
            return exact(datetime.fromisoformat(value))
        case str():
            return clip(value, SHOWN)
        case list() if all(isinstance(item, str | int) for item in value):
            return clip(", ".join(map(str, value)), SHOWN)
    return clip(json.dumps(value, ensure_ascii=False), SHOWN)


def _spaced(name: str) -> str:
    return name.replace(".", " ").replace("_", " ").capitalize()
