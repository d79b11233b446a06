"""What arrives, as frozen values: rows of people, and the calls of the Track API. Pure: no tables, no requests."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from audiences.people.normalise import (
    NOTHING_SAID,
    Identifiers,
    Problem,
    consents_of,
    identifiers_of,
    moment_of,
)

__all__ = ["Identifiers", "Problem", "ProfileRow", "Refused", "identifiers_of", "moment_of", "profile_row"]


class Refused(Exception):
    """What cannot be taken in: the place, and why in words, never the value."""

    def __init__(self, place: str, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.field, self.reason = place, reason


@dataclass(frozen=True, slots=True)
class ProfileRow:
    """Something said about one person, found by one key. Without attributes and so on it only makes sure that they exist.

    kind: "id", "email", "phone", "anonymous_id" or "cio_id" (the profile's number in hex, which is never made).
    external_id: an id to take on, when found by another key. create: whether to make a profile that is not there.
    """

    kind: str
    value: str
    at_us: int
    attributes: Mapping[str, Any] = field(default_factory=dict)  # None removes an attribute
    identifiers: Identifiers = NOTHING_SAID
    consents: Mapping[str, bool] = field(default_factory=dict)
    external_id: str = ""
    created_us: int | None = None
    create: bool = True
    problems: tuple[Problem, ...] = ()

    @property
    def only_found(self) -> bool:
        """Nothing is said but that this person exists."""
        return not (self.attributes or self.consents or self.external_id)


def profile_row(
    kind: str,
    value: str,
    attributes: Mapping[str, Any],
    *,
    default_region: str,
    at_us: int,
    external_id: str = "",
    create: bool = True,
) -> ProfileRow:
    """A row from a key and raw attributes, everything in them normalised. Attributes are kept as given."""
    identifiers = identifiers_of(attributes, default_region)
    consents, consent_problems = consents_of(attributes)
    created_us = moment_of(attributes["created_at"]) if "created_at" in attributes else None
    if created_us is not None:
        created_us = min(created_us, at_us) if created_us > 0 else None
    return ProfileRow(
        kind,
        value,
        at_us,
        attributes,
        identifiers,
        consents,
        external_id,
        created_us,
        create,
        identifiers.problems + consent_problems,
    )
