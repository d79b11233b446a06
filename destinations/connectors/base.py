"""The contract that every connector keeps: what it can do, how it is called, and the verdicts its errors carry.

A connector only translates. Batching, the ledger, retries, budgets and names are the floor's.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import httpx
import pyarrow as pa
from django import forms


class ConnectorError(Exception):
    """Said in words that a person can act on; never with a person's data."""

    http_status: int | None = None


class Retryable(ConnectorError):
    """Known not to have been applied; try again after so many seconds. `throttled`: the whole account pauses."""

    def __init__(self, words: str, *, after: float | None = None, throttled: bool = False) -> None:
        super().__init__(words)
        self.after = after
        self.throttled = throttled


class Rejected(ConnectorError):
    """The platform refused the call's content. `whole`: nothing of it was applied, so it may be halved to find the bad row.

    `rows`, identity_no → (code, words), are those that the platform itself pointed at, where it does: no need to halve.
    """

    def __init__(
        self, words: str, *, code: str = "", whole: bool = True, rows: Mapping[int, tuple[str, str]] | None = None
    ) -> None:
        super().__init__(words)
        self.code = code
        self.whole = whole
        self.rows = rows or {}


class Misconfigured(ConnectorError):
    """A person must act first: `code` is reconnect, audience_gone, terms, blocked, permission or config."""

    def __init__(self, words: str, *, code: str = "config") -> None:
        super().__init__(words)
        self.code = code


class OutcomeUnknown(ConnectorError):
    """It may or may not have been applied: a timeout, a dropped connection, a success that could not be understood."""


# (code, words) of a person whose every identifier was empty after normalising: named in `rejected`, never sent.
UNMATCHABLE = ("no_identifier", "None of the identifiers of this connection could be sent.")


@dataclass(frozen=True, slots=True)
class Capabilities:
    label: str
    purposes: tuple[str, ...]
    identifiers: Mapping[
        str, str
    ]  # kind → words for the screen; kinds are Identity's fields: email, phone, external_id, …
    batch_size: int
    calls_per_minute: float
    base_url: str
    can_remove: bool = True
    can_read_members: bool = False
    can_rename: bool = True
    can_validate: bool = False  # a rehearsal can be checked by the platform without being applied
    name_length: int = 200
    description_length: int = (
        0  # characters of what is said of an audience there; 0: the platform keeps nothing of the kind
    )
    receipts: bool = False  # the outcome comes later, by poll()
    settle_seconds: int = 60  # how long after an unknown outcome a late apply may still land


@dataclass(frozen=True, slots=True)
class Account:
    """Whom a connector speaks for. `credentials` are plain here and nowhere else."""

    base_url: str
    config: Mapping[str, Any]
    credentials: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Push:
    """One call's worth. `people` has int64 `identity_no` and a string column for each identifier kind, canonical and unhashed,
    null where the person has none; `identifiers` says which to use and in which order."""

    kind: str  # add | remove
    remote_id: str
    operation_id: int
    people: pa.Table = field(repr=False)
    identifiers: tuple[str, ...]
    validate_only: bool = False


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the platform said. Identities named in neither `rejected` nor covered by `accepted`/`pending` are unknown.

    accepted: it took the call's rows, less `rejected`. pending: ask `poll(request_id)` later.
    matched_*: how many of this call's rows it recognised, where it says; a range where it gives one.
    """

    accepted: bool
    request_id: str = ""
    pending: bool = False
    rejected: Mapping[int, tuple[str, str]] = field(default_factory=dict)  # identity_no → (code, words)
    rejected_unnamed: int = 0  # the platform refused so many without saying which
    received: int | None = None
    matched_low: int | None = None
    matched_high: int | None = None
    warnings: tuple[str, ...] = ()
    http_status: int | None = None


@dataclass(frozen=True, slots=True)
class RemoteAudience:
    """What the platform says of one audience. `matched_*` are None where it does not say."""

    remote_id: str
    name: str
    description: str | None = None  # None: it does not say
    state: str = ""
    usable: bool = True
    matched_low: int | None = None
    matched_high: int | None = None
    matched_words: str = ""
    at: datetime | None = None


def sandbox_page(kind: str, base_url: str, account: str, remote_id: str) -> str:
    """The page of an audience in the sandbox (destinations/sandbox/pages.py); empty where this base address is not on this machine."""
    host = urlsplit(base_url).hostname or ""
    if host not in ("localhost", "127.0.0.1", "::1"):
        return ""
    return f"{base_url.rstrip('/')}/accounts/{kind}/{quote(account, safe='')}/{quote(remote_id, safe='')}/"


class Connector(ABC):
    """Made anew for each use: `Connector(account, client)`. `client` is connectors/http.py's one door.

    Platforms' classes name this one as their base, for what is the same everywhere; `registry.open` makes them.
    """

    kind: ClassVar[str]
    capabilities: ClassVar[Capabilities]
    config_form: ClassVar[type[forms.Form]]
    secret_fields: ClassVar[tuple[str, ...]]  # fields of config_form that are credentials

    def __init__(self, account: Account, client: httpx.Client) -> None:
        self.account = account
        self.client = client

    @classmethod
    @abstractmethod
    def account_key(cls, config: Mapping[str, Any]) -> str:
        """What names the platform account whose rate budget this shares."""

    @classmethod
    def page_of(cls, base_url: str, config: Mapping[str, Any], remote_id: str) -> str:
        """The address at which a person sees this audience in the platform's own pages; empty: it has none. Built, not asked for."""
        return ""

    @abstractmethod
    def check(self) -> str:
        """One sentence on what the credentials open. Raises Misconfigured with what to do."""

    @abstractmethod
    def create(self, name: str, description: str) -> str:
        """Make an audience; its remote id. Name and description fit there: `name_length`, `description_length`."""

    @abstractmethod
    def describe(self, remote_id: str) -> RemoteAudience:
        """Raises Misconfigured(code="audience_gone") where it is not there."""

    @abstractmethod
    def rename(self, remote_id: str, name: str) -> None:
        """The same audience under another name; its id stays."""

    def describe_as(self, remote_id: str, description: str) -> None:
        """Have the platform say this of the audience, only where `description_length`; the text fits there."""
        raise NotImplementedError(f"{self.kind} keeps no descriptions")

    @abstractmethod
    def push(self, push: Push) -> Receipt:
        """Idempotent: pushing the same twice leaves the platform as pushing once."""

    def poll(self, request_id: str) -> Receipt:
        """What became of a pending push, only where `receipts`.

        Raises Rejected where the platform refused the push after all; any other verdict is about the asking.
        """
        raise NotImplementedError(f"{self.kind} gives no receipts")

    @abstractmethod
    def masked_payload(self, push: Push) -> str:
        """The body that push() would send, with every identifier masked, for the rehearsal page."""

    def read_members(self, remote_id: str) -> Sequence[str]:
        """External ids of the members, only where `can_read_members`."""
        raise NotImplementedError(f"{self.kind} lets nobody read members")
