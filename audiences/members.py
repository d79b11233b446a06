"""Who is in an audience right now, and what those people are called outside. Reads only."""

from collections.abc import Iterator

from django.db import connection
from django.db.models import Exists, F, OuterRef
from django.db.models.functions import Collate
from pyroaring import BitMap

from audiences import bitmaps
from audiences.models import Audience, Identity, Membership, Profile

CHUNK = 5_000
FEW = 200_000  # so many people are fetched by number and sorted here; more are read in order from the database


class NotCounted(Exception):
    """The audience has no members on record yet, in words."""


def of(audience: Audience) -> BitMap:
    """The members as of the last count. Raises NotCounted, never an empty set for "not known"."""
    row = Membership.objects.filter(audience=audience).first()
    if row is None:
        raise NotCounted(f"{audience.key} has not been counted yet: manage.py refresh {audience.key}")
    return bitmaps.unpack(row.members)


def external_ids(people: BitMap) -> Iterator[str]:
    """Their external ids in ascending order of their characters; people without one are left out."""
    if len(people) <= FEW:
        found: list[str] = []
        numbers = bitmaps.to_array(people).tolist()
        for start in range(0, len(numbers), CHUNK):
            found += _ids(numbers[start : start + CHUNK])
        yield from sorted(found)
        return
    order = (
        Collate("external_id", "C") if connection.vendor == "postgresql" else F("external_id")
    )  # SQLite's is by character
    in_force = Profile.objects.filter(
        profile_no=OuterRef("profile_no"), identity_no=OuterRef("identity_no"), state=Profile.State.LIVE
    )
    everybody = Identity.objects.filter(Exists(in_force)).exclude(external_id="").order_by(order)
    for external_id, profile_no in everybody.values_list("external_id", "profile_no").iterator(chunk_size=CHUNK):
        if profile_no in people:
            yield external_id


def _ids(numbers: list[int]) -> list[str]:
    live = Profile.objects.filter(profile_no__in=numbers, state=Profile.State.LIVE)
    in_force = live.filter(identity_no__isnull=False).values_list("identity_no", flat=True)
    named = Identity.objects.filter(identity_no__in=list(in_force)).exclude(external_id="")
    return list(named.values_list("external_id", flat=True))
