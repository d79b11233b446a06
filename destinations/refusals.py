"""People whom a platform refused: grouped by its reason, with what may be done about each, and one of them as an example. Reads only."""

import re
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Count, Min

from audiences import masking
from audiences.models import Identity
from destinations.connectors.base import UNMATCHABLE
from destinations.models import Mapping, Rejection, Run

# What the code or the words of a refusal hold → what to do. The first that fits.
_FIXES = (
    (re.compile(r"consent|policy|terms|gdpr|dma", re.IGNORECASE), "Look at consent: what these people said, and what the account has agreed to at the platform."),
    (re.compile(r"format|invalid|malform|hash|normali|e-?mail|phone|encod|length", re.IGNORECASE), "Look at how the source writes it: an e-mail without spaces, a phone with its country code. When it changes, it is sent again by itself."),
    (re.compile(r"duplicate|already", re.IGNORECASE), "Nothing to do: somebody else carries the same identifier, or they are there already."),
    (re.compile(r"\brate\b|limit|quota|later|unavailable|timeout|internal|backend|5\d\d", re.IGNORECASE), "Nothing to do: it is the platform's trouble, and it is tried again."),
    (re.compile(r"not.?found|unknown|no.?such|gone", re.IGNORECASE), "Check the connection's audience there: it may have been deleted or moved to another account."),
)  # fmt: skip
_NO_IDENTIFIER = "Let the connection send another kind of identifier, or bring e-mail or phone in at the source."
_OTHERWISE = "Retry once; if they are refused again, ask the platform with this code."


@dataclass(frozen=True, slots=True)
class Example:
    """One of those who were refused, masked."""

    profile_no: int
    words: str


@dataclass(frozen=True, slots=True)
class Reason:
    """Why so many rows were refused, when they are tried again, and what may be done."""

    code: str
    reason: str
    kind: str
    count: int
    retry_at: datetime | None
    example: Example | None

    @property
    def fix(self) -> str:
        return fix(self.code, self.reason)


def fix(code: str, reason: str) -> str:
    """What to do about a refusal, from what the platform called it."""
    if code == UNMATCHABLE[0]:
        return _NO_IDENTIFIER
    return next((words for sign, words in _FIXES if sign.search(code) or sign.search(reason)), _OTHERWISE)


def by_reason(mapping: Mapping, run: Run | None = None, *, limit: int = 20) -> list[Reason]:
    """The most frequent first: of one run, or of everything that is refused now. Two queries."""
    rows = Rejection.objects.filter(mapping=mapping)
    rows = rows.filter(operation__run=run) if run else rows
    grouped = rows.values("code", "reason", "kind").annotate(
        number=Count("pk"), next=Min("retry_at"), one=Min("identity_no")
    )
    found = list(grouped.order_by("-number", "code")[:limit])
    people = Identity.objects.in_bulk([row["one"] for row in found]) if found else {}
    return [
        Reason(row["code"], row["reason"], row["kind"], row["number"], row["next"], _example(people.get(row["one"])))
        for row in found
    ]


def _example(identity: Identity | None) -> Example | None:
    if identity is None or identity.erased_at is not None:
        return None
    if identity.email:
        words = masking.email(identity.email)
    elif identity.phone:
        words = masking.phone(identity.phone)
    else:
        words = masking.identifier(identity.external_id) or "without an identifier"
    return Example(identity.profile_no, words)
