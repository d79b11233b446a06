"""Monitor of privacy requests: whether each is out everywhere within a day, and done before the law's deadline."""

from collections.abc import Iterator

from qa.checks.facts import Facts, Finding, Reading
from qa.models import Incident

BAD, WATCH = Incident.Severity.CRITICAL.value, Incident.Severity.WARNING.value


def overdue(facts: Facts) -> Iterator[Reading]:
    """One incident, however many are late: the page has them, the most urgent first."""
    late = facts.late_requests
    if not late.number or late.since is None:
        yield Reading("privacy", facts.minute)
        return
    number = "One privacy request is" if late.number == 1 else f"{late.number:,} privacy requests are"
    law = f" {late.past_law:,} past the 30 days that the law gives." if late.past_law else ""
    finding = Finding(
        BAD if late.past_law else WATCH,
        late.since,
        f"{number} overdue: not out everywhere a day after {facts.when(late.since)}, or not done in time.{law}",
        "Open Privacy: each request says which platform it waits for and why. What cannot be told any more may be given up, on record.",
        f"{late.number:,} overdue",
        {"Overdue": f"{late.number:,}", "The first was taken in": facts.when(late.since)},
        (
            "A connection is frozen, or its account refuses our access, so nothing can be removed there",
            "The platform refuses the removal: the request says with which words",
            "No worker is running, so nothing is sent and no file rewritten",
        ),
    )
    yield Reading("privacy", facts.minute, finding)
