"""Make this person buy: a purchase by the real intake, the syncs of whatever it changes, and how far both sides are. For the demo.

What has happened is read from where it stands anyway: the trail, the counts, the ledger's calls, the sandbox's own member sets.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import httpx
from django.db import transaction
from django.db.models import F, QuerySet
from django.utils import timezone
from pyroaring import BitMap

from audiences import clock, vocabulary
from audiences.bitmaps import unpack
from audiences.models import Audience, AuditEntry, Identity, Profile, Refresh, User
from audiences.people import biography, intake, payloads
from audiences.people.biography import Biography
from audiences.people.payloads import Context
from audiences.segments import grammar
from audiences.segments.judge import Occurrence, judge
from audiences.services import trail
from destinations import eligibility, identifiers, identities, placements, queries
from destinations.models import Eligibility, Ledger, Operation, Run
from destinations.models import Mapping as Connection
from destinations.plan import ADD, REMOVE
from destinations.sandbox.control import Sandbox
from destinations.services import Refused, refuse, runs

VERB = "sample.bought"
BASKET = {"value": 79.9, "currency": "EUR", "category": "shoes"}
AGAIN = timedelta(seconds=20)  # a second click within this shows the first one's story
LONGEST = timedelta(seconds=90)  # after this the page stops asking
_KINDS = {"email": "e-mail", "phone": "phone", "external_id": "own id", "mobile_ad_id": "ad id"}
_RECIPES = {"meta": identifiers.META, "google": identifiers.GOOGLE, "openlist": identifiers.HASHED}


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a purchase would change: connections that this person would be taken out of, and put into."""

    leaves: tuple[Connection, ...]
    joins: tuple[Connection, ...]


@dataclass(frozen=True, slots=True)
class Held:
    """One identifier as the platform has it: its kind in words, enough of its hash to tell it from others, whether it is there."""

    kind: str
    shown: str
    there: bool


@dataclass(frozen=True, slots=True)
class Account:
    """The platform's own member set, as it is at this moment. `there` None: it does not answer. `url`: its own page of it."""

    there: bool | None
    people: int | None
    held: tuple[Held, ...]
    url: str = ""


@dataclass(frozen=True, slots=True)
class Line:
    """One connection: seconds after the purchase at which it was counted, told and received; None: not yet."""

    connection: Connection
    leaves: bool
    counted: float | None
    told: float | None
    received: float | None
    request_id: str
    stopped: str  # why nothing is said, where nothing is
    account: Account

    @property
    def done(self) -> bool:
        if self.stopped:
            return True
        return self.received is not None and self.account.there in (None, not self.leaves)


@dataclass(frozen=True, slots=True)
class Story:
    """`elapsed`: since the purchase, or what it took in all once it is done."""

    lines: tuple[Line, ...]
    elapsed: float
    done: bool
    given_up: bool

    @property
    def left(self) -> int:
        return sum(1 for line in self.lines if not line.done)


def candidate() -> int | None:
    """Somebody who is at a sandbox account in a live retargeting audience now, and would leave it by buying. Few queries."""
    rows = Connection.objects.filter(
        state=Connection.State.LIVE,
        blocked_reason="",
        audience__purpose=Audience.Purpose.RETARGETING,
        audience__archived_at=None,
        audience__excluded_by__mappings__state=Connection.State.LIVE,
        audience__excluded_by__mappings__destination=F("destination"),
        ledger__present_count__gt=0,
    )
    for ledger in Ledger.objects.filter(mapping__in=rows).order_by("present_count", "pk").only("present", "base")[:3]:
        there = unpack(ledger.present) & unpack(ledger.base)
        for start in range(0, min(len(there), 200), 20):
            owners = identities.profiles_of(BitMap(there[start : start + 20]))
            live = Profile.objects.filter(pk__in=owners.values(), state=Profile.State.LIVE)
            number = live.order_by("pk").values_list("pk", flat=True).first()
            if number is not None:
                return number
    return None


