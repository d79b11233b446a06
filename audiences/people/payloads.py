"""What arrives, as frozen values: rows of people, and the calls of the Track API, v1 and v2. Pure: no tables, no requests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from audiences.clock import MINUTE
from audiences.people import bodies
from audiences.people.bodies import Refused
from audiences.people.normalise import (
    NOTHING_SAID,
    Identifiers,
    Problem,
    Said,
    consents_of,
    email,
    identifiers_of,
    moment_of,
    phone,
)

__all__ = ["Identifiers", "Problem", "ProfileRow", "Refused", "identifiers_of", "moment_of", "profile_row"]

AHEAD_AT_MOST = 5 * MINUTE
LIST_CHANGE_AT_MOST = 1000
_RESERVED = (
    "id",
    "anonymous_id",
    "cio_relationships",
    "_timestamp",
    "_update",
    "cio_id",
)  # said about a person, not attributes


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
    consents: Mapping[str, Said] = field(default_factory=dict)
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
    """A row from a key and raw attributes, everything in them normalised. Attributes are kept as given; raises Refused beyond a limit."""
    bodies.attributes(attributes, "")
    identifiers = identifiers_of(attributes, default_region)
    granted, problems = consents_of(attributes)
    said_us, late = _said_at(attributes, at_us) if granted else (at_us, ())
    consents = {purpose: Said(answer, said_us) for purpose, answer in granted.items()}
    created_us = None
    if attributes.get("created_at") not in (None, ""):
        created_us = moment_of(attributes["created_at"])
        if created_us is None or created_us < 0:
            created_us = None
            problems = (*problems, Problem("created_at", "not a moment since 1970: kept as an attribute"))
        else:
            created_us = min(created_us, at_us)
    problems = identifiers.problems + problems + late
    return ProfileRow(kind, value, at_us, attributes, identifiers, consents, external_id, created_us, create, problems)


def _said_at(attributes: Mapping[str, Any], at_us: int) -> tuple[int, tuple[Problem, ...]]:
    """When consent was given or withdrawn: `consent_at`, else when the row was said. It cannot lie ahead."""
    given = attributes.get("consent_at")
    if given in (None, ""):
        return at_us, ()
    moment = moment_of(given)
    if moment is None or moment < 0:
        return at_us, (Problem("consent_at", "not a moment since 1970: taken as said now"),)
    return min(moment, at_us), ()


# --- Calls


@dataclass(frozen=True, slots=True)
class Who:
    """Whom a call is about: "id", "email", "phone", "anonymous_id" or "cio_id", and its normalised value."""

    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Identify:
    row: ProfileRow
    anonymous_id: str = ""


@dataclass(frozen=True, slots=True)
class Track:
    """An event. `given_us` is the time in the call as it stood there, None if it had none; `time_us` is what counts."""

    who: Who
    name: str
    time_us: int
    received_us: int
    properties: Mapping[str, Any]
    text: str  # the properties as they are kept
    event_id: str = ""
    given_us: int | None = None
    problems: tuple[Problem, ...] = ()


@dataclass(frozen=True, slots=True)
class Delete:
    who: Who


@dataclass(frozen=True, slots=True)
class Suppress:
    who: Who


@dataclass(frozen=True, slots=True)
class Unsuppress:
    who: Who


@dataclass(frozen=True, slots=True)
class Merge:
    survivor: Who
    old: Who


@dataclass(frozen=True, slots=True)
class Unkept:
    """A well-formed call about something that Rollcall keeps nothing of: devices, objects, relationships, deliveries."""

    what: str


@dataclass(frozen=True, slots=True)
class ListChange:
    """People to put on a list or take off it."""

    kind: str
    values: tuple[str, ...]


Call = Identify | Track | Delete | Suppress | Unsuppress | Merge | Unkept


@dataclass(frozen=True, slots=True)
class Context:
    """What a call cannot know by itself: when it arrived, and the country of phone numbers without a prefix."""

    received_us: int
    default_region: str


# --- v1


def who_in_path(text: str, context: Context) -> Who:
    """The identifier of a v1 path: `cio_…`, an e-mail address, else an id (a phone number is taken as an id)."""
    bodies.check_text(text, "identifier")
    text = bodies.identifier(text, "identifier")
    if text.startswith("cio_"):
        return Who("cio_id", text.removeprefix("cio_"))
    address = email(text) if "@" in text else ""
    return Who("email", address) if address else Who("id", text)


def identify_v1(identifier: str, body: Any, context: Context) -> Identify:
    """PUT /api/v1/customers/{identifier}"""
    return _identify(who_in_path(identifier, context), bodies.mapping(body, "body"), "", context)


def event_v1(identifier: str, body: Any, context: Context) -> Track:
    """POST /api/v1/customers/{identifier}/events"""
    return _event(who_in_path(identifier, context), bodies.mapping(body, "body"), "data", context)


def anonymous_event_v1(body: Any, context: Context) -> Track | Unkept:
    """POST /api/v1/events: an event of a visitor; without an anonymous_id it is nobody's and nothing is kept of it."""
    body = bodies.mapping(body, "body")
    anonymous_id = body.get("anonymous_id")
    if anonymous_id in (None, ""):
        _event(Who("anonymous_id", ""), body, "data", context)
        return Unkept("an event of nobody")
    return _event(Who("anonymous_id", bodies.identifier(anonymous_id, "anonymous_id")), body, "data", context)


