"""Makes this floor's jobs known to Celery and keeps the standing ones going. The work itself is in the modules named here."""

from typing import Any

from celery import shared_task
from celery.signals import worker_ready

from audiences import jobs, measuring, preview, pulse, refreshing, waiting
from audiences.people import consents, imports, privacy_lists, survey
from audiences.people.lake import upkeep

__all__ = [
    "consents",
    "imports",
    "keep_going",
    "measuring",
    "preview",
    "privacy_lists",
    "pulse",
    "refreshing",
    "survey",
    "sweep",
    "upkeep",
    "waiting",
]


@shared_task(name="audiences.sweep", queue="urgent")
def sweep() -> None:
    """Tell workers of due work. Beat calls it every second, and whoever makes work due calls it at once."""
    jobs.sweep()


@worker_ready.connect
def keep_going(**_: Any) -> None:
    """A worker that starts makes sure that the standing jobs are asked for; asking again changes nothing."""
    upkeep.keep_going()
    survey.keep_going()
    refreshing.keep_counting()
    waiting.keep_waiting()
