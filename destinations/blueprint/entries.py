"""The file that `apply` reads and `export` writes: YAML or JSON to frozen entries, or all that is wrong with it, each with its place.

Text only: whether names exist, and what would change, is planning.py's.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from audiences.owners import ROLES
from audiences.segments import grammar
from audiences.segments.tree import Node
from audiences.vocabulary import Problem
from destinations.blueprint import naming
from destinations.blueprint.notation import BlueprintRefused, load_json, load_yaml

MAX_BYTES = 20_000_000
SECTIONS = ("settings", "naming", "lists", "audiences", "destinations", "mappings")
DURATION = re.compile(r"([0-9]{1,7})([smhd])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,99}")
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,199}")


@dataclass(frozen=True, slots=True)
class ListEntry:
    """None, here and below: the file does not say, so what is there stays, and what is new takes its default."""

    path: str
    key: str
    name: str | None
    customerio_segment: int | None


@dataclass(frozen=True, slots=True)
class AudienceEntry:
    path: str
    key: str
    name: str | None
    description: str | None
    purpose: str | None
    definition_owner: str | None  # an e-mail, as are the other three
    sync_owner: str | None
    alert_owner: str | None
    backup_owner: str | None
    segment: Node | None
    cadence: int | None  # seconds
    excluded_by: tuple[str, ...] | None
    tokens: Mapping[str, str] | None  # the parts of its name
    name_reason: str | None  # why its name is one of its own
    token_reasons: Mapping[str, str] | None  # part → why it says another than the rule
    first_version: (
        int | None
    )  # the number of its first version, where that is not 1: it was published beside another audience


@dataclass(frozen=True, slots=True)
class DestinationEntry:
    path: str
    key: str
    kind: str | None
    name: str | None
    base_url: str | None
    config: Mapping[str, Any] | None
    credentials: Mapping[str, str]  # field → the environment variable that holds it


@dataclass(frozen=True, slots=True)
class Override:
    by: str
    reason: str
    until: str | None


@dataclass(frozen=True, slots=True)
class MappingEntry:
    path: str
    audience: str
    destination: str
    identifiers: tuple[str, ...] | None
    state: str | None
    reason: str | None  # for the state
    until: str | None  # when a freeze ends
    cadence: int | None  # seconds
    remote_id: str | None
    add_only: bool | None
    trial_percent: int | None
    removal_limit_percent: int | None
    own_name: str | None  # `remote_name` in the file
    override: Override | None

    @property
    def key(self) -> str:
        return f"{self.audience} → {self.destination}"


@dataclass(frozen=True, slots=True)
class Blueprint:
    settings: Mapping[str, Any]
    naming: Mapping[str, Any] | None
    lists: tuple[ListEntry, ...]
    audiences: tuple[AudienceEntry, ...]
    destinations: tuple[DestinationEntry, ...]
    mappings: tuple[MappingEntry, ...]


def read(path: Path) -> Blueprint:
    """The entries of a file; JSON where its name ends in .json, else YAML. Raises BlueprintRefused."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise BlueprintRefused(Problem("", f"{path} cannot be read: {error.strerror}")) from None
    if len(raw) > MAX_BYTES:
        raise BlueprintRefused(Problem("", f"the file is longer than {MAX_BYTES // 1_000_000} MB"))
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BlueprintRefused(Problem("", f"the file is not UTF-8 at byte {error.start:,}")) from None
    return parse(load_json(text) if path.suffix == ".json" else load_yaml(text))


def parse(data: Any) -> Blueprint:
    """Entries from plain data. Raises BlueprintRefused with everything that is wrong."""
    reader = _Reader()
    sections = reader.fields(data, "", SECTIONS) if data is not None else {}
    blueprint = Blueprint(
        settings=reader.settings(sections.get("settings")),
        naming=naming.read_convention(sections.get("naming"), reader.wrong),
        lists=tuple(reader.list_entry(*item) for item in reader.entries(sections, "lists")),
        audiences=tuple(reader.audience(*item) for item in reader.entries(sections, "audiences")),
        destinations=tuple(reader.destination(*item) for item in reader.entries(sections, "destinations")),
        mappings=tuple(reader.mapping(*item) for item in reader.entries(sections, "mappings")),
    )
    for section in (blueprint.lists, blueprint.audiences, blueprint.destinations, blueprint.mappings):
        reader.once(section)
    if reader.problems:
        raise BlueprintRefused(*reader.problems)
    return blueprint


