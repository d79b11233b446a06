"""Monitors of what must simply be so: the account lets us in, syncs succeed and come in time, removals arrive, suppression stands beside retargeting."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from audiences import queries
from destinations.models import Destination, Mapping, Run
from qa.checks.facts import Facts, Finding, Reading
from qa.models import Incident

BAD, WATCH = Incident.Severity.CRITICAL.value, Incident.Severity.WARNING.value
LATE = 3  # cadences
LATE_AT_LEAST = timedelta(minutes=15)
PICKED_UP = timedelta(minutes=5)  # a run whose worker died is taken up again by then


def token(facts: Facts) -> Iterator[Reading]:
    """An account that refuses us is one incident, however many audiences go there."""
    there: dict[int, list[Any]] = {}
    for mapping in facts.mappings:
        there.setdefault(mapping.destination_id, []).append(mapping)
    for destination in facts.destinations:
        mappings = there.get(destination.pk, [])
        if destination.state != Destination.State.REFUSED or not mappings:
            yield Reading(f"destination:{destination.pk}", f"check:{destination.checked_at}", destination=destination)
            continue
        since = destination.checked_at or facts.now
        number = len(mappings)
        count = "One audience goes" if number == 1 else f"{number} audiences go"
        waits = sum(facts.overdue[mapping.pk].people for mapping in mappings if mapping.pk in facts.overdue)
        known = {
            "Audiences that go there": ", ".join(mapping.audience.key for mapping in mappings[:5])
            + (f" and {number - 5} more" if number > 5 else "")
        }
        if waits:
            known["Removals past their time"] = f"{waits:,} people"
        finding = Finding(
            BAD,
            since,
            f"{destination.name} has refused our access since {facts.when(since)}. {count} there: nothing is added or removed until it is connected again.",
            "Connect the account again: somebody with access makes a new token or gives the permission back. The ledger is kept, and the next sync catches up.",
            "access refused",
            known,
            _reasons(destination.state_words),
        )
        yield Reading(
            f"destination:{destination.pk}", f"check:{destination.checked_at}", finding, destination=destination
        )


def _reasons(said: str) -> tuple[str, ...]:
    first = (f"The platform said: {said[:300]}",) if said else ()
    return (
        *first,
        "The token ran out, or was revoked by whoever made it",
        "The person who made it left, or lost the permission on the ad account",
    )


def run(facts: Facts) -> Iterator[Reading]:
    """The last sync that ended has failed; one whose worker died counts only if nobody took it up again."""
    for mapping in _let_in(facts):
        subject, at = f"mapping:{mapping.pk}", f"run:{mapping.run_id}"
        died = mapping.run_state == Run.State.INTERRUPTED
        failed = mapping.run_state == Run.State.FAILED
        if mapping.run_id is None or mapping.blocked_reason:
            yield Reading(subject, "", mapping=mapping, audience=mapping.audience)
            continue
        since = mapping.run_ended or facts.now
        if died and (mapping.under_way or facts.now - since < PICKED_UP):
            yield Reading(subject, "", mapping=mapping, audience=mapping.audience)
            continue
        if not (failed or died):
            yield Reading(subject, at, mapping=mapping, audience=mapping.audience)
            continue
        place = mapping.destination.name
        why = f"It said: {mapping.run_error[:300]}" if mapping.run_error else "No reason was kept"
        finding = Finding(
            BAD if failed else WATCH,
            since,
            f"The sync to {place} {'failed' if failed else 'broke off'} at {facts.when(since)}. What {place} had received before stays, and removals wait too.",
            "Open the run and see what it said. It is tried again on its schedule; press Sync now when the cause is gone.",
            "sync failed" if failed else "sync broke off",
            {"Run": str(mapping.run_id), "Ended": facts.when(since), "To": place},
            (why, f"{place} was away or too busy for longer than we try again")
            if failed
            else (why, "A worker was stopped, and no other has taken the run up"),
        )
        yield Reading(subject, at, finding, mapping.audience, mapping)


def late(facts: Facts) -> Iterator[Reading]:
    """No sync has ended for three of its cadences, and none is under way."""
    for mapping in _let_in(facts):
        subject = f"mapping:{mapping.pk}"
        if mapping.run_ended is None or mapping.blocked_reason or mapping.state == Mapping.State.PAUSED:
            yield Reading(subject, "", mapping=mapping, audience=mapping.audience)
            continue
        patience = max(LATE * timedelta(seconds=mapping.cadence_seconds), LATE_AT_LEAST)
        if facts.now - mapping.run_ended <= patience or mapping.under_way:
            yield Reading(subject, facts.minute, mapping=mapping, audience=mapping.audience)
            continue
        place = mapping.destination.name
        finding = Finding(
            WATCH,
            mapping.run_ended + timedelta(seconds=mapping.cadence_seconds),
            f"No sync to {place} has ended since {facts.when(mapping.run_ended)}; one is due every {queries.span(mapping.cadence_seconds)}.",
            "See Background work in Settings: is a worker running, and what does it do?",
            "sync overdue",
            {
                "Last sync ended": facts.when(mapping.run_ended),
                "Due every": queries.span(mapping.cadence_seconds),
                "To": place,
            },
            ("No worker is running, or all are busy", "The database was away"),
        )
        yield Reading(subject, facts.minute, finding, mapping.audience, mapping)


def blocked(facts: Facts) -> Iterator[Reading]:
    """Stopped until a person acts, for another reason than the account's refusal."""
    for mapping in _let_in(facts):
        subject = f"mapping:{mapping.pk}"
        if not mapping.blocked_reason:
            yield Reading(subject, facts.minute, mapping=mapping, audience=mapping.audience)
            continue
        if mapping.lost:
            yield Reading(subject, facts.minute, _lost(facts, mapping), mapping.audience, mapping)
            continue
        since = mapping.run_ended or mapping.state_at
        finding = Finding(
            BAD,
            since,
            f"Nothing is sent to {mapping.destination.name} since {facts.when(since)}: the connection is stopped until somebody acts.",
            "Open the connection, put right what it says, and press Call again.",
            "connection stopped",
            {"To": mapping.destination.name},
            (mapping.blocked_reason[:300],),
        )
        yield Reading(subject, facts.minute, finding, mapping.audience, mapping)


