"""Which events can change what a rule says of a person at once: bring them in, or take them out. Pure, and never too few of them.

In words, and with what time does, it is exits.py's.
"""

from dataclasses import dataclass

from audiences.segments.judge import ANY_EVENT
from audiences.segments.tree import (
    All,
    Any,
    KnownFor,
    Measured,
    Moment,
    Node,
    Not,
    Occurred,
    Sequence,
)

_NONE: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Effects:
    """Names of events; "*" among them: any event. An event may be in both."""

    brings_in: frozenset[str] = _NONE
    takes_out: frozenset[str] = _NONE


def of(node: Node) -> Effects:
    """Of a rule whose references are resolved; what is in another audience is not looked into."""
    match node:
        case All(items) | Any(items):
            parts = [of(item) for item in items]
            return Effects(
                _NONE.union(*(part.brings_in for part in parts)), _NONE.union(*(part.takes_out for part in parts))
            )
        case Not(item):
            inside = of(item)
            return Effects(inside.takes_out, inside.brings_in)
        case Occurred(event, count):
            only = frozenset([event])
            return Effects(only if count.low else _NONE, only if count.high is not None else _NONE)
        case KnownFor():  # one that comes late and bears an early time makes them known for longer
            return Effects(frozenset([ANY_EVENT]))
        case Measured(event) | Moment(event):
            return Effects(frozenset([event]), frozenset([event]))
        case Sequence(steps, complete):
            names = frozenset(step.event for step in steps)
            return Effects(names, _NONE if complete else names)
        case _:
            return Effects()
