"""What a connection would do before anything of it is sent: its last rehearsal, how old it is, and what stands in the way of going live.

Reads only. Rehearsing is delivery.py's; what a connection has done is in queries.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from django.utils import timezone

from destinations import queries, remotes
from destinations.connectors.base import Capabilities
from destinations.delivery import REMOVAL_FLOOR
from destinations.models import ENDED, Destination, Mapping, Run
from destinations.queries import Coverage, Seen

OLD = timedelta(hours=24)
STOP, WATCH, GOOD = "stop", "watch", "good"


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must be so before it goes live. `state` is stop, watch or good; `remedy` what to do, `place` a URL name where."""

    label: str
    state: str
    words: str = ""
    place: str = ""
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """`run`: the last that came to its end. `going`: one that is under way. `failed`: a newer one that broke off. `stale`: why to rehearse again."""

    run: Run | None
    going: Run | None
    failed: Run | None
    stale: tuple[str, ...]
    took: timedelta | None
    estimate: timedelta | None
    earlier: tuple[Run, ...]

    @property
    def nobody(self) -> bool:
        return self.run is not None and not self.run.planned_adds and not self.run.planned_removes


@dataclass(frozen=True, slots=True)
class Identifier:
    """A kind that the platform takes, whether this connection sends it, and how many of the audience have it."""

    kind: str
    words: str
    sent: bool
    coverage: Coverage

    @property
    def short(self) -> str:
        """Without what is said in brackets."""
        return self.words.split(" (")[0].lower() if not self.words.isupper() else self.words


def of(mapping: Mapping) -> Rehearsal:
    """The rehearsals of a connection. Two queries."""
    rows = queries.runs().filter(mapping=mapping, rehearsal=True)
    rows = rows.select_related("refresh__version", "mapping__audience", "mapping__destination", "requested_by")
    found = list(rows.defer("refresh__keyframe", "refresh__entered", "refresh__left", "refresh__rule_counts")[:6])
    newest = found[0] if found else None
    done = next((run for run in found if run.state == Run.State.DONE), None)
    return Rehearsal(
        run=done,
        going=newest if newest and newest.state not in ENDED else None,
        failed=newest if newest and newest.state in ENDED and newest.state != Run.State.DONE else None,
        stale=tuple(_stale(mapping, done)) if done else (),
        took=done.finished_at - done.started_at if done and done.finished_at and done.started_at else None,
        estimate=queries.estimate(done) if done else None,
        earlier=tuple(run for run in found if run is not done and run is not newest),
    )


def checks(
    seen: Seen,
    rehearsal: Rehearsal,
    platform: Capabilities | None,
    *,
    objection: str | None,
    hindrances: Sequence[str],
    startable: bool,
) -> list[Check]:
    """What must be so before it goes live, and whether it is; the worst first. Not `startable`: it has started, or has ended."""
    mapping, run = seen.mapping, rehearsal.run
    found = [Check("Before it may start", STOP, words) for words in hindrances]
    if objection:
        found.append(Check("A gate objects", STOP if startable else WATCH, objection, "gate"))
    elif objection is not None:
        found.append(Check("No gate objects", GOOD, "Asked just now."))
    if mapping.destination.state == Destination.State.REFUSED:
        found.append(Check("The account", STOP, mapping.destination.state_words, "destination", "Reconnect"))
    elif mapping.destination.state != Destination.State.CONNECTED:
        words = mapping.destination.state_words or "It has not been checked yet."
        found.append(Check("The account", WATCH, words, "destination", "Check it"))
    else:
        found.append(Check("The account is connected", GOOD, mapping.destination.state_words))
    if mapping.lost:
        words = (
            f"{remotes.lost_words(mapping.lost, mapping.destination.name, mapping.lost_at)}. {mapping.blocked_reason}"
        )
        found.append(Check("Its audience is not there", STOP, words, "connection", "Decide about it"))
    elif mapping.blocked_reason:
        found.append(Check("Stopped until a person has acted", STOP, mapping.blocked_reason, "unblock", "Call again"))
    found += [Check(f"{hold.get_direction_display()} stopped for safety", WATCH, hold.reason) for hold in seen.holds]
    if run is not None:
        found += _of_run(seen, run, platform)
    order = (STOP, WATCH, GOOD)
    return sorted(found, key=lambda check: order.index(check.state))


def identifiers(mapping: Mapping, platform: Capabilities) -> list[Identifier]:
    """Every kind that the platform takes, those that are sent first."""
    rows = [
        Identifier(part.kind, part.words, part.kind in mapping.identifiers, part)
        for part in queries.coverage(mapping.audience, platform)
    ]
    return sorted(rows, key=lambda row: not row.sent)


def _of_run(seen: Seen, run: Run, platform: Capabilities | None) -> list[Check]:
    found = []
    removes, there = run.planned_removes or 0, seen.tally.received if seen.tally else 0
    limit = seen.mapping.removal_limit_percent
    if removes > max(REMOVAL_FLOOR, there * limit / 100):
        words = f"It would remove {removes:,} of {there:,} people, more than the {limit}% that go without asking: it may wait for an approval by name."
        found.append(Check("Many removals", WATCH, words))
    if run.rejected:
        words = f"The platform looked at the first call and would refuse {run.rejected:,} of its people."
        found.append(Check("Refused in the rehearsal", WATCH, words))
    fall = seen.waterfall
    if fall is not None and fall.members and not fall.sent:
        found.append(Check("Nobody is left to send", WATCH, "Every member is taken out on the way; see below by what."))
    if removes and platform is not None and not platform.can_remove:
        found.append(Check("Removals", WATCH, f"{platform.label} lets nobody be removed; people can only be added."))
    return found


def _stale(mapping: Mapping, run: Run) -> list[str]:
    words = []
    live, counted = mapping.audience.live_version, run.refresh.version if run.refresh else None
    if live is not None and counted is not None and live.pk != counted.pk:
        words.append(f"v{live.number} has gone live since; this was rehearsed under v{counted.number}.")
    if run.finished_at and timezone.now() - run.finished_at > OLD:
        words.append("It is more than a day old.")
    if mapping.state_at > run.created_at:
        words.append(f"The connection has become {mapping.get_state_display().lower()} since.")
    return words