def merge_v1(body: Any, context: Context) -> Merge:
    """POST /api/v1/merge_customers"""
    body = bodies.mapping(body, "body")
    return Merge(_one_of(body.get("primary"), "primary", context), _one_of(body.get("secondary"), "secondary", context))


def device_v1(identifier: str, body: Any, context: Context) -> Unkept:
    """PUT /api/v1/customers/{identifier}/devices"""
    who_in_path(identifier, context)
    device = bodies.mapping(bodies.mapping(body, "body").get("device"), "device")
    bodies.identifier(device.get("id"), "device.id", bodies.VALUE_BYTES)
    return Unkept("a device")


def list_change_v1(id_type: str, body: Any, context: Context) -> ListChange:
    """POST /api/v1/segments/{id}/add_customers and remove_customers"""
    ids = bodies.mapping(body, "body").get("ids")
    if id_type not in ("id", "email", "cio_id"):
        raise Refused("id_type", "must be id, email or cio_id")
    if not isinstance(ids, list):
        raise Refused("ids", "must be a list", "required" if ids is None else "invalid")
    if len(ids) > LIST_CHANGE_AT_MOST:
        raise Refused("ids", f"more than {LIST_CHANGE_AT_MOST}")
    texts = [bodies.identifier(value, f"ids[{position}]") for position, value in enumerate(ids)]
    if id_type == "email":
        texts = [text.lower() for text in texts]
    return ListChange(
        id_type, tuple(dict.fromkeys(text.removeprefix("cio_") if id_type == "cio_id" else text for text in texts))
    )


# --- v2


def entity_v2(body: Any, context: Context) -> Call:
    """POST /api/v2/entity, and each item of a batch."""
    if not isinstance(body, dict):
        raise Refused("body", "must be an object")
    kind = _one_word(body, "type", ("person", "object", "delivery"))
    action = _one_word(body, "action", tuple(_V2_PERSON) if kind == "person" else _V2_UNKEPT[kind])
    return _V2_PERSON[action](body, context) if kind == "person" else Unkept(f"{kind} {action}")


def batch_v2(body: Any) -> list[Any]:
    """The items of POST /api/v2/batch."""
    items = bodies.mapping(body, "body").get("batch")
    if not isinstance(items, list):
        raise Refused("batch", "must be a list", "required" if items is None else "invalid")
    if not items:
        raise Refused("batch", "is empty", "required")
    return items


def _v2_who(body: Mapping[str, Any], context: Context, *, visitors: bool = False) -> Who:
    return _one_of(body.get("identifiers"), "identifiers", context, (*_NAMES, *(("anonymous_id",) if visitors else ())))


def _v2_identify(body: Mapping[str, Any], context: Context) -> Identify:
    attributes = bodies.mapping(body.get("attributes"), "attributes")
    if "timestamp" in body and "_timestamp" not in attributes:
        attributes = {**attributes, "_timestamp": body["timestamp"]}
    return _identify(_v2_who(body, context), attributes, "attributes", context)


def _v2_event(body: Mapping[str, Any], context: Context) -> Track:
    return _event(_v2_who(body, context, visitors=True), body, "attributes", context)


def _v2_merge(body: Mapping[str, Any], context: Context) -> Merge:
    """The survivor is `primary` (the identifiers, where it is left out)."""
    survivor = body.get("primary", body.get("identifiers"))
    return Merge(_one_of(survivor, "primary", context), _one_of(body.get("secondary"), "secondary", context))


def _v2_unkept(what: str) -> Callable[[Mapping[str, Any], Context], Call]:
    def parse(body: Mapping[str, Any], context: Context) -> Call:
        _v2_who(body, context)
        return Unkept(what)

    return parse