def outlook(life: Biography) -> Outlook:
    """Judged twice: as they are, and as they would be a moment after buying."""
    now = life.as_of_us
    bought = replace(life.person, events=(*life.person.events, Occurrence("purchase", now, BASKET)))
    entering: set[str] = set()
    leaving: set[str] = set()
    rules = vocabulary.live_rules()
    for key, rule in rules.items():
        try:
            tree = grammar.resolve(rule, rules)
        except grammar.Refused:
            continue
        before, after = judge(tree, life.person, now), judge(tree, bought, now)
        if before != after:
            (entering if after else leaving).add(key)
    live = Connection.objects.filter(state=Connection.State.LIVE, blocked_reason="", audience__archived_at=None)
    rows = sorted(
        live.select_related("audience", "destination", "ledger").order_by("audience__key"), key=_answers_later
    )
    own = BitMap(number for number, _ in identities.of_profiles([life.profile.pk]))
    leaves, joins = [], []
    for row in rows:
        there = bool(own & unpack(row.ledger.present)) if hasattr(row, "ledger") else False
        if row.audience.key in entering:
            joins += [] if there else [row]
        elif there and (row.audience.key in leaving or _excludes(row, entering)):
            leaves.append(row)
    return Outlook(tuple(leaves), tuple(joins))


def buy(*, actor: User, profile_no: int) -> AuditEntry:
    """Post the purchase as a shop would, and ask for the syncs it makes due. Its line of the trail names the story.

    Raises Refused where it would take them out of nothing.
    """
    recent = stories(profile_no).filter(at__gt=timezone.now() - AGAIN).first()
    if recent is not None:
        return recent
    life = biography.of(profile_no)
    if life is None or life.profile.state != Profile.State.LIVE:
        raise refuse("This person is not there any more.")
    changes = outlook(life)
    if not changes.leaves:
        raise refuse("No live audience shows them advertisements that a purchase would end.")
    at_us = clock.now_us()
    external_id = next((key.value for key in life.keys if key.kind == "id"), "")
    who = external_id or next((key.value for key in life.keys if key.kind == "email"), "")
    if not who:
        raise refuse("They have neither an id nor an e-mail, so no shop could say that they have bought.")
    call = payloads.event_v1(who, {"name": "purchase", "data": BASKET}, Context(at_us, intake.default_region()))
    if intake.accept([call], "track_v1", received_us=at_us)[0].profile_no != profile_no:
        raise refuse("Their id or e-mail is somebody else's too, and the purchase counts for them.")
    with transaction.atomic():
        after = {
            "at_us": at_us,
            "leaves": [row.pk for row in changes.leaves],
            "joins": [row.pk for row in changes.joins],
        }
        trail.record(actor, VERB, "person", str(profile_no), after=after)
        entry = stories(profile_no).first()
    # Those whose platform answers at once go first: a worker waits for the receipts of the others.
    for row in sorted((*changes.leaves, *changes.joins), key=_answers_later):
        try:
            runs.request(actor=None, mapping=row, trigger=Run.Trigger.PERSON)
        except Refused:  # paused or stopped since it was looked at: the story says so
            continue
    assert entry is not None
    return entry


def stories(profile_no: int) -> QuerySet[AuditEntry]:
    """Lines of the trail, newest first."""
    return AuditEntry.objects.filter(verb=VERB, object_type="person", object_key=str(profile_no)).order_by("-pk")


def tell(entry: AuditEntry) -> Story:
    """How far both sides are now."""
    told = entry.after or {}
    profile_no, at_us = int(entry.object_key), int(told["at_us"])
    at = clock.from_us(at_us)
    rows = Connection.objects.select_related("audience", "destination").in_bulk([*told["leaves"], *told["joins"]])
    own = BitMap(number for number, _ in identities.of_profiles([profile_no]))
    identity = Identity.objects.filter(profile_no=profile_no, replaced_at=None, erased_at=None).first()
    accounts = _accounts(list(rows.values()), identity)
    lines = [
        _line(rows[number], side == "leaves", profile_no, own, at, at_us, accounts[number])
        for side in ("leaves", "joins")
        for number in told[side]
        if number in rows
    ]
    done = all(line.done for line in lines)
    since = (timezone.now() - at).total_seconds()
    took = max((line.received for line in lines if line.received is not None), default=since)
    return Story(tuple(lines), took if done else since, done, not done and since > LONGEST.total_seconds())


