"""In the background: whom a version finds that is not live yet, where a page could not wait for it. What is asked and kept is
services/measurements.py's."""

from audiences import impact, jobs, vocabulary
from audiences.impact import Unmeasured
from audiences.services import measurements


@jobs.job(measurements.TASK, queue="compute")
def measure(claim: jobs.Claim) -> None:
    """Count the version whose id is the key, on the data that the page began with: what it had been answered is answered from the cache."""
    row = measurements.waiting(int(claim.key))
    if row is None:
        return
    pin = measurements.pin_of(row)
    try:
        found = impact.measure(row.version.audience, vocabulary.rule(row.version.segment), pin=pin)
    except Unmeasured as unmeasured:
        measurements.settle(row, pin, trouble=str(unmeasured))
    except Exception:
        measurements.settle(row, pin, trouble=measurements.BROKEN_OFF)
        raise
    else:
        measurements.settle(row, pin, members=found.members)
