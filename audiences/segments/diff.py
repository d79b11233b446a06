"""What changed between two rules: which tests came, went, moved or were altered, and one sentence about it. Pure; texts of whole rules are explain.py's.

Order and needless brackets mean nothing, so they are no change. Tests are matched within the groups they stand in: equal ones first, then
those of the same subject (the same event, the same attribute), which makes a changed window one change; what has left one group and
come into another has moved. Every test of both rules is in exactly one change or in `kept`.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from audiences.clock import DAY, HOUR, MINUTE
from audiences.segments import explain, grammar
from audiences.segments.literals import clip, join
from audiences.segments.tree import (
    All,
    Any,
    Attribute,
    Bucket,
    InAudience,
    InCustomerioSegment,
    InList,
    KnownFor,
    Leaf,
    Measured,
    Moment,
    Node,
    Not,
    Occurred,
    Sequence,
    Window,
    Within,
)

ADDED, REMOVED, CHANGED, KEPT = "+", "−", "~", ""


@dataclass(frozen=True, slots=True)
class Test:
    """A leaf as it stands in its rule. `no`: under a NOT. `place`: the groups around it, outermost first, as `all`, `any`, `not all`…"""

    leaf: Leaf
    path: str
    no: bool
    place: tuple[str, ...]

    @property
    def key(self) -> str:
        return f"{'not ' if self.no else ''}{grammar.canonical(self.leaf)}"

    @property
    def words(self) -> str:
        return explain.phrase(Not(self.leaf) if self.no else self.leaf)

    @property
    def where(self) -> str:
        """Which group it stands in, where that is not simply the whole rule."""
        return " in ".join(_GROUPS[kind] for kind in reversed(self.place[1:])) if len(self.place) > 1 else ""


@dataclass(frozen=True, slots=True)
class Change:
    """One line: `mark` is + − ~ or nothing. `moved`: it stands in another group now."""

    before: Test | None
    after: Test | None
    moved: bool = False

    @property
    def mark(self) -> str:
        if self.before is None:
            return ADDED
        if self.after is None:
            return REMOVED
        return CHANGED if self.moved or self.before.key != self.after.key else KEPT

    @property
    def words(self) -> str:
        if self.before is None:
            assert self.after is not None
            return f"added{' as an alternative' if self.after.place[-1] == 'any' else ''}: {self.after.words}"
        if self.after is None:
            return f"removed: {self.before.words}"
        parts = [] if self.before.key == self.after.key else [altered(self.before, self.after)]
        if self.moved:
            where = self.after.where or "the whole rule"
            parts.append(f"it stands in {where} now" if parts else f"moved into {where}: {self.after.words}")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class Regrouped:
    """A group whose tests are joined otherwise now: `before` and `after` are `all`, `any`, `not all` or `not any`."""

    before: str
    after: str
    path: str

    @property
    def words(self) -> str:
        return f"{_JOINED[self.before]} → {_JOINED[self.after]}"


@dataclass(frozen=True, slots=True)
class Diff:
    """`rows`: every test of both rules once, in the order of the new rule, with those that went where they stood before."""

    rows: tuple[Change, ...]
    groups: tuple[Regrouped, ...] = ()

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(row for row in self.rows if row.mark)

    @property
    def kept(self) -> tuple[Change, ...]:
        return tuple(row for row in self.rows if not row.mark)

    def __bool__(self) -> bool:
        return bool(self.changes or self.groups)

    def inverted(self) -> "Diff":
        """The way back."""
        rows = tuple(Change(row.after, row.before, row.moved) for row in self.rows)
        return Diff(rows, tuple(Regrouped(group.after, group.before, group.path) for group in self.groups))

    @property
    def sentence(self) -> str:
        """`Window of “purchase” 30 → 14 days; added: who did not do “purchase” in the last 7 days.`"""
        order = {CHANGED: 0, ADDED: 1, REMOVED: 2}
        said = [group.words for group in self.groups]
        said += [row.words for row in sorted(self.changes, key=lambda row: order[row.mark])]
        if not said:
            return "Nothing changed."
        text = "; ".join(said)
        return f"{text[0].upper()}{text[1:]}."


@dataclass(frozen=True, slots=True)
class _Group:
    """A group in the form in which rules are compared: no group of one in it, no group of its own kind, no NOT but its own."""

    kind: str
    path: str
    items: tuple["_Group | Test", ...]

    @property
    def key(self) -> str:
        return f"{self.kind}({','.join(sorted(item.key for item in self.items))})"

    def tests(self) -> Iterator[Test]:
        for item in self.items:
            yield from (item.tests() if isinstance(item, _Group) else (item,))


@dataclass(slots=True)
class _Matched:
    pairs: list[tuple[Test, Test]] = field(default_factory=list)
    gone: list[Test] = field(default_factory=list)
    new: list[Test] = field(default_factory=list)
    moved: set[str] = field(default_factory=set)  # paths in the new rule
    groups: list[Regrouped] = field(default_factory=list)


def between(before: Node, after: Node) -> Diff:
    """What became of `before` on its way to `after`."""
    old, new, found = _whole(before), _whole(after), _Matched()
    _match(old, new, found)
    _match_moved(found)
    return Diff(tuple(_rows(old, new, found)), tuple(found.groups))


def nothing_before(after: Node) -> Diff:
    """The first version: everything is new."""
    return Diff(tuple(Change(None, test) for test in _whole(after).tests()))


def same(one: Node, other: Node) -> bool:
    """Whether they are the same rule but for order and needless brackets."""
    return _whole(one).key == _whole(other).key


# ---- the form in which rules are compared ----


def _whole(node: Node) -> _Group:
    made = _plain(node, "", False)
    if isinstance(made, Test) or made.kind.startswith("not "):
        made = _Group("", "", (made,))
    return _placed(made, ())


def _plain(node: Node, path: str, no: bool) -> _Group | Test:
    match node:
        case Not(item):
            return _plain(item, join(path, "not"), not no)
        case All(items) | Any(items):
            word = "all" if isinstance(node, All) else "any"
            made = [_plain(item, f"{join(path, word)}[{index}]", False) for index, item in enumerate(items)]
            flat = [inner for item in made for inner in _opened(item, word)]
            if len(flat) == 1:
                return _denied(flat[0]) if no else flat[0]
            return _Group(f"not {word}" if no else word, path, tuple(flat))
        case _:
            return Test(node, path, no, ())


def _opened(item: "_Group | Test", kind: str) -> "tuple[_Group | Test, ...]":
    """A group within a group of its own kind is no group."""
    return item.items if isinstance(item, _Group) and item.kind == kind else (item,)


def _denied(item: "_Group | Test") -> "_Group | Test":
    if isinstance(item, Test):
        return replace(item, no=not item.no)
    return replace(item, kind=item.kind.removeprefix("not ") if item.kind.startswith("not ") else f"not {item.kind}")


def _placed(group: _Group, place: tuple[str, ...]) -> _Group:
    inside = (*place, group.kind)
    items = tuple(
        _placed(item, inside) if isinstance(item, _Group) else replace(item, place=inside) for item in group.items
    )
    return replace(group, items=items)


# ---- matching ----


def _match(old: _Group, new: _Group, found: _Matched) -> None:
    if old.kind != new.kind and len(old.items) > 1 and len(new.items) > 1:
        found.groups.append(Regrouped(old.kind, new.kind, new.path))
    olds, news = list(old.items), list(new.items)
    for before, after in _equal(olds, news):
        found.pairs += zip(_sorted(before), _sorted(after), strict=True)
    for before, after in _alike(_groups(olds), _groups(news)):
        olds.remove(before)
        news.remove(after)
        _match(before, after, found)
    old_tests, new_tests = _tests(olds), _tests(news)
    for one, other in _about_the_same(old_tests, new_tests):
        olds.remove(one)
        news.remove(other)
        found.pairs.append((one, other))
    found.gone += [test for item in olds for test in _sorted(item)]
    found.new += [test for item in news for test in _sorted(item)]


def _match_moved(found: _Matched) -> None:
    """What is gone from one group and new in another: equal first, then of the same subject."""
    for one, other in [*_equal(found.gone, found.new), *_about_the_same(found.gone, found.new, take=True)]:
        found.pairs.append((one, other))
        found.moved.add(other.path)


def _equal(olds: list, news: list) -> list:  # type: ignore[type-arg]
    """Pairs of equal items, taken out of both lists."""
    waiting = defaultdict(list)
    for item in news:
        waiting[item.key].append(item)
    pairs = [(item, waiting[item.key].pop(0)) for item in olds if waiting[item.key]]
    for before, after in pairs:
        olds.remove(before)
        news.remove(after)
    return pairs


def _alike(olds: list[_Group], news: list[_Group]) -> list[tuple[_Group, _Group]]:
    """Groups that are each other's next, by what they share."""
    scored = []
    for i, old in enumerate(olds):
        keys = {test.key for test in old.tests()}
        subjects = {_subject(test) for test in old.tests()}
        for j, new in enumerate(news):
            score = sum(2 * (test.key in keys) + (_subject(test) in subjects) for test in new.tests())
            scored.append((-score, old.kind != new.kind, i, j))
    return [(olds[i], news[j]) for i, j in _greedy((cost, other, i, j) for cost, other, i, j in scored if cost)]


