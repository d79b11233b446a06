"""Everything that is known of one person, as of now: attributes, identifiers, consents, lists and all events, merges applied.

For pages, traces and spot checks, which ask about one person at a time; what asks about many is people/engines/'s.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

import duckdb
from django.db import transaction

from audiences import bitmaps, clock
from audiences.models import Alias, Consent, Event, Identity, PersonList, Profile, ProfileKey
from audiences.people import keys, lake, normalise
from audiences.people.engines.base import UnreadableLake
from audiences.people.lake.hot import MARK
from audiences.segments import judge

HOLD = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Biography:
    """`person` is what rules are judged on. Nothing in it is masked. `identity` None: an anonymous visitor."""

    profile: Profile
    person: judge.Person
    as_of_us: int
    identity: Identity | None
    keys: tuple[ProfileKey, ...]
    consents: tuple[Consent, ...]
    lists: tuple[PersonList, ...]


def find(text: str, default_region: str) -> int | None:
    """The live profile that this id, e-mail or phone leads to."""
    text = text.strip()
    wanted = [("id", text)]
    if "@" in text:
        wanted.append(("email", normalise.email(text)))
    phone = normalise.phone(text, default_region)
    if phone:
        wanted.append(("phone", phone))
    with transaction.atomic():
        found = keys.find(wanted)
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
    as_of = clock.now_us()
    attributes = json.loads(profile.attributes or "{}")
    lists = [row for row in PersonList.objects.order_by("name") if profile_no in bitmaps.unpack(row.members)]
    keys = [row.key for row in lists]
    keys += [f"customerio_segment:{row.customerio_segment}" for row in lists if row.customerio_segment is not None]
    return Biography(
        profile,
        judge.Person(
            profile_no,
            profile.bucket_key,
            profile.created_us,
            attributes,
            tuple(events(profile_no, as_of)),
            frozenset(keys),
        ),
        as_of,
        Identity.objects.filter(pk=profile.identity_no).first() if profile.identity_no is not None else None,
        tuple(ProfileKey.objects.filter(profile_no=profile_no).order_by("kind", "value")),
        tuple(Consent.objects.filter(profile_no=profile_no).order_by("purpose")),
        tuple(lists),
    )


def events(profile_no: int, as_of_us: int) -> list[judge.Occurrence]:
    """All events of this person up to a moment, oldest first, hot or in the lake, under every number they have had."""
    numbers = [profile_no, *Alias.objects.filter(survivor_no=profile_no).values_list("old_no", flat=True)]
    for _ in range(3):
        pinned = lake.pin(as_of_us, hold=HOLD)
        try:
            rows = _rows(pinned, numbers)
        except (duckdb.IOException, lake.SnapshotGone):
            continue  # swept under our eyes: look again
        finally:
            lake.let_go(pinned)
        return [
            judge.Occurrence(name, time_us, json.loads(properties))
            for name, time_us, properties in sorted(rows, key=lambda row: row[1])
        ]
    raise UnreadableLake


def _rows(pinned: lake.Pinned, numbers: Sequence[int]) -> list[tuple[str, int, str]]:
    with lake.one_moment() as cursor:
        contents = lake.contents(pinned.snapshot)
        mark = MARK[cursor.db.vendor].column
        hot = Event.objects.using("snapshot").filter(
            profile_no__in=numbers,
            time_us__lte=pinned.as_of_us,
            **{f"{mark}__gt": contents.flushed, f"{mark}__lte": pinned.snapshot.hot},
        )
        rows = list(hot.values_list("name", "time_us", "properties"))
    whole = [str(file.path) for file in contents.events if file.only_hot_up_to is None]
    partly = [file for file in contents.events if file.only_hot_up_to is not None]
    with duckdb.connect(config={"memory_limit": "256MB", "threads": 2}) as connection:
        for paths, condition, values in [
            *([(whole, "TRUE", [])] if whole else []),
            *(([str(file.path)], "hot_mark <= ?", [file.only_hot_up_to]) for file in partly),
        ]:
            rows += connection.execute(
                f"SELECT name, time_us, properties FROM read_parquet(?) WHERE profile_no IN (SELECT unnest(?)) AND time_us <= ? AND {condition}",  # noqa: S608 - no values in it
                [paths, list(numbers), pinned.as_of_us, *values],
            ).fetchall()
    return rows
