"""What the editor shows of a rule that is not live yet: whom it finds, by which of its rules, and how that differs from what is live.

Everything is exact and of one moment: the draft and the live rule are counted on the same data (services/previews.py keeps it). Leaves are
asked for an event at a time, so that a count can be given up in between, and what has not changed is answered from the cache.
"""

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from django.conf import settings
from django.db.models import Max
from pyroaring import BitMap

from audiences import bitmaps, jobs, standings, vocabulary
from audiences.models import Audience, Identity, Membership, Profile
from audiences.people import bulk, engines
from audiences.people.engines.base import Stop, Stopped, UnreadableLake
from audiences.people.engines.cache import Cache
from audiences.people.pins import Pinned
from audiences.segments import evaluate, grammar
from audiences.segments.evaluate import Computed
from audiences.segments.tree import (
    All,
    Any,
    Bucket,
    InCustomerioSegment,
    InList,
    Leaf,
    Measured,
    Moment,
    Node,
    Not,
    Occurred,
    leaves,
)
from audiences.segments.tree import (
    Sequence as Steps,
)
from audiences.services import previews, refreshes
from audiences.services.previews import LATE, NEWER, Question

PATIENCE = 4.0  # seconds that a request waits before it is counted in the background
SAMPLE, OVERLAPS, PARTS = 5, 5, 60
DEEPEST = 3  # steps of indenting
CARRIED = {"email": "E-mail", "phone": "Phone", "external_id": "Own id"}
SHOWN = ("E-mail", "Phone", "Country")  # of whom it shows
LET_GO = "Nobody has looked for half an hour, so the data it was counted on has been let go. Press Recount."
UNREADABLE = "Files of the event history could not be read. Press Recount to try with the data as it is now."
BROKEN_OFF = "The count broke off; the log has the details. Press Recount to try again."
_SCANNED = 200_000  # identities looked at between two looks at whether it is still wanted


@dataclass(frozen=True, slots=True)
class Part:
    """A rule or group in words and how many people it has by itself; `width` is its bar's, of 100, beside the widest's."""

    path: str
    depth: int
    words: str
    group: bool
    people: int
    width: float


@dataclass(frozen=True, slots=True)
class Change:
    """Beside the live version, counted at the same moment. `trouble`: why that could not be."""

    number: int
    people: int | None = None
    plus: int | None = None
    minus: int | None = None
    same: bool = False
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Reach:
    words: str
    people: int
    share: float | None


