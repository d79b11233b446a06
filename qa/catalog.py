"""The catalogue: every audience as its users look for it, trouble first. Reads only, frozen values, a fixed number of queries.

`find` looks at all of them to search, filter, count and sort; `dress` adds what only the rows of one page show.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from django.http import QueryDict

from audiences import charts, naming, owners, queries, replacements
from audiences.models import Audience, Replacement, TestLock, User
from audiences.queries import Health
from audiences.services import locks
from audiences.services import naming as naming_service
from destinations import placements
from destinations.placements import Place, Placement
from qa import pairs, troubles
from qa.limits import Allowed
from qa.models import Incident

TROUBLE = ("Problem", "Watch")
WORDS = 200  # characters of a search
RESERVED = ("q", "only", "destination", "channel", "owner", "page")


@dataclass(frozen=True, slots=True)
class Wish:
    """What the address asks for. `parts`: token of the naming convention → value."""

    words: str = ""
    only: str = ""
    destination: str = ""
    channel: str = ""
    owner: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        return bool(self.words or self.only or self.destination or self.channel or self.owner or self.parts)


@dataclass(frozen=True, slots=True)
class Option:
    value: str
    label: str
    count: int


@dataclass(frozen=True, slots=True)
class Select:
    """A filter with one value: its name in the address, its words, what may be chosen."""

    name: str
    label: str
    options: tuple[Option, ...]
    chosen: str


@dataclass(frozen=True, slots=True)
class Found:
    """An audience that is looked for. `owners`: who holds its four roles, once each."""

    row: queries.Row
    health: Health
    incident: Incident | None
    places: tuple[Place, ...]
    owners: tuple[User, ...]
    parts: Mapping[str, str]
    followed: bool

    @property
    def audience(self) -> Audience:
        return self.row.audience

    @property
    def archived(self) -> bool:
        return self.row.audience.archived_at is not None


@dataclass(frozen=True, slots=True)
class Partner:
    """A suppression audience by what it is called on one platform."""

    key: str
    name: str


@dataclass(frozen=True, slots=True)
class Beside:
    """The suppression audiences that belong to an audience where one of its connections goes. `missing`: the names of those not there."""

    partners: tuple[Partner, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class There:
    """A connection with what an ad set there must name: the audience itself, and whom to leave out."""

    placement: Placement
    beside: Beside

    @property
    def include_and_exclude(self) -> str:
        """Two lines for the ad set; empty where there is nobody to exclude there."""
        if not self.beside.partners:
            return ""
        return f"Include: {self.placement.name}\nExclude: {', '.join(partner.name for partner in self.beside.partners)}"


@dataclass(frozen=True, slots=True)
class Line:
    """A row of the catalogue, whole."""

    found: Found
    spark: charts.Spark
    there: tuple[There, ...]
    partners: tuple[Audience, ...]
    left_out_of: int  # audiences that this one is linked to as a suppression
    lock: TestLock | None
    synced_at: datetime | None
    leaving: Replacement | None  # it retires on a date, and what takes its place

    @property
    def unguarded(self) -> bool:
        """Retargeting with nobody to leave out: people who have bought go on seeing its ads."""
        return self.found.audience.purpose == Audience.Purpose.RETARGETING and not self.partners


@dataclass(frozen=True, slots=True)
class Catalog:
    """`found` match; `total` are all that are not archived."""

    found: tuple[Found, ...]
    total: int
    trouble: int
    chips: tuple[Option, ...]
    selects: tuple[Select, ...]
    wish: Wish


def find(user: User, asked: QueryDict) -> Catalog:
    """Those whose names, rule, purpose, owners or destinations hold every word and that pass every filter."""
    convention = naming_service.current()
    people = {person.pk: person for person in User.objects.only("pk", "name", "email", "is_active")}
    follows = set(user.follows.values_list("pk", flat=True))
    places, open_now = placements.everywhere(), troubles.open_for()
    all_ = []
    for row in queries.rows():
        here, pk = tuple(places.get(row.audience.pk, ())), row.audience.pk
        incident = next(iter(open_now.get(pk, ())), None)
        all_.append(
            Found(
                row,
                health(row, incident, [place.trouble for place in here]),
                incident,
                here,
                _owners(row.audience, people),
                naming_service.tokens_of(convention, row.audience),
                pk in follows,
            )
        )
    live = [one for one in all_ if not one.archived]
    tokens = _tokens(convention)
    wish = _wish(asked, tokens)
    tests: dict[str, Callable[[Found], bool]] = {
        "attention": lambda one: one.health.word in TROUBLE,
        "mine": lambda one: user in one.owners,
        "following": lambda one: one.followed,
    }
    tests.update({purpose: _is(purpose) for purpose in Audience.Purpose.values})
    pool = [one for one in all_ if one.archived] if wish.only == "archived" else live
    selects = _selects(pool, wish, tokens)
    if wish.only in tests:
        pool = [one for one in pool if tests[wish.only](one)]
    found = [one for one in pool if _passes(one, wish)]
    found.sort(key=lambda one: (queries.BY_TROUBLE[one.health.word], one.audience.name.casefold(), one.audience.key))
    trouble = sum(tests["attention"](one) for one in live)
    return Catalog(tuple(found), len(live), trouble, tuple(_chips(all_, live, tests, wish.only)), selects, wish)


def dress(found: Sequence[Found]) -> list[Line]:
    """These rows with their curves, connections, partners and tests. A fixed number of queries."""
    convention = naming_service.current()
    ids = [one.audience.pk for one in found]
    partners_of = pairs.partners(ids)
    others = {partner.pk for partners in partners_of.values() for partner in partners}
    there = placements.of({*ids, *others}, convention)
    allowed = troubles.allowed(ids)
    locked, left_out, leaving = locks.locked_among(ids), pairs.left_out_of(ids), replacements.leaving(ids)
    lines = []
    for one in found:
        pk = one.audience.pk
        mine, partners = there.get(pk, []), partners_of.get(pk, [])
        synced = [placement.synced_at for placement in mine if placement.synced_at]
        lines.append(
            Line(
                one,
                spark(one.row, allowed.get(pk)),
                tuple(There(placement, beside(placement, partners, there)) for placement in mine),
                tuple(partners),
                left_out.get(pk, 0),
                locked.get(pk),
                max(synced, default=None),
                leaving.get(pk),
            )
        )
    return lines


def spark(row: queries.Row, allowed: Allowed | None) -> charts.Spark:
    """Its curve within the limits that hold for it."""
    if allowed is None:
        return row.spark()
    return row.spark(allowed.size_share, allowed.usual_from.date() if allowed.usual_from else None)


def health(row: queries.Row, incident: Incident | None, troubles: Iterable[str]) -> Health:
    """The worst of: its open incident, its connections' standing, its counts. An archived audience has no troubles."""
    counted = row.health
    if counted.word == "Paused":
        return counted
    ways = [counted]
    if incident is not None:
        ways.insert(0, Health(incident.get_severity_display(), incident.sentence))
    ways += [Health("Problem", words) for words in troubles if words]
    return min(ways, key=lambda way: queries.BY_TROUBLE[way.word])


