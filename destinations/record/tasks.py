"""What workers do for the record: make the exports that were asked for, load the warehouse by its cadence. destinations/tasks.py makes it known."""

from datetime import timedelta

from audiences import jobs
from audiences.models import Job
from audiences.people import lake
from destinations.connectors.base import Misconfigured, Retryable
from destinations.services import record, warehouse

AGAIN = timedelta(minutes=5)  # after a load that broke off
TRIES = 4


@jobs.job(record.TASK, queue="compute")
def export_record(claim: jobs.Claim) -> None:
    """One that breaks off again and again is given up, and says so."""
    try:
        record.make(claim)
    except jobs.LeaseLost:
        raise
    except lake.SnapshotGone:
        jobs.ask(record.TASK, claim.key, after=timedelta(seconds=5))
    except Exception as error:
        if Job.objects.filter(pk=claim.job_id, attempts__gte=TRIES - 1).exists():
            record.give_up(
                int(claim.key), f"It broke off {TRIES} times ({type(error).__name__}); the log has the details."
            )
        raise


@jobs.job(record.SWEEP, queue="compute")
def sweep_exports(claim: jobs.Claim) -> None:
    """Files are not kept longer than promised."""
    record.sweep()


@jobs.job(warehouse.TASK, queue="compute")
def load_warehouse(claim: jobs.Claim) -> None:
    """What went wrong is on the row, for people; whatever can go away by itself is tried again soon."""
    if not warehouse.get().running:
        jobs.stop_doing(warehouse.TASK, claim.key)
        return
    try:
        warehouse.load(claim)
    except Retryable:
        jobs.ask(warehouse.TASK, claim.key, after=AGAIN)
    except Misconfigured:
        return


def keep_going() -> None:
    """Have files swept from now on."""
    jobs.keep_doing(record.SWEEP, "", every=timedelta(hours=1))
