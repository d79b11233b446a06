"""What the pages of this floor read: destinations, connections with what each platform was told, runs. Frozen values; unknown is None, never 0."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Max, OuterRef, Q, QuerySet, Subquery, Sum
from django.utils import timezone
from pyroaring import BitMap

from audiences import standings
from audiences.bitmaps import to_array, unpack
from audiences.models import Audience, Identity, Membership
from destinations import eligibility, identities, ledger
from destinations.connectors import registry
from destinations.connectors.base import Capabilities
from destinations.identities import NAMING
from destinations.models import ENDED, Destination, Eligibility, Hold, Ledger, Operation, Run
from destinations.models import Mapping as Connection
from destinations.rows import COUNTED

STEPS = {
    eligibility.REMOVED: ("Removed and erased people", "They asked to go, or were deleted at their source."),
    eligibility.CONSENT: ("Without consent", "They, or the workspace's policy, say no to what this purpose needs."),
    eligibility.EXCLUDED: ("Excluded", "In a linked suppression audience or on an exclusion list."),
    eligibility.COOLDOWN: ("In cooldown", "They did something lately that gives them a rest."),
    eligibility.PRIORITY: ("Claimed by a higher audience", "One of the same priority group has them."),
    eligibility.HOLDOUT: ("Held out", "They show what would happen without the campaign."),
    eligibility.UNREACHABLE: ("Without an identifier", "None of the chosen identifiers is known of them."),
}
SAMPLE = 50_000
STAGES = [
    Run.State.QUEUED,
    Run.State.COUNTING,
    Run.State.DIFFING,
    Run.State.SENDING,
    Run.State.CONFIRMING,
    Run.State.DONE,
]


@dataclass(frozen=True, slots=True)
class Tally:
    """What the platform was told of one connection: wanted now, ever sent, received and there, refused, outcome not known."""

    wanted: int
    sent: int
    received: int
    rejected: int
    unknown: int


@dataclass(frozen=True, slots=True)
class Step:
    """A step of the waterfall in words. `left` and `right` are where its bar of 1,000 units begins and ends."""

    label: str
    why: str
    out: int
    remaining: int
    stay: int
    gone: int


@dataclass(frozen=True, slots=True)
class Waterfall:
    members: int
    sent: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """A connection as an audience's or a destination's page shows it. `tally` None: nothing was planned yet."""

    mapping: Connection
    platform: str
    tally: Tally | None
    run: Run | None
    holds: tuple[Hold, ...]
    waterfall: Waterfall | None

    @property
    def matched(self) -> str:
        """A number, a range, or who does not say."""
        mapping = self.mapping
        if mapping.matched_low is None and mapping.matched_high is None:
            return mapping.matched_words or "Not known yet"
        low, high = mapping.matched_low, mapping.matched_high
        if low is None or high is None or low == high:
            return f"{(high if low is None else low) or 0:,}"
        return f"{low:,}–{high:,}"


@dataclass(frozen=True, slots=True)
class Card:
    """A destination in the list. `platform` None: its connector is gone."""

    destination: Destination
    platform: Capabilities | None
    connections: int
    live: int
    last_run: Run | None

    @property
    def takes(self) -> str:
        """The identifiers in short: what is said of them in brackets is left out."""
        return ", ".join(words.split(" (")[0] for words in self.platform.identifiers.values()) if self.platform else ""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Of `of` people `people` have this identifier. `naming`: it names a person by itself. `counted` False: of everybody, not of the audience."""

    kind: str
    words: str
    people: int
    of: int
    sampled: bool
    counted: bool
    naming: bool

    @property
    def share(self) -> float | None:
        return self.people / self.of if self.of else None


@dataclass(frozen=True, slots=True)
class Exemption:
    """A named person's written exception from the gates. `until` None: without an end, as only `apply` may write it."""

    by: str
    reason: str
    until: datetime | None

    @property
    def holds(self) -> bool:
        return self.until is None or self.until > timezone.now()


@dataclass(frozen=True, slots=True)
class Leaver:
    """Somebody whom a run would remove, by the name that lists give them."""

    profile_no: int
    title: str


@dataclass(frozen=True, slots=True)
class Stage:
    label: str
    state: str  # done, now, stopped or empty


def platform_of(kind: str) -> Capabilities | None:
    connector = registry.CONNECTORS.get(kind)
    return connector.capabilities if connector else None


def exemption(mapping: Connection) -> Exemption | None:
    """What is on record of a connection, held or over; None: nothing that names a person and a reason."""
    written = mapping.override or {}
    by, reason, until = (str(written.get(name) or "").strip() for name in ("by", "reason", "until"))
    if not by or not reason:
        return None
    end = datetime.fromisoformat(until) if until else None
    return Exemption(by, reason, timezone.make_aware(end) if end and timezone.is_naive(end) else end)


