"""Who of a segment's members may be sent: one fixed order of steps, each kept with whom it took out. Who is wanted by rule is segments/'s."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

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


_FEW = 20_000


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
    return excluding_each([mapping])[mapping.pk]


def excluding_each(mappings: Sequence[Connection]) -> dict[int, list[Audience]]:
    """The same for many, by the mapping's id, in three queries."""
    links: dict[int, set[int]] = {mapping.audience_id: set() for mapping in mappings}
    through = Audience.excluded_by.through.objects.filter(from_audience__in=links)
    for audience_id, other_id in through.values_list("from_audience_id", "to_audience_id"):
        links[audience_id].add(other_id)
    everywhere = list(Exclusion.objects.filter(audience__isnull=False).values_list("audience_id", "destination_id"))
    chosen = {
        mapping.pk: set()
        if mapping.audience.purpose == Audience.Purpose.SUPPRESSION
        else {
            *(audience for audience, place in everywhere if place in (None, mapping.destination_id)),
            *links[mapping.audience_id],
        }
        - {mapping.audience_id}
        for mapping in mappings
    }
    rows = Audience.objects.filter(pk__in=set().union(*chosen.values())).select_related("live_version").order_by("key")
    found = list(rows)
    return {pk: [audience for audience in found if audience.pk in others] for pk, others in chosen.items()}


class Known:
    """What the order asks about these people, each thing looked up once however many connections ask.

    `members`: who of them is in an audience that must be left out (raises CannotExclude); left out: whoever its last count found.
    """

    def __init__(self, people: BitMap, members: Callable[[Audience], BitMap] | None = None) -> None:
        self.people = people
        self._members = members or counted
        self._barred: dict[tuple[str, ...], BitMap] = {}
        self._excluded: dict[int, BitMap] = {}

    @cached_property
    def gone(self) -> BitMap:
        return gone(self.people)

    def barred(self, purpose: str) -> BitMap:
        """Those without the consent that sending an audience of this purpose needs. Raises NotAnswered."""
        needed = consents_needed(purpose)
        if needed not in self._barred:
            self._barred[needed] = without_consent(self.people, needed)
        return self._barred[needed]

    def excluded(self, mapping: Connection, others: Iterable[Audience]) -> BitMap:
        """Those on an exclusion list, or in one of the audiences that this connection leaves out. Raises CannotExclude."""
        out = BitMap()
        for place, members in self._lists:
            if place in (None, mapping.destination_id):
                out |= members
        for audience in others:
            if audience.pk not in self._excluded:
                self._excluded[audience.pk] = self._members(audience) & self.people
            out |= self._excluded[audience.pk]
        return out

    @cached_property
    def _lists(self) -> list[tuple[int | None, BitMap]]:
        rows = Exclusion.objects.filter(person_list__isnull=False)
        found = rows.values_list("destination_id", "person_list__members")
        return [(place, unpack(members) & self.people) for place, members in found]


def counted(audience: Audience) -> BitMap:
    """Whoever its last count found. Raises CannotExclude where it has not been counted."""
    membership = Membership.objects.filter(audience=audience).first()
    if membership is None:
        raise CannotExclude(f"{audience.key}, which must be left out, has not been counted yet.")
    return unpack(membership.members)


def judge(
    mapping: Connection, members: BitMap, known: Known | None = None, others: Iterable[Audience] | None = None
) -> tuple[BitMap, list[Step]]:
    """(who is left, the steps) before identifiers are looked at. Raises NotAnswered and CannotExclude.

    `known`: of people among whom all `members` are; `others`: those of `excluding`, where they are at hand.
    """
    facts = known or Known(members)
    takers: dict[str, Callable[[], BitMap]] = {
        REMOVED: lambda: facts.gone,
        CONSENT: lambda: facts.barred(mapping.audience.purpose),
        EXCLUDED: lambda: facts.excluded(mapping, excluding(mapping) if others is None else others),
    }
    left, steps = BitMap(members), []
    suppression = mapping.audience.purpose == Audience.Purpose.SUPPRESSION
    for name in ORDER[:-1]:
        skip = suppression and name not in FOR_SUPPRESSION
        taken = takers[name]() & left if name in takers and not skip else BitMap()
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
    return _profiles("NOT (state = 'live')", people)


def merged(people: BitMap) -> BitMap:
    """Of these profiles those that turned out to be somebody else's, and live on as theirs."""
    return _profiles("NOT (state = 'live') AND state = 'merged'", people)


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
        barred |= _said(purpose, False, people)
        if asked:
            barred |= asked - _said(purpose, True, asked)
    return barred


def _policy() -> dict[str, Any]:
    workspace = Workspace.objects.filter(pk=1).values_list("consent_policy", flat=True).first()
    if not workspace:
        raise NotAnswered(
            "Nothing is sent before the consent policy is answered: opt-in or opt-out (Settings, Workspace)."
        )
    return {"default": workspace["default"], "by_country": workspace.get("by_country") or {}}


def _said(purpose: str, granted: bool, people: BitMap) -> BitMap:
    sql = "SELECT profile_no FROM audiences_consent WHERE purpose = %s AND granted = %s"
    return _of(people, sql, [str(purpose), granted])


def _profiles(condition: str, people: BitMap) -> BitMap:
    return _of(people, f"SELECT profile_no FROM audiences_profile WHERE {condition}", [])  # noqa: S608 - our own words


def _in_countries(people: BitMap, countries: Collection[str]) -> BitMap:
    if not countries or not people:
        return BitMap()
    chosen, values = bulk.among("country", sorted(countries))
    sql = f"SELECT profile_no FROM audiences_identity WHERE replaced_at IS NULL AND {chosen}"  # noqa: S608 - no values in it
    return _of(people, sql, values)


def _of(people: BitMap, sql: str, parameters: list[Any]) -> BitMap:
    """Whom a query finds among these people: a few are asked for by number, of many everybody is fetched."""
    if len(people) <= _FEW:
        chosen, values = bulk.among("profile_no", list(people))
        sql, parameters = f"{sql} AND {chosen}", [*parameters, *values]
    return BitMap(number for (number,) in bulk.fetch(sql, parameters)) & people if people else BitMap()
