"""Moments as people type them after a command: ISO 8601, a date being its midnight, UTC where no zone is named."""

from argparse import ArgumentTypeError
from datetime import UTC, datetime

from audiences import clock


def moment(text: str) -> int:
    """Microseconds since 1970 UTC. Raises ArgumentTypeError, so that it can be an argument's `type`."""
    try:
        parsed = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a moment; write 1998-07-01 or 1998-07-01T12:00:00Z") from None
    return clock.to_us(parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC))


def iso(us: int) -> str:
    """The same moment, to be read back."""
    return clock.from_us(us).isoformat().replace("+00:00", "Z")
