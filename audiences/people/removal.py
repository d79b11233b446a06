"""People leave: deleted, suppressed or erased. Removing them from platforms is the floor above's, which reads the change log.

*Delete*: the profile leaves, and a later identify makes a new one. *Suppress*: likewise, and a keyed hash of each identifier
keeps it from coming back until it is unsuppressed. *Erase*: a privacy request, likewise, and nothing brings it back.
Who asked for the last two, and how far they are, is privacy.py's.
"""

import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from django.db import connection
from django.db.models import Q
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
from audiences.people.normalise import FIELDS, Identifiers
from audiences.people.payloads import ProfileRow

State = Profile.State
Cause = Tombstone.Cause

SHARED = ("email", "phone")  # keys that several people may have
NOBODYS_FROM = 20  # others with the same: a switchboard's number, say, which names nobody


@dataclass(frozen=True, slots=True)
class Gone:
    """What a removal for good was about. `identities`: every version of these people's identifiers, and of others' that held the same."""

    removal: str
    people: list[int]
    identities: list[int]


def delete(key: keys.Key, *, at_us: int) -> bool:
    """The profile of this key leaves, in the caller's transaction; whether there was one."""
    profile_no = find(key)
    return profile_no is not None and bool(_leave([profile_no], State.DELETED, ChangeLog.Kind.DELETE, at_us))


def remove_for_good(people: Collection[int], cause: str, said: Iterable[keys.Key], *, at_us: int) -> Gone:
    """These people leave, and neither they nor the identifiers `said` come back, in the caller's transaction.

    `cause`: of Tombstone. An identifier that somebody else has too is taken from them, unless so many have it that it names nobody.
    Identities keep what platforms must be told until `forget_identifiers`.
    """
    erased = cause == Cause.ERASED
    whole = _with_merged(people)
    buried = set(said) | _keys_of(whole) | _others_own_none(_former_keys(whole), whole)
    if not erased:
        buried = {key for key in buried if key[0] != "anonymous_id"}  # a device may be somebody else's too
    buried, others = _shared(buried, people)
    removal = secrets.token_hex(16)
    _bury(buried, cause, removal)
    _leave(
        people,
        State.ERASED if erased else State.DELETED,
        ChangeLog.Kind.ERASURE if erased else ChangeLog.Kind.DELETE,
        at_us,
    )
    Event.objects.filter(profile_no__in=whole).delete()
    _take_from(others, at_us)
    return Gone(removal, sorted(people), _identities(whole, buried))


def take_from_latecomers(people: Collection[int], removal: str, *, at_us: int) -> list[int]:
    """Whoever took on one of these people's identifiers in a transaction that had looked before the removal: it is taken from them too.

    In the caller's transaction, while the identifiers are not forgotten; the versions of their identifiers that held it.
    """
    former = _former_keys(_with_merged(people))
    digests = keys.digests(former)
    buried = set(Tombstone.objects.filter(removal=removal).values_list("kind", "digest"))
    own = {key for key in former if key[0] in SHARED and (key[0], digests[key]) in buried}
    others: dict[int, list[str]] = {}
    for key, numbers in _holders(own).items():
        for number in numbers:
            others.setdefault(number, []).append(key[0])
    if not others:
        return []
    held = list(Identity.objects.filter(profile_no__in=others, replaced_at=None).values_list("pk", flat=True))
    _take_from(others, at_us)
    return held


def unbury(removal: str) -> int:
    """Everything that one suppression buried may come back; how many identifiers. Erasures stand."""
    return Tombstone.objects.filter(removal=removal, cause=Cause.SUPPRESSED).delete()[0]


def forget_identifiers(profile_nos: Sequence[int]) -> int:
    """Blank the identifiers of removed people, once nobody has to be told about them any more. How many identities."""
    rows = Profile.objects.filter(pk__in=profile_nos, state__in=(State.DELETED, State.ERASED))
    gone = list(rows.values_list("pk", flat=True))
    whole = _with_merged(gone)
    bulk.update(Profile, ("bucket_key",), [(number, f"gone-{number}") for number in whole])  # it was their first id
    return Identity.objects.filter(profile_no__in=whole, erased_at__isnull=True).update(
        **dict.fromkeys(("external_id", *FIELDS), ""), erased_at=timezone.now()
    )


def forget_shared(identity_nos: Sequence[int], removal: str) -> int:
    """Blank, in these former versions of others' identifiers, what this removal buried; how many versions."""
    rows = Identity.objects.filter(pk__in=identity_nos, replaced_at__isnull=False, erased_at__isnull=True)
    held = {row.pk: {(kind, getattr(row, kind)) for kind in SHARED if getattr(row, kind)} for row in rows}
    digests = keys.digests(key for some in held.values() for key in some)
    buried = set(Tombstone.objects.filter(removal=removal).values_list("kind", "digest"))
    count = 0
    for number, some in held.items():
        if gone := [kind for kind, value in some if (kind, digests[kind, value]) in buried]:
            count += Identity.objects.filter(pk=number).update(**dict.fromkeys(gone, ""))
    return count


def find(key: keys.Key) -> int | None:
    """The live profile of a key, `cio_id` included."""
    if key[0] != "cio_id":
        found = keys.find([key, ("id", key[1])] if key[0] == "email" else [key])
        return found.get(key, found.get(("id", key[1])))
    number = profiles.number_of_cio_id(key[1])
    return number if number and Profile.objects.filter(pk=number, state=State.LIVE).exists() else None


