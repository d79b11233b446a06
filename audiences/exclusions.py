"""Two audiences that share people: what they are, and what excluding one from the other would do, or has done. Reads only.

`audience` keeps fewer people, `other` is whom it excludes. Writing is services/exclusions.py's, all pairs at once overlap.py's.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Max, OuterRef, QuerySet, Subquery
from pyroaring import BitMap

from audiences import bitmaps, history, vocabulary
from audiences.models import Audience, Membership, Refresh, SegmentVersion, User
from audiences.segments import explain, grammar
from audiences.segments.tree import All, Any, InAudience, Node, Not

SUPPRESSION = Audience.Purpose.SUPPRESSION
OPEN = (SegmentVersion.State.DRAFT, SegmentVersion.State.IN_REVIEW)


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two. `count` None: not counted yet. `counting`: its live version is newer than the count; `failed` says why there is none."""

    audience: Audience
    count: int | None
    as_of_us: int | None
    counting: bool
    failed: str

    @property
    def version(self) -> SegmentVersion | None:
        return self.audience.live_version


@dataclass(frozen=True, slots=True)
class Offer:
    """Excluding `other` from `audience`. `link`: it is a suppression audience and is linked; else a new version excludes it.

    `before` and `after`: how many may be sent (link), or are members (version); `shared` of them are in both now; None: not counted.
    `sentence`: the rule that a new version would have. `why_not`: it cannot be done, in words.
    """

    audience: Audience
    other: Audience
    link: bool
    before: int | None
    after: int | None
    why_not: str = ""
    sentence: str = ""

    @property
    def shared(self) -> int | None:
        return None if self.before is None or self.after is None else self.before - self.after

    @property
    def number(self) -> int:
        """Of the version that it would publish."""
        return (getattr(self.audience, "last_number", None) or 0) + 1


@dataclass(frozen=True, slots=True)
class InForce:
    """`audience` excludes `other` already, by link or since `version`. `after` None: not counted since. `undo`: it can be taken back here."""

    audience: Audience
    other: Audience
    link: bool
    version: SegmentVersion | None
    by: User | None
    at: datetime | None
    before: int | None
    after: int | None
    both_before: int | None
    undo: bool


@dataclass(frozen=True, slots=True)
class Pair:
    """`both` None: one of them has not been counted. The bar is 1,000 units wide: only a, both, only b."""

    a: Side
    b: Side
    both: int | None
    offers: tuple[Offer, ...]
    in_force: tuple[InForce, ...]

    @property
    def sides(self) -> tuple[Side, Side]:
        return self.a, self.b

    @property
    def only_a(self) -> int | None:
        return None if self.both is None or self.a.count is None else self.a.count - self.both

    @property
    def only_b(self) -> int | None:
        return None if self.both is None or self.b.count is None else self.b.count - self.both

    @property
    def share_of_a(self) -> float | None:
        return None if self.both is None or not self.a.count else self.both / self.a.count

    @property
    def share_of_b(self) -> float | None:
        return None if self.both is None or not self.b.count else self.both / self.b.count

    @property
    def bar(self) -> tuple[int, int, int] | None:
        parts = (self.only_a, self.both, self.only_b)
        if None in parts or not (total := sum(part or 0 for part in parts)):
            return None
        left, middle = (round((part or 0) / total * 1000) for part in parts[:2])
        return left, middle, 1000 - left - middle

    @property
    def counting(self) -> bool:
        return self.a.counting or self.b.counting


