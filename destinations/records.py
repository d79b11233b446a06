"""What became of single people: who was refused and why, and the life of each removal. In the caller's transaction."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import orjson
from django.db import connection
from pyroaring import BitMap

from audiences.bitmaps import pack, to_array, unpack
from audiences.people import bulk
from destinations import plan
from destinations.models import Refusal, Rejection


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
        _update(mapping_id, ids, "accepted_at", "accepted_at IS NULL", now)


def confirmed(mapping_id: int, ids: BitMap, now: datetime) -> None:
    """The platform's receipt says that these removals were carried out."""
    _update(mapping_id, ids, "confirmed_at", "accepted_at IS NOT NULL AND confirmed_at IS NULL", now)


def removing(mapping_id: int, ids: BitMap, cause: str, left_at: datetime, now: datetime) -> None:
    """Begin the record of each removal; one that is open already goes on. One statement, because a lock is held meanwhile."""
    numbers = to_array(ids).tolist()
    if connection.vendor == "postgresql":
        table, parameter = "unnest(%s::bigint[]) AS those(value)", numbers
    else:
        table, parameter = "json_each(%s) AS those", orjson.dumps(numbers).decode()
    bulk.execute(
        "INSERT INTO destinations_removal (mapping_id, identity_no, cause, left_at, sent_at) "  # noqa: S608 - no values in it
        f"SELECT %s, those.value, %s, %s, %s FROM {table} WHERE NOT EXISTS (SELECT 1 FROM destinations_removal r "
        "WHERE r.mapping_id = %s AND r.identity_no = those.value AND r.accepted_at IS NULL)",
        [mapping_id, cause, _moment(left_at), _moment(now), parameter, mapping_id],
    )


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


def _update(mapping_id: int, ids: BitMap, column: str, condition: str, now: datetime) -> None:
    if not ids:
        return
    chosen, values = bulk.among("identity_no", list(ids))
    bulk.execute(
        f"UPDATE destinations_removal SET {column} = %s WHERE mapping_id = %s AND {condition} AND {chosen}",  # noqa: S608 - likewise
        [_moment(now), mapping_id, *values],
    )


def _moment(moment: datetime) -> Any:
    return connection.ops.adapt_datetimefield_value(moment)
