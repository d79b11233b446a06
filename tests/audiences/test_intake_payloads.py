"""What a call may hold, and the one form in which identifiers are kept."""

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from audiences.clock import DAY, MINUTE, SECOND
from audiences.people import bodies, normalise, payloads
from audiences.people.bodies import Refused
from audiences.people.payloads import Context, Delete, Identify, Merge, Suppress, Track, Unkept, Unsuppress, Who

NOW = 1_790_000_000 * SECOND
HERE = Context(NOW, "DE")


@pytest.mark.parametrize(
    ("given_", "kept"),
    [
        ("  Ann@Example.COM ", "ann@example.com"),
        ("ann+shop@example.co.uk", "ann+shop@example.co.uk"),
        ("İpek@example.com", "i̇pek@example.com"),
        ("ann", ""),
        ("ann@example", ""),
        ("ann@@example.com", ""),
        ("Ann <ann@example.com>", ""),
        ("ann@example..com", ""),
        ("a" * 250 + "@example.com", ""),
    ],
)
def test_an_email_is_trimmed_and_lower_cased_or_is_none(given_, kept):
    assert normalise.email(given_) == kept


@pytest.mark.parametrize(
    ("given_", "region", "kept"),
    [
        ("+49 151 23456789", "US", "+4915123456789"),
        ("0151 23456789", "DE", "+4915123456789"),
        ("0049 (151) 234-56789", "DE", "+4915123456789"),
        ("(202) 555-0143", "US", "+12025550143"),
        ("+39 06 698 12345", "US", "+390669812345"),
        ("12345", "US", ""),
        ("call me", "US", ""),
        ("+1" + "5" * 60, "US", ""),
        ("", "US", ""),
    ],
)
def test_a_phone_number_becomes_e164_with_the_workspaces_region_or_is_none(given_, region, kept):
    assert normalise.phone(given_, region) == kept


def test_the_other_identifiers_have_one_form_each():
    said = payloads.identifiers_of(
        {
            "country": " de",
            "zip": " sw1a  1aa",
            "mobile_ad_id": "AEBE52E7-03EE-455A-B3C4-E57283966239",
            "first_name": " Ann  Lee ",
        },
        "US",
    )
    assert dict(said.given) == {
        "country": "DE",
        "zip": "SW1A 1AA",
        "mobile_ad_id": "aebe52e7-03ee-455a-b3c4-e57283966239",
        "first_name": "Ann Lee",
    }
    assert payloads.identifiers_of({"mobile_ad_id": "00000000-0000-0000-0000-000000000000"}, "US").given == {
        "mobile_ad_id": ""
    }
    assert payloads.identifiers_of({"country": "Atlantis"}, "US").given == {"country": ""}
    assert payloads.identifiers_of({"country": "UK"}, "US").given == {"country": "GB"}


def test_an_identifier_that_is_not_mentioned_is_not_cleared_and_an_empty_one_is():
    assert payloads.identifiers_of({"plan": "gold"}, "US").given == {}
    assert payloads.identifiers_of({"email": None, "phone": ""}, "US").given == {"email": "", "phone": ""}
    assert payloads.identifiers_of({"email": None}, "US").problems == ()


@given(st.text(max_size=60))
def test_normalising_twice_is_normalising_once(text):
    for field in normalise.FIELDS:
        once = payloads.identifiers_of({field: text}, "US").given[field]
        assert payloads.identifiers_of({field: once}, "US").given[field] == once


def test_consents_are_read_flat_and_nested_and_flat_wins():
    consents, problems = normalise.consents_of(
        {
            "consent": {"ad_user_data": True, "analytics": "denied", "ad_personalization": "perhaps"},
            "consent_ad_user_data": "false",
        }
    )
    assert consents == {"ad_user_data": False, "analytics": False}
    assert [problem.field for problem in problems] == ["consent_ad_personalization"]


@pytest.mark.parametrize(
    ("value", "us"),
    [
        (1_700_000_000, 1_700_000_000 * SECOND),
        ("1700000000", 1_700_000_000 * SECOND),
        (1_700_000_000.25, 1_700_000_000_250_000),
        (1_700_000_000_123, 1_700_000_000_123_000),
        ("2023-11-14", 1_699_920_000 * SECOND),
        ("2023-11-14T22:13:20+00:00", 1_700_000_000 * SECOND),
        ("2023-11-14T22:13:20Z", 1_700_000_000 * SECOND),
        ("next week", None),
        (True, None),
        ([1], None),
        (1e300, None),
        ("0001-01-01T00:00:00+14:00", None),
        ("١٧٠٠٠٠٠٠٠٠", None),
    ],
)
def test_a_moment_is_unix_seconds_or_iso_8601(value, us):
    assert normalise.moment_of(value) == us


# --- Bodies