def beside(placement: Placement, partners: Iterable[Audience], there: Mapping[int, Sequence[Placement]]) -> Beside:
    """What the partners are called where this connection goes."""
    found: list[Partner] = []
    missing: list[str] = []
    for partner in partners:
        same = [
            other
            for other in there.get(partner.pk, ())
            if other.mapping.destination_id == placement.mapping.destination_id and other.there
        ]
        if same:
            found.append(Partner(partner.key, same[0].name))
        else:
            missing.append(partner.name)
    return Beside(tuple(found), tuple(missing))


def _is(purpose: str) -> Callable[[Found], bool]:
    return lambda one: one.audience.purpose == purpose


def _owners(audience: Audience, people: Mapping[int, User]) -> tuple[User, ...]:
    ids = dict.fromkeys(getattr(audience, f"{role.field}_id") for role in owners.ROLES)
    return tuple(people[pk] for pk in ids if pk in people)


def _tokens(convention: naming.Convention | None) -> tuple[naming.Token, ...]:
    """The tokens by which one may filter: those with few values. A channel is filtered by where an audience really goes."""
    if convention is None:
        return ()
    return tuple(
        token
        for token in convention.tokens
        if token.kind in (naming.CHOICE, naming.WINDOW) and token.name not in RESERVED
    )


