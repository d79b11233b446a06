"""How long removals took, added up for metrics as they are received. Each is counted once, whichever process had it."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from django.db import transaction
from django.db.models import Count, ExpressionWrapper, F, Q, Sum
from django.db.models.fields import DurationField
from django.utils import timezone

from audiences import clock, jobs, tallies
from audiences.models import Counter
from destinations.models import Mapping, Removal

EVERY = timedelta(seconds=20)
SETTLED = timedelta(seconds=30)  # who says now that it was received by then has committed it
CURSOR = "removals tallied"  # µs: received up to here is counted


@jobs.job("qa.tally_removals", queue="compute")
def tally_removals(claim: jobs.Claim) -> None:
    """Take in what was received since the last time."""
    cursor, _ = Counter.objects.get_or_create(name=CURSOR, defaults={"value": clock.to_us(timezone.now() - SETTLED)})
    upto = clock.to_us(timezone.now() - SETTLED)
    if upto <= cursor.value:
        return
    added = _between(cursor.value, upto)
    with transaction.atomic():
        claim.guard()
        if Counter.objects.filter(name=CURSOR, value=cursor.value).update(value=upto):
            tallies.store(added)


def keep_tallying() -> None:
    """Workers call it when they start; calling it again changes nothing."""
    jobs.keep_doing("qa.tally_removals", "", every=EVERY, queue="compute")


def _between(after_us: int, upto_us: int) -> dict[tuple[str, str], float]:
    took = ExpressionWrapper(F("accepted_at") - F("left_at"), output_field=DurationField())
    bounds = tallies.METRICS["removal_seconds"].buckets
    within = {
        f"b{place}": Count("pk", filter=Q(took__lte=timedelta(seconds=bound))) for place, bound in enumerate(bounds)
    }
    rows: Iterable[Any] = (
        # By connection, for the index; none is ever deleted while it has removals.
        Removal.objects.filter(mapping__in=list(Mapping.objects.values_list("pk", flat=True)))
        .filter(accepted_at__gt=clock.from_us(after_us), accepted_at__lte=clock.from_us(upto_us))
        .annotate(took=took)
        .values("cause")
        .annotate(all=Count("pk"), sum=Sum("took"), **within)
    )
    added: dict[tuple[str, str], float] = {}
    causes = tallies.METRICS["removal_seconds"].labels["cause"]
    for row in rows:
        cause = row["cause"] if row["cause"] in causes else tallies.OTHER
        before = 0
        for place, bound in enumerate(bounds):
            if row[f"b{place}"] > before:
                added[f"removal_seconds:{bound:g}", cause] = row[f"b{place}"] - before
            before = row[f"b{place}"]
        if row["all"] > before:
            added["removal_seconds:+Inf", cause] = row["all"] - before
        added["removal_seconds:sum", cause] = row["sum"].total_seconds()
    return added
