"""Monitor of audiences that another has taken the place of: they retire on their date, or somebody hears why not."""

from collections.abc import Iterator

from qa.checks.facts import Facts, Finding, Reading
from qa.models import Incident


def hindered(facts: Facts) -> Iterator[Reading]:
    """Its date has come, and something is in the way; what, destinations/services/replacements.py has kept."""
    for row in facts.replacements:
        subject = f"replacement:{row.pk}"
        if not row.hindered or row.retires_at is None:
            yield Reading(subject, facts.minute, audience=row.old)
            continue
        finding = Finding(
            Incident.Severity.WARNING.value,
            row.hindered_since or row.retires_at,
            f"Its end was set for {facts.when(row.retires_at)}, as {row.new.key} takes its place, and it has not retired. {row.hindered[0]}",
            "Put that right, and it retires by itself; or choose another date, or keep it after all. Until then it goes on as before.",
            "has not retired",
            {"Replaced by": row.new.key, "Was to retire": facts.when(row.retires_at)},
            tuple(row.hindered[1:]),
        )
        yield Reading(subject, facts.minute, finding, audience=row.old)
