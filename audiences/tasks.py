"""What workers of this floor do: ids in, one service called. The work itself is in services, people/ and segments/."""

from celery import shared_task

from audiences import jobs


@shared_task(name="audiences.sweep", queue="urgent")
def sweep() -> None:
    """Find due work and hand it out. Beat calls it every second, and whoever makes work due calls it at once."""
    jobs.sweep()
