"""What the pages of privacy requests show: the list, one request with its steps and receipts, whom an identifier leads to. Reads only."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db.models import BooleanField, Case, Count, F, Q, QuerySet, Sum, Value, When
from django.utils import timezone

from audiences import standings
from audiences.models import Identity, PrivacyRequest, Profile, ProfileKey, Tombstone
from audiences.models.privacy import OPEN
from audiences.people import privacy as asking
from audiences.people.keys import Key
from audiences.standings import Fact
from destinations import queries
from destinations.models import PrivacyReceipt
from destinations.services import erasures, warehouse
from qa.privacy import late, overdue

State = PrivacyRequest.State
FILTERS = (("", "All"), ("open", "Open"), ("overdue", "Overdue"), ("done", "Done"), ("lifted", "Lifted"))


@dataclass(frozen=True, slots=True)
class Line:
    """A request as the list shows it. `settled` of `receipts` connections are through; `late`: what has taken too long, in words."""

    request: PrivacyRequest
    receipts: int
    settled: int
    late: str

    @property
    def days_left(self) -> int:
        return (self.request.due_at - timezone.now()).days


@dataclass(frozen=True, slots=True)
class Step:
    """One stage of a request: when it was reached, None while it was not."""

    name: str
    words: str
    at: datetime | None
    now: bool


@dataclass(frozen=True, slots=True)
class Receipt:
    """One connection's receipt with its platform in words. `may_give_up`: it is not through."""

    row: PrivacyReceipt
    platform: str
    carried: str  # the kinds of identifiers that were taken out, in words
    may_give_up: bool


