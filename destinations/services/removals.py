"""Removed people's identifiers, forgotten once no platform has to be told of them any more."""

from pyroaring import BitMap

from audiences.bitmaps import unpack
from audiences.models import Alias, Identity, Profile
from audiences.people import removal
from destinations.models import Ledger, Operation

_GONE = (Profile.State.DELETED, Profile.State.ERASED)
_AT_ONCE = 1_000


def forget() -> int:
    """Blank the identifiers of deleted and erased people whose every removal has been accepted; how many identities."""
    waiting = Identity.objects.filter(erased_at__isnull=True, replaced_at__isnull=False)
    gone = BitMap(Profile.objects.filter(state__in=_GONE).values_list("pk", flat=True))
    if not gone:
        return 0
    survivors = dict(Alias.objects.values_list("old_no", "survivor_no"))
    needed = _told_of()
    whose: dict[int, list[int]] = {}
    for number, profile in waiting.values_list("identity_no", "profile_no").iterator(chunk_size=10_000):
        owner = survivors.get(profile, profile)
        if owner in gone:
            whose.setdefault(owner, []).append(number)
    free = [owner for owner, numbers in whose.items() if not any(number in needed for number in numbers)]
    return sum(removal.forget_identifiers(free[start : start + _AT_ONCE]) for start in range(0, len(free), _AT_ONCE))


def _told_of() -> BitMap:
    """Every identity that is, or may be, on a platform or on its way there."""
    needed = BitMap()
    for row in Ledger.objects.all().iterator(chunk_size=10):
        for held in (row.base, row.present, row.unknown, row.reassert, row.withdraw):
            needed |= unpack(held)
    for unsettled in Operation.objects.filter(open=True).values_list("unsettled", flat=True).iterator(chunk_size=100):
        needed |= unpack(unsettled)
    return needed
