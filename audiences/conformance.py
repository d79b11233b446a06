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
SHOWN = 10  # of so many that would stop following, the page says why


@dataclass(frozen=True, slots=True)
class Row:
    """How one name stands. What is only said of names that are shown is worked out when it is asked for."""

    audience: Audience
    state: str
    convention: Convention | None = field(default=None, repr=False)

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

    @property
    def why(self) -> tuple[str, ...]:
        if self.convention is None or self.state == OK:
            return ()
        if self.state == EXCEPTED:
            return (self.audience.name_reason,)
        if self.state == TWIN:
            return ("Another audience has this name too.",)
        return tuple(wrong(self.audience, self.convention))

    @property
    def parts(self) -> tuple[Part, ...]:
        return naming.parts(self.convention, self.audience.name) if self.convention else ()

    @property
    def suggested(self) -> str:
        """What it would be called; empty where its parts must be chosen by a person, or nothing is to be done."""
        if self.convention is None or self.state not in (BROKEN, VERSION):
            return ""
        return suggestion(self.audience, self.convention, self.proposed)

    @property
    def proposed(self) -> dict[str, str]:
        """Part → the value that it should have; some may be missing."""
        if self.convention is None:
            return {}
        live = self.audience.live_version
        about = service.gist_of_text(live.segment) if live else None
        return service.proposed(self.convention, self.audience, about)

    @property
    def notes(self) -> tuple[str, ...]:
        """Parts that say another than the rule, with whoever's reason."""
        kept = self.audience.name_overrides.items() if self.convention else ()
        return tuple(f"{token} stays {said.get('value', '')}: {said.get('reason', '')}" for token, said in kept)


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
    to_fix: int
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
    shown = (
        "key", "name", "name_tokens", "name_reason", "name_overrides", "purpose", "description",
        "live_version__number", "live_version__segment",
    )  # fmt: skip
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
    return Table(tuple(found), len(rows), counts[OK], fix, tuple(filters))


def doubled(everybody: Iterable[Audience]) -> frozenset[str]:
    """Names that more than one audience has."""
    counts = Counter(audience.name for audience in everybody)
    return frozenset(name for name, count in counts.items() if count > 1)


def of(audience: Audience, convention: Convention | None, twins: frozenset[str] = frozenset()) -> Row:
    """How one name stands. No query, if its live version is at hand."""
    if convention is None:
        return Row(audience, FREE)
    if audience.name_reason:
        return Row(audience, EXCEPTED, convention)
    read = naming.parse(convention, audience.name)
    if read is None:
        return Row(audience, BROKEN, convention)
    if _formal(audience, convention, read):
        other = naming.contradictions(convention, audience.name, read, audience.name_tokens or None)
        other = other or [str(problem) for problem in service.contradictions(convention, audience, read)]
        return Row(audience, BROKEN if other else VERSION, convention)
    if audience.name in twins:
        return Row(audience, TWIN, convention)
    return Row(audience, BROKEN if service.contradictions(convention, audience, read) else OK, convention)


def wrong(audience: Audience, convention: Convention) -> list[str]:
    """Why its name does not follow this convention; empty: it does."""
    read = naming.parse(convention, audience.name)
    return naming.problems(convention, audience.name) if read is None else _against(audience, convention, read)


def follows(audience: Audience, convention: Convention) -> bool:
    read = naming.parse(convention, audience.name)
    return read is not None and not _against(audience, convention, read)


def _against(audience: Audience, convention: Convention, read: Mapping[str, str]) -> list[str]:
    """What else is wrong with a name that can be read: in itself, or by what the rule says."""
    by_rule = service.contradictions(convention, audience, read)
    return [*_formal(audience, convention, read), *(problem.words for problem in by_rule)]


def _formal(audience: Audience, convention: Convention, read: Mapping[str, str]) -> list[str]:
    token = convention.of_kind(naming.CHANNEL)
    return naming.contradictions(
        convention,
        audience.name,
        read,
        audience.name_tokens or None,
        version=service.number_of(audience),
        length=service.room(convention, read.get(token.name, "") if token else ""),
    )


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
    stops: list[Fate] = []
    begins: list[Fate] = []
    stays = 0
    for audience in audiences():
        if audience.name_reason:
            continue
        followed, will = before is not None and follows(audience, before), follows(audience, convention)
        if followed and not will:
            why = wrong(audience, convention)[0] if len(stops) < SHOWN else ""
            stops.append(Fate(audience.key, audience.name, why))
        elif will and not followed:
            begins.append(Fate(audience.key, audience.name))
        else:
            stays += will
    return Effect(tuple(stops), tuple(begins), stays)


def _text(row: Row) -> str:
    return f"{row.audience.key} {row.audience.name}".casefold()
