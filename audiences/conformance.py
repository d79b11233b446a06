"""Which names follow the convention, why the others do not, and what they would be called. Reads only; services/naming.py renames."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from audiences import naming
from audiences.models import Audience
from audiences.naming import Convention, NamingRefused, Part
from audiences.services import naming as service

OK, VERSION, BROKEN, TWIN, EXCEPTED, FREE = "ok", "version", "broken", "twin", "excepted", "free"
LABELS = {
    OK: "Follows",
    VERSION: "Another version",
    BROKEN: "Rename suggested",
    TWIN: "Taken twice",
    EXCEPTED: "Exception",
    FREE: "No convention",
}
TO_FIX = (BROKEN, VERSION, TWIN)


@dataclass(frozen=True, slots=True)
class Row:
    """`suggested` is empty where the parts must be chosen by a person; `tokens` are those that it is made of, or as far as they could be guessed."""

    audience: Audience
    state: str
    why: tuple[str, ...] = ()
    suggested: str = ""
    tokens: Mapping[str, str] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()

    @property
    def label(self) -> str:
        return LABELS[self.state]

    @property
    def key_is_said(self) -> bool:
        """Whether the name says the key already, so that it need not stand beside it."""
        return self.audience.name.startswith(self.audience.key)

    @property
    def to_fix(self) -> bool:
        return self.state in TO_FIX


@dataclass(frozen=True, slots=True)
class Filter:
    value: str
    label: str
    count: int


@dataclass(frozen=True, slots=True)
class Table:
    rows: tuple[Row, ...]  # those that match
    total: int
    follow: int
    filters: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Fate:
    """An audience whose name a new convention would treat otherwise."""

    key: str
    name: str
    why: str = ""


@dataclass(frozen=True, slots=True)
class Effect:
    """What a convention would do to the names there are."""

    stops: tuple[Fate, ...]
    begins: tuple[Fate, ...]
    stays: int

    @property
    def agreed(self) -> str:
        """What somebody has seen who saves it all the same."""
        return f"{len(self.stops)}:{','.join(fate.key for fate in self.stops)}"[:1000]


def audiences() -> list[Audience]:
    """All that are not archived, as far as names go. One query."""
    rows = Audience.objects.filter(archived_at=None).select_related("live_version")
    shown = ("key", "name", "name_tokens", "name_reason", "purpose", "description", "live_version__number")
    return list(rows.only(*shown).order_by("key"))


def table(*, only: str = "", words: str = "") -> Table:
    """Every audience's name, those to fix first; `only` is a state or `fix`. Two queries, whatever the number of audiences."""
    convention = service.current()
    everybody = audiences()
    twins = doubled(everybody)
    rows = sorted((of(audience, convention, twins) for audience in everybody), key=lambda row: not row.to_fix)
    counts = Counter(row.state for row in rows)
    fix = sum(counts[state] for state in TO_FIX)
    filters = [Filter("", "All", len(rows))]
    filters += [Filter("fix", "To fix", fix)] if fix or only == "fix" else []
    filters += [Filter(s, LABELS[s], counts[s]) for s in (OK, EXCEPTED) if counts[s] or only == s]
    chosen = [row for row in rows if not only or row.state == only or (only == "fix" and row.to_fix)]
    wanted = words.casefold().split()
    found = [row for row in chosen if all(word in _text(row) for word in wanted)]
    return Table(tuple(found), len(rows), counts[OK], tuple(filters))


def doubled(everybody: Iterable[Audience]) -> frozenset[str]:
    """Names that more than one audience has."""
    counts = Counter(audience.name for audience in everybody)
    return frozenset(name for name, count in counts.items() if count > 1)


def of(audience: Audience, convention: Convention | None, twins: frozenset[str] = frozenset()) -> Row:
    """How one name stands. No query, if its live version is at hand."""
    if convention is None:
        return Row(audience, FREE)
    if audience.name_reason:
        return Row(audience, EXCEPTED, (audience.name_reason,), tokens=service.tokens_of(convention, audience))
    why = wrong(audience, convention)
    parts = naming.parts(convention, audience.name)
    tokens = service.tokens_of(convention, audience)
    if not why and audience.name in twins:
        return Row(audience, TWIN, ("Another audience has this name too.",), "", tokens, parts)
    if not why:
        return Row(audience, OK, (), "", tokens, parts)
    state = VERSION if parts and naming.problems(convention, audience.name) == [] else BROKEN
    tokens = tokens or naming.guess(convention, audience.name, audience.key)
    return Row(audience, state, tuple(why), suggestion(audience, convention, tokens), tokens, parts)


def wrong(audience: Audience, convention: Convention) -> list[str]:
    """Why its name does not follow this convention; empty: it does."""
    token = convention.of_kind(naming.CHANNEL)
    read = naming.parse(convention, audience.name) or {}
    room = service.room(convention, read.get(token.name, "") if token else "")
    tokens = service.tokens_of(convention, audience)
    return naming.problems(convention, audience.name, tokens, version=service.number_of(audience), length=room)


def suggestion(audience: Audience, convention: Convention, tokens: Mapping[str, str]) -> str:
    """The name that these parts give; empty where they do not give one, or only the one that it has."""
    try:
        name = service.built(convention, tokens, service.number_of(audience))
    except NamingRefused:
        return ""
    return name if name != audience.name else ""


def effect(convention: Convention) -> Effect:
    """What would stop following, and what would begin to, if this were the convention. Nothing is written."""
    before = service.current()
    stops, begins, stays = [], [], 0
    for audience in audiences():
        if audience.name_reason:
            continue
        followed = before is not None and not wrong(audience, before)
        why = wrong(audience, convention)
        if followed and why:
            stops.append(Fate(audience.key, audience.name, why[0]))
        elif not followed and not why:
            begins.append(Fate(audience.key, audience.name))
        else:
            stays += not why
    return Effect(tuple(stops), tuple(begins), stays)


def _text(row: Row) -> str:
    return f"{row.audience.key} {row.audience.name} {row.suggested}".casefold()