def _about_the_same(olds: list[Test], news: list[Test], *, take: bool = False) -> list[tuple[Test, Test]]:
    """Tests of the same subject, the least different first."""
    scored = []
    for i, old in enumerate(olds):
        for j, new in enumerate(news):
            if _subject(old) == _subject(new):
                scored.append((len(_differences(old, new)), 0, i, j))
    pairs = [(olds[i], news[j]) for i, j in _greedy(scored)]
    if take:
        for before, after in pairs:
            olds.remove(before)
            news.remove(after)
    return pairs


def _greedy(scored: Iterable[tuple[int, int, int, int]]) -> list[tuple[int, int]]:
    lefts, rights, chosen = set(), set(), []
    for _, _, i, j in sorted(scored):
        if i not in lefts and j not in rights:
            lefts.add(i)
            rights.add(j)
            chosen.append((i, j))
    return chosen


def _groups(items: list["_Group | Test"]) -> list[_Group]:
    return [item for item in items if isinstance(item, _Group)]


def _tests(items: list["_Group | Test"]) -> list[Test]:
    return [item for item in items if isinstance(item, Test)]


def _sorted(item: "_Group | Test") -> list[Test]:
    """Its tests in an order that equal items share."""
    if isinstance(item, Test):
        return [item]
    return [test for inner in sorted(item.items, key=lambda inner: inner.key) for test in _sorted(inner)]