def _wish(asked: QueryDict, tokens: Iterable[naming.Token]) -> Wish:
    def said(name: str) -> str:
        return asked.get(name, "").replace("\0", "")[:WORDS].strip()

    only = said("only")
    known = {"attention", "mine", "following", "archived", *Audience.Purpose.values}
    parts = {token.name: said(token.name) for token in tokens if said(token.name)}
    return Wish(said("q"), only if only in known else "", said("destination"), said("channel"), said("owner"), parts)


def _passes(one: Found, wish: Wish) -> bool:
    if wish.destination and all(place.destination != wish.destination for place in one.places):
        return False
    if wish.channel and all(place.kind != wish.channel for place in one.places):
        return False
    if wish.owner and all(str(owner.pk) != wish.owner for owner in one.owners):
        return False
    if any(one.parts.get(token) != value for token, value in wish.parts.items()):
        return False
    words = wish.words.casefold().split()
    return not words or _holds(one, words)


def _holds(one: Found, words: Iterable[str]) -> bool:
    audience = one.audience
    told = (
        audience.key,
        audience.name,
        audience.description,
        audience.get_purpose_display(),
        one.row.sentence,
        *map(str, one.owners),
        *(f"{place.destination_name} {place.platform} {place.remote_name}" for place in one.places),
    )
    text = " ".join(told).casefold()
    return all(word in text for word in words)


def _chips(
    all_: Sequence[Found], live: Sequence[Found], tests: Mapping[str, Callable[[Found], bool]], chosen: str
) -> Iterable[Option]:
    """A chip for whatever holds somebody, and for the one that is chosen."""
    yield Option("", "All", len(live))
    labels = {
        "attention": "Needs attention",
        **dict(Audience.Purpose.choices),
        "mine": "Mine",
        "following": "Following",
    }
    for value, words in labels.items():
        number = sum(map(tests[value], live))
        if number or value == chosen:
            yield Option(value, words, number)
    archived = len(all_) - len(live)
    if archived or chosen == "archived":
        yield Option("archived", "Archived", archived)


def _selects(pool: Sequence[Found], wish: Wish, tokens: Iterable[naming.Token]) -> tuple[Select, ...]:
    """Each filter with the values that occur. One without a choice is left out, unless something is chosen."""
    places = {place.destination: place.destination_name for one in pool for place in one.places}
    kinds = {place.kind: place.platform for one in pool for place in one.places}
    named = {str(owner.pk): str(owner) for one in pool for owner in one.owners}
    found = [
        _select("destination", "Destination", wish.destination, places, (_each(one, "destination") for one in pool)),
        _select("channel", "Channel", wish.channel, kinds, (_each(one, "kind") for one in pool)),
    ]
    for token in tokens:
        values = [{one.parts[token.name]} for one in pool if token.name in one.parts]
        words = {value: value for value in sorted(set().union(*values))}
        label = token.name.replace("_", " ").capitalize()
        found.append(_select(token.name, label, wish.parts.get(token.name, ""), words, values))
    found.append(
        _select("owner", "Owner", wish.owner, named, ({str(owner.pk) for owner in one.owners} for one in pool))
    )
    return tuple(select for select in found if len(select.options) > 1 or select.chosen)


def _each(one: Found, attribute: str) -> set[str]:
    return {getattr(place, attribute) for place in one.places}


def _select(name: str, label: str, chosen: str, words: Mapping[str, str], held: Iterable[set[str]]) -> Select:
    counts = Counter(value for values in held for value in values)
    options = [
        Option(value, word, counts[value]) for value, word in sorted(words.items(), key=lambda item: item[1].casefold())
    ]
    if chosen and chosen not in words:
        options.append(Option(chosen, "Something else", 0))
    return Select(name, label, tuple(options), chosen)
