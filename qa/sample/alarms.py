"""What the watch makes of the sample shop's troubles: its alerts, the mails that went out, one that somebody has taken up."""

from datetime import timedelta

from audiences.models import User
from qa import alerts, baseline, outbox, watch
from qa.models import Incident, Mail

NOTICED = timedelta(minutes=4)  # after the count that dropped


def look(vip: str, stale: str) -> None:
    """As the watch would have seen it: the drop of two days ago, an account that refuses, an audience that nobody counts."""
    baseline.freeze()
    watch.look()
    outbox.send_due()
    _when_it_happened(vip)
    _taken_up(stale)


def _when_it_happened(vip: str) -> None:
    for incident in Incident.objects.filter(kind="size", audience__key=vip, recovered_at=None):
        at = incident.since + NOTICED
        if incident.opened_at <= at:
            continue
        Incident.objects.filter(pk=incident.pk).update(opened_at=at)
        mails = Mail.objects.filter(incident=incident)
        mails.update(created_at=at)
        mails.filter(state=Mail.State.SENT).update(sent_at=at + timedelta(seconds=11))


def _taken_up(stale: str) -> None:
    """The marketer knows of it."""
    marketer = User.objects.get(email="marketer@example.com")
    for incident in Incident.objects.filter(audience__key=stale, recovered_at=None, acknowledged_by=None):
        alerts.acknowledge(actor=marketer, incident=incident)
