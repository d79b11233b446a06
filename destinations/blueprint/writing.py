"""What is here as the file that `apply` reads. Credentials are written as the names of environment variables, never as what they hold."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import yaml
from django.db.models import Min

from audiences import vocabulary
from audiences.models import Audience, PersonList
from audiences.naming import Convention
from audiences.owners import ROLES, holdings
from audiences.segments import grammar
from audiences.services import naming as service
from audiences.services import workspace
from destinations import models, secrets
from destinations.blueprint import naming
from destinations.blueprint.notation import Loader
from destinations.connectors import registry
from destinations.models import Destination

SECONDS = ((86_400, "d"), (3_600, "h"), (60, "m"), (1, "s"))


class NoSuchAudience(Exception):
    """A key that nothing has, in words."""


class _Dumper(yaml.SafeDumper):
    """Quotes whatever either version of YAML would take for something else than text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Dumper.yaml_implicit_resolvers = {
    first: [*yaml.SafeDumper.yaml_implicit_resolvers.get(first, []), *Loader.yaml_implicit_resolvers.get(first, [])]
    for first in {*yaml.SafeDumper.yaml_implicit_resolvers, *Loader.yaml_implicit_resolvers}
}


def export(keys: Sequence[str] | None = None) -> str:
    """The whole workspace; or these audiences with what they need: lists, audiences they refer to, connections, destinations.

    Archived audiences and retired connections are left out. Raises NoSuchAudience.
    """
    rows = _audiences(keys)
    rules = service.current()
    mappings = list(
        models.Mapping.objects.filter(audience__in=rows)
        .exclude(state=models.Mapping.State.RETIRED)
        .select_related("audience", "destination")
        .order_by("audience__key", "destination__key")
    )
    destinations = Destination.objects.order_by("key")
    lists = list(PersonList.objects.order_by("key").defer("members"))
    if keys:
        destinations = destinations.filter(pk__in={mapping.destination_id for mapping in mappings})
        lists = _named(lists, rows)
    sections: dict[str, Any] = {
        "settings": {} if keys else _settings(),
        "naming": {} if keys else naming.written(rules),
        "lists": [_list(row) for row in lists],
        "audiences": [_audience(row, rules) for row in rows],
        "destinations": [_destination(row) for row in destinations],
        "mappings": [_mapping(row) for row in mappings],
    }
    filled = {name: section for name, section in sections.items() if section}
    return yaml.dump(filled, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def _audiences(keys: Sequence[str] | None) -> list[Audience]:
    everybody = {
        row.key: row
        for row in Audience.objects.filter(archived_at=None)
        .select_related("live_version", *(role.field for role in ROLES))
        .prefetch_related("excluded_by")
        .annotate(first_version=Min("versions__number"))
        .order_by("key")
    }
    if not keys:
        return list(everybody.values())
    missing = [key for key in keys if key not in everybody]
    if missing:
        raise NoSuchAudience(f"There is no audience {', '.join(missing)}.")
    needed: set[str] = set()
    waiting = list(keys)
    while waiting:
        key = waiting.pop()
        if key in needed or key not in everybody:
            continue
        needed.add(key)
        row = everybody[key]
        waiting += [linked.key for linked in row.excluded_by.all()]
        if row.live_version:
            waiting += [name for name, _ in grammar.names(vocabulary.rule(row.live_version.segment)).audiences]
    return [row for key, row in everybody.items() if key in needed]


def _named(lists: Iterable[PersonList], rows: Iterable[Audience]) -> list[PersonList]:
    keys: set[str] = set()
    numbers: set[int] = set()
    for row in rows:
        if row.live_version:
            named = grammar.names(vocabulary.rule(row.live_version.segment))
            keys |= {key for key, _ in named.lists}
            numbers |= {number for number, _ in named.customerio_segments}
    return [row for row in lists if row.key in keys or row.customerio_segment in numbers]


def _settings() -> dict[str, Any]:
    row = workspace.current()
    if row is None:
        return {}
    return {name: getattr(row, name) for name in workspace.FIELDS if getattr(row, name) not in (None, [])}


def _list(row: PersonList) -> dict[str, Any]:
    return _said(key=row.key, name=row.name, customerio_segment=row.customerio_segment)


def _audience(row: Any, rules: Convention | None) -> dict[str, Any]:
    named = {held.role.key: held.user for held in holdings(row)}
    owners = _said(**{key: user.email if user else None for key, user in named.items()})
    segment = grammar.to_json(vocabulary.rule(row.live_version.segment)) if row.live_version else None
    return _said(
        key=row.key,
        **naming.written_name(rules, row),
        description=row.description or None,
        purpose=row.purpose,
        owners=owners or None,
        cadence=_duration(row.cadence_seconds),
        excluded_by=sorted(linked.key for linked in row.excluded_by.all()) or None,
        segment=segment,
        first_version=row.first_version if row.first_version != 1 else None,
    )


def _destination(row: Destination) -> dict[str, Any]:
    try:
        fields = sorted(secrets.unseal(row.credentials, str(row.pk)))
    except secrets.Unreadable:
        fields = sorted(registry.named(row.kind).secret_fields)
    credentials = {field: {"env": _variable(row.key, field)} for field in fields}
    return _said(
        key=row.key,
        kind=row.kind,
        name=row.name,
        base_url=row.base_url or None,
        config=row.config or None,
        credentials=credentials or None,
    )


def _mapping(row: models.Mapping) -> dict[str, Any]:
    frozen = row.state == models.Mapping.State.FROZEN
    return _said(
        audience=row.audience.key,
        destination=row.destination.key,
        identifiers=row.identifiers,
        state=row.state,
        reason=row.state_reason if frozen else None,
        until=row.state_until.isoformat() if frozen and row.state_until else None,
        cadence=_duration(row.cadence_seconds),
        remote_id=row.remote_id or None,
        remote_name=row.own_name or None,
        add_only=row.add_only or None,
        trial_percent=row.trial_percent,
        removal_limit_percent=row.removal_limit_percent,
        override=_said(**row.override) if row.override else None,
    )


def _said(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _duration(seconds: int) -> str:
    size, letter = next((size, letter) for size, letter in SECONDS if seconds % size == 0)
    return f"{seconds // size}{letter}"


def _variable(key: str, field: str) -> str:
    name = re.sub(r"[^A-Z0-9]", "_", f"{key}_{field}".upper())
    return name if name[0].isalpha() else f"D_{name}"
