"""People leave: deleted, suppressed or erased. Removing them from platforms is the floor above's, which reads the change log.

*Delete*: the profile leaves, and a later identify makes a new one. *Suppress*: likewise, and a keyed hash of each identifier
keeps it from coming back until it is unsuppressed. *Erase*: a privacy request, likewise, and nothing brings it back.
"""

import secrets
from collections.abc import Sequence

from django.db import connection
from django.utils import timezone
from pyroaring import BitMap

from audiences import bitmaps
from audiences.models import (
    Alias,
    ChangeLog,
    Consent,
    ConsentStatement,
    Event,
    Identity,
    PersonList,
    Profile,
    ProfileChange,
    ProfileKey,
    Tombstone,
)
from audiences.people import bulk, keys, profiles
from audiences.people.normalise import FIELDS

State = Profile.State
Cause = Tombstone.Cause


def delete(key: keys.Key, *, at_us: int) -> bool:
    """The profile of this key leaves, in the caller's transaction; whether there was one."""
    profile_no = find(key)
    return profile_no is not None and _leave([profile_no], State.DELETED, ChangeLog.Kind.DELETE, at_us)


def suppress(key: keys.Key, *, at_us: int) -> bool:
    """Delete, and keep these identifiers from coming back, even if nobody has them yet. Whether somebody left."""
    profile_no = find(key)
    said = set() if key[0] == "cio_id" else {key}
    if profile_no is not None:
        said |= {k for k in _keys_of([profile_no]) if k[0] != "anonymous_id"}  # a device may be somebody else's too
    _bury(said, Cause.SUPPRESSED)
    return profile_no is not None and _leave([profile_no], State.DELETED, ChangeLog.Kind.DELETE, at_us)


def unsuppress(key: keys.Key) -> bool:
    """Everything that one suppression buried may come back; whether this key was suppressed. Erasures stand."""
    digest = keys.digests([key])[key]
    removals = Tombstone.objects.filter(kind=key[0], digest=digest, cause=Cause.SUPPRESSED).values_list(
        "removal", flat=True
    )
    return bool(Tombstone.objects.filter(removal__in=list(removals), cause=Cause.SUPPRESSED).delete()[0])


def erase(profile_nos: Sequence[int], *, at_us: int) -> int:
    """A privacy request, in the caller's transaction: everything said about these people goes, and they cannot come back. How many were there.

    Their identities keep the identifiers until every platform has been told (`forget_identifiers`).
    """
    there = list(
        Profile.objects.select_for_update()
        .filter(pk__in=profile_nos)
        .exclude(state__in=(State.ERASED, State.MERGED))
        .order_by("pk")
        .values_list("pk", flat=True)
    )
    for profile_no in there:
        one = _with_merged([profile_no])
        _bury(set(_keys_of(one)) | _former_keys(one), Cause.ERASED)
    _leave(there, State.ERASED, ChangeLog.Kind.ERASURE, at_us)
    Event.objects.filter(profile_no__in=_with_merged(there)).delete()
    return len(there)


def forget_identifiers(profile_nos: Sequence[int]) -> int:
    """Blank the identifiers of removed people, once nobody has to be told about them any more. How many identities."""
    gone = Profile.objects.filter(pk__in=profile_nos, state__in=(State.DELETED, State.ERASED)).values_list(
        "pk", flat=True
    )
    return Identity.objects.filter(profile_no__in=_with_merged(list(gone)), erased_at__isnull=True).update(
        **dict.fromkeys(("external_id", *FIELDS), ""), erased_at=timezone.now()
    )


def find(key: keys.Key) -> int | None:
    """The live profile of a key, `cio_id` included."""
    if key[0] != "cio_id":
        found = keys.find([key, ("id", key[1])] if key[0] == "email" else [key])
        return found.get(key, found.get(("id", key[1])))
    number = profiles.number_of_cio_id(key[1])
    return number if number and Profile.objects.filter(pk=number, state=State.LIVE).exists() else None


def _leave(profile_nos: Sequence[int], state: str, kind: str, at_us: int) -> bool:
    if not profile_nos:
        return False
    there = Profile.objects.select_for_update().filter(pk__in=profile_nos).exclude(state__in=(state, State.ERASED))
    numbers = list(there.order_by("pk").values_list("pk", flat=True))
    now = timezone.now()
    Profile.objects.filter(pk__in=numbers).update(state=state, attributes="{}", updated_at=now)
    ProfileKey.objects.filter(profile_no__in=numbers).delete()
    Identity.objects.filter(profile_no__in=numbers, replaced_at__isnull=True).update(replaced_at=now)
    Consent.objects.filter(profile_no__in=numbers).delete()
    ConsentStatement.objects.filter(profile_no__in=numbers).delete()
    bulk.insert(ProfileChange, ("profile_no",), [(number,) for number in numbers])
    profiles.log_changes([(number, kind, "") for number in numbers], at_us)
    _take_off_lists(numbers)
    return bool(numbers)


def _take_off_lists(numbers: Sequence[int]) -> None:
    gone = BitMap(numbers)
    for row in PersonList.objects.select_for_update().order_by("pk"):
        members = bitmaps.unpack(row.members)
        if members.intersect(gone):
            members -= gone
            row.members, row.count = bitmaps.pack(members), len(members)
            row.save()


def _keys_of(profile_nos: Sequence[int]) -> list[keys.Key]:
    return list(ProfileKey.objects.filter(profile_no__in=profile_nos).values_list("kind", "value"))


def _with_merged(profile_nos: Sequence[int]) -> list[int]:
    """These profiles, and those that were merged into them."""
    merged = Alias.objects.filter(survivor_no__in=profile_nos).values_list("old_no", flat=True)
    return [*profile_nos, *merged]


def _former_keys(profile_nos: Sequence[int]) -> set[keys.Key]:
    """Keys that profiles had before they were deleted, or before their identifiers changed."""
    rows = Identity.objects.filter(profile_no__in=profile_nos).values_list("external_id", "email", "phone")
    kinds = ("id", "email", "phone")
    return {(kind, value) for row in rows for kind, value in zip(kinds, row, strict=True) if value}


def _bury(said: set[keys.Key], cause: str) -> None:
    if not said:
        return
    removal, now = secrets.token_hex(16), connection.ops.adapt_datetimefield_value(timezone.now())
    bulk.insert(
        Tombstone,
        ("kind", "digest", "cause", "removal", "created_at"),
        [(kind, digest, str(cause), removal, now) for (kind, _), digest in sorted(keys.digests(said).items())],
        "ON CONFLICT (kind, digest) DO "
        + ("UPDATE SET cause = excluded.cause, removal = excluded.removal" if cause == Cause.ERASED else "NOTHING"),
    )
