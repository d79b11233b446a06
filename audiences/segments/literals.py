"""The single values in a rule (texts, numbers, durations, moments): read, refused with a path, and written back. Rules are grammar.py's.

Messages name keys and places, never the values of a rule: those may be somebody's e-mail address.
"""

import difflib
import re
from collections.abc import Iterable
from datetime import UTC, date, datetime, time
from decimal import Decimal

from audiences.clock import DAY, HOUR, MINUTE, from_us, to_us
from audiences.segments.values import LAST_US, moment_of, plain

MAX_TEXT = 1_000
SHORTEST, LONGEST_WINDOW, LONGEST_AGE = MINUTE, 540 * DAY, 3_660 * DAY

_UNITS = {
    "w": 7 * DAY,
    "d": DAY,
    "h": HOUR,
    "m": MINUTE,
}  # largest first: the canonical form takes the first that divides
_DURATION = re.compile(r"([0-9]{1,9})([mhdw])")
_FIRST_US = to_us(datetime(1000, 1, 1, tzinfo=UTC))  # the first that has four digits
_DIGITS = 15  # what a JSON number keeps exactly in every reader


class Refused(ValueError):
    """What was given is no rule. `path` names the place (empty: the whole), `words` what is wrong and what would be right."""

    def __init__(self, path: str, words: str) -> None:
        super().__init__(path, words)
        self.path = path
        self.words = words

    def __str__(self) -> str:
        return f"{self.path}: {self.words}" if self.path else self.words


def join(path: str, key: str) -> str:
    """The path of `key` inside `path`, safe to print whatever the key is."""
    return f"{path}.{clip(key)}" if path else clip(key)


def clip(name: str, most: int = 40) -> str:
    """A name as a message may show it: printable, at most `most` characters and an ellipsis."""
    shown = "".join(letter if letter.isprintable() else "�" for letter in name[:most])
    return shown + "…" if len(name) > most else shown


def nearest(given: str, known: Iterable[str]) -> str:
    """The end of a refusal: the known word that was probably meant, else all of them."""
    words = list(known)
    close = difflib.get_close_matches(given[:60], words, n=1)
    return f"did you mean {close[0]}?" if close else f"use {listed(words)}"


def listed(words: list[str]) -> str:
    """`a, b or c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def read_text(data: object, path: str, *, empty: bool = False) -> str:
    """A text of 1…1,000 characters (0… with `empty`) without NUL and lone surrogates, which databases refuse."""
    if not isinstance(data, str):
        raise Refused(path, "must be text")
    if len(data) > MAX_TEXT:
        raise Refused(path, f"is {len(data):,} characters long; the most is {MAX_TEXT:,}")
    if not data and not empty:
        raise Refused(path, "must not be empty")
    if "\0" in data:
        raise Refused(path, "contains a NUL character")
    if any("\ud800" <= letter <= "\udfff" for letter in data):
        raise Refused(path, "contains half of a surrogate pair, which is no character")
    return data


def read_plain(data: object, path: str) -> str:
    """The text form of a text, number, true/false or YAML date: what `is` and `in` compare with."""
    match data:
        case str():
            return read_text(data, path, empty=True)
        case bool():
            return "true" if data else "false"
        case date():
            return data.isoformat()
        case int() if data.bit_length() < 3_000:
            return str(data)
        case float() | Decimal():
            return plain(read_number(data, path))
        case None:
            raise Refused(path, "must not be null; the op missing finds people without a value")
        case _:
            raise Refused(path, "must be text, a number, true or false")


def read_number(data: object, path: str) -> Decimal:
    """A number below 1e18 with at most 6 places and, unless whole, 15 digits. Numbers written as text are refused."""
    match data:
        case bool() | str():
            raise Refused(path, "must be a number, written without quotes")
        case int() if data.bit_length() < 100:
            number = Decimal(data)
        case int():
            raise Refused(path, "is too large a number; it must be below 1e18")
        case float():
            number = Decimal(repr(data))
        case Decimal():
            number = data
        case _:
            raise Refused(path, "must be a number")
    if not number.is_finite():
        raise Refused(path, "must be a finite number")
    if not number:
        return Decimal(0)
    if number.adjusted() >= 18:
        raise Refused(path, "is too large a number; it must be below 1e18")
    if number.adjusted() < -6 or len(number.as_tuple().digits) > 40:
        raise Refused(path, "may have at most 6 decimal places")
    number = Decimal(plain(number))
    _, digits, exponent = number.as_tuple()
    if not isinstance(exponent, int) or exponent < -6:
        raise Refused(path, "may have at most 6 decimal places")
    if exponent < 0 and len(digits) > _DIGITS:
        raise Refused(path, f"may have at most {_DIGITS} digits")
    return number


def write_number(number: Decimal) -> int | float:
    """The JSON number that read_number reads as the same."""
    return int(number) if number == number.to_integral_value() else float(number)


def read_whole(data: object, path: str, low: int, high: int) -> int:
    """A whole number, low ≤ n ≤ high. true is not 1."""
    if not isinstance(data, int) or isinstance(data, bool):
        raise Refused(path, "must be a whole number")
    if data < low:
        raise Refused(path, f"must be ≥ {low}")
    if data > high:
        raise Refused(path, f"must be ≤ {high:,}")
    return data


def read_duration(data: object, path: str, longest: int = LONGEST_WINDOW, remedy: str = "") -> int:
    """ "30m", "24h", "3d", "8w" as µs, from a minute to `longest`."""
    match = _DURATION.fullmatch(data) if isinstance(data, str) else None
    if match is None:
        raise Refused(path, 'must be a duration such as "30m", "24h", "3d" or "8w"')
    us = int(match[1]) * _UNITS[match[2]]
    if not SHORTEST <= us <= longest:
        raise Refused(path, f"must be from 1m to {longest // DAY}d{remedy}")
    return us


def write_duration(us: int) -> str:
    """The duration in the largest unit that divides it: 7 days are `1w`, 90 minutes `90m`."""
    for unit, length in _UNITS.items():
        if us % length == 0:
            return f"{us // length}{unit}"
    raise ValueError("a duration is whole minutes")


def read_moment(data: object, path: str) -> int:
    """An ISO 8601 date (its midnight) or datetime, UTC unless it says otherwise, as µs since 1970. YAML's dates are welcome."""
    match data:
        case datetime():
            us: int | None = to_us(data if data.tzinfo else data.replace(tzinfo=UTC))
        case date():
            us = to_us(datetime.combine(data, time(), UTC))
        case str():
            us = moment_of(data)
        case _:
            us = None
    if us is None or not _FIRST_US <= us <= LAST_US:
        raise Refused(path, 'must be a date or time such as "2025-03-01" or "2025-03-01T09:30:00Z"')
    return us


def write_moment(us: int) -> str:
    """The shortest ISO form: the date alone at midnight."""
    text = from_us(us).isoformat().removesuffix("+00:00")
    return text.removesuffix("T00:00:00") if text.endswith("T00:00:00") else text + "Z"
