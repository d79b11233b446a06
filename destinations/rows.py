"""A ledger's rows as the values that plan.py and transitions.py work on, and back. In the caller's transaction."""

from datetime import datetime

from pyroaring import BitMap

from audiences.bitmaps import pack, unpack
from destinations import transitions
from destinations.models import Decision, Ledger, Operation, Rejection
from destinations.plan import ADD, REMOVE, State
from destinations.transitions import Book, Call

COUNTED = ("present", "unknown", "rejected", "ever_sent")  # lists show how many without reading who


def locked(mapping_id: int) -> Ledger:
    """The mapping's row, with the lock under which everything about it changes. On SQLite the transaction is the lock."""
    return Ledger.objects.select_for_update().get(mapping_id=mapping_id)


def as_call(operation: Operation) -> Call:
    """An open operation as transitions.py knows it."""
    return Call(
        id=operation.pk,
        kind=operation.kind,
        cause=operation.cause,
        lane=operation.lane,
        fence=operation.fence,
        state=operation.state,
        unsettled=unpack(operation.unsettled),
        prepared_at=operation.prepared_at,
        reassert_at=operation.reassert_at,
        lost=operation.state == transitions.UNKNOWN and operation.finished_at is None,
    )


def book(row: Ledger, using: str = "default") -> Book:
    """What is believed of the platform, with the calls that are still open."""
    operations = Operation.objects.using(using).filter(mapping_id=row.mapping_id, open=True).order_by("pk")
    return Book(
        present=unpack(row.present),
        unknown=unpack(row.unknown),
        rejected=unpack(row.rejected),
        ever_sent=unpack(row.ever_sent),
        reassert=unpack(row.reassert),
        withdraw=unpack(row.withdraw),
        vetoed=unpack(row.vetoed),
        reassert_since=row.reassert_since,
        calls=[as_call(operation) for operation in operations],
    )


def save(row: Ledger, book: Book, *also: str) -> None:
    """Write what has changed of the book, and these further fields of the row, if the invariants hold."""
    book.check()
    counts = [f"{name}_count" for name in book.changed if name in COUNTED]
    for name in book.changed:
        setattr(row, name, pack(getattr(book, name)))
        if name in COUNTED:
            setattr(row, f"{name}_count", len(getattr(book, name)))
    row.reassert_since = book.reassert_since
    row.save(update_fields=[*book.changed, *counts, "reassert_since", *also])
    for call in book.calls:
        if call.changed:
            Operation.objects.filter(pk=call.id).update(
                state=call.state,
                unsettled=pack(call.unsettled),
                open=bool(call.unsettled),
                reassert_at=call.reassert_at if call.unsettled else None,
            )


def intent(row: Ledger, using: str = "default") -> BitMap:
    """Who is wanted: the last count, overlaid by what was decided since."""
    wanted_now = unpack(row.base)
    later = Decision.objects.using(using).filter(mapping_id=row.mapping_id, seq__gt=row.change_seq)
    for number, wanted in later.order_by("seq", "pk").values_list("identity_no", "wanted"):
        if wanted:
            wanted_now.add(number)
        else:
            wanted_now.discard(number)
    return wanted_now


def state(row: Ledger, believed: Book, wanted: BitMap, now: datetime, using: str = "default") -> State:
    """What plan.py works on, at this moment."""
    rows = Rejection.objects.using(using).filter(mapping_id=row.mapping_id)
    retry = rows.filter(kind=ADD, retry_at__lte=now) if believed.rejected else rows.none()
    refused = rows.filter(kind=REMOVE, retry_at__gt=now)
    return believed.state(
        wanted,
        now,
        retry=BitMap(retry.values_list("identity_no", flat=True)) & believed.rejected,
        refused=BitMap(refused.values_list("identity_no", flat=True)),
    )
