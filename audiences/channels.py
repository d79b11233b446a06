"""Which platforms there are, as far as names must know. The floor that speaks to them tells so when it starts (destinations/apps.py)."""

from collections.abc import Iterable
from dataclasses import dataclass

from audiences.naming import LONGEST, Value


@dataclass(frozen=True, slots=True)
class Channel:
    """`kind` as a destination has it; `name_length` characters fit there; without `can_rename` a name stays as it was first told."""

    kind: str
    label: str
    name_length: int = LONGEST
    can_rename: bool = True


_known: dict[str, Channel] = {}


def tell(channels: Iterable[Channel]) -> None:
    """These are there, in this order."""
    _known.update((channel.kind, channel) for channel in channels)


def known() -> tuple[Channel, ...]:
    return tuple(_known.values())


def values() -> tuple[Value, ...]:
    """Each as a value of a convention's channel token, called by its kind."""
    return tuple(Value(channel.kind, channel.label, channel.kind) for channel in known())


def room() -> dict[str, int]:
    """Kind → how many characters of a name fit there, and here."""
    return {channel.kind: min(channel.name_length, LONGEST) for channel in known()}
