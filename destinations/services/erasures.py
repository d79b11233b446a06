"""Privacy requests on this floor: what each platform that holds somebody was told about it, and giving up on one, on record.

The removals themselves go as all removals do, ahead of everything else. Here they are only asked for, looked at and put down.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime

from django.db import transaction
from django.db.models import Q
from django.utils import timezone
from pyroaring import BitMap

from audiences import jobs
from audiences.bitmaps import unpack
from audiences.models import PrivacyRequest, User
from audiences.people import removal
from audiences.services import trail
from destinations import rows
from destinations.models import Destination, Ledger, Mapping, Operation, PrivacyReceipt, Rejection, Removal, Run
from destinations.plan import REMOVE
from destinations.services import refuse
from destinations.services.mappings import TASK
from destinations.services.runs import SENDS

State = PrivacyReceipt.State
SETTLED = (State.ACCEPTED, State.CONFIRMED, State.ABSENT, State.GIVEN_UP)
CALLS_LOOKED_AT = 500  # of a connection, newest first


@dataclass(frozen=True, slots=True)
class Told:
    """One connection: `held` are identities that its platform has, may have or is to get, `sent` those that it ever got."""

    mapping: Mapping
    held: BitMap = field(repr=False)
    sent: BitMap = field(repr=False)


def books() -> list[Told]:
    """Every connection as of one moment."""
    found: dict[int, tuple[BitMap, BitMap]] = {}
    with transaction.atomic(using="snapshot"):
        open_: dict[int, BitMap] = {}
        calls = Operation.objects.using("snapshot").filter(open=True).values_list("mapping_id", "unsettled")
        for mapping_id, unsettled in calls.iterator(chunk_size=100):
            open_[mapping_id] = open_.get(mapping_id, BitMap()) | unpack(unsettled)
        for row in Ledger.objects.using("snapshot").iterator(chunk_size=20):
            held = rows.intent(row, using="snapshot") | open_.get(row.mapping_id, BitMap())
            for part in (row.present, row.unknown, row.reassert, row.withdraw):
                held |= unpack(part)
            found[row.mapping_id] = held, unpack(row.ever_sent)
    mappings = Mapping.objects.select_related("destination", "audience").in_bulk(list(found))
    return [Told(mapping, *found[pk]) for pk, mapping in mappings.items()]


def look(request: PrivacyRequest, told: Collection[Told], *, now: datetime) -> bool:
    """Bring the request's receipts up to date, and have asked for what is still to be said; whether nothing is any more."""
    own = BitMap(request.identities)
    kept = {row.mapping_id: row for row in PrivacyReceipt.objects.filter(request=request)}
    settled = True
    for one in told:
        concerned = own & (one.held | one.sent)
        receipt = kept.get(one.mapping.pk)
        if receipt is None and not concerned:
            continue
        fresh = receipt is None
        if receipt is None:
            receipt = PrivacyReceipt(
                request=request,
                mapping=one.mapping,
                destination=one.mapping.destination.name,
                platform=one.mapping.destination.kind,
                audience=one.mapping.audience.key,
                left_at=request.created_at,
            )
        if receipt.state not in SETTLED:
            _bring_up_to_date(receipt, one, concerned, now)
            receipt.save()
        settled = settled and receipt.state in SETTLED
        if fresh and receipt.state not in SETTLED and one.mapping.state in SENDS:
            jobs.ask(TASK, one.mapping.pk, queue="sync")
    return settled


def untouched(request: PrivacyRequest) -> list[str]:
    """The names of the destinations to which nothing was ever sent of them."""
    touched = PrivacyReceipt.objects.filter(request=request).values("mapping__destination")
    return list(Destination.objects.exclude(pk__in=touched).order_by("name").values_list("name", flat=True))