def _lost(facts: Facts, mapping: Any) -> Finding:
    """Its audience is not there any more: told apart, because what is to be done is another thing."""
    place, since = mapping.destination.name, mapping.lost_at or facts.now
    gone = mapping.lost == Mapping.Lost.GONE
    done = "Deleted" if gone else "Blocked"
    remedy = (
        "Open the connection: create it anew, which sends everybody again, or retire it. Nothing is made again by itself."
        if gone
        else f"See what {place} says of it, and have it allowed again; the connection then goes on by itself."
    )
    return Finding(
        BAD,
        since,
        f"{done} on {place}, seen {facts.when(since)}. Nothing is added or removed there any more.",
        remedy,
        "audience deleted there" if gone else "audience blocked there",
        {"To": place, "Id there": mapping.remote_id},
        (
            f"The platform said: {mapping.blocked_reason[:300]}",
            "Somebody deleted it in the ad account" if gone else "It was flagged or closed in the ad account",
            "Our access to the ad account was taken away",
        ),
    )


def hold(facts: Facts) -> Iterator[Reading]:
    """A rule has stopped it for safety."""
    for mapping in facts.mappings:
        subject, rows = f"mapping:{mapping.pk}", facts.holds.get(mapping.pk, ())
        if not rows:
            yield Reading(subject, facts.minute, mapping=mapping, audience=mapping.audience)
            continue
        first = rows[0]
        finding = Finding(
            BAD,
            first.created_at,
            f"Stopped for safety on {mapping.destination.name} since {facts.when(first.created_at)}: {first.get_direction_display().lower()} wait.",
            "Look at what the rule saw. If it is right, lift the stop on the connection's page; it asks for a reason.",
            "stopped for safety",
            {"To": mapping.destination.name, "What waits": first.get_direction_display()},
            (first.reason[:300],),
        )
        yield Reading(subject, facts.minute, finding, mapping.audience, mapping)


def approval(facts: Facts) -> Iterator[Reading]:
    """A sync would remove more people than it may without a name under it."""
    for mapping in facts.mappings:
        subject, waiting = f"mapping:{mapping.pk}", facts.approvals.get(mapping.pk)
        if waiting is None:
            yield Reading(subject, facts.minute, mapping=mapping, audience=mapping.audience)
            continue
        people = "more people than it may" if waiting.planned_removes is None else f"{waiting.planned_removes:,} people"
        finding = Finding(
            BAD,
            waiting.created_at,
            f"A sync to {mapping.destination.name} would remove {people} and waits for an approval since {facts.when(waiting.created_at)}.",
            "Open the run. Approve it if the audience really became that much smaller; if not, mend the rule, and the next sync plans anew.",
            "waits for an approval",
            {
                "Run": str(waiting.pk),
                "Would remove": people,
                "Limit": f"{mapping.removal_limit}% of those there",
            },
            ("The rule was changed, or fewer people fulfil it", "A source of people or events is incomplete"),
        )
        yield Reading(subject, facts.minute, finding, mapping.audience, mapping)