@dataclass(frozen=True, slots=True)
class Shown:
    line: Line
    steps: tuple[Step, ...]
    receipts: tuple[Receipt, ...]
    came_back: int
    last_came_back: datetime | None


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody found, as a page may show them."""

    profile: Profile
    title: str
    identifiers: tuple[Fact, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """Whom an identifier leads to. `barred`: earlier requests that keep it from coming back."""

    people: tuple[Person, ...]
    keys: tuple[Key, ...]
    barred: tuple[PrivacyRequest, ...]


def requests(*, state: str = "", kind: str = "", now: datetime | None = None) -> QuerySet[PrivacyRequest]:
    """Overdue ones first, then open ones, the oldest first; then the rest, the newest first."""
    now = now or timezone.now()
    is_late = late(now)
    rows = PrivacyRequest.objects.select_related("requested_by", "import_file").annotate(
        late=Case(When(is_late, then=Value(True)), default=Value(False), output_field=BooleanField()),
        running=Case(When(state__in=OPEN, then=F("created_at"))),
    )
    if kind:
        rows = rows.filter(kind=kind)
    if state == "overdue":
        rows = rows.filter(is_late)
    elif state == "open":
        rows = rows.filter(state__in=OPEN)
    elif state:
        rows = rows.filter(state=state)
    return rows.order_by("-late", F("running").asc(nulls_last=True), "-pk")


def lines(rows: Iterable[PrivacyRequest]) -> list[Line]:
    """One query for all of them."""
    some = list(rows)
    through = Count("pk", filter=Q(state__in=erasures.SETTLED))
    counts = (
        PrivacyReceipt.objects.filter(request__in=some).values("request").annotate(all=Count("pk"), through=through)
    )
    found = {row["request"]: (row["all"], row["through"]) for row in counts}
    now = timezone.now()
    return [Line(row, *found.get(row.pk, (0, 0)), overdue(row, now)) for row in some]


def counts() -> dict[str, int]:
    """How many are under the filters that say so."""
    return {"open": requests(state="open").count(), "overdue": requests(state="overdue").count()}


def shown(request: PrivacyRequest) -> Shown:
    """One request, whole. Four queries."""
    (line,) = lines([request])
    rows = PrivacyReceipt.objects.filter(request=request).select_related("mapping", "given_up_by")
    receipts = tuple(
        Receipt(row, platform_label(row.platform), _carried(row), request.is_open and row.state not in erasures.SETTLED)
        for row in rows.order_by("destination", "audience", "pk")
    )
    refused = Tombstone.objects.filter(removal=request.removal)
    last = refused.order_by(F("refused_at").desc(nulls_last=True)).values_list("refused_at", flat=True).first()
    return Shown(line, _steps(request), receipts, refused.aggregate(n=Sum("refused"))["n"] or 0, last)


def platform_label(kind: str) -> str:
    platform = queries.platform_of(kind)
    return platform.label if platform else kind


def _carried(row: PrivacyReceipt) -> str:
    words = [standings.IDENTIFIERS[kind][0] if kind in standings.IDENTIFIERS else kind for kind in row.identifiers]
    return ", ".join(words)


def match(text: str, default_region: str, kind: str) -> Match:
    """Whom this identifier leads to, for a request of this kind."""
    keys = asking.meant(asking.keys_of(text, default_region))
    numbers = asking.whom(keys, of_the_removed=kind == PrivacyRequest.Kind.ERASURE)
    return Match(people(numbers), tuple(keys), tuple(asking.earlier(keys)))


def people(numbers: Sequence[int]) -> tuple[Person, ...]:
    """These people, masked."""
    titles = standings.titles(numbers)
    profiles = Profile.objects.in_bulk(list(numbers))
    identities = Identity.objects.in_bulk([row.identity_no for row in profiles.values() if row.identity_no])
    own_id = standings.IDENTIFIERS["external_id"][0]  # in the title, masked
    return tuple(
        Person(row, titles[pk], tuple(fact for fact in facts if fact.label != own_id))
        for pk, row in sorted(profiles.items())
        for facts in [standings.identifiers(identities.get(row.identity_no or 0), whole=False)]
    )


def is_live(number: int) -> bool:
    """Whether there is such a person to ask for."""
    return ProfileKey.objects.filter(profile_no=number).exists()


HEAD = (
    "request", "kind", "state", "asked", "taken_in", "destination", "platform", "audience", "outcome", "identifiers",
    "to_leave_since", "sent", "received", "confirmed", "platform_request", "given_up_by", "reason",
)  # fmt: skip


def as_table(request: PrivacyRequest) -> Iterator[tuple[object, ...]]:
    """The receipts as rows under HEAD; they name nobody who asked."""
    head = (
        request.pk,
        request.get_kind_display(),
        request.outcome,
        _moment(request.asked_at),
        _moment(request.created_at),
    )
    for one in shown(request).receipts:
        row = one.row
        yield (
            *head, row.destination, one.platform, row.audience, row.get_state_display(), " ".join(row.identifiers),
            _moment(row.left_at), _moment(row.sent_at), _moment(row.accepted_at), _moment(row.confirmed_at),
            row.platform_request_id, row.given_up_by or "", row.given_up_reason or row.waits,
        )  # fmt: skip
    for name in request.untouched:
        yield (*head, name, "", "", "Nothing was ever sent there", *[""] * 8)


def _steps(request: PrivacyRequest) -> tuple[Step, ...]:
    files = "No file of events or people, and no warehouse, holds anything of them."
    if request.people and request.forgotten_at and request.events_at is None:
        files = warehouse.still_holds(request.created_at) or files
    reached = [
        ("Received", "Nobody is found by these identifiers any more, and none comes back.", request.created_at),
        ("Out everywhere", "No platform is to be told any more.", request.confirmed_at),
        ("Forgotten", "Identifiers, refused rows, samples and spot checks are blank.", request.forgotten_at),
        ("Out of the files", files, request.events_at),
    ]
    first = next((at for at, (_, _, moment) in enumerate(reached) if moment is None), len(reached))
    return tuple(
        Step(name, words, at, request.is_open and index == first) for index, (name, words, at) in enumerate(reached)
    )


def _moment(moment: datetime | None) -> str:
    return moment.isoformat(timespec="seconds") if moment else ""
