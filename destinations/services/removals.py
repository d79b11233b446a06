"""Deleted people's identifiers, forgotten once no platform has to be told of them any more. Privacy requests are erasures.py's."""

from pyroaring import BitMap

from audiences.models import Alias, Identity, PrivacyRequest, Profile
from audiences.models.privacy import OPEN
from audiences.people import removal
from destinations.services import erasures

_GONE = (Profile.State.DELETED, Profile.State.ERASED)
_AT_ONCE = 1_000


def forget() -> int:
    """Blank the identifiers of deleted people whose every removal has been accepted; how many identities."""
    waiting = Identity.objects.filter(erased_at__isnull=True, replaced_at__isnull=False)
    gone = BitMap(Profile.objects.filter(state__in=_GONE).values_list("pk", flat=True))
    for people in PrivacyRequest.objects.filter(state__in=OPEN).values_list("people", flat=True):
        gone -= BitMap(people)  # who has a request is forgotten with it
    if not gone:
        return 0
    survivors = dict(Alias.objects.values_list("old_no", "survivor_no"))
    needed = BitMap().union(*(told.held for told in erasures.books()))
    whose: dict[int, list[int]] = {}
    for number, profile in waiting.values_list("identity_no", "profile_no").iterator(chunk_size=10_000):
        owner = survivors.get(profile, profile)
        if owner in gone:
            whose.setdefault(owner, []).append(number)
    free = [owner for owner, numbers in whose.items() if not any(number in needed for number in numbers)]
    return sum(removal.forget_identifiers(free[start : start + _AT_ONCE]) for start in range(0, len(free), _AT_ONCE))
