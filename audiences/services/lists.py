"""Lists of people, kept by hand or through the Track API's manual segments: Roaring bitmaps, changed under their row's lock."""

from collections.abc import Iterable, Sequence

from django.db import IntegrityError, transaction
from pyroaring import BitMap

from audiences import bitmaps
from audiences.models import PersonList, Profile, User
from audiences.people import intake, keys, profiles
from audiences.services import trail


class NoSuchList(Exception):
    """There is no list of that name or number."""


def make(key: str, name: str, actor: User | None, *, customerio_segment: int | None = None) -> PersonList:
    """A new, empty list. Raises ValueError if the key or the segment number is taken."""
    try:
        with transaction.atomic():
            made = PersonList.objects.create(key=key, name=name, customerio_segment=customerio_segment)
            trail.record(
                actor, "list.made", "list", key, after={"name": name, "customerio_segment": customerio_segment}
            )
    except IntegrityError:
        raise ValueError("A list with this key or this segment number is there already.") from None
    return made


def change(row: PersonList, actor: User | None, *, add: Iterable[int] = (), remove: Iterable[int] = ()) -> PersonList:
    """Put profiles on a list and take others off, by number. Who is not live is left out."""
    with transaction.atomic():
        changed = _change(PersonList.objects.select_for_update().get(pk=row.pk), BitMap(add), BitMap(remove))
        trail.record(
            actor, "list.changed", "list", changed.key, before={"count": row.count}, after={"count": changed.count}
        )
    return changed


def describe(row: PersonList, actor: User | None, **fields: str | int | None) -> PersonList:
    """Give it another `name` or `customerio_segment` number. Raises ValueError if the number is taken."""
    before = {field: getattr(row, field) for field in fields}
    try:
        with transaction.atomic():
            PersonList.objects.filter(pk=row.pk).update(**fields)
            trail.record(actor, "list.described", "list", row.key, before=before, after=fields)
    except IntegrityError:
        raise ValueError("A list with this segment number is there already.") from None
    row.refresh_from_db()
    return row


def change_by_segment(segment: int, kind: str, values: Sequence[str], *, add: bool) -> int:
    """Put people on the list of a Customer.io segment or take them off; how many were found. Unknown ones are ignored.

    kind: "id", "email" or "cio_id". Raises NoSuchList.
    """

    def work() -> int:
        numbers = BitMap(_numbers(kind, values))  # profiles are locked before lists, as everywhere
        row = PersonList.objects.select_for_update().filter(customerio_segment=segment).first()
        if row is None:
            raise NoSuchList(f"segment {segment} does not exist")
        _change(row, numbers if add else BitMap(), BitMap() if add else numbers)
        return len(numbers)

    return intake.in_transaction(work)


def members(row: PersonList) -> BitMap:
    """Who is on a list."""
    return bitmaps.unpack(row.members)


def _numbers(kind: str, values: Sequence[str]) -> Iterable[int]:
    if kind == "cio_id":
        return [number for value in values if (number := profiles.number_of_cio_id(value)) is not None]
    return keys.find((kind, value) for value in values).values()


def _change(row: PersonList, add: BitMap, remove: BitMap) -> PersonList:
    live = Profile.objects.filter(pk__in=list(add), state=Profile.State.LIVE, kind=Profile.Kind.PERSON)
    before = bitmaps.unpack(row.members)
    after = (before | BitMap(live.values_list("pk", flat=True))) - remove
    if after != before:
        row.members, row.count = bitmaps.pack(after), len(after)
        row.save(update_fields=["members", "count", "changed_at"])
    return row
