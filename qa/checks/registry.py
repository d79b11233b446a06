"""Every kind of incident: what looks for it, what it is called, how sure one must be that it is over."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from qa.checks import counts, deliveries, intake, privacy, replacements, sizes
from qa.checks.facts import Facts, Finding, Reading


@dataclass(frozen=True, slots=True)
class Kind:
    """clean: looks at new data, in a row, that must find nothing before it is over, so that what flaps is one incident.
    mutable: a person may have it unmailed for a while; never what costs money or breaks a promise to a person.
    over: how it reads when it is right again.
    patient: after a standstill nothing is said until workers have had time to catch up.
    slow: looked for every ten minutes, because it reads much. limit: the field of Limits that moves it."""

    label: str
    over: str
    look: Callable[[Facts], Iterator[Reading]]
    clean: int = 1
    mutable: bool = True
    patient: bool = False
    slow: bool = False
    limit: str = ""
    began: Callable[[Facts, Reading], Finding] | None = None


KINDS: dict[str, Kind] = {
    "suppression": Kind(
        "No suppression", "a suppression audience stands beside it", deliveries.suppression, mutable=False
    ),
    "removals": Kind("Removals overdue", "every removal is through", deliveries.removals, clean=2, mutable=False),
    "privacy": Kind("Privacy requests overdue", "no privacy request is overdue", privacy.overdue, mutable=False),
    "token": Kind("Access refused", "the account lets us in again", deliveries.token, mutable=False),
    "drift": Kind("Differs on the platform", "it holds whom it was told again", deliveries.drift, mutable=False),
    "run": Kind("Sync failed", "syncs succeed again", deliveries.run, clean=2),
    "blocked": Kind("Connection stopped", "the connection may call again", deliveries.blocked),
    "hold": Kind("Stopped for safety", "the safety stop is lifted", deliveries.hold),
    "approval": Kind("Waits for an approval", "the removal is decided", deliveries.approval),
    "count": Kind("Count failed", "it is counted again", counts.count, clean=2),
    "size": Kind("Size moved", "the size is usual again", sizes.size, clean=2, limit="size_share", began=sizes.began),
    "adds": Kind(
        "Received adds moved", "received adds are usual again", sizes.adds, clean=2, slow=True, limit="adds_share"
    ),
    "stale": Kind("Count is old", "counted in time again", counts.stale, clean=2, patient=True),
    "retire": Kind("Retirement hindered", "nothing hinders its retirement any more", replacements.hindered),
    "intake": Kind("Events wait", "events are stored in time again", intake.backlog, clean=2, patient=True),
    "late": Kind("Sync overdue", "syncs come in time again", deliveries.late, clean=2, patient=True),
}
