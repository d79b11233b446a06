"""The one meaning of a JSON value in comparisons: its text, number and moment. How engines say the same in their own words is theirs.

A value is compared through its text form alone; numbers and moments are read from that text, so `"12.50"` from a file and
`12.5` from a call are the same number. A value that has no such form is missing for that comparison, never an error.
"""

import json
import re
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Context, Decimal

from audiences.clock import SECOND, to_us

_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]+)?")
_MOMENT = re.compile(
    r"[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}"
    r"([T ]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,9})?)?(Z|[+-](0[0-9]|1[0-4])(:?[0-5][0-9])?)?)?"
)
_MILLIONTH = Decimal("0.000001")
_ROUNDING = Context(prec=60, rounding=ROUND_HALF_UP)
_MILLISECONDS_FROM = 100_000_000_000  # as seconds this would be the year 5138

FIRST_US = to_us(datetime(1, 1, 1, tzinfo=UTC))
LAST_US = to_us(datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))


def text_of(value: object) -> str | None:
    """The text form of a JSON value; None for null (missing) and for numbers that JSON cannot write.

    `true`/`false`; numbers without a trailing `.0` (`10`, `1.5`, and an exponent only from 1e21 up and below 1e-6);
    objects and arrays as compact JSON.
    """
    match value:
        case None:
            return None
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _text_of_float(value)
        case Decimal():
            return plain(value) if value.is_finite() else None
        case _:
            return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def number_of(value: object) -> Decimal | None:
    """The number that a value's text form writes in plain digits, rounded half away from zero to 6 places; else None."""
    text = text_of(value)
    if text is None or not _NUMBER.fullmatch(text):
        return None
    return Decimal(text).quantize(_MILLIONTH, context=_ROUNDING)


def time_of(value: object) -> int | None:
    """Microseconds since 1970 UTC of an ISO 8601 date or datetime (without an offset: UTC) or of unix seconds.

    A number of 1e11 or more is unix milliseconds. What lies outside the years 1…9999 is no moment. Digits of a second
    beyond the sixth are cut off.
    """
    text = text_of(value)
    if text is None:
        return None
    us = moment_of(text)
    if us is None and (number := number_of(text)) is not None:
        us = int(number * (1000 if number >= _MILLISECONDS_FROM else SECOND) // 1)
    return us if us is not None and FIRST_US <= us <= LAST_US else None


def moment_of(text: str) -> int | None:
    """Microseconds since 1970 UTC of an ISO 8601 date or datetime, and of nothing else."""
    if not _MOMENT.fullmatch(text):
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:  # 30 February
        return None
    return to_us(moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def millionths(number: Decimal) -> int:
    """A number of at most 6 places as whole millionths, so that sums are exact whatever their length."""
    return int(number.scaleb(6, context=_ROUNDING))


def plain(number: Decimal) -> str:
    """A decimal's shortest plain digits: `500`, `0.05`, never an exponent."""
    text = format(number, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


def _text_of_float(value: float) -> str | None:
    text = repr(value)
    if not text.strip("-")[0].isdigit():  # inf, nan
        return None
    if "e" in text:
        if 1e-6 <= abs(value) < 1e21:
            return plain(Decimal(text))
        text = text.replace("e+", "e").replace("e-0", "e-")
    return text.removesuffix(".0")
