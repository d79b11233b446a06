"""Rules in terms of fewer leaves: counts become "at least", negative tests become the complement of their positives. Pure.

"Did not", "at most", "exactly" and "between" all rest on "at least", so audiences that ask opposite questions share one answer.
"""

from dataclasses import replace

from audiences.segments.tree import (
    All,
    Attribute,
    Bucket,
    Condition,
    Count,
    InAudience,
    InCustomerioSegment,
    InList,
    Leaf,
    Measured,
    Moment,
    Node,
    Not,
    Occurred,
    Sequence,
    Within,
)

_RELATIVE = {"within_last", "not_within_last", "within_next"}
_OPPOSITE = {"is_not": "is", "not_in": "in", "missing": "exists", "not_within_last": "within_last"}


def primitive(leaf: Leaf) -> Node:
    """The same rule over leaves that engines answer: Occurred only with Count(n ≥ 1, None), Attribute only with positive ops."""
    match leaf:
        case Occurred(count=Count(low, high)) if low < 1 or high is not None:
            parts: list[Node] = []
            if low > 0:
                parts.append(replace(leaf, count=Count(low, None)))
            if high is not None:
                parts.append(Not(replace(leaf, count=Count(high + 1, None))))
            return parts[0] if len(parts) == 1 else All(tuple(parts))
        case Attribute(Condition(name, op, values)) if op in _OPPOSITE:
            return Not(Attribute(Condition(name, _OPPOSITE[op], values)))
    return leaf


def is_relative(leaf: Leaf) -> bool:
    """Whether a leaf counts back from as_of, so that its answer changes as time passes and nothing happens."""
    match leaf:
        case Attribute(condition):
            return condition.op in _RELATIVE
        case Occurred(window=window, where=where) | Measured(window=window, where=where):
            return isinstance(window, Within) or any(one.op in _RELATIVE for one in where)
        case Moment(op=op, window=window, where=where):
            return op in _RELATIVE or isinstance(window, Within) or any(one.op in _RELATIVE for one in where)
        case Bucket() | InList() | InCustomerioSegment() | InAudience():
            return False
    return True


def happened(sequence: Sequence) -> list[Occurred]:
    """What must have happened, in whatever order, for a sequence to be possible: its steps, without the last if that must be missing."""
    first, steps = sequence.steps[0], sequence.steps if sequence.complete else sequence.steps[:-1]
    window = None if first.within is None else Within(first.within)
    return [Occurred(step.event, Count(1, None), window, step.where) for step in steps]
