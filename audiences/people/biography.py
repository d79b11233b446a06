"""Everything that is known of one person, as of now: attributes, identifiers, consents, lists and all events, merges applied.

For pages, traces and spot checks, which ask about one person at a time; what asks about many is people/engines/'s.
"""

from dataclasses import dataclass, replace
from datetime import timedelta

from audiences import bitmaps, clock
from audiences.models import Alias, Consent, ConsentStatement, Identity, PersonList, Profile, ProfileKey
from audiences.people import engines, lake, normalise
from audiences.segments import judge
from audiences.segments.tree import InCustomerioSegment, InList

HOLD = timedelta(minutes=1)
STATEMENTS_SHOWN = 50


@dataclass(frozen=True, slots=True)
class Biography:
    """`person` is what rules are judged on. Nothing in it is masked. `identity` None: an anonymous visitor."""

    profile: Profile
    person: judge.Person
    as_of_us: int
    identity: Identity | None
    keys: tuple[ProfileKey, ...]
    consents: tuple[Consent, ...]
    statements: tuple[ConsentStatement, ...]  # newest first
    lists: tuple[PersonList, ...]


def find(text: str, default_region: str) -> int | None:
    """The live profile that this id, e-mail or phone leads to, looked for in this order."""
    text = text.strip()
    wanted = [("id", text)]
    if "@" in text:
        wanted.append(("email", normalise.email(text)))
    if phone := normalise.phone(text, default_region):
        wanted.append(("phone", phone))
    kinds = {kind for kind, _ in wanted}
    rows = ProfileKey.objects.filter(kind__in=kinds, value__in={value for _, value in wanted}).order_by("profile_no")
    found = {(row.kind, row.value): row.profile_no for row in reversed(rows)}
    return next((found[key] for key in wanted if key in found), None)


def survivor(profile_no: int) -> int:
    """Whom this number became; itself, where it was not merged."""
    alias = Alias.objects.filter(old_no=profile_no).first()
    return alias.survivor_no if alias else profile_no


def of(profile_no: int) -> Biography | None:
    """Everything about this person; None if there is no such number. Raises UnreadableLake."""
    profile = Profile.objects.filter(pk=profile_no).first()
    if profile is None:
        return None
    with lake.pinned(clock.now_us(), hold=HOLD) as pinned:
        person = engines.current().people([profile_no], pinned).get(profile_no)
    if person is None:  # removed in this moment
        return None
    lists = [row for row in PersonList.objects.order_by("name") if profile_no in bitmaps.unpack(row.members)]
    names = {judge.list_key(InList(row.key)) for row in lists}
    names |= {
        judge.list_key(InCustomerioSegment(row.customerio_segment))
        for row in lists
        if row.customerio_segment is not None
    }
    return Biography(
        profile,
        replace(person, lists=frozenset(names)),
        pinned.as_of_us,
        Identity.objects.filter(pk=profile.identity_no).first() if profile.identity_no is not None else None,
        tuple(ProfileKey.objects.filter(profile_no=profile_no).order_by("kind", "value")),
        tuple(Consent.objects.filter(profile_no=profile_no).order_by("purpose")),
        tuple(ConsentStatement.objects.filter(profile_no=profile_no).order_by("-at_us", "-pk")[:STATEMENTS_SHOWN]),
        tuple(lists),
    )
