"""What a file's destinations and mappings would change. Each finds what is wrong first and leaves a step for later."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from django.db import transaction
from django.utils import timezone

from audiences.models import Audience, User
from audiences.vocabulary import Problem
from destinations import models, secrets
from destinations.blueprint.entries import DestinationEntry, MappingEntry, Override
from destinations.blueprint.planning import Detail, Planner
from destinations.connectors import registry
from destinations.models import Destination
from destinations.services import Refused, Stopped
from destinations.services import destinations as service
from destinations.services import mappings as mapping_service

S = models.Mapping.State
SENDING = (S.TRIAL, S.LIVE)
_FIELDS = {"cadence_seconds": "cadence", "own_name": "remote_name"}  # as the file calls them
NO_WAY_BACK = "a connection that has begun does not go back to rehearsal; pause it or retire it"


def destinations(planner: Planner) -> None:
    rows = {row.key: row for row in Destination.objects.all()}
    for entry in planner.file.destinations:
        row = rows.get(entry.key)
        kind = row.kind if row else entry.kind
        if kind is None:
            planner.wrong(f"{entry.path}.kind", f"is missing; one of {', '.join(registry.CONNECTORS)}")
            continue
        if row is not None and entry.kind not in (None, row.kind):
            planner.wrong(f"{entry.path}.kind", f"is {row.kind} here; a destination does not change its platform")
            continue
        if entry.base_url and not entry.base_url.startswith(("http://", "https://")):
            planner.wrong(f"{entry.path}.base_url", "must begin with https:// or http://")
            continue
        credentials = _credentials(planner, entry, row)
        if credentials is None:
            continue
        config = _plain(entry.config) if entry.config is not None else dict(row.config) if row else {}
        try:
            config, credentials = service.validate(kind, config, credentials)
        except Refused as refused:
            for problem in refused.problems:
                planner.wrong(f"{entry.path}.{problem.path}" if problem.path else entry.path, problem.words)
            continue
        if row is None:
            _new_destination(planner, entry, kind, config, credentials)
        else:
            _changed_destination(planner, entry, row, config, credentials)


def mappings(planner: Planner) -> None:
    rows = {
        (row.audience.key, row.destination.key): row
        for row in models.Mapping.objects.select_related("audience", "destination")
    }
    destinations = {row.key: row for row in Destination.objects.all()}
    for added in planner.file.destinations:
        if added.key not in destinations and added.kind:
            destinations[added.key] = Destination(key=added.key, name=added.name or added.key, kind=added.kind)
    for entry in _suppression_first(planner):
        destination = destinations.get(entry.destination)
        if destination is None:
            planner.wrong(f"{entry.path}.destination", f'there is no destination "{entry.destination}"')
        purpose, published = _audience(planner, entry)
        if destination is None or purpose is None:
            continue
        if destination.kind not in registry.CONNECTORS:
            continue  # said where the destination stands
        row = rows.get((entry.audience, entry.destination))
        _mapping(planner, entry, row, destination, purpose, published)


def _suppression_first(planner: Planner) -> list[MappingEntry]:
    """A gate keeps retargeting from going live before what suppresses it does: one file may bring both."""
    purposes = {key: row.purpose for key, row in planner.audience_rows.items()}
    purposes |= {entry.key: entry.purpose for entry in planner.file.audiences if entry.purpose}
    return sorted(planner.file.mappings, key=lambda entry: purposes.get(entry.audience) != Audience.Purpose.SUPPRESSION)


def _credentials(planner: Planner, entry: DestinationEntry, row: Destination | None) -> dict[str, str] | None:
    """What is kept, overlaid by what the environment holds. None if something is missing; that is said."""
    try:
        kept = secrets.unseal(row.credentials, str(row.pk)) if row else {}
    except secrets.Unreadable:
        kept = {}  # whatever the file does not give anew, the connector's form will miss
    wanted = dict(kept)
    complete = True
    for field, variable in entry.credentials.items():
        value = planner.environment.get(variable, "")
        if value:
            wanted[field] = value
        elif field not in kept:
            complete = False
            planner.wrong(f"{entry.path}.credentials.{field}.env", f"the environment variable {variable} is not set")
    return wanted if complete else None


def _new_destination(
    planner: Planner, entry: DestinationEntry, kind: str, config: dict[str, Any], credentials: dict[str, str]
) -> None:
    details = [Detail("kind", "", kind), *([Detail("base_url", "", entry.base_url)] if entry.base_url else [])]
    details += [Detail(f"config.{name}", "", _words(value)) for name, value in config.items()]
    details += [Detail(f"credentials.{name}", "", "set") for name in sorted(credentials)]
    planner.plan.add("destination", entry.key, details, new=True)
    planner.plan.steps.append(
        lambda: service.create(
            actor=None,
            key=entry.key,
            kind=kind,
            name=entry.name or "",
            base_url=entry.base_url or "",
            config=config,
            credentials=credentials,
        )
    )


def _changed_destination(
    planner: Planner, entry: DestinationEntry, row: Destination, config: dict[str, Any], credentials: dict[str, str]
) -> None:
    connector = registry.named(row.kind)
    if connector.account_key(config) != connector.account_key(row.config):
        planner.wrong(f"{entry.path}.config", "names another account; make a new destination for it")
        return
    details, fields = [], {}
    for name in ("name", "base_url"):
        wanted = getattr(entry, name)
        if wanted is not None and wanted != getattr(row, name):
            fields[name] = wanted
            details.append(Detail(name, getattr(row, name), wanted))
    for name in sorted({*config, *row.config}):
        if config.get(name) != row.config.get(name):
            fields["config"] = config
            details.append(Detail(f"config.{name}", _words(row.config.get(name)), _words(config.get(name))))
    kept = _readable(row)
    for name in sorted(credentials):
        if kept.get(name) != credentials[name]:
            fields["credentials"] = credentials
            details.append(
                Detail(f"credentials.{name}", "set" if name in kept else "", "replaced" if name in kept else "set")
            )
    planner.plan.add("destination", entry.key, details)
    if fields:
        planner.plan.steps.append(lambda: service.change(actor=None, destination=row, reason=planner.reason, **fields))


def _readable(row: Destination) -> Mapping[str, str]:
    try:
        return secrets.unseal(row.credentials, str(row.pk))
    except secrets.Unreadable:
        return {}


def _audience(planner: Planner, entry: MappingEntry) -> tuple[str | None, bool]:
    """(its purpose, whether it has a rule) once the file is applied; no purpose where there is no such audience, which is said."""
    row = planner.audience_rows.get(entry.audience)
    said = next((one for one in planner.file.audiences if one.key == entry.audience), None)
    if (row is None and said is None) or (row is not None and row.archived_at):
        planner.wrong(f"{entry.path}.audience", f'there is no audience "{entry.audience}"')
        return None, False
    purpose = (said.purpose if said else None) or (row.purpose if row else None)
    return purpose, bool(said and said.segment) or bool(row and row.live_version_id)


def _mapping(
    planner: Planner,
    entry: MappingEntry,
    row: models.Mapping | None,
    destination: Destination,
    purpose: str,
    published: bool,
) -> None:
    before = len(planner.problems)
    capabilities = registry.named(destination.kind).capabilities
    if row is None and purpose not in capabilities.purposes:
        label = Audience.Purpose(purpose).label.lower()
        planner.wrong(f"{entry.path}.audience", f"{capabilities.label} does not take {label} audiences")
    if row is None and entry.identifiers is None:
        planner.wrong(
            f"{entry.path}.identifiers", f"is missing; {capabilities.label} takes {', '.join(capabilities.identifiers)}"
        )
    wanted = {
        "identifiers": None if entry.identifiers is None else list(entry.identifiers),
        "cadence_seconds": entry.cadence,
        "trial_percent": entry.trial_percent,
        "removal_limit_percent": entry.removal_limit_percent,
        "own_name": entry.own_name,
    }
    try:
        wanted = mapping_service.check(destination, **wanted)
    except Refused as refused:
        for problem in refused.problems:
            planner.wrong(f"{entry.path}.{_FIELDS.get(problem.path, problem.path)}", problem.words)
    changed = {name: value for name, value in wanted.items() if row is None or getattr(row, name) != value}
    details = [
        Detail("remote_name" if name == "own_name" else name, _words(getattr(row, name)) if row else "", _words(value))
        for name, value in changed.items()
    ]
    steps: list[Callable[[models.Mapping], object]] = []
    override = _override(planner, entry, row, details)
    if override:
        steps.append(lambda mapping: mapping_service.override(actor=None, mapping=mapping, **override))
    _remote(planner, entry, row, details, steps)
    _state(planner, entry, row, published, details, steps)
    if len(planner.problems) > before:
        return
    planner.plan.add("mapping", entry.key, details, new=row is None)
    if row is None or details:
        planner.plan.steps.append(lambda: _carry_out(planner, entry, changed, steps))


def _carry_out(
    planner: Planner, entry: MappingEntry, changed: dict[str, Any], steps: list[Callable[[models.Mapping], object]]
) -> None:
    rows = models.Mapping.objects.select_related("audience", "destination")
    row = rows.filter(audience__key=entry.audience, destination__key=entry.destination).first()
    if row is None:
        audience = Audience.objects.get(key=entry.audience)
        destination = Destination.objects.get(key=entry.destination)
        row = mapping_service.create(actor=None, audience=audience, destination=destination, **changed)
    elif changed:
        mapping_service.change(actor=None, mapping=row, reason=planner.reason, **changed)
    for step in steps:
        try:
            step(rows.get(pk=row.pk))
        except Stopped as stopped:  # the rest of the file holds; this one stays where it was
            planner.plan.stopped.append(Problem(entry.key, str(stopped)))


def _override(
    planner: Planner, entry: MappingEntry, row: models.Mapping | None, details: list[Detail]
) -> dict[str, Any] | None:
    given: Override | None = entry.override
    if given is None:
        return None
    where = f"{entry.path}.override"
    by = planner.person(given.by, User.Role.OPERATOR, f"{where}.by")
    until = _moment(planner, given.until, f"{where}.until")
    kept = {"by": by, "reason": given.reason, "until": until.isoformat() if until else None}
    if row is not None and row.override == kept:
        return None
    details.append(Detail("override", row.override["reason"] if row and row.override else "", f"{given.reason} ({by})"))
    return {"by": by, "reason": given.reason, "until": until}


def _remote(
    planner: Planner,
    entry: MappingEntry,
    row: models.Mapping | None,
    details: list[Detail],
    steps: list[Callable[[models.Mapping], object]],
) -> None:
    """Adopting an audience that is on the platform already: once, and never another one."""
    kept = row.remote_id if row else ""
    if kept:
        if entry.remote_id not in (None, kept):
            planner.wrong(
                f"{entry.path}.remote_id", f"is {kept} here, and stays so: retire this connection to begin another"
            )
        if row is not None and entry.add_only not in (None, row.add_only):
            planner.wrong(f"{entry.path}.add_only", "is chosen when an audience is adopted, and stays so")
    elif entry.remote_id:
        remote_id, add_only = entry.remote_id, bool(entry.add_only)
        details.append(Detail("remote_id", "", f"{remote_id}, adopted" + (", leftovers stay" if add_only else "")))
        steps.append(
            lambda mapping: mapping_service.adopt(actor=None, mapping=mapping, remote_id=remote_id, add_only=add_only)
        )
    elif entry.add_only:
        planner.wrong(f"{entry.path}.add_only", "needs the remote_id of the audience that is there already")


def _state(
    planner: Planner,
    entry: MappingEntry,
    row: models.Mapping | None,
    published: bool,
    details: list[Detail],
    steps: list[Callable[[models.Mapping], object]],
) -> None:
    where, wanted, now = f"{entry.path}.state", entry.state, row.state if row else S.REHEARSAL
    if wanted is None or wanted == now:
        if row is None:
            details.append(Detail("state", "", S.REHEARSAL.value))
        return
    if wanted not in S.values:
        planner.wrong(where, f"must be one of {', '.join(S.values)}")
        return
    if now == S.RETIRED:
        planner.wrong(where, "is retired here, for good")
        return
    if wanted == S.REHEARSAL:
        planner.wrong(where, NO_WAY_BACK)
        return
    if wanted == S.TRIAL and now != S.REHEARSAL and (row is None or row.state_before != S.TRIAL):
        planner.wrong(where, f"is {now} here; a trial comes before that")
        return
    if wanted != S.RETIRED and not published:
        planner.wrong(where, f'"{entry.audience}" has no rule, so it cannot be {wanted}')
        return
    reason = entry.reason or planner.reason
    until = _moment(planner, entry.until, f"{entry.path}.until")
    if wanted == S.FROZEN and (until is None or until <= timezone.now()):
        planner.wrong(f"{entry.path}.until", "must be when the freeze ends, in the future")
        return
    details.append(Detail("state", str(now) if row else "", wanted))
    steps.append(lambda mapping: _reach(mapping, wanted, reason, until))


def _reach(mapping: models.Mapping, wanted: str, reason: str, until: datetime | None) -> None:
    """From any state to the one wanted, in one transaction: nothing is sent in states that are only passed through."""
    said: dict[str, Any] = {"actor": None, "mapping": mapping, "reason": reason}
    with transaction.atomic():
        if wanted == S.RETIRED:
            mapping_service.retire(**said)
            return
        if (mapping.state in (S.PAUSED, S.FROZEN) and wanted in SENDING) or (
            mapping.state == S.FROZEN and wanted == S.PAUSED
        ):
            mapping = mapping_service.resume(**said)
        elif mapping.state == S.REHEARSAL and wanted in (S.PAUSED, S.FROZEN):
            mapping = mapping_service.go_live(**said)
        said["mapping"] = mapping
        if mapping.state == wanted:
            return
        if wanted == S.TRIAL:
            mapping_service.start_trial(**said)
        elif wanted == S.LIVE:
            mapping_service.go_live(**said)
        elif wanted == S.PAUSED:
            mapping_service.pause(**said)
        elif wanted == S.FROZEN:
            assert until is not None
            mapping_service.freeze(**said, until=until)


def _moment(planner: Planner, text: str | None, path: str) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        planner.wrong(path, "must be a moment such as 2026-12-31 or 2026-12-31T18:00:00Z")
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON keeps it: the file's exact decimals become numbers."""
    return dict(json.loads(json.dumps(config, default=float)))


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "" if value is None else str(value)