def _rows(old: _Group, new: _Group, found: _Matched) -> Iterator[Change]:
    partner = {after.path: before for before, after in found.pairs}
    gone = {test.path for test in found.gone}
    follows: dict[str, list[Test]] = defaultdict(list)  # path of the test before it in the old rule → those that went
    last = ""
    for test in old.tests():
        if test.path in gone:
            follows[last].append(test)
        else:
            last = f"at {test.path}"
    yield from (Change(test, None) for test in follows[""])
    for test in new.tests():
        before = partner.get(test.path)
        yield Change(before, test, test.path in found.moved)
        if before is not None:
            yield from (Change(went, None) for went in follows[f"at {before.path}"])


# ---- words ----

_GROUPS = {"all": "a group that must hold whole", "any": "a group of alternatives", "": "the whole rule"}
_GROUPS |= {"not all": "a group that must not hold whole", "not any": "a group of which nothing may hold"}
_JOINED = {"all": "All must hold", "any": "one of them is enough", "": "the whole rule"}
_JOINED |= {"not all": "not all may hold", "not any": "none may hold"}


def altered(before: Test, after: Test) -> str:
    """`window of “purchase” 30 → 14 days`: each part of it that is different now."""
    return ", ".join(f"{name} {one} → {other}".strip() for name, one, other in _differences(before, after))


