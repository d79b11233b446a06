"""What the settings show of consent: the policy, the attributes that say something and how many people they spoke for. Reads only."""

from dataclasses import dataclass
from typing import Any

from django.db.models import Count, Q

from audiences.models import AttributeName, Consent, Job, Workspace
from audiences.people import consents


@dataclass(frozen=True, slots=True)
class Source:
    """An attribute that is read as consent, and for how many people it has spoken: a person counts once for each use."""

    rule: consents.Rule
    yes: int
    no: int


@dataclass(frozen=True, slots=True)
class Sources:
    """`progress`: of reading everybody anew, empty while nobody does; `waiting`: it is about to begin."""

    policy: dict[str, Any] | None
    rows: tuple[Source, ...]
    names: tuple[str, ...]  # attributes that could be chosen
    progress: dict[str, Any]
    waiting: bool
    failed: str

    @property
    def reading(self) -> bool:
        return self.waiting or bool(self.progress)

    @property
    def percent(self) -> int | None:
        total = self.progress.get("of")
        return 100 * int(self.progress["people"]) // int(total) if total else None


def found() -> Sources:
    """As things stand; five queries."""
    row = Workspace.objects.filter(pk=1).first()
    rules = consents.rules_of(row.consent_attributes) if row else ()
    spoken = Consent.objects.filter(attribute__in=[rule.attribute for rule in rules]).values("attribute")
    counts = {
        one["attribute"]: (one["yes"], one["no"])
        for one in spoken.annotate(yes=Count("pk", filter=Q(granted=True)), no=Count("pk", filter=Q(granted=False)))
    }
    rows = tuple(Source(rule, *counts.get(rule.attribute, (0, 0))) for rule in rules)
    job = Job.objects.filter(task=consents.TASK).first()
    running = job is not None and job.lease_until is not None
    return Sources(
        policy=row.consent_policy if row else None,
        rows=rows,
        names=tuple(AttributeName.objects.order_by("name").values_list("name", flat=True)[:500]),
        progress=(job.progress or {"people": 0}) if job is not None and running else {},
        waiting=job is not None and not running and job.due_at is not None and not job.attempts,
        failed=job.error if job is not None and job.attempts and not running else "",
    )
