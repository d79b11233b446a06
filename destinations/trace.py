"""Where people stand with one connection: which step took them out, what the platform has been told of them, and by which call. Reads only."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from django.db.models import F
from pyroaring import BitMap

from audiences.bitmaps import unpack
from audiences.models import Membership
from destinations import identities
from destinations.models import Eligibility, Ledger, Mapping, Operation, Rejection

CALLS_LOOKED_AT = 2_000  # of a connection, newest first; what was said of somebody before these is not looked for


@dataclass(frozen=True, slots=True)
class Call:
    """One call that carried somebody. `answered_at` None: no answer yet, or it was lost."""

    kind: str
    cause: str
    state: str
    sent_at: datetime
    answered_at: datetime | None
    request_id: str
    http_status: int | None
    run_id: int | None


@dataclass(frozen=True, slots=True)
class Trace:
    """Where one person stands with one connection. `step`: the step of eligibility.ORDER that took them out, "" if none.

    `told`: present, unknown, rejected or absent; `reason` says why they were refused, where they were. `last`: the last call
    that carried them, add or remove.
    """

    member: bool
    step: str
    wanted: bool
    told: str
    reason: str
    ever_sent: bool
    last: Call | None = None


def trace(mapping: Mapping, profile_no: int) -> Trace:
    """As of the connection's last count. A fixed number of queries."""
    return traces(mapping, [profile_no])[profile_no]


def traces(mapping: Mapping, people: Collection[int]) -> dict[int, Trace]:
    """The same of many people at once, by profile_no."""
    ledger = Ledger.objects.get(mapping=mapping)
    membership = Membership.objects.filter(audience=mapping.audience_id).only("members").first()
    members = unpack(membership.members) if membership else BitMap()
    rows = Eligibility.objects.filter(mapping=mapping, refresh=ledger.refresh_id, out_count__gt=0).order_by("position")
    steps = [(row.step, unpack(row.taken_out)) for row in rows]
    return _traces(mapping, ledger, members, steps, _own(people))


def everywhere(profile_no: int) -> dict[int, Trace]:
    """One person and every connection that was ever planned, by its id. One query more for each that has sent them."""
    own = _own([profile_no])
    memberships = Membership.objects.values_list("audience_id", "members")
    within = {audience for audience, members in memberships.iterator(chunk_size=20) if profile_no in unpack(members)}
    taken: dict[int, list[tuple[str, BitMap]]] = {}
    rows = Eligibility.objects.filter(refresh=F("mapping__ledger__refresh"), out_count__gt=0).order_by("position")
    for mapping_id, step, out in rows.values_list("mapping_id", "step", "taken_out").iterator(chunk_size=20):
        if profile_no in unpack(out):
            taken.setdefault(mapping_id, []).append((step, BitMap([profile_no])))
    found: dict[int, Trace] = {}
    for ledger in Ledger.objects.filter(refresh__isnull=False).select_related("mapping").iterator(chunk_size=20):
        mapping = ledger.mapping
        members = BitMap([profile_no]) if mapping.audience_id in within else BitMap()
        found[mapping.pk] = _traces(mapping, ledger, members, taken.get(mapping.pk, []), own)[profile_no]
    return found


def _own(people: Collection[int]) -> dict[int, BitMap]:
    """Each person's identities, those that were replaced too."""
    own: dict[int, BitMap] = {number: BitMap() for number in people}
    for identity_no, profile_no in identities.of_profiles(list(own)):
        own[profile_no].add(identity_no)
    return own


def _traces(
    mapping: Mapping, ledger: Ledger, members: BitMap, steps: list[tuple[str, BitMap]], own: dict[int, BitMap]
) -> dict[int, Trace]:
    base, ever_sent = unpack(ledger.base), unpack(ledger.ever_sent)
    told_sets = {name: unpack(getattr(ledger, name)) for name in ("present", "unknown", "rejected")}
    told = {
        number: next((name for name, held in told_sets.items() if held & ids), "absent") for number, ids in own.items()
    }
    reasons = _reasons(mapping, {number: ids for number, ids in own.items() if told[number] == "rejected"})
    last = _last_calls(mapping, {number: ids & (ever_sent | told_sets["rejected"]) for number, ids in own.items()})
    return {
        number: Trace(
            member=number in members,
            step=next((step for step, taken in steps if number in taken), ""),
            wanted=bool(ids & base),
            told=told[number],
            reason=reasons.get(number, ""),
            ever_sent=bool(ids & ever_sent),
            last=last.get(number),
        )
        for number, ids in own.items()
    }


def _reasons(mapping: Mapping, refused: dict[int, BitMap]) -> dict[int, str]:
    if not refused:
        return {}
    owner = {identity: number for number, ids in refused.items() for identity in ids}
    rows = Rejection.objects.filter(mapping=mapping, identity_no__in=list(owner)).order_by("pk")
    return {owner[identity]: reason for identity, reason in rows.values_list("identity_no", "reason")}


def _last_calls(mapping: Mapping, own: dict[int, BitMap]) -> dict[int, Call]:
    """For each person the newest call that carried one of these identities."""
    missing = {number: ids for number, ids in own.items() if ids}
    found: dict[int, Call] = {}
    if not missing:
        return found
    rows = Operation.objects.filter(mapping=mapping).order_by("-pk").defer("unsettled", "identifiers", "error")
    for row in rows[:CALLS_LOOKED_AT].iterator(chunk_size=20):
        if not missing:
            break
        carried = unpack(row.identities)
        for number in [number for number, ids in missing.items() if ids & carried]:
            del missing[number]
            found[number] = Call(
                row.kind,
                row.cause,
                row.state,
                row.prepared_at,
                row.finished_at,
                row.request_id,
                row.http_status,
                row.run_id,
            )
    return found