def _line(
    row: Connection, leaves: bool, profile_no: int, own: BitMap, at: datetime, at_us: int, account: Account
) -> Line:
    calls = Operation.objects.filter(mapping=row, kind=REMOVE if leaves else ADD, prepared_at__gte=at).order_by("pk")
    call = next((one for one in calls if unpack(one.identities) & own), None)
    received = call is not None and call.state == Operation.State.SETTLED
    counted = _counted(row, leaves, profile_no, at_us)
    if counted is None and call is not None:
        counted = call.prepared_at
    run = Run.objects.filter(mapping=row, created_at__gte=at, rehearsal=False).order_by("pk").first()
    return Line(
        row,
        leaves,
        _after(at, counted),
        _after(at, call.prepared_at if call else None),
        _after(at, call.finished_at if call and received else None),
        call.request_id if call else "",
        "" if call else _stopped(row, profile_no, at_us, run),
        account,
    )


def _counted(row: Connection, leaves: bool, profile_no: int, at_us: int) -> datetime | None:
    """When the count was done by which they left or joined, or a step of eligibility took them out."""
    counts = Refresh.objects.filter(audience=row.audience, state=Refresh.State.DONE, as_of_us__gte=at_us)
    for done in counts.exclude(cause=Refresh.Cause.BACKFILL).order_by("pk").only("entered", "left", "finished_at"):
        if profile_no in unpack(done.left if leaves else done.entered):
            return done.finished_at
    taken = Eligibility.objects.filter(mapping=row, refresh__as_of_us__gte=at_us, out_count__gt=0)
    for step in taken.select_related("refresh").order_by("refresh_id"):
        if profile_no in unpack(step.taken_out):
            return step.refresh.finished_at
    return None


def _stopped(row: Connection, profile_no: int, at_us: int, run: Run | None) -> str:
    """Why nothing will be said of them, where that is so."""
    if run is None or run.finished_at is None:
        return ""
    if run.state not in (Run.State.DONE, Run.State.PARTIAL):
        return run.error or run.get_state_display()
    for step in Eligibility.objects.filter(mapping=row, refresh=run.refresh_id, out_count__gt=0):
        if profile_no in unpack(step.taken_out) and step.step != eligibility.EXCLUDED:
            return f"Not sent: {step.step}"
    return "Nothing had to be sent." if run.refresh is not None and run.refresh.as_of_us >= at_us else ""


def _answers_later(row: Connection) -> bool:
    platform = queries.platform_of(row.destination.kind)
    return platform is not None and platform.receipts


def _excludes(row: Connection, entering: set[str]) -> bool:
    return any(audience.key in entering for audience in eligibility.excluding(row))


def _accounts(rows: Sequence[Connection], identity: Identity | None) -> Mapping[int, Account]:
    """What each connection's platform holds of this person, asked of the sandboxes themselves."""
    unknown = Account(None, None, ())
    found = {row.pk: unknown for row in rows}
    for base_url in {row.destination.base_url for row in rows}:
        if urlsplit(base_url).hostname not in ("127.0.0.1", "localhost") or identity is None:
            continue
        sandbox = Sandbox(base_url, seconds=2)
        try:
            for row in rows:
                if row.destination.base_url == base_url and row.destination.kind in _RECIPES and row.remote_id:
                    found[row.pk] = _account(sandbox, row, identity)
        except (httpx.HTTPError, ValueError, KeyError):
            pass  # it does not answer, or not so: not known
        finally:
            sandbox.close()
    return found


def _account(sandbox: Sandbox, row: Connection, identity: Identity) -> Account:
    recipes = _RECIPES[row.destination.kind]
    kinds = [kind for kind in row.identifiers if kind in identities.NAMING and getattr(identity, kind)]
    sent = [(kind, recipes[kind].of(getattr(identity, kind))) for kind in kinds]
    answer = sandbox.holds(row.destination.kind, row.remote_id, sent)
    held = tuple(
        Held(_KINDS[kind], identifiers.masked(value), there)
        for (kind, value), there in zip(sent, answer["holds"], strict=True)
    )
    return Account(any(one.there for one in held), answer["people"], held, placements.page_of(row))


def _after(at: datetime, moment: datetime | None) -> float | None:
    return None if moment is None else max(0.0, (moment - at).total_seconds())
