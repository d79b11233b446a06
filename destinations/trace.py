"""Where one person stands with one connection: which step took them out, and what the platform has been told of them."""

from dataclasses import dataclass

from pyroaring import BitMap

from audiences.bitmaps import unpack
from audiences.models import Identity, Membership
from destinations.models import Eligibility, Ledger, Mapping, Rejection


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
