"""What became of single people: who was refused and why, and the life of each removal. In the caller's transaction."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson
from django.db import connection
from pyroaring import BitMap

from audiences.bitmaps import pack, to_array, unpack
from audiences.people import bulk
from destinations import plan
from destinations.models import Refusal, Rejection, Removal

_FIRST_DECIDED = (
    "coalesce((SELECT min(d.at) FROM destinations_decision d WHERE d.mapping_id = %s "
    "AND d.identity_no = those.value AND NOT d.wanted), {moment})"
)


def refused(mapping_id: int, kind: str) -> BitMap:
    """Everybody with a rejection of that kind on record."""
    return BitMap(Rejection.objects.filter(mapping_id=mapping_id, kind=kind).values_list("identity_no", flat=True))


def refuse(
    mapping_id: int,
    kind: str,
    said: Mapping[int, tuple[str, str]],
    operation_id: int | None,
    now: datetime,
    *,
    retry: datetime | None = None,
) -> None:
    """Keep who was refused (identity_no → code and words) and when each is tried again; `retry`: then, else as plan.py says."""
    if not said:
        return
    chosen = Rejection.objects.filter(mapping_id=mapping_id, kind=kind)
    before = {number: attempts for number, attempts in chosen.values_list("identity_no", "attempts") if number in said}
    rows = [
        Rejection(
            mapping_id=mapping_id,
            identity_no=number,
            kind=kind,
            code=code[:80],
            reason=words[:300],
            attempts=before.get(number, 0) + 1,
            retry_at=retry or plan.retry_at(kind, before.get(number, 0) + 1, now),
            operation_id=operation_id,
        )
        for number, (code, words) in said.items()
    ]
    Rejection.objects.bulk_create(
        rows,
        batch_size=1_000,
        update_conflicts=True,
        unique_fields=["mapping", "identity_no", "kind"],
        update_fields=["code", "reason", "attempts", "retry_at", "operation"],
    )
    if operation_id is not None:
        _keep_with_call(operation_id, said)


def accepted(mapping_id: int, kind: str, ids: BitMap, now: datetime) -> None:
    """The platform took these: no rejection stands, and a removal is accepted."""
    rows = Rejection.objects.filter(mapping_id=mapping_id, kind=kind).values_list("pk", "identity_no")
    settled = [pk for pk, number in rows if number in ids]
    if settled:
        Rejection.objects.filter(pk__in=settled).delete()
    if kind == plan.REMOVE:
        if connection.vendor == "postgresql":
            took = "took_ms = round(extract(epoch FROM (%s::timestamptz - left_at)) * 1000)"
        else:
            took = "took_ms = round((julianday(%s) - julianday(left_at)) * 86400000)"
        _update(mapping_id, ids, f"accepted_at = %s, {took}", "accepted_at IS NULL", now)


def confirmed(mapping_id: int, ids: BitMap, now: datetime) -> None:
    """The platform's receipt says that these removals were carried out."""
    _update(mapping_id, ids, "confirmed_at = %s", "accepted_at IS NOT NULL AND confirmed_at IS NULL", now)


def leaving(mapping_id: int, left: Sequence[tuple[int, str, datetime]]) -> None:
    """Begin the record of removals that are decided and not sent yet: (identity_no, cause, left_at). One that is open already goes on."""
    if not left:
        return
    chosen, values = bulk.among("identity_no", [number for number, _, _ in left])
    sql = f"SELECT identity_no FROM destinations_removal WHERE mapping_id = %s AND accepted_at IS NULL AND {chosen}"  # noqa: S608 - no values in it
    open_already = {number for (number,) in bulk.fetch(sql, [mapping_id, *values])}
    first: dict[int, Removal] = {}
    for number, cause, left_at in left:
        if number not in open_already and number not in first:
            first[number] = Removal(mapping_id=mapping_id, identity_no=number, cause=cause, left_at=left_at)
    Removal.objects.bulk_create(first.values(), batch_size=1_000)


def removing(mapping_id: int, ids: BitMap, cause: str, left_at: datetime, now: datetime) -> None:
    """These removals are being sent. Whose record is not open yet left at `left_at`, or when what made them leave was accepted.

    Set-wise, because a lock is held meanwhile.
    """
    numbers = to_array(ids).tolist()
    if connection.vendor == "postgresql":
        table, parameter = "unnest(%s::bigint[]) AS those(value)", numbers
    else:
        table, parameter = "json_each(%s) AS those", orjson.dumps(numbers).decode()
    chosen, values = bulk.among("identity_no", numbers)
    bulk.execute(
        "UPDATE destinations_removal SET sent_at = %s WHERE mapping_id = %s AND accepted_at IS NULL "  # noqa: S608 - no values in it
        f"AND sent_at IS NULL AND {chosen}",
        [_moment(now), mapping_id, *values],
    )
    since, given = "%s", [_moment(left_at)]
    if cause in plan.EVENT_CAUSED:
        moment = "%s::timestamptz" if connection.vendor == "postgresql" else "%s"
        since, given = _FIRST_DECIDED.format(moment=moment), [mapping_id, *given]
    bulk.execute(
        "INSERT INTO destinations_removal (mapping_id, identity_no, cause, left_at, sent_at) "  # noqa: S608 - likewise
        f"SELECT %s, those.value, %s, {since}, %s FROM {table} WHERE NOT EXISTS (SELECT 1 FROM destinations_removal r "
        "WHERE r.mapping_id = %s AND r.identity_no = those.value AND r.accepted_at IS NULL)",
        [mapping_id, cause, *given, _moment(now), parameter, mapping_id],
    )


def pointless(mapping_id: int, due: BitMap, *, among: BitMap | None = None) -> None:
    """Open removals of people who are not, or no longer, to be removed (all but `due`) are no removals. `among`: only these are looked at."""
    waiting = Removal.objects.filter(mapping_id=mapping_id, accepted_at=None)
    over = [
        pk
        for pk, number in waiting.values_list("pk", "identity_no")
        if number not in due and (among is None or number in among)
    ]
    for start in range(0, len(over), 5_000):
        Removal.objects.filter(pk__in=over[start : start + 5_000]).delete()


def _keep_with_call(operation_id: int, said: Mapping[int, tuple[str, str]]) -> None:
    """Rejections change with the next attempt; what was said of a call's people stays with the call."""
    by_code: dict[str, tuple[str, BitMap]] = {}
    for number, (code, words) in said.items():
        by_code.setdefault(code[:80], (words[:300], BitMap()))[1].add(number)
    for code, (words, ids) in by_code.items():
        row, made = Refusal.objects.get_or_create(
            operation_id=operation_id, code=code, defaults={"reason": words, "identities": pack(ids)}
        )
        if not made:
            row.identities = pack(unpack(row.identities) | ids)
            row.save(update_fields=["identities"])


def _update(mapping_id: int, ids: BitMap, sets: str, condition: str, now: datetime) -> None:
    if not ids:
        return
    chosen, values = bulk.among("identity_no", list(ids))
    bulk.execute(
        f"UPDATE destinations_removal SET {sets} WHERE mapping_id = %s AND {condition} AND {chosen}",  # noqa: S608 - likewise
        [*[_moment(now)] * sets.count("%s"), mapping_id, *values],
    )


def _moment(moment: datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(moment)
