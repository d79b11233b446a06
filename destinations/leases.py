"""Leases on the two lanes of a mapping's ledger: who may prepare and settle calls. A fence rises with each, and tells late answers."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db import transaction

from destinations import errands, holders, rows
from destinations.models import Ledger, Operation

LEASE = timedelta(seconds=60)
URGENT, BULK = Operation.Lane.URGENT.value, Operation.Lane.BULK.value


class Busy(Exception):
    """Another worker holds this mapping's lease. `until`: when it would run out."""

    def __init__(self, until: datetime) -> None:
        super().__init__(f"another worker has this until {until:%H:%M:%S} UTC")
        self.until = until


class LeaseLost(Exception):
    """Another worker has taken over: stop, and write nothing more."""


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to prepare and settle calls of one lane of one mapping. `settle`: how long a late effect may take to land."""

    mapping_id: int
    lane: str
    fence: int
    settle: timedelta


def claim(mapping_id: int, lane: str, *, settle: timedelta, now: datetime) -> Lease:
    """Take the lane's lease; the fence rises, and calls that an older holder left in flight become unknown. Raises Busy."""
    with transaction.atomic():
        row = rows.locked(mapping_id)
        until, holder = getattr(row, f"{lane}_until"), getattr(row, f"{lane}_holder")
        if until is not None and until > now and not holders.is_dead(holder):
            raise Busy(until)
        fence = getattr(row, f"{lane}_fence") + 1
        row_fields = _hold(row, lane, fence, now)
        book = rows.book(row)
        if book.abandon(lane, fence, now, settle):
            rows.save(row, book)
            errands.send([mapping_id], now=now)  # who left is told again at once, not with the next sync
        row.save(update_fields=row_fields)
    return Lease(mapping_id, lane, fence, settle)


def renew(lease: Lease, *, now: datetime) -> None:
    """Hold on. Raises LeaseLost."""
    renewed = Ledger.objects.filter(
        mapping_id=lease.mapping_id, **{f"{lease.lane}_fence": lease.fence, f"{lease.lane}_until__isnull": False}
    ).update(**{f"{lease.lane}_until": now + LEASE})
    if not renewed:
        raise LeaseLost


def release(lease: Lease) -> None:
    """Let others have it. Does nothing if it is no longer ours."""
    Ledger.objects.filter(mapping_id=lease.mapping_id, **{f"{lease.lane}_fence": lease.fence}).update(
        **{f"{lease.lane}_until": None, f"{lease.lane}_holder": ""}
    )


def holds(mapping_id: int, lane: str, *, now: datetime) -> bool:
    """Whether a live worker has the lane at this moment."""
    row = Ledger.objects.filter(mapping_id=mapping_id).values(f"{lane}_until", f"{lane}_holder").first()
    if row is None or row[f"{lane}_until"] is None:
        return False
    return bool(row[f"{lane}_until"] > now and not holders.is_dead(row[f"{lane}_holder"]))


def reap(mapping_id: int, lane: str, *, settle: timedelta, now: datetime) -> bool:
    """Take the lease only to see to what a dead worker left in flight. False while a live one has it."""
    try:
        release(claim(mapping_id, lane, settle=settle, now=now))
    except Busy:
        return False
    return True


def hold(row: Ledger, lease: Lease, now: datetime) -> tuple[str, ...]:
    """On a locked row, whose fields are to be saved: the lease lasts from now. Raises LeaseLost if it is no longer ours."""
    if getattr(row, f"{lease.lane}_fence") != lease.fence:
        raise LeaseLost
    return _hold(row, lease.lane, lease.fence, now)


def _hold(row: Ledger, lane: str, fence: int, now: datetime) -> tuple[str, ...]:
    values = {f"{lane}_fence": fence, f"{lane}_until": now + LEASE, f"{lane}_holder": holders.me()}
    for name, value in values.items():
        setattr(row, name, value)
    return tuple(values)
