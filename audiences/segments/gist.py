"""What a rule is about, as a name would say it: how far it looks back, and what people did. Pure, and silent where it cannot tell.

A name has room for one window and a word or two, and a rule may hold many. What counts is the deed that brings people in: of the
shortest window, and of two as short the one nearer to a purchase. A later "did not" of the same deed makes a window of it that
begins and ends (4 to 24 hours ago), or, where the deed has no window, is the window (not for 60 days).
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from audiences.clock import DAY, HOUR, MINUTE
from audiences.segments.reading import ANY_EVENT
from audiences.segments.recipes import USUAL
from audiences.segments.tree import (
    All,
    Any,
    Attribute,
    Between,
    Bucket,
    Condition,
    InAudience,
    InCustomerioSegment,
    InList,
    KnownFor,
    Measured,
    Moment,
    Node,
    Not,
    Occurred,
    Within,
)
from audiences.segments.tree import Sequence as Steps
from audiences.segments.values import text_of

EVER = -1  # of a span's end: however long ago
_SPAN = re.compile(r"(?:([1-9][0-9]{0,3})-)?([1-9][0-9]{0,3})([mhd])")
_UNITS = {"m": MINUTE, "h": HOUR, "d": DAY}
_COUNTED = re.compile(r"view(?:ed|s)?[0-9]+")
_UNDONE = {"cancelled", "canceled", "refund", "refunded", "returned", "failed", "remove", "removed", "deleted"}

VIEW, SEARCH, CART, CHECKOUT, PURCHASE = "view", "search", "cart", "checkout", "purchase"
NEARER = (VIEW, SEARCH, CART, CHECKOUT, PURCHASE)  # to a purchase, the nearest last
WORDS = {
    VIEW: ("browse", "browsed", "browsers", "viewed", "view", "views", "viewers", "visitors"),
    SEARCH: ("search", "searches", "searched", "searchers"),
    CART: ("cart", "carts", "basket", "baskets", "addtocart", "abandoned"),
    CHECKOUT: ("checkout", "checkouts", "initiatecheckout"),
    PURCHASE: ("purchasers", "purchase", "purchases", "purchased", "buyers", "bought", "customers"),
}
AWAY = ("winback", "lapsed", "dormant", "reactivate")
DUE = ("replenish", "replenishment", "refill")
AGAIN = ("repeat", "repeatbuyers", "loyal")
SPENT = ("vip", "spend", "spenders", "highvalue")
_STATUS = frozenset((*AWAY, *DUE, *AGAIN, *WORDS[PURCHASE]))  # what an attribute may say of somebody, too
_SAYING = _STATUS.union(*WORDS.values())  # words that say what people did, so that they can be wrong

Span = tuple[int, int]  # how long ago it begins and ends, in µs: (4 h, 24 h); (0, 24 h) is the last 24 hours; (0, EVER)


@dataclass(frozen=True, slots=True)
class Gist:
    """`windows` and `words` are what a name may say, the best first; empty where the rule cannot tell.

    `spans` and `right` are all that would not be wrong. `sure`: nothing else in the rule could be what a name means.
    """

    windows: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    spans: frozenset[Span] = frozenset()
    right: frozenset[str] = frozenset()
    sure: bool = True
    by_status: bool = False  # attributes are tested: somebody may be a customer by what is known of them

    def window_is_wrong(self, word: str) -> bool:
        """Whether a name that says this window would contradict the rule."""
        said = span_of(word)
        return self.sure and bool(self.spans) and said is not None and said not in self.spans

    def word_is_wrong(self, word: str) -> bool:
        """Whether a name that says this would contradict what people did. Words that say nothing of the kind never do."""
        plain = normal(word)
        saying = plain in _SAYING or bool(_COUNTED.fullmatch(plain))
        if not (self.sure and self.right and saying) or (self.by_status and plain in _STATUS):
            return False
        return plain not in self.right


@dataclass(frozen=True, slots=True)
class _Deed:
    """`until` is the other end of its window, EVER or None (dates of the calendar: no name says these)."""

    event: str
    did: bool
    until: int | None
    least: int = 1
    measured: bool = False
    where: tuple[Condition, ...] = ()
    missed: int = 0  # the deed that should have followed did not, for so long


@dataclass(slots=True)
class _Seen:
    deeds: list[_Deed] = field(default_factory=list)
    dates: list[int] = field(default_factory=list)  # of attributes
    attributes: bool = False
    elsewhere: bool = False  # other audiences, lists: what they are about stands there


def of(tree: Node) -> Gist:
    """What it is about."""
    seen = _Seen()
    _look(tree, True, seen)
    did = [deed for deed in seen.deeds if deed.did]
    missed = [deed for deed in seen.deeds if not deed.did]
    sure = not seen.elsewhere
    if not did:
        ends = set(seen.dates) if seen.attributes else {deed.until for deed in missed}
        end = ends.pop() if len(ends) == 1 else None
        spans = [(0, end)] if end and end != EVER else []
        return Gist(_said(spans), (), frozenset(spans), sure=sure)
    main = min(did, key=lambda deed: (_length(deed.until), -_rank(deed.event)))
    spans = _spans(main, missed)
    all_spans = {span for deed in did for span in _spans(deed, missed)} | {(0, date) for date in seen.dates}
    if any(deed.until is None for deed in did):
        all_spans.clear()
    words = _words(main, spans)
    right = {word for deed in did for word in _words(deed, _spans(deed, missed))}
    known = all(_slot(deed.event) for deed in did)
    return Gist(
        _said(spans),
        tuple(words),
        frozenset(all_spans),
        frozenset(right) if known else frozenset(),
        sure,
        seen.attributes,
    )


def span_of(word: str) -> Span | None:
    """4-24h → (4 h, 24 h); None: it is no window."""
    if word == "ever":
        return 0, EVER
    found = _SPAN.fullmatch(word)
    if found is None:
        return None
    unit = _UNITS[found[3]]
    return int(found[1] or 0) * unit, int(found[2]) * unit


def normal(word: str) -> str:
    """Add_To-Cart → addtocart"""
    return re.sub(r"[^a-z0-9]", "", word.lower())


# --- Looking.


def _look(node: Node, did: bool, seen: _Seen) -> None:
    match node:
        case All(items) | Any(items):
            for item in items:
                _look(item, did, seen)
        case Not(item):
            _look(item, not did, seen)
        case Occurred(event, count, window, where):
            if count.high == 0:
                seen.deeds.append(_Deed(event, not did, _until(window), where=where))
            elif count.low:
                seen.deeds.append(_Deed(event, did, _until(window), count.low, where=where))
        case Measured(event, _, _, _, _, window, where):
            seen.deeds.append(_Deed(event, did, _until(window), measured=True, where=where))
        case Moment(event, which, op, values, _, where):
            if op == "within_last":
                seen.deeds.append(_Deed(event, did, values[0], where=where))
            elif op == "not_within_last":
                seen.deeds.append(_Deed(event, True, EVER, where=where))
                if which == "last":
                    seen.deeds.append(_Deed(event, not did, values[0], where=where))
            else:
                seen.deeds.append(_Deed(event, did, None, where=where))
        case Steps(steps, complete):
            first = EVER if steps[0].within is None else steps[0].within
            done = steps if complete else steps[:-1]
            missed = 0 if complete else steps[-1].within or 0
            for step in done:
                seen.deeds.append(_Deed(step.event, did, first, where=step.where, missed=missed))
        case Attribute(condition):
            if condition.op in ("within_last", "not_within_last"):
                seen.dates.append(int(condition.values[0]))
            seen.attributes = True
        case InAudience() | InList() | InCustomerioSegment():
            seen.elsewhere = seen.elsewhere or did
        case KnownFor() | Bucket():
            return


def _until(window: Within | Between | None) -> int | None:
    return EVER if window is None else window.duration if isinstance(window, Within) else None


def _length(until: int | None) -> float:
    """Calendar dates come after every window that a name can say, and before "ever"."""
    return float("inf") if until == EVER else 1e18 if until is None else until


def _spans(deed: _Deed, missed: Iterable[_Deed]) -> list[Span]:
    """How a name may say when it happened, the best first."""
    if deed.until is None:
        return []
    since = [other.until for other in missed if other.event == deed.event and other.until not in (None, EVER)]
    quiet = max((end for end in since if end), default=0)
    if deed.until == EVER:
        return [(0, quiet or EVER)]
    begins = quiet if quiet < deed.until else 0
    if begins:
        return [(begins, deed.until), (0, deed.until)]
    if 0 < deed.missed < deed.until:
        return [(deed.missed, deed.until), (0, deed.until)]
    return [(0, deed.until)]


# --- Saying.


def _said(spans: Sequence[Span]) -> tuple[str, ...]:
    """4-24h, 24h, 1d. A window that begins as well comes first where both of its ends are whole in the unit of the other end."""
    first: list[str] = []
    last: list[str] = []
    for begins, ends in spans:
        if ends == EVER:
            first.append("ever")
            continue
        units = [unit for unit in _units(ends) if begins % _UNITS[unit] == 0]
        for unit in units:
            number = f"{begins // _UNITS[unit]}-" if begins else ""
            word = f"{number}{ends // _UNITS[unit]}{unit}"
            (first if unit == _units(ends)[0] else last).append(word)
    words = dict.fromkeys((*first, *last))
    return tuple(word for word in words if word == "ever" or span_of(word))


def _units(us: int) -> list[str]:
    """Those in which it is whole, as people say it: 24 hours, but 3 days."""
    whole = [unit for unit in ("d", "h", "m") if us % _UNITS[unit] == 0]
    return ["h", "d", "m"] if us == DAY else whole


def _words(deed: _Deed, spans: Sequence[Span]) -> list[str]:
    """What a name may say of this deed, the most special first."""
    words = [normal(text) for text in _compared(deed.where)]
    slot = _slot(deed.event)
    away = deed.until == EVER and bool(spans) and spans[0][1] != EVER
    due = bool(spans) and spans[0][0] > 0 and not deed.missed
    if slot == PURCHASE:
        if away:
            words += AWAY if deed.least > 1 else (AWAY[1], AWAY[0], *AWAY[2:])
        if due:
            words += (*DUE, *AWAY) if spans[0][0] < 60 * DAY else (*AWAY, *DUE)
        if deed.measured:
            words += SPENT
        if deed.least > 1:
            words += (*AGAIN, *SPENT)
    if slot == VIEW and deed.least > 1:
        words += [f"{word}{deed.least}" for word in ("viewed", "views", "view")]
    if slot:
        words += WORDS[slot]
    elif deed.event != ANY_EVENT:
        words += [normal(deed.event), *map(normal, _split(deed.event))]
    return list(dict.fromkeys(word for word in words if word))


def _compared(where: Iterable[Condition]) -> Iterator[str]:
    for condition in where:
        if condition.op in ("is", "in"):
            yield from (text_of(value) or "" for value in condition.values[:3] if isinstance(value, str))


def _rank(event: str) -> int:
    slot = _slot(event)
    return NEARER.index(slot) if slot else -1


def _slot(event: str) -> str:
    """Which of a shop's steps this event is; empty: it is not known."""
    for slot, names in USUAL.items():
        if event in names:
            return slot
    words = set(_split(event))
    if words & _UNDONE:
        return ""
    if words & {"purchase", "purchased", "order", "ordered", "bought", "paid"}:
        return PURCHASE
    if "checkout" in words:
        return PURCHASE if words & {"completed", "complete", "success"} else CHECKOUT
    if words & {"cart", "basket"}:
        return CART
    if words & {"search", "searched", "searches"}:
        return SEARCH
    return VIEW if words & {"view", "viewed", "views", "browse", "browsed", "pageview"} else ""


def _split(event: str) -> list[str]:
    """checkoutStarted → checkout, started"""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", event)
    return [word.lower() for word in re.split(r"[^A-Za-z0-9]+", spaced) if word]