_V2_PERSON: dict[str, Callable[[Mapping[str, Any], Context], Call]] = {
    "identify": _v2_identify,
    "event": _v2_event,
    "page": _v2_event,
    "screen": _v2_event,
    "delete": lambda body, context: Delete(_v2_who(body, context)),
    "suppress": lambda body, context: Suppress(_v2_who(body, context)),
    "unsuppress": lambda body, context: Unsuppress(_v2_who(body, context)),
    "merge": _v2_merge,
    "add_device": _v2_unkept("a device"),
    "delete_device": _v2_unkept("a device"),
    "add_relationships": _v2_unkept("relationships"),
    "delete_relationships": _v2_unkept("relationships"),
}
_V2_UNKEPT = {
    "object": ("identify", "identify_anonymous", "delete", "add_relationships", "delete_relationships"),
    "delivery": ("event",),
}
_NAMES = ("id", "email", "phone", "cio_id")


# --- What both have in common


def _identify(who: Who, given: Mapping[str, Any], place: str, context: Context) -> Identify:
    at = f"{place}." if place else ""
    attributes = {name: value for name, value in given.items() if name not in _RESERVED}
    at_us: int = context.received_us
    problems: tuple[Problem, ...] = ()
    if given.get("_timestamp") is not None:
        at_us, problems = _time(given["_timestamp"], f"{at}_timestamp", context)
    if who.kind in ("email", "phone") and not attributes.get(who.kind):
        attributes[who.kind] = who.value
    external_id = bodies.identifier(given["id"], f"{at}id") if given.get("id") not in (None, "") else ""
    if who.kind == "id" and external_id == who.value:
        external_id = ""
    anonymous_id = given.get("anonymous_id")
    bodies.attributes(attributes, place)
    row = profile_row(
        who.kind,
        who.value,
        attributes,
        default_region=context.default_region,
        at_us=at_us,
        external_id=external_id,
        create=given.get("_update") is not True,
    )
    row = replace(row, problems=row.problems + problems) if problems else row
    return Identify(row, bodies.identifier(anonymous_id, f"{at}anonymous_id") if anonymous_id not in (None, "") else "")


def _event(who: Who, body: Mapping[str, Any], data_in: str, context: Context) -> Track:
    name = bodies.identifier(body.get("name"), "name", bodies.EVENT_NAME_BYTES)
    kind = body.get("type")
    if data_in == "data" and kind not in (None, "", "event", "page", "screen"):
        raise Refused("type", "must be event, page or screen")
    given = body.get("id")
    event_id = bodies.identifier(given, "id") if given not in (None, "") else ""
    properties = bodies.mapping(body.get(data_in), data_in)
    text = bodies.properties(properties, data_in)
    received_us = context.received_us
    if body.get("timestamp") in (None, ""):
        return Track(who, name, received_us, received_us, properties, text, event_id)
    given_us = moment_of(body["timestamp"])
    time_us, problems = _time(body["timestamp"], "timestamp", context)
    return Track(who, name, time_us, received_us, properties, text, event_id, given_us, problems)


def _time(value: Any, place: str, context: Context) -> tuple[int, tuple[Problem, ...]]:
    """The moment, and what is wrong with it: more than 5 minutes ahead becomes just that. Before 1970, or none at all, is refused."""
    us = moment_of(value)
    if us is None:
        raise Refused(place, "must be a time: unix seconds or ISO 8601")
    if us < 0:
        raise Refused(place, "must not be before 1970")
    latest = context.received_us + AHEAD_AT_MOST
    if us > latest:
        return latest, (Problem(place, "lies in the future: set to 5 minutes after it was received"),)
    return us, ()


def _one_of(value: Any, place: str, context: Context, kinds: tuple[str, ...] = _NAMES) -> Who:
    given = bodies.mapping(value, place)
    named = [kind for kind, text in given.items() if kind in kinds and text is not None and text != ""]
    if len(named) != 1:
        raise Refused(place, f"must hold one of {', '.join(kinds)}", "invalid" if named else "required")
    kind = named[0]
    text = bodies.identifier(given[kind], f"{place}.{kind}", 254 if kind == "email" else bodies.ID_BYTES)
    if kind == "cio_id":
        return Who(kind, text.removeprefix("cio_"))
    if kind in ("email", "phone"):
        text = email(text) if kind == "email" else phone(text, context.default_region)
        if not text:
            raise Refused(f"{place}.{kind}", "is not an e-mail address" if kind == "email" else "is not a phone number")
    return Who(kind, text)


def _one_word(body: Mapping[str, Any], name: str, words: tuple[str, ...]) -> str:
    value = body.get(name)
    if value is None:
        raise Refused(name, "is required", "required")
    if not isinstance(value, str) or value not in words:
        raise Refused(name, f"must be one of {', '.join(words)}")
    return value
