"""Makes this floor's jobs known to Celery and keeps the standing ones going. The work itself is in the modules named here."""

from typing import Any

from celery.signals import worker_ready

from qa import latencies, outbox, privacy, spot_check, watch
from qa.sample import fill

__all__ = ["fill", "keep_going", "latencies", "outbox", "privacy", "spot_check", "watch"]


@worker_ready.connect
def keep_going(**_: Any) -> None:
    """A worker that starts makes sure that the standing jobs are asked for; asking again changes nothing."""
    watch.keep_watching()
    latencies.keep_tallying()
    privacy.keep_following()
