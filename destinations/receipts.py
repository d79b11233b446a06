"""Asking what became of calls whose outcome comes later."""

from datetime import datetime, timedelta

from destinations import ledger, transitions
from destinations.connectors.base import Connector, ConnectorError, Rejected
from destinations.ledger import Count, Outcome
from destinations.models import Mapping, Operation

FIRST = timedelta(seconds=2)
LONGEST = timedelta(minutes=10)
GIVEN_UP = timedelta(hours=26)


def ask(operation: Operation, connector: Connector, *, settle: timedelta, now: datetime) -> Count | None:
    """Poll one submitted operation's receipt; None while it is still to come. A receipt that never comes is an unknown outcome."""
    later = now + min(max(FIRST, (now - operation.prepared_at) / 2), LONGEST)
    waiting = Outcome(transitions.SUBMITTED, poll_at=later)
    try:
        receipt = connector.poll(operation.request_id)
    except Rejected as error:
        outcome = Outcome(transitions.UNAPPLIED, words=str(error))
    except ConnectorError as error:  # about the asking, not about the call
        outcome = Outcome(transitions.SUBMITTED, words=str(error), poll_at=later)
    else:
        if receipt.pending:
            outcome = waiting
        elif receipt.accepted:
            words = f"{receipt.rejected_unnamed} refused without saying which" if receipt.rejected_unnamed else ""
            outcome = Outcome(transitions.SETTLED, receipt.rejected, receipt.rejected_unnamed, words=words)
            _keep_matched(operation.mapping_id, receipt.matched_low, receipt.matched_high, now)
        else:
            outcome = Outcome(transitions.UNKNOWN, words="The receipt does not say what became of it.")
    if outcome.verdict == transitions.SUBMITTED and now - operation.prepared_at > GIVEN_UP:
        outcome = Outcome(transitions.UNKNOWN, words="No receipt came.")
    return ledger.receive(operation.pk, outcome, settle=settle, now=now)


def _keep_matched(mapping_id: int, low: int | None, high: int | None, now: datetime) -> None:
    """What a receipt says of its own rows stands only until the audience as a whole has a number."""
    if low is not None or high is not None:
        Mapping.objects.filter(pk=mapping_id, matched_low__isnull=True, matched_high__isnull=True).update(
            matched_words=f"{low if low is not None else '?'}–{high if high is not None else '?'} of the last call's rows",
            matched_at=now,
        )