def give_up(*, actor: User, receipt: PrivacyReceipt, reason: str) -> None:
    """This platform cannot be told, and somebody answers for it. Raises Refused without a reason, or where it is settled already."""
    if len(reason.strip()) < 5:
        raise refuse("Say why it cannot be removed there: the reason stands on the receipt beside your name.", "reason")
    with transaction.atomic():
        row = PrivacyReceipt.objects.select_for_update().get(pk=receipt.pk)
        if row.state in SETTLED:
            raise refuse("It is settled already.")
        row.state, row.given_up_by, row.given_up_at = State.GIVEN_UP, actor, timezone.now()
        row.given_up_reason, row.waits = reason.strip()[:500], ""
        row.save()
        trail.record(
            actor,
            "privacy.given_up",
            "privacy",
            str(row.request_id),
            after={"destination": row.destination, "audience": row.audience},
            reason=row.given_up_reason,
        )


def forget(request: PrivacyRequest) -> None:
    """No platform is to be told any more: blank the identifiers, and what rehearsals showed, in the caller's transaction."""
    removal.forget_identifiers(request.people)
    removal.forget_shared(request.identities, request.removal)
    Run.objects.filter(created_at__lte=request.created_at).exclude(sample_payload="").update(sample_payload="")


def _bring_up_to_date(receipt: PrivacyReceipt, told: Told, concerned: BitMap, now: datetime) -> None:
    last: dict[int, Removal] = {}
    rows_ = Removal.objects.filter(mapping=told.mapping, identity_no__in=list(concerned)).order_by("pk")
    for row in rows_:
        last[row.identity_no] = row
    lives = list(last.values())
    receipt.sent_at = min((row.sent_at for row in lives if row.sent_at), default=None)
    if lives and all(row.accepted_at for row in lives):
        receipt.accepted_at = max(row.accepted_at for row in lives if row.accepted_at)
    if lives and all(row.confirmed_at for row in lives):
        receipt.confirmed_at = max(row.confirmed_at for row in lives if row.confirmed_at)
    call = _last_removal(told.mapping, concerned) if receipt.sent_at else None
    if call is not None:
        receipt.platform_request_id, receipt.identifiers = call.request_id, list(call.identifiers)
    if held := concerned & told.held:
        receipt.state, receipt.waits = State.REMOVING, _why_it_waits(told.mapping, held, receipt, now)
        return
    receipt.waits = ""
    if receipt.accepted_at is None or receipt.accepted_at < receipt.left_at:
        receipt.state = State.ABSENT
    else:
        receipt.state = State.CONFIRMED if receipt.confirmed_at else State.ACCEPTED


def _last_removal(mapping: Mapping, concerned: BitMap) -> Operation | None:
    """The newest call that took one of these out."""
    calls = Operation.objects.filter(mapping=mapping, kind=REMOVE).order_by("-pk").defer("unsettled", "error")
    return next(
        (row for row in calls[:CALLS_LOOKED_AT].iterator(chunk_size=20) if concerned & unpack(row.identities)), None
    )


def _why_it_waits(mapping: Mapping, held: BitMap, receipt: PrivacyReceipt, now: datetime) -> str:
    if mapping.lost:
        return f"The audience is {mapping.get_lost_display().lower()}. {mapping.blocked_reason}".strip()
    if mapping.blocked_reason:
        return f"The connection is stopped: {mapping.blocked_reason}"
    if mapping.destination.state == Destination.State.REFUSED:
        return "The account refuses our access. Connect it again."
    if mapping.state == Mapping.State.FROZEN and not (mapping.state_until and mapping.state_until <= now):
        until = f" until {mapping.state_until:%-d %B %Y}" if mapping.state_until else ""
        return f"The connection is frozen{until}: nothing is sent, not even removals."
    if mapping.state not in (*SENDS, Mapping.State.FROZEN):
        return f"The connection is in {mapping.get_state_display().lower()}: nothing is sent."
    refused = (
        Rejection.objects.filter(Q(mapping=mapping, kind=REMOVE), identity_no__in=list(held)).order_by("-pk").first()
    )
    if refused is not None:
        return f"The platform refused it, and is asked again: {refused.reason}"
    if receipt.accepted_at and receipt.accepted_at >= receipt.left_at:
        return "Received; the platform's confirmation is still to come."
    return "Sent; the outcome is not known yet." if receipt.sent_at else "It goes with the next call to this platform."
