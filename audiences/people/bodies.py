"""From bytes to checked JSON: what is too large, too deep or cannot be stored is refused, naming the place. Pure; no meaning of any call here."""

import json
import math
from collections.abc import Mapping
from typing import Any, NoReturn

import orjson

DEEPEST = 20
ID_BYTES = 150
NAME_BYTES = 150
VALUE_BYTES = 1_000
ATTRIBUTES = 300
EVENT_NAME_BYTES = 100
EVENT_DATA_BYTES = 100_000

_LARGEST = 2**64 - 1
_UNLIMITED = frozenset({"cio_subscription_preferences", "cio_relationships"})  # Customer.io's own, larger by nature


class Refused(Exception):
    """What cannot be taken in: the place, and why in words, never the value. `kind` is "required" or "invalid"."""

    def __init__(self, place: str, reason: str, kind: str = "invalid") -> None:
        super().__init__(f"{place}: {reason}")
        self.field, self.reason, self.kind = place, reason, kind


def load(raw: bytes) -> tuple[Any, bool]:
    """The JSON in `raw`, and whether every string and number in it is known to be storable. If not, `check` each part."""
    try:
        return orjson.loads(raw), b"\\u0000" not in raw
    except orjson.JSONDecodeError:
        pass  # Python's own parser can say where, and lets lone surrogates through to be named
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise Refused("body", f"not UTF-8 at byte {error.start}") from None
    try:
        return json.loads(text, parse_constant=_no_constant), False
    except json.JSONDecodeError as error:
        raise Refused("body", f"not JSON: {error.msg} at character {error.pos}") from None
    except RecursionError:
        raise Refused("body", "nested too deeply") from None
    except ValueError:
        raise Refused("body", "a number has too many digits") from None


def check(value: Any, place: str, depth: int = 0) -> None:
    """Refuse what no database keeps: NUL, lone surrogates, endless or huge numbers, nesting beyond 20."""
    if depth > DEEPEST:
        raise Refused(place, f"nested deeper than {DEEPEST} levels")
    if isinstance(value, str):
        check_text(value, place)
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key, place)
            check(item, f"{place}.{short(key)}", depth + 1)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            check(item, f"{place}[{position}]", depth + 1)
    elif isinstance(value, float):
        if not math.isfinite(value):
            raise Refused(place, "not a finite number")
    elif isinstance(value, int) and not -(2**63) <= value <= _LARGEST:
        raise Refused(place, "a number beyond 64 bits")


def check_text(text: str, place: str) -> None:
    """Refuse NUL and lone surrogates."""
    if "\0" in text:
        raise Refused(place, "holds a NUL character")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise Refused(place, "holds half of a surrogate pair") from None


def check_depth(value: Any, place: str, depth: int = 0) -> None:
    """Refuse nesting beyond 20 levels in what `load` called storable."""
    if depth > DEEPEST:
        raise Refused(place, f"nested deeper than {DEEPEST} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            if isinstance(item, dict | list):
                check_depth(item, f"{place}.{short(key)}", depth + 1)
    elif isinstance(value, list):
        for position, item in enumerate(value):
            if isinstance(item, dict | list):
                check_depth(item, f"{place}[{position}]", depth + 1)


def mapping(value: Any, place: str) -> dict[str, Any]:
    """An object; null and absence are an empty one."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Refused(place, "must be an object")
    return value


def identifier(value: Any, place: str, at_most: int = ID_BYTES) -> str:
    """A non-empty text (whole numbers are taken as text), trimmed, at most 150 bytes."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if value is None or value == "":
        raise Refused(place, "is required", "required")
    if not isinstance(value, str):
        raise Refused(place, "must be text")
    value = value.strip()
    if not value:
        raise Refused(place, "is required", "required")
    within(value, place, at_most)
    return value


def within(text: str, place: str, at_most: int) -> None:
    """Refuse more than so many bytes of UTF-8."""
    if len(text) > at_most or (len(text) * 4 > at_most and len(text.encode()) > at_most):
        raise Refused(place, f"longer than {at_most} bytes")


def attributes(values: Mapping[str, Any], place: str) -> None:
    """Refuse attributes that break a limit: 300 of them, names of 150 bytes, values of 1,000."""
    if len(values) > ATTRIBUTES:
        raise Refused(place, f"more than {ATTRIBUTES} attributes")
    for name, value in values.items():
        at = f"{place}.{short(name)}" if place else short(name)
        if not name.strip():
            raise Refused(place or "attributes", "an attribute without a name")
        within(name, at, NAME_BYTES)
        if isinstance(value, str):
            within(value, at, VALUE_BYTES)
        elif isinstance(value, dict | list):
            check_depth(value, at)
            if len(orjson.dumps(value)) > VALUE_BYTES and name not in _UNLIMITED:
                raise Refused(at, f"longer than {VALUE_BYTES} bytes")


def properties(values: Mapping[str, Any], place: str) -> str:
    """An event's data as the JSON text that is kept; refused beyond 100,000 bytes or with names beyond 150."""
    for name, value in values.items():
        if len(name) * 4 > NAME_BYTES:
            within(name, f"{place}.{short(name)}", NAME_BYTES)
        if isinstance(value, dict | list):
            check_depth(value, f"{place}.{short(name)}")
    text = orjson.dumps(values)
    if len(text) > EVENT_DATA_BYTES:
        raise Refused(place, f"larger than {EVENT_DATA_BYTES} bytes")
    return text.decode()


def short(name: str) -> str:
    """A name as an error message may show it: it may be a megabyte long."""
    name = name if len(name) <= 40 else f"{name[:40]}…"
    return name.encode("ascii", "backslashreplace").decode() if not name.isprintable() else name


def _no_constant(name: str) -> NoReturn:
    raise Refused("body", f"not JSON: {name}")