def pair(a: str, b: str) -> Pair | None:
    """Both by their keys; None where one does not exist, or they are the same."""
    rows = {audience.key: audience for audience in _audiences().filter(key__in=[a, b])}
    if a == b or len(rows) < 2:
        return None
    left, right = rows[a], rows[b]
    linked = _linked([left, right])
    wanted = {left.pk, right.pk, *(pk for pks in linked.values() for pk in pks)}
    packed = Membership.objects.filter(audience__in=wanted).values_list("audience_id", "members")
    members = {pk: bitmaps.unpack(data) for pk, data in packed}
    people = members.get(left.pk), members.get(right.pk)
    both = people[0].intersection_cardinality(people[1]) if people[0] is not None and people[1] is not None else None
    rules = vocabulary.live_rules()
    offers, in_force = [], []
    for audience, other in ((left, right), (right, left)):
        tree = rules.get(audience.key)
        link = other.pk in linked[audience.pk]
        sent = _sent(audience, linked[audience.pk] - {other.pk}, members)
        excluded = _after(sent, members.get(other.pk))
        if link:
            before = None if sent is None else len(sent)
            shared = None if before is None or excluded is None else before - excluded
            in_force.append(InForce(audience, other, True, None, None, None, before, excluded, shared, undo=True))
        elif tree is not None and excludes(tree, other.key):
            in_force.append(_since(audience, other, members.get(other.pk)))
        elif other.purpose == SUPPRESSION:
            why = _why_not_link(audience, other)
            offers.append(Offer(audience, other, True, None if sent is None else len(sent), excluded, why))
        else:
            mine = members.get(audience.pk)
            before = None if mine is None else len(mine)
            why = _why_not(audience, other, tree, rules)
            words = explain.sentence(excluding(tree, other.key)) if tree is not None else ""
            offers.append(Offer(audience, other, False, before, _after(mine, members.get(other.pk)), why, words))
    return Pair(_side(left), _side(right), both, tuple(offers), tuple(in_force))


def excludes(tree: Node, key: str) -> bool:
    """Whether nobody in that audience can be in this one, as its rule is written."""
    return any(part == InAudience(key) for part in _never(tree))


def excluding(tree: Node, key: str) -> Node:
    """The rule with that audience's people left out."""
    out = Not(InAudience(key))
    return All((*tree.items, out)) if isinstance(tree, All) else All((tree, out))


def introduced(audience: Audience, key: str) -> tuple[SegmentVersion | None, SegmentVersion | None]:
    """The version since which it excludes that audience without a break, and the one that was live before it."""
    found = None
    for version in (
        audience.versions.filter(published_at__isnull=False).select_related("published_by").order_by("-number")
    ):
        if not excludes(vocabulary.rule(version.segment), key):
            return found, version
        found = version
    return found, None


def open_draft(audience: Audience) -> SegmentVersion | None:
    """What somebody has begun and not published; a new draft would overwrite it."""
    return audience.versions.filter(state__in=OPEN).select_related("author").order_by("-number").first()


def in_the_way(draft: SegmentVersion) -> str:
    """Why nothing is published over this draft."""
    if draft.publish_at is not None:
        return f"v{draft.number} waits for the end of the test; publish it then, or take it back first"
    if draft.state == SegmentVersion.State.IN_REVIEW:
        return f"v{draft.number} is in review; decide on it first, so that it is not lost"
    whose = f" by {draft.author}" if draft.author else ""
    return f"there is a draft{whose} (v{draft.number}); publish or discard it first, so that it is not lost"


def _never(tree: Node) -> Iterator[Node]:
    match tree:
        case All(items):
            for item in items:
                yield from _never(item)
        case Not(Any(items)):
            yield from items
        case Not(item):
            yield item


def _audiences() -> QuerySet[Audience]:
    latest = Refresh.objects.filter(audience=OuterRef("pk"), version=OuterRef("live_version")).order_by("-id")
    return Audience.objects.select_related("live_version", "membership__refresh", "definition_owner").defer(
        "membership__members", "membership__daily", "membership__refresh__keyframe", "membership__refresh__entered",
        "membership__refresh__left", "membership__refresh__rule_counts",
    ).annotate(
        last_state=Subquery(latest.values("state")[:1]),
        last_error=Subquery(latest.values("error")[:1]),
        last_number=Max("versions__number"),
    )  # fmt: skip