@dataclass(frozen=True, slots=True)
class Someone:
    """One of the people found, masked."""

    profile_no: int
    title: str
    facts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Overlap:
    """So many of them are in this audience too, as it was last counted."""

    key: str
    name: str
    people: int
    share: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Whom a rule finds of all `of` people at a moment. `change` None: no version is live. `more`: parts that are not listed."""

    people: int
    of: int
    as_of_us: int
    parts: tuple[Part, ...]
    more: int
    change: Change | None
    reach: tuple[Reach, ...]
    sample: tuple[Someone, ...]
    overlaps: tuple[Overlap, ...]

    @property
    def share(self) -> float | None:
        return self.people / self.of if self.of else None

    @property
    def blocking(self) -> Part | None:
        """The first rule that everybody in it has to match, and nobody does."""
        needed = (part for part in self.parts if not part.group and "any" not in part.path and "not" not in part.path)
        return next((part for part in needed if not part.people), None)


@dataclass(frozen=True, slots=True)
class Counted:
    """The people of the draft, and of the live rule where that could be counted."""

    draft: Computed
    live: BitMap | None
    universe: BitMap
    carriers: Mapping[str, BitMap]


def answer(question: Question, audience: Audience, tree: Node, *, people: bool) -> Answer:
    """The whole of it; `people`: with a sample of them. Raises Stopped (NEWER or LATE), UnreadableLake and grammar.Refused."""
    trees, trouble = _trees(audience, tree)
    with previews.stoppable(question) as stop, stop.after(PATIENCE, LATE):
        counted = _count(question, trees, stop)
        stop.check()
        members = counted.draft.members
        overlaps = tuple(_overlaps(audience, members, stop))
    return Answer(
        people=len(members),
        of=len(counted.universe),
        as_of_us=question.pin.as_of_us,
        parts=(parts := tuple(_parts(tree, counted.draft.rule_counts)))[:PARTS],
        more=len(parts[PARTS:]),
        change=_change(audience, tree, members, counted.live, trouble),
        reach=tuple(_reach(members, counted.carriers)),
        sample=tuple(_sample(members, question.pin)) if people else (),
        overlaps=overlaps,
    )


@jobs.job(previews.TASK, queue="compute")
def in_background(claim: jobs.Claim) -> None:
    """Ask what the newest question of the preview whose id is the key needs; whoever looks again finds it answered."""
    found = previews.in_background(int(claim.key))
    if found is None:
        return
    (last, audience), trouble = found, ""
    question = last.question
    if question is None:
        return  # nobody waits for it any more; whoever looks again is told
    try:
        trees, _ = _trees(audience, vocabulary.rule(last.segment))
        with previews.stoppable(question) as stop:
            _count(question, trees, stop)
    except Stopped:
        return  # the newer question has its own
    except (UnreadableLake, grammar.Refused, evaluate.Unanswerable) as error:
        trouble = words_of(error)
    except Exception:
        previews.settle(question, BROKEN_OFF)
        raise
    previews.settle(question, trouble)


def words_of(error: Exception) -> str:
    """Why it could not be counted, and what to do."""
    if isinstance(error, UnreadableLake):
        return UNREADABLE
    return f"It cannot be counted: {error}. Change that rule, or press Recount if it has just been put right."


def _trees(audience: Audience, tree: Node) -> tuple[dict[str, Node], str]:
    """What is counted, references resolved; and why the live rule is not among it. Raises grammar.Refused where the draft cannot be."""
    trees = {"draft": vocabulary.resolved(tree, audience.key)}
    if audience.live_version is None:
        return trees, ""
    try:
        live = vocabulary.resolved(vocabulary.rule(audience.live_version.segment))
    except grammar.Refused as refused:
        return trees, str(refused)
    if problems := vocabulary.known().problems(live):
        return trees, "; ".join(map(str, problems))
    return {**trees, "live": live}, ""


def _count(question: Question, trees: Mapping[str, Node], stop: Stop) -> Counted:
    """Raises Stopped, UnreadableLake."""
    engine, pin = engines.current(), question.pin
    answers: dict[Leaf, BitMap] = {}
    asked: dict[Leaf, None] = {}
    lists = refreshes.lists_of(trees.values())
    for tree in trees.values():
        for _, leaf in leaves(tree):
            if isinstance(leaf, InList | InCustomerioSegment):
                answers[leaf] = evaluate.listed(leaf, lists)
            else:
                asked[leaf] = None
    universe = engine.universe(pin)
    for together in _batches(asked):
        _still_wanted(question, stop)
        answers |= engine.members(together, pin, stop)
    carriers = _carriers(question, stop)
    computed = evaluate.computed(trees, universe, answers)
    live = computed["live"].members if "live" in computed else None
    return Counted(computed["draft"], live, universe, carriers)


def _batches(asked: Mapping[Leaf, None]) -> list[list[Leaf]]:
    """Leaves that one statement answers together."""
    found: dict[object, list[Leaf]] = {}
    for leaf in asked:
        match leaf:
            case Occurred(event) | Measured(event) | Moment(event):
                about: object = event
            case Steps():
                about = leaf
            case Bucket(salt):
                about = (Bucket, salt)
            case _:
                about = type(leaf)
        found.setdefault(about, []).append(leaf)
    return list(found.values())


def _still_wanted(question: Question, stop: Stop) -> None:
    """Raises Stopped."""
    stop.check()
    if not question.newest():
        stop.now(NEWER)
        stop.check()


def _carriers(question: Question, stop: Stop) -> dict[str, BitMap]:
    """Who has each kind of identifier: looked up once for each pin, a part of the identities at a time."""
    cache = Cache(Path(settings.DATA_DIR) / "cache", memory_bytes=0)
    keys = {kind: f"carriers\0{kind}\0{question.pin.pin_id}\0{question.pin.as_of_us}".encode() for kind in CARRIED}
    known = {kind: cache.get(key) for kind, key in keys.items()}
    found = {kind: members for kind, members in known.items() if members is not None}
    if len(found) == len(CARRIED):
        return found
    found = {kind: BitMap() for kind in CARRIED}
    flags = ", ".join(f"CASE WHEN {kind} <> '' THEN 1 ELSE 0 END" for kind in CARRIED)
    sql = (
        f"SELECT profile_no, {flags} FROM audiences_identity "  # noqa: S608 - names and numbers are ours
        "WHERE replaced_at IS NULL AND erased_at IS NULL AND identity_no >= %s AND identity_no < %s"
    )
    last = Identity.objects.aggregate(last=Max("identity_no"))["last"] or 0
    for start in range(0, last + 1, _SCANNED):
        _still_wanted(question, stop)
        rows = np.array(bulk.fetch(sql, [start, start + _SCANNED]), np.int64).reshape(-1, 1 + len(CARRIED))
        for at, kind in enumerate(CARRIED, 1):
            found[kind] |= bitmaps.from_sorted(np.sort(rows[rows[:, at] == 1, 0]))
    for kind, members in found.items():
        cache.put(keys[kind], members)
    return found


def _reach(members: BitMap, carriers: Mapping[str, BitMap]) -> Iterator[Reach]:
    for kind, words in CARRIED.items():
        people = members.intersection_cardinality(carriers[kind])
        yield Reach(words, people, people / len(members) if members else None)


def _change(audience: Audience, tree: Node, members: BitMap, live: BitMap | None, trouble: str) -> Change | None:
    version = audience.live_version
    if version is None:
        return None
    if live is None:
        return Change(version.number, trouble=trouble)
    both = members.intersection_cardinality(live)
    same = version.sha256 == grammar.sha256(tree)
    return Change(version.number, len(live), len(members) - both, len(live) - both, same)


def _parts(tree: Node, counts: Mapping[str, int]) -> Iterator[Part]:
    widest = max(counts.values(), default=0) or 1
    for path, depth, words, group in _lines(tree, "", 0):
        yield Part(path, min(depth, DEEPEST), words, group, counts[path], round(100 * counts[path] / widest, 1))


def _lines(node: Node, path: str, depth: int, *, negated: bool = False) -> Iterator[tuple[str, int, str, bool]]:
    """(path, depth, words, whether it is a group) of every rule and group. What excludes a group stands for that group."""
    dot = "." if path else ""
    match node:
        case All(items) | Any(items):
            word = "all" if isinstance(node, All) else "any"
            if not negated:
                yield path, depth, "All of these" if word == "all" else "At least one of these", True
            for index, item in enumerate(items):
                yield from _lines(item, f"{path}{dot}{word}[{index}]", depth + 1)
        case Not((All() | Any()) as group):
            yield path, depth, "Not all of these together" if isinstance(group, All) else "None of these", True
            yield from _lines(group, f"{path}{dot}not", depth, negated=True)
        case Not(Not() as inner):
            yield path, depth, "Not this", True
            yield from _lines(inner, f"{path}{dot}not", depth + 1)
        case _:
            yield path, depth, standings.in_words(node), False


def _sample(members: BitMap, pin: Pinned) -> Iterator[Someone]:
    """A few of them, the same ones until the rule or the data changes. Who has been removed since is left out."""
    drawn = random.Random(f"{pin.as_of_us}:{len(members)}").sample(range(len(members)), min(2 * SAMPLE, len(members)))  # noqa: S311 - no secret
    numbers = [members[place] for place in drawn]
    rows = Profile.objects.filter(pk__in=numbers, state=Profile.State.LIVE).values_list("pk", "identity_no")
    living = dict(rows)
    shown = [number for number in numbers if number in living][:SAMPLE]
    titles = standings.titles(shown)
    identities = Identity.objects.in_bulk([living[number] for number in shown if living[number]])
    for number in shown:
        identity = identities.get(living[number] or 0)
        facts = [fact.value for fact in standings.identifiers(identity, whole=False) if fact.label in SHOWN]
        yield Someone(number, titles[number], tuple(facts))


def _overlaps(audience: Audience, members: BitMap, stop: Stop) -> list[Overlap]:
    """Of the audiences that are counted, those that share most with it, most first."""
    if not members:
        return []
    rows = Membership.objects.filter(audience__archived_at=None, audience__live_version__isnull=False, count__gt=0)
    rows = rows.exclude(audience=audience.pk)
    found: list[Overlap] = []
    for key, name, packed in rows.values_list("audience__key", "audience__name", "members").iterator(100):
        stop.check()
        if both := members.intersection_cardinality(bitmaps.unpack(packed)):
            found.append(Overlap(key, name, both, both / len(members)))
    return sorted(found, key=lambda one: (-one.people, one.key))[:OVERLAPS]
