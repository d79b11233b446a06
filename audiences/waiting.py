"""In the background: what waits for the end of a test is published then. Locks and versions are the services' of those names."""

from datetime import timedelta

from django.utils import timezone

from audiences import jobs
from audiences.models import Audience, SegmentVersion
from audiences.services import locks, versions


@jobs.job(locks.TASK, queue="compute")
def publish_waiting(claim: jobs.Claim) -> None:
    """Publish what waits in the audience whose id is the key, if its time has come; else come again then."""
    audience = Audience.objects.filter(pk=int(claim.key)).first()
    if audience is None:
        return
    versions.publish_due(audience)
    ask(audience.pk)


def keep_waiting() -> None:
    """Have everything that waits seen to when its time comes. Workers call it when they start; calling it again changes nothing."""
    for pk in set(SegmentVersion.objects.filter(publish_at__isnull=False).values_list("audience_id", flat=True)):
        ask(pk)


def ask(audience_id: int) -> None:
    """When the first that waits is due."""
    waits = SegmentVersion.objects.filter(audience=audience_id, publish_at__isnull=False).order_by("publish_at")
    if (due := waits.values_list("publish_at", flat=True).first()) is not None:
        jobs.ask(locks.TASK, audience_id, after=max(due - timezone.now(), timedelta(0)))