def removals(facts: Facts) -> Iterator[Reading]:
    """People who should have left a platform by now."""
    for mapping in _let_in(facts):
        subject, waiting = f"mapping:{mapping.pk}", facts.overdue.get(mapping.pk)
        if waiting is None:
            yield Reading(subject, facts.minute, mapping=mapping, audience=mapping.audience)
            continue
        one = waiting.people == 1
        people = "One person" if one else f"{waiting.people:,} people"
        place = mapping.destination.name
        finding = Finding(
            BAD,
            waiting.since,
            f"{people} should have left {place} and {'is' if one else 'are'} not known to have: the oldest since {facts.when(waiting.since)}.",
            f"Press Sync now. If it stays, see the run: what does {place} answer to the removals?",
            "removals overdue",
            {"People": f"{waiting.people:,}", "Oldest since": facts.when(waiting.since), "To": place},
            (
                f"{place} did not answer, or refuses removals",
                "No worker is running, or the connection waits for its account's rate limit",
            ),
        )
        yield Reading(subject, facts.minute, finding, mapping.audience, mapping)


def drift(facts: Facts) -> Iterator[Reading]:
    """A platform that lets us read it holds others than it was told. Who was there before us, in an adopted audience, is no drift."""
    for mapping in _let_in(facts):
        subject = f"mapping:{mapping.pk}"
        if mapping.drift_at is None:
            yield Reading(subject, "", mapping=mapping, audience=mapping.audience)
            continue
        counts = {
            "Missing there": mapping.drift_missing,
            "Should have left": mapping.drift_left,
            "Sent by nobody here": 0 if mapping.adopted else mapping.drift_foreign,
        }
        at = f"{mapping.drift_at:%Y-%m-%dT%H:%M:%S}"
        if not any(counts.values()):
            yield Reading(subject, at, mapping=mapping, audience=mapping.audience)
            continue
        place, off = mapping.destination.name, sum(many or 0 for many in counts.values())
        grave = mapping.audience.purpose == "suppression" or bool(mapping.drift_left)
        finding = Finding(
            BAD if grave else WATCH,
            mapping.drift_at,
            f"{place} does not hold whom it was told: {off:,} {'person' if off == 1 else 'people'} differ, read {facts.when(mapping.drift_at)}.",
            "Look at who has access there. “Tell everybody again” on the connection's page puts our own people right; others stay.",
            "differs from what was told",
            {label: f"{many:,}" for label, many in counts.items() if many is not None} | {"To": place},
            (
                "Somebody edited the audience on the platform, or another tool did",
                f"{place} lost or kept people by itself",
            ),
        )
        yield Reading(subject, at, finding, mapping.audience, mapping)


def suppression(facts: Facts) -> Iterator[Reading]:
    """Retargeting that is live where nothing keeps buyers out, and nobody has written why."""
    for mapping in facts.mappings:
        if mapping.audience.purpose != "retargeting" or mapping.state == Mapping.State.PAUSED:
            continue
        subject, place = f"mapping:{mapping.pk}", mapping.destination.name
        if mapping.pk not in facts.unsuppressed:
            yield Reading(subject, facts.minute, mapping=mapping, audience=mapping.audience)
            continue
        finding = Finding(
            BAD,
            facts.now,
            f"It is live on {place} without a suppression audience beside it: people who have just bought go on seeing its ads.",
            "Make the suppression pair, or take the linked one live there. Where it is meant to be so, write an exception with an end date.",
            "no suppression",
            {"To": place},
            (
                "Its suppression audience was retired there, archived or unlinked",
                "An exception that somebody had written has ended",
            ),
        )
        yield Reading(subject, facts.minute, finding, mapping.audience, mapping)


def _let_in(facts: Facts) -> Iterator[Any]:
    """Connections whose account lets us in; of the others, the account's own incident tells."""
    return (mapping for mapping in facts.mappings if mapping.destination.state != Destination.State.REFUSED)