def cards() -> list[Card]:
    """Every destination with its connections. Three queries."""
    last = Run.objects.filter(mapping__destination=OuterRef("pk")).order_by("-pk").values("pk")[:1]
    rows = list(
        Destination.objects.select_related("account", "credentials_by")
        .annotate(last_run_id=Subquery(last))
        .order_by("name")
    )
    numbers: dict[int, dict[str, int]] = {}
    for row in Connection.objects.values("destination_id", "state").annotate(number=Count("pk")).order_by():
        numbers.setdefault(row["destination_id"], {})[row["state"]] = row["number"]
    runs = Run.objects.select_related("mapping__audience").in_bulk([row.last_run_id for row in rows if row.last_run_id])
    return [
        Card(
            row,
            platform_of(row.kind),
            sum(number for state, number in numbers.get(row.pk, {}).items() if state != Connection.State.RETIRED),
            numbers.get(row.pk, {}).get(Connection.State.LIVE, 0),
            runs.get(row.last_run_id),
        )
        for row in rows
    ]


def connections(
    *, audience: Audience | None = None, destination: Destination | None = None, whole: bool = True
) -> list[Seen]:
    """The connections of one or the other. `whole` False leaves out the waterfall. A fixed number of queries."""
    rows = Connection.objects.select_related("audience", "destination").order_by("destination__name", "audience__key")
    rows = rows.filter(audience=audience) if audience else rows
    rows = rows.filter(destination=destination) if destination else rows
    found = list(rows.annotate(last_run_id=_last_run()))
    return _seen(found, whole=whole)


def connection(pk: int) -> Seen | None:
    rows = Connection.objects.select_related("audience", "destination").filter(pk=pk).annotate(last_run_id=_last_run())
    found = _seen(list(rows), whole=True)
    return found[0] if found else None


def waterfalls(mapping_ids: Sequence[int]) -> dict[int, Waterfall]:
    """Each connection's last walk through the order of eligibility."""
    newest = dict(
        Eligibility.objects.filter(mapping__in=mapping_ids)
        .values("mapping")
        .annotate(last=Max("refresh_id"))
        .values_list("mapping", "last")
    )
    rows = (
        Eligibility.objects.filter(mapping__in=mapping_ids, refresh__in=newest.values())
        .order_by("mapping", "position")
        .values_list("mapping_id", "refresh_id", "step", "out_count", "remaining")
    )
    steps: dict[int, list[tuple[str, int, int]]] = {}
    for mapping_id, refresh_id, step, out, remaining in rows:
        if newest[mapping_id] == refresh_id:
            steps.setdefault(mapping_id, []).append((step, out, remaining))
    return {mapping_id: _waterfall(found) for mapping_id, found in steps.items()}


def runs(*, state: str = "", audience: str = "", destination: str = "") -> QuerySet[Run]:
    """Newest first, of one audience or destination by their keys. `state`: `active`, `trouble` or one of Run.State."""
    rows = Run.objects.select_related("mapping__audience", "mapping__destination", "requested_by").order_by("-pk")
    if state == "active":
        rows = rows.exclude(state__in=ENDED)
    elif state == "trouble":
        rows = rows.filter(
            state__in=[Run.State.PARTIAL, Run.State.FAILED, Run.State.INTERRUPTED, Run.State.NEEDS_APPROVAL]
        )
    elif state in Run.State.values:
        rows = rows.filter(state=state)
    rows = rows.filter(mapping__destination__key=destination) if destination else rows
    return rows.filter(mapping__audience__key=audience) if audience else rows


def stages(run: Run) -> list[Stage]:
    """The stepper of a run's page: what is behind it, where it is, where it stopped."""
    if run.state in (Run.State.DONE, Run.State.PARTIAL):
        return [Stage(stage.label, "done") for stage in STAGES[:-1]] + [Stage(run.get_state_display(), "done")]
    reached = {Run.State.NEEDS_APPROVAL: 2}.get(Run.State(run.state))
    if reached is None and run.state in STAGES:
        reached = STAGES.index(Run.State(run.state))
    if reached is None:  # it ended early: as far as its numbers say it came
        reached = 3 if run.batches_planned else 2 if run.planned_adds is not None else 1 if run.started_at else 0
        words = ["done"] * reached + ["stopped"] + [""] * (len(STAGES) - reached - 1)
    else:
        words = ["done"] * reached + ["now"] + [""] * (len(STAGES) - reached - 1)
    return [Stage(stage.label, word) for stage, word in zip(STAGES, words, strict=True)]


def batches(run: Run) -> QuerySet[Operation]:
    return run.operations.defer("identities", "unsettled").order_by("-pk")