@pytest.mark.parametrize(
    ("raw", "place", "words"),
    [
        (b'{"a": "\xff"}', "body", "not UTF-8 at byte 7"),
        (b'{"a": ', "body", "not JSON"),
        (b'{"a": NaN}', "body", "not JSON"),
        (b"[" * 100_000, "body", "nested too deeply"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "body", "too many digits"),
        (b"", "body", "not JSON"),
        (b"\x00", "body", "not JSON"),
    ],
)
def test_a_body_that_is_not_json_is_refused_in_words(raw, place, words):
    with pytest.raises(Refused) as refused:
        bodies.load(raw)
    assert refused.value.field == place
    assert words in refused.value.reason


@pytest.mark.parametrize(
    ("raw", "place"),
    [
        (rb'{"attributes": {"name": "\u0000"}}', "body.attributes.name"),
        (rb'{"attributes": {"a\u0000": 1}}', "body.attributes"),
        (rb'{"list": ["fine", "\ud800"]}', "body.list[1]"),
        (rb'{"n": 99999999999999999999999999}', None),  # becomes a float, as in every JSON parser of numbers
        (rb'{"n": 99999999999999999999999999, "s": "\udfff"}', "body.n"),
        (rb'{"x": 1e999, "y": 1}', "body.x"),
    ],
)
def test_what_no_database_keeps_is_refused_with_its_place(raw, place):
    body, storable = bodies.load(raw)
    if place is None:
        assert storable
        return
    assert not storable
    with pytest.raises(Refused) as refused:
        bodies.check(body, "body")
    assert refused.value.field == place


@given(st.binary(max_size=200))
def test_any_bytes_are_json_or_refused(raw):
    try:
        body, storable = bodies.load(raw)
        if not storable:
            bodies.check(body, "body")
    except Refused:
        return
    assert json.loads(orjson.dumps(body)) == json.loads(raw) or body is None


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
_ENTITY = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["person", "object", "delivery"]) | _JSON,
        "action": st.sampled_from(["identify", "event", "page", "delete", "merge", "suppress", "add_device"]) | _JSON,
        "identifiers": st.fixed_dictionaries(
            {}, optional=dict.fromkeys(("id", "email", "phone", "cio_id", "anonymous_id"), _JSON)
        )
        | _JSON,
        "primary": _JSON,
        "secondary": _JSON,
        "name": _JSON,
        "id": _JSON,
        "timestamp": _JSON,
        "attributes": st.dictionaries(
            st.sampled_from(["email", "phone", "created_at", "consent", "country", "_timestamp", "id"])
            | st.text(max_size=9),
            _JSON,
            max_size=4,
        )
        | _JSON,
    },
)


@given(_ENTITY)
def test_any_entity_is_a_call_or_refused_with_a_field(entity):
    try:
        bodies.check(entity, "body")
        call = payloads.entity_v2(entity, HERE)
    except Refused as refused:
        assert refused.field
        assert refused.reason
    else:
        assert isinstance(call, Identify | Track | Delete | Suppress | Unsuppress | Merge | Unkept)


# --- Limits


def _event(**fields):
    return payloads.entity_v2(
        {"type": "person", "action": "event", "identifiers": {"id": "1"}, "name": "purchase", **fields}, HERE
    )


def _identify(attributes=None, **fields):
    return payloads.entity_v2(
        {"type": "person", "action": "identify", "identifiers": {"id": "1"}, "attributes": attributes or {}, **fields},
        HERE,
    )


@pytest.mark.parametrize(
    ("call", "field", "kind"),
    [
        (lambda: _event(name=None), "name", "required"),
        (lambda: _event(name="   "), "name", "required"),
        (lambda: _event(name="x" * 101), "name", "invalid"),
        (lambda: _event(name="é" * 51), "name", "invalid"),
        (lambda: _event(name="x" * 1_000_000), "name", "invalid"),
        (lambda: _event(name=["purchase"]), "name", "invalid"),
        (lambda: _event(attributes={"x": "y" * 100_000}), "attributes", "invalid"),
        (lambda: _event(attributes={"n" * 151: 1}), "attributes." + "n" * 40 + "…", "invalid"),
        (lambda: _event(attributes=[1]), "attributes", "invalid"),
        (lambda: _event(timestamp="soon"), "timestamp", "invalid"),
        (lambda: _event(timestamp=-1), "timestamp", "invalid"),
        (lambda: _event(timestamp=True), "timestamp", "invalid"),
        (lambda: _event(id={"ulid": 1}), "id", "invalid"),
        (lambda: _event(identifiers={"id": "x" * 151}), "identifiers.id", "invalid"),
        (lambda: _event(identifiers={}), "identifiers", "required"),
        (lambda: _event(identifiers={"id": "1", "email": "a@example.com"}), "identifiers", "invalid"),
        (lambda: _event(identifiers={"email": "nobody"}), "identifiers.email", "invalid"),
        (lambda: _event(type="alien"), "type", "invalid"),
        (lambda: _event(action="dance"), "action", "invalid"),
        (lambda: _identify({f"a{n}": 1 for n in range(301)}), "attributes", "invalid"),
        (lambda: _identify({"n" * 151: 1}), "attributes." + "n" * 40 + "…", "invalid"),
        (lambda: _identify({"bio": "x" * 1_001}), "attributes.bio", "invalid"),
        (lambda: _identify({"tags": ["x" * 600, "y" * 600]}), "attributes.tags", "invalid"),
        (lambda: _identify({"": 1}), "attributes", "invalid"),
        (lambda: _identify({"_timestamp": "then"}), "attributes._timestamp", "invalid"),
        (lambda: payloads.merge_v1({"primary": {"id": "1"}}, HERE), "secondary", "required"),
        (lambda: payloads.list_change_v1("phone", {"ids": []}, HERE), "id_type", "invalid"),
        (lambda: payloads.list_change_v1("id", {"ids": ["1"] * 1_001}, HERE), "ids", "invalid"),
        (lambda: payloads.list_change_v1("id", {"ids": ["1", None]}, HERE), "ids[1]", "required"),
        (lambda: payloads.event_v1("1", {"name": "x", "type": "poll"}, HERE), "type", "invalid"),
        (lambda: payloads.device_v1("1", {"device": {}}, HERE), "device.id", "required"),
        (lambda: payloads.who_in_path("\0", HERE), "identifier", "invalid"),
    ],
)
def test_every_limit_names_its_field(call, field, kind):
    with pytest.raises(Refused) as refused:
        call()
    assert (refused.value.field, refused.value.kind) == (field, kind)


