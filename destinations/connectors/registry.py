"""Which platforms there are, and how one of them is opened for a destination. A new connector is a line here."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

from audiences import tallies
from destinations import secrets
from destinations.connectors import http
from destinations.connectors.base import Account, Connector, Misconfigured
from destinations.connectors.google import Google
from destinations.connectors.meta import Meta
from destinations.connectors.openlist import OpenList
from destinations.connectors.webhook import Webhook

CONNECTORS: Mapping[str, type[Connector]] = {
    "meta": Meta,
    "google": Google,
    "webhook": Webhook,
    "openlist": OpenList,
}


class DestinationLike(Protocol):
    """What `open` needs of a destination's row; `credentials` are sealed, with `str(pk)` as their bond."""

    pk: Any
    kind: str
    base_url: str
    config: Any
    credentials: str


@contextmanager
def open(destination: DestinationLike, *, seconds: float | None = None) -> Iterator[Connector]:
    """The connector of a destination, ready to call, for as long as the block lasts. `seconds`: the limit of one call.

    Raises Misconfigured where its kind is unknown or its credentials cannot be opened.
    """
    connector = named(destination.kind)
    try:
        credentials = secrets.unseal(destination.credentials, str(destination.pk))
    except secrets.Unreadable as error:
        raise Misconfigured(f"{error} Enter the credentials again.", code="reconnect") from None
    account = Account(
        base_url=destination.base_url or connector.capabilities.base_url,
        config=destination.config,
        credentials=credentials,
    )
    with http.client(account, seconds=seconds, heard=partial(_tally, destination.kind)) as client:
        yield connector(account, client)


def _tally(kind: str, outcome: str, seconds: float) -> None:
    tallies.observe("platform_call_seconds", kind, outcome, seconds=seconds)


def named(kind: str) -> type[Connector]:
    """The connector class of a kind. Raises Misconfigured."""
    if kind not in CONNECTORS:
        raise Misconfigured(f"There is no connector of the kind “{kind}”.")
    return CONNECTORS[kind]
