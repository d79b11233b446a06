"""What people ask of a connection beyond its pages' figures: who could be sent with which identifier, and why a person is sent or not."""

from dataclasses import dataclass
from datetime import timedelta

from pyroaring import BitMap

from audiences.bitmaps import unpack
from audiences.models import Audience, Identity, Membership
from destinations import identities
from destinations.connectors import registry
from destinations.models import Eligibility, Ledger, Mapping, Rejection, Run


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of an audience's members, how many have an identity at all, and how many carry each kind of identifier."""

    members: int
    people: int
    kinds: dict[str, int]


@dataclass(frozen=True, slots=True)
class Trace:
    """Where one person stands with one connection. `step`: the step of eligibility.ORDER that took them out, "" if none.

    `told`: present, unknown, rejected or absent; `reason` says why they were refused, where they were.
    """

    member: bool
    step: str
    wanted: bool
    told: str
    reason: str
    ever_sent: bool


def coverage(audience: Audience) -> Coverage:
    """Over the members as last counted. About a second for each million."""
    membership = Membership.objects.filter(audience=audience).first()
    members = unpack(membership.members) if membership else BitMap()
    counts = identities.coverage(members)
    return Coverage(len(members), counts.pop("people"), counts)


def trace(mapping: Mapping, profile_no: int) -> Trace:
    """As of the connection's last count. A fixed number of queries."""
    membership = Membership.objects.filter(audience=mapping.audience_id).first()
    ledger = Ledger.objects.get(mapping=mapping)
    steps = Eligibility.objects.filter(mapping=mapping, refresh=ledger.refresh_id).order_by("position")
    taken = next((row.step for row in steps if profile_no in unpack(row.taken_out)), "")
    own = BitMap(Identity.objects.filter(profile_no=profile_no).values_list("identity_no", flat=True))
    told, reason = "absent", ""
    for name in ("present", "unknown", "rejected"):
        if own & unpack(getattr(ledger, name)):
            told = name
            break
    if told == "rejected":
        rejection = Rejection.objects.filter(mapping=mapping, identity_no__in=list(own)).order_by("-pk").first()
        reason = rejection.reason if rejection else ""
    return Trace(
        member=membership is not None and profile_no in unpack(membership.members),
        step=taken,
        wanted=bool(own & unpack(ledger.base)),
        told=told,
        reason=reason,
        ever_sent=bool(own & unpack(ledger.ever_sent)),
    )


def estimate(run: Run) -> timedelta | None:
    """How long a rehearsed run's calls would take at the platform's rate; None where its connector is gone."""
    connector = registry.CONNECTORS.get(run.mapping.destination.kind)
    if connector is None:
        return None
    calls = run.batches_planned + 2  # the audience itself is looked at or made, and asked for its size
    return timedelta(
        seconds=max(
            calls * 1.0,
            (calls - connector.capabilities.calls_per_minute / 2) * 60 / connector.capabilities.calls_per_minute,
        )
    )
