"""What something that has just happened to people decides: who must leave which connection at once and why, and who enters suppression.

Nothing is decided that a count at the same moment would not say: the rule is judged by segments/judge.py, the order is eligibility.py's.
Ordinary adds wait for the next count, and so does whoever only time, a new rule or a changed attribute takes out. Writes nothing.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pyroaring import BitMap

from audiences import clock
from audiences.bitmaps import unpack
from audiences.models import Alias, Audience, ChangeLog
from audiences.people import presently
from audiences.segments.judge import Person, judge
from destinations import changes, eligibility, identities, plan
from destinations.changes import Change
from destinations.eligibility import Known
from destinations.interest import Interest
from destinations.ledger import Decided
from destinations.models import Ledger
from destinations.models import Mapping as Connection

_GONE = (ChangeLog.Kind.DELETE.value, ChangeLog.Kind.ERASURE.value)


@dataclass(slots=True)
class News:
    """What has happened to one person: up to which mark, since when (µs), and whose profiles turned out to be theirs."""

    mark: int
    since_us: int
    events: set[str] = field(default_factory=set)
    gone: bool = False
    consent: bool = False
    merged: set[int] = field(default_factory=set)

    @property
    def everywhere(self) -> bool:
        """Whether it may concern every connection, whatever its rule names."""
        return self.gone or self.consent or bool(self.merged)


@dataclass(frozen=True, slots=True)
class _There:
    """Of the people at hand, who is in a connection's last count and who is, or may be, on its platform; the version counted by."""

    base: BitMap
    told: BitMap
    version_id: int | None


def news_of(lines: Iterable[Change]) -> dict[int, News]:
    """The lines of the change log by person; merges lead to the survivor. A changed identifier is no news: the next sync tells it."""
    lines = [line for line in lines if line.kind != ChangeLog.Kind.IDENTITY]
    became = dict(
        Alias.objects.filter(old_no__in={line.profile_no for line in lines}).values_list("old_no", "survivor_no")
    )
    found: dict[int, News] = {}
    for line in lines:
        number = became.get(line.profile_no, line.profile_no)
        news = found.setdefault(number, News(line.mark, line.at_us))
        news.mark, news.since_us = max(news.mark, line.mark), min(news.since_us, line.at_us)
        if line.kind == ChangeLog.Kind.EVENT:
            news.events.add(line.name)
        elif line.kind in _GONE:
            news.gone = True
        elif line.kind == ChangeLog.Kind.CONSENT:
            news.consent = True
        if number != line.profile_no:
            news.merged.add(line.profile_no)
    return found


def of(interest: Interest, news: Mapping[int, News]) -> dict[int, list[Decided]]:
    """By connection, what is decided of these people. A fixed number of queries, but for one more for each suppression connection."""
    out_of, into = _concerned(interest, news)
    own = _own(news)
    there = _there(set(out_of) | set(into), own)
    out_of = {
        pk: met
        for pk, people in out_of.items()
        if (met := {n for n in people if own[n] & (there[pk].base | there[pk].told)})
    }
    judged = _Judged(interest, news, out_of, into)
    found: dict[int, list[Decided]] = defaultdict(list)
    for pk, people in out_of.items():
        for number, cause in _leaving(interest.connections[pk], people, news, judged, there[pk].version_id).items():
            for identity in own[number] & (there[pk].base | there[pk].told):
                found[pk].append(_decided(identity, news[number], False, cause, identity in there[pk].told))
    for pk, people in into.items():
        for identity, number in _entering(interest.connections[pk], people, own, judged).items():
            found[pk].append(_decided(identity, news[number], True, plan.PURCHASE, identity in there[pk].told))
    return dict(found)


def _decided(identity: int, news: News, wanted: bool, cause: str, there: bool) -> Decided:
    return Decided(identity, news.mark, wanted, cause, clock.from_us(news.since_us), there)


def _concerned(interest: Interest, news: Mapping[int, News]) -> tuple[dict[int, set[int]], dict[int, set[int]]]:
    """By connection: who may have to leave it, and who may enter it."""
    out_of: dict[int, set[int]] = defaultdict(set)
    into: dict[int, set[int]] = defaultdict(set)
    for number, one in news.items():
        for pk in interest.connections if one.everywhere else interest.taken_out(one.events):
            out_of[pk].add(number)
        if not one.gone:
            suppressing = interest.brought_in(one.events)
            if one.merged:
                suppressing = {pk for pk, row in interest.connections.items() if _suppresses(row)}
            for pk in suppressing:
                into[pk].add(number)
    return out_of, into


def _own(news: Mapping[int, News]) -> dict[int, BitMap]:
    """Each person's identities, those of before and of merged profiles too."""
    owner = {old: number for number, one in news.items() for old in (number, *one.merged)}
    own: dict[int, BitMap] = {number: BitMap() for number in news}
    for identity, profile in identities.of_profiles(list(owner)):
        own[owner[profile]].add(identity)
    return own