def test_data_nested_beyond_twenty_levels_is_refused():
    deep = 1
    for _ in range(22):
        deep = {"d": deep}
    with pytest.raises(Refused, match="deeper than 20"):
        _event(attributes={"x": deep})
    with pytest.raises(Refused, match="deeper than 20"):
        _identify({"x": deep})


def test_the_largest_that_is_allowed_passes():
    assert _event(name="é" * 50).name == "é" * 50
    assert len(_event(attributes={"x": "y" * 99_000}).text) > 99_000
    assert len(_identify({f"a{n}": "x" * 1_000 for n in range(300)}).row.attributes) == 300


def test_an_event_name_is_trimmed_and_ids_stay_text():
    assert _event(name="  purchase ").name == "purchase"
    assert _event(identifiers={"id": "00042"}).who == Who("id", "00042")
    assert _event(identifiers={"id": 42}).who == Who("id", "42")


def test_a_time_in_the_future_is_set_to_five_minutes_after_receipt_and_flagged():
    call = _event(timestamp=(NOW + 3650 * DAY) // SECOND)
    assert call.time_us == NOW + 5 * MINUTE
    assert [problem.field for problem in call.problems] == ["timestamp"]
    near = _event(timestamp=(NOW + 4 * MINUTE) // SECOND)
    assert near.time_us == NOW + 4 * MINUTE
    assert near.problems == ()


def test_a_call_without_a_time_happens_when_it_is_received():
    assert (_event().time_us, _event().given_us) == (NOW, None)


@pytest.mark.parametrize(
    ("path", "who"),
    [
        ("42", Who("id", "42")),
        ("Ann@Example.com", Who("email", "ann@example.com")),
        ("@ann", Who("id", "@ann")),
        ("+4915123456789", Who("id", "+4915123456789")),
        ("cio_0000002a", Who("cio_id", "0000002a")),
    ],
)
def test_a_path_names_a_person_by_id_email_or_cio_id(path, who):
    assert payloads.who_in_path(path, HERE) == who


def test_reserved_words_are_not_attributes():
    call = payloads.identify_v1(
        "42",
        {
            "id": "42",
            "anonymous_id": "v1",
            "_timestamp": 1_700_000_000,
            "_update": True,
            "cio_relationships": {"action": "add_relationships", "relationships": []},
            "unsubscribed": True,
            "created_at": 1_600_000_000,
        },
        HERE,
    )
    assert call.row.attributes == {"unsubscribed": True, "created_at": 1_600_000_000}
    assert call.anonymous_id == "v1"
    assert not call.row.create
    assert call.row.at_us == 1_700_000_000 * SECOND
    assert call.row.created_us == 1_600_000_000 * SECOND


def test_devices_objects_relationships_and_deliveries_are_understood_and_not_kept():
    for body in (
        {"type": "person", "action": "add_device", "identifiers": {"id": "1"}, "device": {"id": "d"}},
        {"type": "person", "action": "add_relationships", "identifiers": {"id": "1"}, "cio_relationships": []},
        {"type": "object", "action": "identify", "identifiers": {"object_type_id": "1", "object_id": "acme"}},
        {"type": "delivery", "action": "event"},
    ):
        assert isinstance(payloads.entity_v2(body, HERE), Unkept)


def test_pages_and_screens_are_events_of_their_name():
    assert _event(action="page", name="/cart").name == "/cart"
    assert payloads.event_v1("1", {"name": "Cart", "type": "screen"}, HERE).name == "Cart"
