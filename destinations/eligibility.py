"""Who of a segment's members may be sent: one fixed order of steps, each kept with whom it took out. Who is wanted by rule is segments/'s."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from django.db.models import Q
from pyroaring import BitMap

from audiences.bitmaps import pack, unpack
from audiences.models import Audience, Consent, Membership, Workspace
from audiences.people import bulk
from destinations.models import Eligibility, Exclusion
from destinations.models import Mapping as Connection

REMOVED, CONSENT, EXCLUDED, COOLDOWN, PRIORITY, HOLDOUT, UNREACHABLE = (
    "removed",
    "consent",
    "excluded",
    "cooldown",
    "priority",
    "holdout",
    "unreachable",
)
ORDER = (REMOVED, CONSENT, EXCLUDED, COOLDOWN, PRIORITY, HOLDOUT, UNREACHABLE)
# What stands between a suppression audience's members and the platform; everything else would show people advertisements.
FOR_SUPPRESSION = frozenset({REMOVED, CONSENT, UNREACHABLE})

_NEEDED: Mapping[str, tuple[str, ...]] = {
    Audience.Purpose.RETARGETING: (Consent.Purpose.AD_USER_DATA, Consent.Purpose.AD_PERSONALIZATION),
    Audience.Purpose.LOOKALIKE: (Consent.Purpose.AD_USER_DATA, Consent.Purpose.AD_PERSONALIZATION),
    Audience.Purpose.SUPPRESSION: (Consent.Purpose.AD_USER_DATA,),
    Audience.Purpose.ANALYTICS: (Consent.Purpose.ANALYTICS,),
    Audience.Purpose.WAREHOUSE: (),
}


class NotAnswered(Exception):
    """The workspace has not said whether people must opt in or out, so nothing may be sent."""


class CannotExclude(Exception):
    """Someone who must be left out cannot be named, in words; so nobody is sent."""


@dataclass(frozen=True, slots=True)
class Step:
    """Whom one step of the order took out, and how many are left after it."""

    name: str
    taken_out: BitMap
    remaining: int


def consents_needed(purpose: str) -> tuple[str, ...]:
    """The uses of a person's data that sending an audience of this purpose is."""
    return _NEEDED[purpose]


def excluding(mapping: Connection) -> list[Audience]:
    """The audiences whose members this mapping leaves out: linked suppression audiences and global ones."""
    if mapping.audience.purpose == Audience.Purpose.SUPPRESSION:
        return []
    everywhere = Exclusion.objects.filter(_concerns(mapping), audience__isnull=False).values_list(
        "audience_id", flat=True
    )
    linked = mapping.audience.excluded_by.values_list("pk", flat=True)
    chosen = {*everywhere, *linked} - {mapping.audience_id}
    return list(Audience.objects.filter(pk__in=chosen).select_related("live_version").order_by("key"))


def judge(mapping: Connection, members: BitMap) -> tuple[BitMap, list[Step]]:
    """(who is left, the steps) before identifiers are looked at. Raises NotAnswered and CannotExclude."""
    takers = {
        REMOVED: gone,
        CONSENT: lambda people: without_consent(people, consents_needed(mapping.audience.purpose)),
        EXCLUDED: lambda people: _excluded(mapping, people),
    }
    left, steps = BitMap(members), []
    suppression = mapping.audience.purpose == Audience.Purpose.SUPPRESSION
    for name in ORDER[:-1]:
        skip = suppression and name not in FOR_SUPPRESSION
        taken = takers[name](left) & left if name in takers and not skip else BitMap()
        left = left - taken
        steps.append(Step(name, taken, len(left)))
    return left, steps


def keep(mapping: Connection, refresh_id: int, steps: Iterable[Step]) -> None:
    """Keep the steps of a refresh, for the waterfall and for whoever asks why a person is not sent."""
    rows = [
        Eligibility(
            mapping=mapping,
            refresh_id=refresh_id,
            position=ORDER.index(step.name),
            step=step.name,
            taken_out=pack(step.taken_out),
            out_count=len(step.taken_out),
            remaining=step.remaining,
        )
        for step in steps
    ]
    Eligibility.objects.bulk_create(
        rows,
        update_conflicts=True,
        unique_fields=["mapping", "refresh", "position"],
        update_fields=["step", "taken_out", "out_count", "remaining"],
    )


def gone(people: BitMap) -> BitMap:
    """Of these profiles those that were deleted, erased or merged into another."""
    rows = bulk.fetch("SELECT profile_no FROM audiences_profile WHERE NOT (state = 'live')")
    return BitMap(number for (number,) in rows) & people


def merged(people: BitMap) -> BitMap:
    """Of these profiles those that turned out to be somebody else's, and live on as theirs."""
    rows = bulk.fetch("SELECT profile_no FROM audiences_profile WHERE NOT (state = 'live') AND state = 'merged'")
    return BitMap(number for (number,) in rows) & people


def without_consent(people: BitMap, purposes: Collection[str]) -> BitMap:
    """Of these profiles those whose data may not be used for all of `purposes` under the workspace's policy. Raises NotAnswered."""
    if not purposes:
        return BitMap()
    policy = _policy()
    asked = BitMap()  # profiles of whom a yes is needed; of the others a no is enough
    if policy["default"] == "opt_in":
        asked = people - _in_countries(people, [c for c, rule in policy["by_country"].items() if rule == "opt_out"])
    else:
        asked = _in_countries(people, [c for c, rule in policy["by_country"].items() if rule == "opt_in"])
    barred = BitMap()
    for purpose in purposes:
        said_no = _said(purpose, False)
        barred |= people & said_no
        if asked:
            barred |= asked - _said(purpose, True)
    return barred


def _policy() -> dict[str, Any]:
    workspace = Workspace.objects.filter(pk=1).values_list("consent_policy", flat=True).first()
    if not workspace:
        raise NotAnswered(
            "Nothing is sent before the consent policy is answered: opt-in or opt-out (Settings, Workspace)."
        )
    return {"default": workspace["default"], "by_country": workspace.get("by_country") or {}}


def _said(purpose: str, granted: bool) -> BitMap:
    rows = bulk.fetch(
        "SELECT profile_no FROM audiences_consent WHERE purpose = %s AND granted = %s", [str(purpose), granted]
    )
    return BitMap(number for (number,) in rows)


def _in_countries(people: BitMap, countries: Collection[str]) -> BitMap:
    if not countries or not people:
        return BitMap()
    chosen, values = bulk.among("country", sorted(countries))
    sql = f"SELECT profile_no FROM audiences_identity WHERE replaced_at IS NULL AND {chosen}"  # noqa: S608 - no values in it
    return BitMap(number for (number,) in bulk.fetch(sql, values)) & people


def _concerns(mapping: Connection) -> Q:
    return Q(destination__isnull=True) | Q(destination_id=mapping.destination_id)


def _excluded(mapping: Connection, people: BitMap) -> BitMap:
    out = BitMap()
    for members in Exclusion.objects.filter(_concerns(mapping), person_list__isnull=False).values_list(
        "person_list__members", flat=True
    ):
        out |= unpack(members)
    for audience in excluding(mapping):
        membership = Membership.objects.filter(audience=audience).first()
        if membership is None:
            raise CannotExclude(f"{audience.key}, which must be left out, has not been counted yet.")
        out |= unpack(membership.members)
    return out & people
