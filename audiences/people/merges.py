"""Two profiles turn out to be one human: what the survivor gets, and how everything that named the other names the survivor."""

from collections.abc import Mapping
from typing import Any

import orjson
from django.db import connection
from django.utils import timezone

from audiences import bitmaps
from audiences.models import (
    Alias,
    ChangeLog,
    Consent,
    ConsentStatement,
    Identity,
    Membership,
    PersonList,
    Profile,
    ProfileChange,
    ProfileKey,
)
from audiences.people import bulk, keys, profiles
from audiences.people.normalise import FIELDS, Identifiers, Said
from audiences.people.payloads import ProfileRow


def merge(survivor_no: int, old_no: int, *, at_us: int, source: str) -> bool:
    """Fold `old_no` into `survivor_no`, in the caller's transaction; False if either is not live, or they are one already.

    The survivor keeps what it has and gets what it lacks. The old one's ids lead to the survivor from now on; its e-mail
    and phone only if the survivor took them on. It cannot be undone.
    """
    both = _locked(survivor_no, old_no)
    if len(both) < 2:
        return False
    survivor, old = both[survivor_no], both[old_no]
    row = _what_it_lacks(survivor, old, at_us)
    ProfileKey.objects.filter(profile_no=old_no, kind__in=keys.UNIQUE_KINDS).update(profile_no=survivor_no)
    ProfileKey.objects.filter(profile_no=old_no).delete()
    Identity.objects.filter(profile_no=old_no, replaced_at__isnull=True).update(replaced_at=timezone.now())
    Consent.objects.filter(profile_no=old_no).delete()
    ConsentStatement.objects.filter(profile_no=old_no).update(profile_no=survivor_no)
    Profile.objects.filter(pk=old_no).update(state=Profile.State.MERGED, attributes="{}", updated_at=timezone.now())
    Alias.objects.filter(survivor_no=old_no).update(survivor_no=survivor_no)  # chains are folded when written
    bulk.insert(
        Alias,
        ("old_no", "survivor_no", "merged_at"),
        [(old_no, survivor_no, connection.ops.adapt_datetimefield_value(timezone.now()))],
    )
    profiles.log_changes([(old_no, ChangeLog.Kind.MERGE, str(survivor_no))], at_us)
    bulk.insert(ProfileChange, ("profile_no",), [(old_no,), (survivor_no,)])
    profiles.upsert([row], source=source, read_consent=False)
    if old.kind == Profile.Kind.PERSON:  # visitors are on no list and in no audience
        _replace_in_bitmaps(old_no, survivor_no)
    return True


def link_visitor(anonymous_id: str, person_no: int, *, at_us: int, source: str) -> bool:
    """This visitor is this person; whether a visitor's profile was merged for it.

    A device that was somebody else's before stays theirs for what happened then, and is this person's from now on.
    """
    held_by = keys.find([("anonymous_id", anonymous_id)]).get(("anonymous_id", anonymous_id))
    if held_by == person_no:
        return False
    if held_by is None:
        if keys.tombstoned([("anonymous_id", anonymous_id)]):
            return False
        bulk.insert(
            ProfileKey,
            ("kind", "value", "profile_no"),
            [("anonymous_id", anonymous_id, person_no)],
            "ON CONFLICT DO NOTHING",
        )
        return False
    if Profile.objects.filter(pk=held_by, kind=Profile.Kind.ANONYMOUS).exists():
        return merge(person_no, held_by, at_us=at_us, source=source)
    ProfileKey.objects.filter(kind="anonymous_id", value=anonymous_id).update(profile_no=person_no)
    return False


def _locked(survivor_no: int, old_no: int) -> dict[int, Profile]:
    """Both, locked in the order of their numbers, if they are two live profiles and a visitor is not to swallow a person."""
    if survivor_no == old_no:
        return {}
    rows = Profile.objects.select_for_update().filter(pk__in=(survivor_no, old_no), state=Profile.State.LIVE)
    both = {profile.pk: profile for profile in rows.order_by("pk")}
    survivor = both.get(survivor_no)
    return both if survivor is not None and survivor.kind == Profile.Kind.PERSON else {}


def _what_it_lacks(survivor: Profile, old: Profile, at_us: int) -> ProfileRow:
    has: Mapping[str, Any] = orjson.loads(survivor.attributes)
    lacks = {name: value for name, value in orjson.loads(old.attributes).items() if name not in has}
    room = profiles.ATTRIBUTES_AT_MOST - len(has)
    mine, theirs = _identity(survivor), _identity(old)
    given = {name: theirs[name] for name in FIELDS if theirs.get(name) and not mine.get(name)}
    return ProfileRow(
        "cio_id",
        profiles.cio_id(survivor.pk),
        at_us,
        dict(list(lacks.items())[:room]),
        Identifiers(given),
        _newest_consents(survivor.pk, old.pk),
        external_id="" if mine.get("external_id") else theirs.get("external_id", ""),
        created_us=min(survivor.created_us, old.created_us),
        create=False,
    )


def _identity(profile: Profile) -> dict[str, str]:
    if profile.identity_no is None:
        return {}
    return dict(Identity.objects.values(*FIELDS, "external_id").get(pk=profile.identity_no))


def _newest_consents(survivor_no: int, old_no: int) -> dict[str, Said]:
    """What the old one said later than the survivor, or alone; at the same moment a refusal counts."""
    said: dict[int, dict[str, Consent]] = {survivor_no: {}, old_no: {}}
    for consent in Consent.objects.filter(profile_no__in=(survivor_no, old_no)):
        said[consent.profile_no][consent.purpose] = consent
    return {
        purpose: Said(theirs.granted, theirs.at_us, theirs.attribute, theirs.source)
        for purpose, theirs in said[old_no].items()
        if (mine := said[survivor_no].get(purpose)) is None
        or (theirs.at_us, not theirs.granted) > (mine.at_us, not mine.granted)
    }


def _replace_in_bitmaps(old_no: int, survivor_no: int) -> None:
    """Lists and current members name the survivor at once; past refreshes stay as they were computed."""
    for model in (PersonList, Membership):
        for row in model.objects.select_for_update().order_by("pk"):
            members = bitmaps.unpack(row.members)
            if old_no in members:
                members.remove(old_no)
                members.add(survivor_no)
                row.members, row.count = bitmaps.pack(members), len(members)
                row.save()