def _leave(profile_nos: Collection[int], state: str, kind: str, at_us: int) -> list[int]:
    there = Profile.objects.select_for_update().filter(pk__in=profile_nos)
    there = there.exclude(state__in=(state, State.ERASED, State.MERGED))
    numbers = list(there.order_by("pk").values_list("pk", flat=True))
    if not numbers:
        return []
    now = timezone.now()
    Profile.objects.filter(pk__in=numbers).update(state=state, attributes="{}", updated_at=now)
    ProfileKey.objects.filter(profile_no__in=numbers).delete()
    Identity.objects.filter(profile_no__in=numbers, replaced_at__isnull=True).update(replaced_at=now)
    Consent.objects.filter(profile_no__in=numbers).delete()
    ConsentStatement.objects.filter(profile_no__in=numbers).delete()
    bulk.insert(ProfileChange, ("profile_no",), [(number,) for number in numbers])
    profiles.log_changes([(number, kind, "") for number in numbers], at_us)
    _take_off_lists(numbers)
    return numbers


def _take_off_lists(numbers: Sequence[int]) -> None:
    gone = BitMap(numbers)
    for row in PersonList.objects.select_for_update().order_by("pk"):
        members = bitmaps.unpack(row.members)
        if members.intersect(gone):
            members -= gone
            row.members, row.count = bitmaps.pack(members), len(members)
            row.save()


def _keys_of(profile_nos: Sequence[int]) -> set[keys.Key]:
    return set(ProfileKey.objects.filter(profile_no__in=profile_nos).values_list("kind", "value"))


def _with_merged(profile_nos: Iterable[int]) -> list[int]:
    """These profiles, and those that were merged into them."""
    numbers = list(profile_nos)
    merged = Alias.objects.filter(survivor_no__in=numbers).values_list("old_no", flat=True)
    return [*numbers, *merged]


def _former_keys(profile_nos: Sequence[int]) -> set[keys.Key]:
    """Keys that profiles had before they were deleted, or before their identifiers changed."""
    rows = Identity.objects.filter(profile_no__in=profile_nos).values_list("external_id", "email", "phone")
    kinds = ("id", "email", "phone")
    return {(kind, value) for row in rows for kind, value in zip(kinds, row, strict=True) if value}


def _others_own_none(former: set[keys.Key], whole: Sequence[int]) -> set[keys.Key]:
    """Of these keys those that are nobody else's today."""
    return former - {key for key, numbers in _holders(former).items() if numbers - set(whole)}


def _holders(wanted: Collection[keys.Key]) -> dict[keys.Key, set[int]]:
    """The live profiles that have each key."""
    found: dict[keys.Key, set[int]] = {}
    for kind in {kind for kind, _ in wanted}:
        chosen, values = bulk.among("value", [value for k, value in wanted if k == kind])
        sql = f"SELECT value, profile_no FROM audiences_profilekey WHERE kind = %s AND {chosen}"  # noqa: S608 - no values in it
        for value, number in bulk.fetch(sql, [kind, *values]):
            found.setdefault((kind, value), set()).add(number)
    return found


def _shared(buried: set[keys.Key], people: Collection[int]) -> tuple[set[keys.Key], dict[int, list[str]]]:
    """(what is buried after all, which kinds are to be taken from whom)."""
    others: dict[int, list[str]] = {}
    nobodys: set[keys.Key] = set()
    for key, numbers in _holders({key for key in buried if key[0] in SHARED}).items():
        beside = numbers - set(people)
        if len(beside) >= NOBODYS_FROM:
            nobodys.add(key)
            continue
        for number in beside:
            others.setdefault(number, []).append(key[0])
    return buried - nobodys, others


def _take_from(others: dict[int, list[str]], at_us: int) -> None:
    """The same identifier, of people who stay: a person who is gone is not to be reached through them."""
    rows = [
        ProfileRow(
            "cio_id",
            profiles.cio_id(number),
            at_us,
            dict.fromkeys(kinds),
            Identifiers(dict.fromkeys(kinds, "")),
            create=False,
        )
        for number, kinds in sorted(others.items())
    ]
    profiles.upsert(rows, source="removal", read_consent=False)


def _identities(whole: Sequence[int], buried: Collection[keys.Key]) -> list[int]:
    """Those not yet forgotten."""
    emails, phones = ([value for kind, value in buried if kind == wanted] for wanted in SHARED)
    held = Q(email__in=emails) | Q(phone__in=phones)
    rows = Identity.objects.filter(Q(profile_no__in=whole) | (held & Q(replaced_at__isnull=False)), erased_at=None)
    return list(rows.order_by("pk").values_list("pk", flat=True))


def _bury(said: Collection[keys.Key], cause: str, removal: str) -> None:
    now = connection.ops.adapt_datetimefield_value(timezone.now())
    bulk.insert(
        Tombstone,
        ("kind", "digest", "cause", "removal", "refused", "created_at"),
        [(kind, digest, str(cause), removal, 0, now) for (kind, _), digest in sorted(keys.digests(said).items())],
        "ON CONFLICT (kind, digest) DO "
        + ("UPDATE SET cause = excluded.cause, removal = excluded.removal" if cause == Cause.ERASED else "NOTHING"),
    )