def _side(audience: Audience) -> Side:
    membership = getattr(audience, "membership", None)  # the reverse one-to-one of an uncounted audience is missing
    failed = getattr(audience, "last_state", None) == Refresh.State.FAILED
    stale = membership is None or membership.refresh.version_id != audience.live_version_id
    return Side(
        audience,
        membership.count if membership else None,
        membership.refresh.as_of_us if membership else None,
        counting=bool(stale and audience.live_version_id and not failed and not audience.archived_at),
        failed=(getattr(audience, "last_error", "") or "No reason was kept.") if stale and failed else "",
    )


def _linked(audiences: list[Audience]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {audience.pk: set() for audience in audiences}
    links = Audience.excluded_by.through.objects.filter(from_audience__in=list(found))
    for audience_id, suppression_id in links.values_list("from_audience_id", "to_audience_id"):
        found[audience_id].add(suppression_id)
    return found


def _sent(audience: Audience, suppressions: set[int], members: dict[int, BitMap]) -> BitMap | None:
    """Members whom no linked suppression audience takes out. None: not counted."""
    mine = members.get(audience.pk)
    if mine is None or any(pk not in members for pk in suppressions):
        return None
    return mine - BitMap().union(*(members[pk] for pk in suppressions)) if suppressions else mine


def _after(people: BitMap | None, out: BitMap | None) -> int | None:
    return None if people is None or out is None else people.difference_cardinality(out)


def _why_not_link(audience: Audience, other: Audience) -> str:
    if audience.archived_at or other.archived_at:
        return f"{audience.key if audience.archived_at else other.key} is archived."
    if other.live_version_id is None:
        return f"{other.key} has no published rule yet: linked to it, nothing could be sent."
    if audience.purpose == SUPPRESSION:
        return "Suppression audiences are sent whole: none takes people out of another."
    return ""


def _why_not(audience: Audience, other: Audience, tree: Node | None, rules: dict[str, Node]) -> str:
    for one in (audience, other):
        if one.archived_at:
            return f"{one.key} is archived."
        if one.live_version_id is None:
            return f"{one.key} has no published rule yet."
    if audience.purpose == SUPPRESSION:
        return (
            f"{audience.key} keeps people out of advertising. Whoever left it would be advertised to again;"
            " if that is meant, change its rule."
        )
    if (draft := open_draft(audience)) is not None:
        words = in_the_way(draft)
        return f"{words[:1].upper()}{words[1:]}."
    assert tree is not None
    new = excluding(tree, other.key)
    try:
        grammar.resolve(new, {**rules, audience.key: new})
    except grammar.Refused:
        return f"The rule of {other.key} builds on {audience.key}: each would need the other to be counted first."
    return ""


def _since(audience: Audience, other: Audience, out: BitMap | None) -> InForce:
    """The version that brought it in, and the last count under the one before it."""
    version, earlier = introduced(audience, other.key)
    last = Refresh.objects.filter(audience=audience, version=earlier, state=Refresh.State.DONE) if earlier else None
    before = last.exclude(cause=Refresh.Cause.BACKFILL).order_by("-as_of_us", "-id").first() if last else None
    membership = getattr(audience, "membership", None)
    counted = membership is not None and version is not None and not _older(membership.refresh, before, version)
    return InForce(
        audience,
        other,
        False,
        version,
        version.published_by if version else None,
        version.published_at if version else None,
        before.count if before else None,
        membership.count if membership is not None and counted else None,
        _shared_before(before, out),
        undo=bool(version and earlier and version.pk == audience.live_version_id and not audience.archived_at),
    )


def _older(refresh: Refresh, before: Refresh | None, version: SegmentVersion) -> bool:
    """Whether this count was made under a rule that did not have it yet."""
    return refresh.version_id != version.pk and (before is None or refresh.pk <= before.pk)


def _shared_before(before: Refresh | None, out: BitMap | None) -> int | None:
    if before is None or out is None:
        return None
    try:
        return history.members_at(before).intersection_cardinality(out)
    except LookupError:
        return None