def _subject(test: Test) -> tuple[str, ...]:
    leaf = test.leaf
    kind = type(leaf).__name__
    match leaf:
        case Attribute(condition):
            return kind, condition.name
        case Occurred(event):
            return kind, event
        case Measured(event, _, name):
            return kind, event, name
        case Moment(event, which):
            return kind, event, which
        case Sequence(steps):
            return kind, *(step.event for step in steps)
        case InAudience(key) | InList(key):
            return kind, key
        case InCustomerioSegment(number):
            return kind, str(number)
        case Bucket(salt):
            return kind, salt
        case KnownFor():
            return (kind,)


def _differences(before: Test, after: Test) -> list[tuple[str, str, str]]:
    """(what of it, as it was, as it is)."""
    found = []
    if before.no != after.no:
        found.append(("", before.words, after.words))
        if before.leaf == after.leaf:
            return found
    one, other = before.leaf, after.leaf
    what = _about(other)
    match one, other:
        case Attribute(old), Attribute(new) if old != new:
            found.append(_tested(explain.conditions((old,)), explain.conditions((new,)), new.name))
        case Occurred(), Occurred():
            if one.count != other.count:
                found.append((f"count of {what}", explain.times(one.count), explain.times(other.count)))
            found += _framed(one, other, what)
        case Measured(), Measured():
            if one.measure != other.measure:
                found.append(("", explain.measure(one), explain.measure(other)))
            if (one.op, one.values) != (other.op, other.values):
                limits = explain.compared(one.op, one.values), explain.compared(other.op, other.values)
                found.append((explain.measure(other), *limits))
            found += _framed(one, other, what)
        case Moment(), Moment():
            if (one.op, one.values) != (other.op, other.values):
                limits = explain.compared(one.op, one.values), explain.compared(other.op, other.values)
                found.append((f"time of {what}", *limits))
            found += _framed(one, other, what)
        case KnownFor(old_age), KnownFor(new_age):
            found.append(("known for", *_spans(old_age, new_age)))
        case _ if one != other:
            found.append(("", explain.phrase(one), explain.phrase(other)))
    return found


def _framed(
    one: Occurred | Measured | Moment, other: Occurred | Measured | Moment, what: str
) -> Iterator[tuple[str, str, str]]:
    if one.window != other.window:
        yield (f"window of {what}", *_windows(one.window, other.window))
    if one.where != other.where:
        yield (f"condition of {what}", explain.conditions(one.where), explain.conditions(other.where))


def _about(leaf: Leaf) -> str:
    return f"“{clip(leaf.event, 60)}”" if isinstance(leaf, Occurred | Measured | Moment) else ""


def _windows(one: Window, other: Window) -> tuple[str, str]:
    if isinstance(one, Within) and isinstance(other, Within):
        return _spans(one.duration, other.duration)
    return explain.window(one), explain.window(other)


def _spans(one: int, other: int) -> tuple[str, str]:
    """`30` and `14 days` where they share the unit."""
    for unit, name in ((DAY, "days"), (HOUR, "hours"), (MINUTE, "minutes")):
        if one % unit == other % unit == 0 and one != unit != other:
            return f"{one // unit:,}", f"{other // unit:,} {name}"
    return explain.span(one), explain.span(other)


def _tested(one: str, other: str, name: str) -> tuple[str, str, str]:
    """The name of the attribute stands before both where it can."""
    start = f"{name} is "
    if one.startswith(start) and other.startswith(start):
        return name, one.removeprefix(start), other.removeprefix(start)
    return "", one, other