def _there(connections: set[int], own: Mapping[int, BitMap]) -> dict[int, _There]:
    everyone = BitMap().union(*own.values())
    nobody = _There(BitMap(), BitMap(), None)
    found = dict.fromkeys(connections, nobody)
    rows = Ledger.objects.filter(mapping__in=connections)
    for pk, base, present, unknown, version in rows.values_list(
        "mapping", "base", "present", "unknown", "refresh__version"
    ):
        told = (unpack(present) & everyone) | (unpack(unknown) & everyone)
        found[pk] = _There(unpack(base) & everyone, told, version)
    return found


class _Judged:
    """Everybody at hand judged for the connections at hand: as they are now, and as they were before what has just come in."""

    def __init__(
        self,
        interest: Interest,
        news: Mapping[int, News],
        out_of: Mapping[int, set[int]],
        into: Mapping[int, set[int]],
    ) -> None:
        self.interest = interest
        people = {n for some in (*out_of.values(), *into.values()) for n in some}
        living = {n for n in people if not news[n].gone}
        since = {n: news[n].since_us for n in living}
        found = presently.people(since, interest.leaves({*out_of, *into}))
        self._as_of_us = found.as_of_us
        self._now, self._before = found.people, found.before
        self._said: dict[tuple[int, int, bool], bool] = {}
        self.known = Known(BitMap(people), lambda audience: self.members(audience, people))
        self._known_before = Known(BitMap(people), lambda audience: self.members(audience, people, before=True))

    def knows(self, audience: Audience) -> bool:
        return audience.pk in self.interest.trees

    def members(self, audience: Audience, people: Iterable[int], *, before: bool = False) -> BitMap:
        """Those whom the audience's rule takes in; nobody where it cannot be judged."""
        return BitMap(n for n in people if self.is_in(audience.pk, n, before=before))

    def is_in(self, audience_id: int, number: int, *, before: bool = False) -> bool:
        asked = (audience_id, number, before)
        if asked not in self._said:
            tree = self.interest.trees.get(audience_id)
            person: Person | None = (self._before if before else self._now).get(number)
            self._said[asked] = tree is not None and person is not None and judge(tree, person, self._as_of_us)
        return self._said[asked]

    def wanted(self, mapping: Connection, people: Iterable[int]) -> BitMap:
        """Of these, whom the whole order leaves. Raises eligibility.NotAnswered."""
        members = self.members(mapping.audience, people)
        return eligibility.judge(mapping, members, self.known, self.interest.others[mapping.pk])[0]

    def newly_excluded(self, mapping: Connection) -> BitMap:
        """Those whom an audience that is left out here has taken in only now."""
        others = self.interest.others[mapping.pk]
        return self.known.excluded(mapping, others) - self._known_before.excluded(mapping, others)


def _leaving(
    mapping: Connection, people: set[int], news: Mapping[int, News], judged: _Judged, version_id: int | None
) -> dict[int, str]:
    """Who is not wanted any more because of what has happened → why."""
    known = judged.known
    causes = {n: plan.ERASURE for n in people if n in known.gone}
    try:
        causes |= {n: plan.CONSENT for n in people if n not in causes and n in known.barred(mapping.audience.purpose)}
        staying = {n for n in people if n not in causes and (news[n].events or news[n].merged)}
        if _suppresses(mapping) or not judged.knows(mapping.audience) or not staying:
            return causes  # who leaves suppression is shown advertisements again: that waits for a count and its limits
        leaving = BitMap(staying) - judged.wanted(mapping, staying)
    except eligibility.NotAnswered:
        return causes
    newly_excluded = judged.newly_excluded(mapping) if leaving else BitMap()
    same_rule = version_id == mapping.audience.live_version_id
    for number in leaving:
        if news[number].events & changes.PURCHASES or number in newly_excluded:
            causes[number] = plan.PURCHASE
        elif news[number].merged:
            causes[number] = plan.IDENTITY
        elif (
            same_rule
            and judged.is_in(mapping.audience_id, number, before=True)
            and not judged.is_in(mapping.audience_id, number)
        ):
            causes[number] = plan.RULE
    return causes


def _entering(mapping: Connection, people: set[int], own: Mapping[int, BitMap], judged: _Judged) -> dict[int, int]:
    """Identity → whose, of those whom what they did brings into a suppression audience."""
    try:
        wanted = judged.wanted(mapping, people)
    except eligibility.NotAnswered:
        return {}
    if mapping.state == Connection.State.TRIAL:
        wanted = plan.sampled(wanted, mapping.trial_percent)
    in_force, _ = identities.in_force(wanted, mapping.identifiers)
    return {identity: n for n in wanted for identity in own[n] & in_force}


def _suppresses(mapping: Connection) -> bool:
    return bool(mapping.audience.purpose == Audience.Purpose.SUPPRESSION)
