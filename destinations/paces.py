"""How fast audiences reach their platforms: how often each is sent, and how long sending has taken lately. Two queries."""

from collections.abc import Collection
from datetime import timedelta

from django.db.models import Avg, DurationField, ExpressionWrapper, F, Max
from django.utils import timezone

from audiences.findings import Pace
from destinations.models import Mapping, Run

LATELY = timedelta(days=7)


def of(audience_ids: Collection[int]) -> dict[int, Pace]:
    """By audience, at its slowest platform. Runs that waited for a person's approval are left out: that is no matter of pace."""
    mappings = Mapping.objects.filter(audience__in=audience_ids).exclude(state=Mapping.State.RETIRED)
    cadences = dict(mappings.order_by().values_list("audience").annotate(Max("cadence_seconds")))
    took = latencies(audience_ids)
    return {pk: Pace(cadence, took.get(pk, 0)) for pk, cadence in cadences.items()}


def latencies(audience_ids: Collection[int]) -> dict[int, int]:
    """By audience, µs from the beginning of a run to its end, on average at its slowest platform."""
    ended = Run.objects.filter(
        mapping__audience__in=audience_ids,
        state__in=(Run.State.DONE, Run.State.PARTIAL),
        rehearsal=False,
        approved_at=None,
        finished_at__gte=timezone.now() - LATELY,
    ).exclude(mapping__state=Mapping.State.RETIRED)
    lasted = ExpressionWrapper(F("finished_at") - F("created_at"), output_field=DurationField())
    slowest: dict[int, int] = {}
    of_mappings = ended.order_by().values("mapping").annotate(mean=Avg(lasted))
    for pk, mean in of_mappings.values_list("mapping__audience", "mean"):
        slowest[pk] = max(slowest.get(pk, 0), mean // timedelta(microseconds=1))
    return slowest
