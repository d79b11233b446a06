"""What lint.py says, and what it holds a rule against. Pure values."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from audiences.clock import DAY
from audiences.segments.tree import Node

NO_EXIT, NO_TIME_WINDOW = "no-exit", "no-time-window"
CONTRADICTION, REDUNDANT = "contradiction", "redundant"
NARROW, DID_NOT = "window-narrower-than-cadence", "did-not-without-known-for"
UNKNOWN, UNSEEN, BRITTLE = "unknown-event", "unseen-event", "brittle-event"
CURRENCIES = "mixed-currencies"
TITLES: Mapping[str, str] = {
    NO_EXIT: "No way out",
    NO_TIME_WINDOW: "No time window",
    CONTRADICTION: "Contradiction",
    REDUNDANT: "Said twice",
    NARROW: "Window too short",
    DID_NOT: "Finds newcomers",
    UNKNOWN: "Unknown event",
    UNSEEN: "Event not seen lately",
    BRITTLE: "Brittle event",
    CURRENCIES: "Several currencies",
}

LATELY = 7 * DAY


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of an event in the last seven days: how often; by how many people on each platform, signed in and not, in each currency.
    `recent` None: the store could not be asked."""

    recent: int | None = None
    platforms: Mapping[str, int] = field(default_factory=dict)
    signed_in: Mapping[bool, int] = field(default_factory=dict)
    currencies: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Facts:
    """What a rule is held against. `cadence` and `latency` in µs, 0 where they are not known; `suppressed`: a linked suppression audience
    takes out whoever buys; `rules`: the live ones, by key, for those that refer to them."""

    purpose: str = ""
    cadence: int = 0
    latency: int = 0
    suppressed: bool = False
    events: Mapping[str, Seen] = field(default_factory=dict)
    rules: Mapping[str, Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finding:
    """`path` is where, as grammar.py writes it; empty: the whole rule. `fix` is the whole rule without this finding, where one can tell."""

    code: str
    path: str
    why: str
    fix: Node | None = field(default=None, compare=False)

    @property
    def title(self) -> str:
        return TITLES[self.code]