def coverage(audience: Audience | None, platform: Capabilities) -> list[Coverage]:
    """How many of the audience's people have each identifier that the platform takes. Before its first count, or of none: of everybody.

    Of more than SAMPLE people, that many are looked at, always the same ones.
    """
    row = Membership.objects.filter(audience=audience).only("members").first() if audience else None
    people = unpack(row.members) if row else BitMap()
    total = len(people)
    if total > SAMPLE:
        people = BitMap(random.Random(0).sample(to_array(people).tolist(), SAMPLE))  # noqa: S311 - no secret
    if row:
        found, looked_at = identities.coverage(people), len(people)
    else:
        counts = {kind: Count("pk", filter=~Q(**{kind: ""})) for kind in platform.identifiers}
        rows = Identity.objects.filter(replaced_at=None, erased_at=None)
        found = rows.aggregate(everybody=Count("pk"), **counts)
        looked_at = found["everybody"]
    return [
        Coverage(kind, words, found[kind], looked_at, total > SAMPLE, bool(row), kind in NAMING)
        for kind, words in platform.identifiers.items()
    ]


def estimate(run: Run) -> timedelta | None:
    """How long a rehearsed run's calls would take at the platform's rate; None where its connector is gone."""
    connector = registry.CONNECTORS.get(run.mapping.destination.kind)
    if connector is None:
        return None
    calls = run.batches_planned + 2  # the audience itself is looked at or made, and asked for its size
    return timedelta(
        seconds=max(
            calls * 1.0,
            (calls - connector.capabilities.calls_per_minute / 2) * 60 / connector.capabilities.calls_per_minute,
        )
    )


def pace(run: Run) -> timedelta | None:
    """How long it should still take, from the batches done so far; None where nothing can be said."""
    left = run.batches_planned - run.batches_done
    if run.started_at is None or run.state in ENDED or run.batches_done < 3 or left <= 0:
        return None
    return (timezone.now() - run.started_at) / run.batches_done * left


def told(run: Run) -> dict[str, int]:
    """What has been sent so far, for the words beside Cancel."""
    sums = run.operations.exclude(state=Operation.State.PREPARED).values("kind").annotate(number=Sum("count"))
    return {row["kind"]: row["number"] or 0 for row in sums.order_by()}


def _last_run() -> Subquery:
    return Subquery(Run.objects.filter(mapping=OuterRef("pk"), rehearsal=False).order_by("-pk").values("pk")[:1])


def _seen(rows: list[Any], *, whole: bool) -> list[Seen]:
    ids = [row.pk for row in rows]
    ledgers = {
        row.mapping_id: row
        for row in Ledger.objects.filter(mapping__in=ids).only(
            "mapping", "refresh", "wanted_count", *(f"{name}_count" for name in COUNTED)
        )
    }
    last_runs = Run.objects.in_bulk([row.last_run_id for row in rows if row.last_run_id])
    holds: dict[int, list[Hold]] = {}
    for hold in Hold.objects.filter(mapping__in=ids, lifted_at=None).select_related("set_by").order_by("pk"):
        holds.setdefault(hold.mapping_id, []).append(hold)
    falls = waterfalls(ids) if whole else {}
    return [
        Seen(
            row,
            label if (label := _label(row.destination.kind)) else row.destination.kind,
            _tally(ledgers.get(row.pk)),
            last_runs.get(row.last_run_id),
            tuple(holds.get(row.pk, ())),
            falls.get(row.pk),
        )
        for row in rows
    ]


def _label(kind: str) -> str:
    platform = platform_of(kind)
    return platform.label if platform else ""


def _tally(ledger: Ledger | None) -> Tally | None:
    if ledger is None or ledger.refresh_id is None:
        return None
    return Tally(
        wanted=ledger.wanted_count,
        sent=ledger.ever_sent_count,
        received=ledger.present_count,
        rejected=ledger.rejected_count,
        unknown=ledger.unknown_count,
    )


def _waterfall(steps: Sequence[tuple[str, int, int]]) -> Waterfall:
    members = steps[0][1] + steps[0][2]
    scale = 1000 / members if members else 0
    words: Mapping[str, tuple[str, str]] = STEPS
    return Waterfall(
        members,
        steps[-1][2],
        tuple(
            Step(
                *words.get(step, (step, "")),
                out,
                remaining,
                round(remaining * scale),
                max(3, round(out * scale)) if out else 0,
            )
            for step, out, remaining in steps
        ),
    )


def leaving(connection: Connection, many: int = 5) -> tuple[Leaver, ...]:
    """A few of those who are there and no longer wanted, the same ones each time."""
    state = ledger.look(connection.pk, now=timezone.now()).state
    gone = to_array(state.present - state.intent)
    drawn = random.Random(connection.pk).sample(range(len(gone)), min(many, len(gone)))  # noqa: S311 - no secret
    numbers = sorted(set(identities.profiles_of(BitMap(int(gone[place]) for place in drawn)).values()))
    titles = standings.titles(numbers)
    return tuple(Leaver(number, titles[number]) for number in numbers if number in titles)