class _Reader:
    """Reads on after a mistake, so that one run names them all. What could not be read is empty in the entry."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def wrong(self, path: str, words: str) -> None:
        self.problems.append(Problem(path, words))

    def fields(self, data: Any, path: str, known: Sequence[str]) -> dict[str, Any]:
        if not isinstance(data, dict):
            self.wrong(path, f"must be fields with values ({', '.join(known)})")
            return {}
        for name in data:
            if name not in known:
                self.wrong(_at(path, str(name)[:80]), f"is not known here; there are {', '.join(known)}")
        return {name: value for name, value in data.items() if name in known and value is not None}

    def entries(self, sections: Mapping[str, Any], name: str) -> Iterator[tuple[Any, str]]:
        rows = sections.get(name, [])
        if not isinstance(rows, list):
            self.wrong(name, "must be a list, each entry with a - before it")
            return
        for index, row in enumerate(rows):
            yield row, f"{name}[{index}]"

    def settings(self, data: Any) -> dict[str, Any]:
        known = (
            "name",
            "consent_policy",
            "consent_attributes",
            "timezone",
            "currency",
            "default_region",
            "review_above_percent",
        )
        return self.fields(data, "settings", known) if data is not None else {}

    def list_entry(self, data: Any, path: str) -> ListEntry:
        row = self.fields(data, path, ("key", "name", "customerio_segment"))
        return ListEntry(
            path,
            self.key(row, path),
            self.text(row, "name", path),
            self.whole(row, "customerio_segment", path, 1, 2**31 - 1),
        )

    def audience(self, data: Any, path: str) -> AudienceEntry:
        known = (
            "key",
            "name",
            "description",
            "purpose",
            "owner",
            "owners",
            "segment",
            "cadence",
            "excluded_by",
            "suppressed_by",
            "tokens",
            "name_tokens",
            "token_reasons",
            "name_reason",
            "first_version",
        )
        row = self.fields(data, path, known)
        all_three = self.text(row, "owner", path)
        roles = tuple(role.key for role in ROLES)
        owners = self.fields(row["owners"], _at(path, "owners"), roles) if "owners" in row else {}
        if all_three and owners:
            self.wrong(_at(path, "owner"), "stands beside owners; use one of them")
        if "excluded_by" in row and "suppressed_by" in row:
            self.wrong(_at(path, "suppressed_by"), "means the same as excluded_by; use one of them")
        linked = "suppressed_by" if "suppressed_by" in row else "excluded_by"
        return AudienceEntry(
            path,
            self.key(row, path),
            name=self.text(row, "name", path),
            description=self.text(row, "description", path),
            purpose=self.text(row, "purpose", path),
            definition_owner=self.text(owners, "definition", _at(path, "owners")) or all_three,
            sync_owner=self.text(owners, "sync_health", _at(path, "owners")) or all_three,
            alert_owner=self.text(owners, "alerts", _at(path, "owners")) or all_three,
            backup_owner=self.text(owners, "backup", _at(path, "owners")),
            segment=self.segment(row, path),
            cadence=self.duration(row, path),
            excluded_by=self.texts(row, linked, path),
            tokens=naming.read_tokens(row.get("tokens", row.get("name_tokens")), _at(path, "tokens"), self.wrong),
            name_reason=self.text(row, "name_reason", path),
            token_reasons=naming.read_tokens(row.get("token_reasons"), _at(path, "token_reasons"), self.wrong),
            first_version=self.whole(row, "first_version", path, 1, 99_999),
        )

    def segment(self, row: Mapping[str, Any], path: str) -> Node | None:
        if "segment" not in row:
            return None
        try:
            return grammar.parse(row["segment"])
        except grammar.Refused as refused:
            where = _at(path, "segment")
            self.wrong(_at(where, refused.path) if refused.path else where, refused.words)
            return None

    def destination(self, data: Any, path: str) -> DestinationEntry:
        row = self.fields(data, path, ("key", "kind", "name", "base_url", "config", "credentials"))
        config = row.get("config")
        if config is not None and not isinstance(config, dict):
            self.wrong(_at(path, "config"), "must be fields with values")
            config = None
        credentials = {}
        given = row.get("credentials", {})
        if not isinstance(given, dict):
            self.wrong(_at(path, "credentials"), "must be fields with values")
            given = {}
        for field, value in given.items():
            where = _at(path, f"credentials.{field}")
            if not isinstance(value, dict) or set(value) != {"env"} or not isinstance(value["env"], str):
                self.wrong(where, "must be {env: NAME}: secrets do not stand in the file")
            elif not VARIABLE.fullmatch(value["env"]):
                self.wrong(f"{where}.env", "must be the name of an environment variable")
            else:
                credentials[str(field)] = value["env"]
        return DestinationEntry(
            path,
            self.key(row, path),
            kind=self.text(row, "kind", path),
            name=self.text(row, "name", path),
            base_url=self.text(row, "base_url", path),
            config=config,
            credentials=credentials,
        )

    def mapping(self, data: Any, path: str) -> MappingEntry:
        known = (
            "audience",
            "destination",
            "identifiers",
            "state",
            "reason",
            "until",
            "cadence",
            "remote_id",
            "add_only",
        )
        row = self.fields(data, path, (*known, "trial_percent", "removal_limit_percent", "remote_name", "override"))
        add_only = row.get("add_only")
        if add_only is not None and not isinstance(add_only, bool):
            self.wrong(_at(path, "add_only"), "must be true or false")
        return MappingEntry(
            path,
            audience=self.key(row, path, "audience"),
            destination=self.key(row, path, "destination"),
            identifiers=self.texts(row, "identifiers", path),
            state=self.text(row, "state", path),
            reason=self.text(row, "reason", path),
            until=self.text(row, "until", path),
            cadence=self.duration(row, path),
            remote_id=self.text(row, "remote_id", path),
            add_only=add_only,
            trial_percent=self.whole(row, "trial_percent", path, 1, 100),
            removal_limit_percent=self.whole(row, "removal_limit_percent", path, 1, 100),
            own_name=self.text(row, "remote_name", path),
            override=self.override(row, path),
        )

    def override(self, row: Mapping[str, Any], path: str) -> Override | None:
        if "override" not in row:
            return None
        where = _at(path, "override")
        given = self.fields(row["override"], where, ("by", "reason", "until"))
        by, reason = self.text(given, "by", where), self.text(given, "reason", where)
        if not by:
            self.wrong(_at(where, "by"), "is missing: whose decision is it?")
        if not reason:
            self.wrong(_at(where, "reason"), "is missing")
        return Override(by or "", reason or "", self.text(given, "until", where))

    def once(self, entries: Sequence[Any]) -> None:
        seen: dict[str, str] = {}
        for entry in entries:
            if entry.key in seen and entry.key.strip(" →"):
                self.wrong(entry.path, f"{entry.key} stands at {seen[entry.key]} already")
            seen.setdefault(entry.key, entry.path)

    def key(self, row: Mapping[str, Any], path: str, field: str = "key") -> str:
        value = row.get(field)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # `key: 2024` is meant as text
        if not isinstance(value, str) or not KEY.fullmatch(value):
            self.wrong(_at(path, field), "must be 1 to 100 letters, digits, _ or -, beginning with a letter or digit")
            return ""
        return value

    def text(self, row: Mapping[str, Any], field: str, path: str) -> str | None:
        value = row.get(field)
        if isinstance(value, int | Decimal) and not isinstance(value, bool):
            value = str(value)
        if value is not None and not isinstance(value, str):
            self.wrong(_at(path, field), "must be text")
            return None
        return value

    def texts(self, row: Mapping[str, Any], field: str, path: str) -> tuple[str, ...] | None:
        value = row.get(field)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            self.wrong(_at(path, field), "must be a list of texts")
            return None
        return tuple(dict.fromkeys(value))

    def whole(self, row: Mapping[str, Any], field: str, path: str, low: int, high: int) -> int | None:
        value = row.get(field)
        if value is None:
            return None
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self.wrong(_at(path, field), f"must be a whole number from {low} to {high}")
            return None
        return value

    def duration(self, row: Mapping[str, Any], path: str) -> int | None:
        value = row.get("cadence")
        if value is None:
            return None
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        match = DURATION.fullmatch(value) if isinstance(value, str) else None
        if match is None:
            self.wrong(_at(path, "cadence"), "must be a time such as 15m, 1h or 1d")
            return None
        return int(match[1]) * SECONDS[match[2]]


def _at(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
