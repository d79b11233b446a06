"""After the database was restored from a backup: what it says platforms hold is of the past, so nothing of it is believed until told again."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import F
from pyroaring import BitMap

from audiences.models import Identity
from audiences.people import restoring
from audiences.services import trail
from destinations import ledger
from destinations.models import Decision, Hold, Ledger, LogCursor, Mapping, RecordExport, Run
from destinations.services import holds, runs, warehouse
from destinations.transitions import Book

MARKS = ((LogCursor, "mark"), (Ledger, "change_seq"), (Decision, "seq"), (RecordExport, "change_seq"))
RULE = "restored"
REASON = "The database was restored from a backup. What happened after it may be missing, so two counts cannot be compared yet."
ON_RELEASE = "Everybody who was ever sent is told again, in or out, as the count then says."


@dataclass(frozen=True, slots=True)
class Restored:
    """connections: how many; people: whose standing there is unknown now, over all of them."""

    connections: int
    people: int


def restored(*, now: datetime, hold: bool = True, everybody: bool = False) -> Restored:
    """Of no person is it believed that a platform has them, or has them not, before it was told so again. Everything must be stopped;
    safe to run again. Raises LakeIncomplete, having changed nothing.

    `hold`: comparisons wait until a person says that what was missing has come in again. `everybody`: people whom the backup does not
    know as sent are told as well, because they may have been sent after it; not where somebody else's people are in the audience too.
    """
    restoring.check_lake()
    restoring.forget_answers()
    restoring.begin_anew(MARKS)
    warehouse.begin_anew()
    chosen = Mapping.objects.exclude(remote_id="").select_related("audience", "destination").order_by("pk")
    known = BitMap(Identity.objects.values_list("identity_no", flat=True).iterator()) if everybody else BitMap()
    people = 0
    mappings = list(chosen)
    for mapping in mappings:
        extra = BitMap() if mapping.adopted else known
        _take_leases(mapping, now)
        people += ledger.tell_again(mapping.pk, _nothing_believed(extra), now=now, epoch=True)
        if hold:
            holds.set_hold(
                actor=None, mapping=mapping, direction=Hold.Direction.BOTH, rule=RULE, reason=REASON, on_release=ON_RELEASE
            )  # fmt: skip
    trail.record(None, "database.restored", "workspace", "", after={"connections": len(mappings), "people": people})
    return Restored(len(mappings), people)


def _nothing_believed(extra: BitMap) -> Callable[[Book, BitMap], tuple[BitMap, BitMap]]:
    def choose(book: Book, intent: BitMap) -> tuple[BitMap, BitMap]:
        everyone = book.present | book.unknown | book.rejected | book.ever_sent | extra
        return everyone, everyone

    return choose


def _take_leases(mapping: Mapping, now: datetime) -> None:
    """Whoever held a lease when the backup was made is long gone; what they had in flight is found unknown by the next holder."""
    with transaction.atomic():
        Ledger.objects.filter(mapping=mapping).update(
            urgent_fence=F("urgent_fence") + 1, bulk_fence=F("bulk_fence") + 1,
            urgent_until=None, bulk_until=None, urgent_holder="", bulk_holder="",
        )  # fmt: skip
        running = Run.objects.filter(mapping=mapping, state__in=(*runs.ACTIVE, *runs.OPEN), rehearsal=False)
        running.update(state=Run.State.INTERRUPTED, error="The database was restored from a backup.", finished_at=now)
