"""Monitor of what comes in: whether accepted events are stored away in time."""

from collections.abc import Iterator
from datetime import timedelta

from qa.checks.facts import Facts, Finding, Reading
from qa.models import Incident

BAD, WATCH = Incident.Severity.CRITICAL.value, Incident.Severity.WARNING.value
LONG = timedelta(hours=1)


def backlog(facts: Facts) -> Iterator[Reading]:
    """Events wait longer than a few minutes for their file."""
    waiting = facts.backlog
    if not waiting.late(facts.now) or waiting.since is None:
        yield Reading("intake", facts.minute)
        return
    finding = Finding(
        BAD if facts.now - waiting.since > LONG else WATCH,
        waiting.since,
        f"{waiting.events:,} events that were accepted wait to be stored, the first since {facts.when(waiting.since)}. "
        "None is lost and all of them count, but counts read them from the database, which grows.",
        "See that a worker takes the queue “intake”, and that the lake’s folder can be written and has room: manage.py doctor tells.",
        f"{waiting.events:,} events wait",
        {"Events that wait": f"{waiting.events:,}", "The first came": facts.when(waiting.since)},
        (
            *([f"Storing them broke off: {waiting.why}"] if waiting.why else []),
            "No worker takes the queue “intake”, or all are busy with imports",
            "The lake’s folder is away, full, or may not be written",
        ),
    )
    yield Reading("intake", facts.minute, finding)
