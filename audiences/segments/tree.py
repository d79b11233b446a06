"""The rule tree as frozen values: what a segment *is*. Reading and writing JSON is grammar.py's, judging judge.py's.

Durations are whole microseconds; moments are microseconds since 1970 UTC (audiences/clock.py).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias

Scalar: TypeAlias = str | int | Decimal | bool


@dataclass(frozen=True, slots=True)
class Within:
    """The last `duration` before as_of: (as_of − duration, as_of]."""

    duration: int


@dataclass(frozen=True, slots=True)
class Between:
    """start ≤ time < end; nothing after as_of counts, as everywhere."""

    start: int
    end: int


Window: TypeAlias = Within | Between | None  # None: ever


@dataclass(frozen=True, slots=True)
class Count:
    """At least `low` and, where `high` is given, at most `high` occurrences. high=0 means "did not"."""

    low: int
    high: int | None


@dataclass(frozen=True, slots=True)
class Condition:
    """A test of one value: `name` is the attribute or property. `values` by op: none for exists/missing, one, two for between, or many."""

    name: str
    op: str
    values: tuple[Scalar, ...] = ()


@dataclass(frozen=True, slots=True)
class Attribute:
    """A test of an attribute of the profile, as it is today. Relative dates count from as_of."""

    condition: Condition


@dataclass(frozen=True, slots=True)
class Occurred:
    """How often an event happened."""

    event: str
    count: Count
    window: Window = None
    where: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class KnownFor:
    """The profile is at least so old: the earlier of created_at and its first event ≤ as_of − duration."""

    duration: int


@dataclass(frozen=True, slots=True)
class Measured:
    """A number over an event's occurrences: measure is sum, avg, min or max of `property`; compared by `op` with `values`."""

    event: str
    measure: str
    property: str
    op: str
    values: tuple[Decimal, ...]
    window: Window = None
    where: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Moment:
    """When an event happened first or last (`which`), compared like a date: before, after, between, within_last, not_within_last."""

    event: str
    which: str
    op: str
    values: tuple[int, ...]
    window: Window = None
    where: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a sequence. `within` runs from the step before, inclusive; on the first step, back from as_of."""

    event: str
    within: int | None = None
    where: tuple[Condition, ...] = ()


@dataclass(frozen=True, slots=True)
class Sequence:
    """Each step strictly later than the one before. complete=False: all but the last happened, and the last one's window closed without it."""

    steps: tuple[Step, ...]
    complete: bool = True


@dataclass(frozen=True, slots=True)
class InAudience:
    key: str


@dataclass(frozen=True, slots=True)
class InList:
    key: str


@dataclass(frozen=True, slots=True)
class InCustomerioSegment:
    id: int


@dataclass(frozen=True, slots=True)
class Bucket:
    """start ≤ bucket < end, in hundredths of a percent (0…10,000)."""

    salt: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class All:
    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Any:
    items: "tuple[Node, ...]"


@dataclass(frozen=True, slots=True)
class Not:
    item: "Node"


Leaf: TypeAlias = (
    Attribute | Occurred | KnownFor | Measured | Moment | Sequence | InAudience | InList | InCustomerioSegment | Bucket
)
Node: TypeAlias = All | Any | Not | Leaf


def leaves(node: Node, path: str = "") -> Iterator[tuple[str, Leaf]]:
    """Every leaf with its path, in order: `all[1].not`. The root leaf's path is empty."""
    dot = "." if path else ""
    match node:
        case All(items) | Any(items):
            word = "all" if isinstance(node, All) else "any"
            for index, item in enumerate(items):
                yield from leaves(item, f"{path}{dot}{word}[{index}]")
        case Not(item):
            yield from leaves(item, f"{path}{dot}not")
        case _:
            yield path, node
