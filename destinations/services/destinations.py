"""Destinations: made, changed, checked. Their credentials are sealed here and shown nowhere."""

from collections.abc import Mapping as Fields
from typing import Any

from django.db import IntegrityError, transaction
from django.utils import timezone

from audiences import jobs
from audiences.models import User
from audiences.services import trail
from audiences.services.audiences import KEY
from audiences.vocabulary import Problem
from destinations import secrets
from destinations.connectors import registry
from destinations.connectors.base import Connector, ConnectorError, Misconfigured
from destinations.models import Account, Destination, Mapping
from destinations.remotes import LOOK
from destinations.services import Refused, refuse
from destinations.services.mappings import TASK
from destinations.services.runs import SENDS


def create(
    *,
    actor: User | None,
    key: str,
    kind: str,
    name: str = "",
    base_url: str = "",
    config: Fields[str, Any] | None = None,
    credentials: Fields[str, str] | None = None,
) -> Destination:
    """A new destination, not checked yet. Its name is the key where none is given. Raises Refused."""
    if not KEY.fullmatch(key):
        raise refuse("must be 1 to 100 letters, digits, _ or -, and begin with one of the first two", "key")
    connector = _connector(kind)
    config, credentials = validate(kind, config or {}, credentials or {})
    account, _ = Account.objects.get_or_create(key=connector.account_key(config)[:200])
    try:
        with transaction.atomic():
            destination = Destination.objects.create(
                key=key, name=name or key, kind=kind, base_url=base_url, config=config, account=account
            )
            _seal(destination, credentials, actor)
            after = {"kind": kind, "base_url": base_url, "config": config, "credentials": sorted(credentials)}
            trail.record(actor, "destination.created", "destination", key, after=after)
    except IntegrityError as error:
        raise refuse(f'there is a destination "{key}" already', "key") from error
    return destination


def change(
    *,
    actor: User | None,
    destination: Destination,
    name: str | None = None,
    base_url: str | None = None,
    config: Fields[str, Any] | None = None,
    credentials: Fields[str, str] | None = None,
    reason: str = "",
) -> Destination:
    """Change what is given. Credentials are replaced whole; connections that waited for new ones may call again. Raises Refused.

    Another account on the platform is another destination: what was sent to the first would be left behind.
    """
    connector = _connector(destination.kind)
    sealed = _unsealed(destination) if credentials is None else credentials
    new, secret = validate(destination.kind, destination.config if config is None else config, sealed)
    if connector.account_key(new) != connector.account_key(destination.config):
        raise refuse("names another account; make a new destination for it", "config")
    with transaction.atomic():
        row = Destination.objects.select_for_update().get(pk=destination.pk)
        before = {"name": row.name, "base_url": row.base_url, "config": row.config}
        row.name = row.name if name is None else name
        row.base_url = row.base_url if base_url is None else base_url
        row.config = new
        row.state, row.state_words = Destination.State.UNTESTED, ""
        row.save(update_fields=["name", "base_url", "config", "state", "state_words"])
        if credentials is not None:
            _seal(row, secret, actor)
        Mapping.objects.filter(destination=row, lost="").update(blocked_reason="")
        after = {"name": row.name, "base_url": row.base_url, "config": row.config}
        if credentials is not None:
            after["credentials"] = sorted(secret)
        trail.record(actor, "destination.changed", "destination", row.key, before=before, after=after, reason=reason)
    return row


def check(*, actor: User | None, destination: Destination) -> Destination:
    """Ask the platform what the credentials open; the answer is in `state` and `state_words`. One or two calls."""
    try:
        with registry.open(destination) as connector:
            words, state = connector.check(), Destination.State.CONNECTED
    except Misconfigured as error:
        words, state = str(error), Destination.State.REFUSED
    except ConnectorError as error:
        words, state = str(error), Destination.State.FAILING
    with transaction.atomic():
        row = Destination.objects.select_for_update().get(pk=destination.pk)
        before = row.state
        row.state, row.state_words, row.checked_at = state, words, timezone.now()
        row.save(update_fields=["state", "state_words", "checked_at"])
        after = {"state": state.value, "words": words}
        trail.record(actor, "destination.checked", "destination", row.key, before={"state": before}, after=after)
        if before == Destination.State.REFUSED and state == Destination.State.CONNECTED:
            _let_call_again(row)
    return row


def _let_call_again(destination: Destination) -> None:
    """What the refusal stopped goes on. A connection with a trouble of its own stops itself again at its first call; whether a lost
    audience can be seen again is asked first."""
    for mapping in Mapping.objects.filter(destination=destination).exclude(lost=""):
        jobs.ask(LOOK, mapping.pk, queue="sync")
    for mapping in Mapping.objects.filter(destination=destination, lost="").exclude(blocked_reason=""):
        Mapping.objects.filter(pk=mapping.pk).update(blocked_reason="")
        if mapping.state in SENDS:
            jobs.ask(TASK, mapping.pk, queue="sync")


def validate(
    kind: str, config: Fields[str, Any], credentials: Fields[str, str]
) -> tuple[dict[str, Any], dict[str, str]]:
    """(config, credentials) as the connector's own form cleans them. Raises Refused with the form's words, by field."""
    connector = _connector(kind)
    fields = connector.config_form.base_fields
    unknown = [name for name in (*config, *credentials) if name not in fields]
    misplaced = [name for name in config if name in connector.secret_fields]
    problems = [Problem(f"config.{name}", "is a secret; it belongs under credentials") for name in misplaced]
    problems += [Problem(name, f"{connector.capabilities.label} has no such setting") for name in unknown]
    form = connector.config_form(data={**config, **credentials})
    if not form.is_valid():
        problems += [
            Problem(
                ""
                if field == "__all__"
                else f"{'credentials' if field in connector.secret_fields else 'config'}.{field}",
                " ".join(map(str, words)),
            )
            for field, words in form.errors.items()
        ]
    if problems:
        raise Refused(*problems)
    cleaned = {name: value for name, value in form.cleaned_data.items() if value not in (None, "")}
    secret = {name: str(value) for name, value in cleaned.items() if name in connector.secret_fields}
    return {name: value for name, value in cleaned.items() if name not in secret}, secret


def _seal(destination: Destination, credentials: Fields[str, str], actor: User | None) -> None:
    destination.credentials = secrets.seal(dict(credentials), str(destination.pk))
    destination.credentials_by, destination.credentials_at = actor, timezone.now()
    destination.save(update_fields=["credentials", "credentials_by", "credentials_at"])


def _unsealed(destination: Destination) -> dict[str, str]:
    try:
        return secrets.unseal(destination.credentials, str(destination.pk))
    except secrets.Unreadable as error:
        raise refuse(f"{error} Enter the credentials again.", "credentials") from error


def _connector(kind: str) -> type[Connector]:
    try:
        return registry.named(kind)
    except Misconfigured as error:
        raise refuse(str(error), "kind") from error
