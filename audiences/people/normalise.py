"""The one form in which identifiers, consents and moments are kept, whichever door they came in by. Pure: no tables, no wire formats.

What cannot be brought into that form stays an attribute and is named in `problems`; it never becomes an identifier.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import phonenumbers

from audiences.clock import SECOND
from audiences.segments.values import time_of

FIELDS = ("email", "phone", "mobile_ad_id", "first_name", "last_name", "country", "zip")
PURPOSES = ("ad_user_data", "ad_personalization", "analytics")

_EMAIL = re.compile(
    r"[^\s@<>()\[\],;:\"\\\x00-\x1f\x7f]+@[^\s@<>()\[\],;:\"\\\x00-\x1f\x7f.]+(\.[^\s@<>()\[\],;:\"\\\x00-\x1f\x7f.]+)+"
)
_AD_ID = re.compile(r"[0-9a-f-]{16,64}")
_MILLISECONDS_FROM = 100_000_000_000


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that was not taken as given: which field, and why in words. Never the value itself."""

    field: str
    reason: str


@dataclass(frozen=True, slots=True)
class Identifiers:
    """What some attributes say about who this is. A field that is missing here was not mentioned; an empty one is to be cleared."""

    given: Mapping[str, str]
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Said:
    """One word about consent: when it was said, and whence. `attribute`: read from it, else said in so many words."""

    granted: bool
    at_us: int
    attribute: str = ""
    source: str = ""  # empty: as the rest of the row


NOTHING_SAID = Identifiers({})


def identifiers_of(attributes: Mapping[str, Any], default_region: str) -> Identifiers:
    """The identifiers among attributes, normalised. `default_region` (ISO 3166) is for phone numbers without a prefix."""
    given: dict[str, str] = {}
    problems: list[Problem] = []
    for field in FIELDS:
        if field not in attributes:
            continue
        text = _text(attributes[field])
        value = _NORMALISED[field](text, default_region) if text else ""
        given[field] = value
        if text and not value and field in _MUST_BE_WELL_FORMED:
            problems.append(Problem(field, _MUST_BE_WELL_FORMED[field]))
    return Identifiers(given, tuple(problems)) if given else NOTHING_SAID


def email(text: str) -> str:
    """Trimmed and lower-cased; empty if it is no e-mail address."""
    text = text.strip().lower()
    return text if len(text) <= 254 and _EMAIL.fullmatch(text) else ""


def phone(text: str, default_region: str) -> str:
    """E.164; empty if it cannot be a number of its country."""
    if len(text) > 40:
        return ""
    try:
        number = phonenumbers.parse(text, default_region)
    except phonenumbers.NumberParseException:
        return ""
    possible = phonenumbers.is_possible_number_with_reason(number) == phonenumbers.ValidationResult.IS_POSSIBLE
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) if possible else ""


def consents_of(attributes: Mapping[str, Any]) -> tuple[dict[str, bool], tuple[Problem, ...]]:
    """What attributes say about consent, by purpose: flat `consent_analytics` or nested `consent: {"analytics": …}`; flat wins."""
    said: dict[str, Any] = {}
    nested = attributes.get("consent")
    if isinstance(nested, Mapping):
        said.update((purpose, nested[purpose]) for purpose in PURPOSES if purpose in nested)
    said.update((p, attributes[f"consent_{p}"]) for p in PURPOSES if f"consent_{p}" in attributes)
    consents: dict[str, bool] = {}
    problems: list[Problem] = []
    for purpose, value in said.items():
        granted = consent_word(value)
        if granted is not None:
            consents[purpose] = granted
        elif value not in (None, ""):
            problems.append(Problem(f"consent_{purpose}", "must be true, false, granted or denied"))
    return consents, tuple(problems)


def consent_word(value: Any) -> bool | None:
    """Yes or no, as it is usually written; None if it is neither."""
    if not isinstance(value, str | bool | int | float):
        return None
    return _CONSENT_WORDS.get(value.strip().lower() if isinstance(value, str) else value)


def moment_of(value: Any) -> int | None:
    """Microseconds since 1970 UTC of unix seconds (milliseconds from 1e11 on) or an ISO 8601 date or time; None if it is neither."""
    if type(value) is int and 0 <= value < _MILLISECONDS_FROM:
        return value * SECOND  # what nearly every call holds
    return time_of(value.strip() if isinstance(value, str) else value)


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool) or value is None:
        return ""
    return str(value) if isinstance(value, int | float) else ""


def _country(text: str, _region: str) -> str:
    code = text.upper()
    code = "GB" if code == "UK" else code
    return code if code in phonenumbers.SUPPORTED_REGIONS else ""


def _ad_id(text: str, _region: str) -> str:
    code = text.lower()
    return code if _AD_ID.fullmatch(code) and code.strip("0-") else ""  # all zeros: the owner has opted out


def _name(text: str, _region: str) -> str:
    return " ".join(text.split())[:100].rstrip()


_NORMALISED = {
    "email": lambda text, _region: email(text),
    "phone": phone,
    "mobile_ad_id": _ad_id,
    "first_name": _name,
    "last_name": _name,
    "country": _country,
    "zip": lambda text, _region: " ".join(text.upper().split())[:20].rstrip(),
}
_MUST_BE_WELL_FORMED = {
    "email": "not an e-mail address: kept as an attribute, not used as an identifier",
    "phone": "not a phone number: kept as an attribute, not used as an identifier",
}
_CONSENT_WORDS: dict[Any, bool] = {
    True: True,
    False: False,
    "true": True,
    "false": False,
    "granted": True,
    "denied": False,
    "yes": True,
    "no": False,
    "1": True,
    "0": False,
}
