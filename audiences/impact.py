"""What publishing a rule would do to an audience: counted at a pin and held against the members of now. Writes nothing, and no
transaction is open while it counts. Who must agree to it is services/gate.py's."""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import astuple, dataclass, field
from datetime import datetime

from django.core import signing
from pyroaring import BitMap

from audiences import bitmaps, clock, masking, standings, vocabulary
from audiences.models import Audience, Identity, Membership, SegmentVersion
from audiences.people.engines.base import Pinned, Stop, UnreadableLake
from audiences.segments import grammar
from audiences.segments.tree import Node
from audiences.services import refreshes

MOVED = 0.10  # figures that differ by more than this share of the audience are other figures
_SALT = "rollcall.figures"


class Unmeasured(Exception):
    """It could not be counted, in words."""


@dataclass(frozen=True, slots=True)
class Figures:
    """People `before` (None: not counted yet) and under the rule; of these, how many are new, and of those before, how many are gone.
    `enters` and `leaves` are None where there is nothing to hold it against."""

    before: int | None
    size: int
    enters: int | None
    leaves: int | None
    as_of_us: int

    @property
    def share(self) -> float | None:
        """How much of the audience it moves, 0…: the larger of entering and leaving. From nobody to somebody is everything."""
        if self.before is None or self.enters is None or self.leaves is None:
            return None
        moved = max(self.enters, self.leaves)
        return moved / self.before if self.before else float(moved > 0)

    @property
    def change(self) -> int | None:
        return None if self.before is None else self.size - self.before

    @property
    def change_share(self) -> float | None:
        return self.change / self.before if self.change is not None and self.before else None

    def far_from(self, other: "Figures") -> bool:
        """Whether these are no longer what somebody who saw the others agreed to."""
        room = MOVED * max(other.before or 0, other.size, 1)
        pairs = (
            (self.before, other.before),
            (self.size, other.size),
            (self.enters, other.enters),
            (self.leaves, other.leaves),
        )
        return any((now is None) != (then is None) or abs((now or 0) - (then or 0)) > room for now, then in pairs)


@dataclass(frozen=True, slots=True)
class Impact:
    """The figures of one rule against one live version, and who they are."""

    sha256: str
    live: int | None  # the live version's id
    figures: Figures
    members: BitMap = field(repr=False)
    previous: BitMap | None = field(repr=False)

    @property
    def entering(self) -> BitMap:
        return self.members - self.previous if self.previous is not None else BitMap()

    @property
    def leaving(self) -> BitMap:
        return self.previous - self.members if self.previous is not None else BitMap()


@dataclass(frozen=True, slots=True)
class Someone:
    """One of the people whom it moves, masked."""

    profile_no: int
    title: str
    known_by: str


@dataclass(frozen=True, slots=True)
class OverlapChange:
    """How many people the audience shares with another one, now and under the rule."""

    key: str
    before: int
    after: int

    @property
    def change(self) -> int:
        return self.after - self.before


def measure(audience: Audience, tree: Node, *, pin: Pinned | None = None, stop: Stop | None = None) -> Impact:
    """Count this rule as if it were the audience's, on `pin`'s data or, without one, on that of now. Raises Unmeasured; and Stopped, once
    `stop` was told so."""
    try:
        resolved = vocabulary.resolved(tree, audience.key)
    except grammar.Refused as refused:
        raise Unmeasured(f"It cannot be counted: {refused}.") from None
    if problems := vocabulary.known().problems(resolved, also=[audience.key]):
        raise Unmeasured(f"It cannot be counted: {problems[0]}.")
    with nullcontext(pin) if pin else refreshes.pinned(clock.now_us()) as held:
        try:
            members = refreshes.members_of(resolved, held, stop)
        except UnreadableLake:
            raise Unmeasured("Files of the event history could not be read just now. Try again.") from None
    return of_members(audience, grammar.sha256(tree), members, held.as_of_us)


def of_members(audience: Audience, sha256: str, members: BitMap, as_of_us: int) -> Impact:
    """What it does to the audience as it stands that a rule finds these people. One query."""
    packed = Membership.objects.filter(audience=audience).values_list("members", flat=True).first()
    previous = None if packed is None else bitmaps.unpack(packed)
    figures = Figures(
        before=None if previous is None else len(previous),
        size=len(members),
        enters=None if previous is None else len(members - previous),
        leaves=None if previous is None else len(previous - members),
        as_of_us=as_of_us,
    )
    return Impact(sha256, audience.live_version_id, figures, members, previous)


def overlaps(audience: Audience, impact: Impact, *, most: int = 5) -> list[OverlapChange]:
    """With which other live audiences it shares more or fewer people, the largest change first. One query."""
    if impact.previous is None:
        return []
    rows = Membership.objects.filter(audience__archived_at=None, audience__live_version__isnull=False)
    found = []
    for key, packed in rows.exclude(audience=audience).values_list("audience__key", "members"):
        other = bitmaps.unpack(packed)
        before = impact.previous.intersection_cardinality(other)
        after = impact.members.intersection_cardinality(other)
        if before != after:
            found.append(OverlapChange(key, before, after))
    return sorted(found, key=lambda one: (-abs(one.change), one.key))[:most]


def some_of(people: BitMap, *, most: int = 5) -> list[Someone]:
    """A few of them, from all over the set, masked. Three queries."""
    numbers = list(_spread(people, most))
    titles = standings.titles(numbers)
    known = {
        row.profile_no: row for row in Identity.objects.filter(profile_no__in=numbers, replaced_at=None, erased_at=None)
    }
    return [Someone(number, titles[number], _known_by(known.get(number))) for number in numbers if number in titles]


def seal(sha256: str, live: int | None, figures: Figures | None, retires_old_at: datetime | None = None) -> str:
    """The figures as a page carries them to the one who decides, with the way in which it is to be published, so that what they saw is on
    record and nobody can make it up. None: the page said that it could not be counted; that it is published in its place."""
    return signing.dumps([sha256, live, list(astuple(figures)) if figures else None, _said(retires_old_at)], salt=_SALT)


def unseal(text: str, version: SegmentVersion) -> tuple[bool, Figures | None]:
    """Whether a page of ours carried this about the version as it is asked for now; and the figures that were seen."""
    try:
        sha256, live, figures, way = signing.loads(text, salt=_SALT)
    except (signing.BadSignature, ValueError):
        return False, None
    now = (version.sha256, version.audience.live_version_id, _said(version.retires_old_at))
    return (sha256, live, way) == now, Figures(*figures) if figures else None


def _said(moment: datetime | None) -> str:
    return moment.isoformat() if moment else ""


def _spread(people: BitMap, most: int) -> Iterator[int]:
    """Evenly over the set, so that it is not always the oldest."""
    count = len(people)
    for at in range(min(most, count)):
        yield people[at * count // min(most, count)]


def _known_by(identity: Identity | None) -> str:
    if identity is None:
        return ""
    words = masking.email(identity.email) if identity.email else masking.phone(identity.phone) if identity.phone else ""
    return " · ".join(part for part in (words, identity.country) if part)
