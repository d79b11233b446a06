"""The Track API at its addresses: who may call, what is answered, and that no bytes whatever make it fail."""

import base64
import itertools
import json
from datetime import timedelta
from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from audiences.models import ApiKey, AuditEntry, Event, Profile, ProfileKey, RefusedRow, Workspace
from audiences.people import intake
from audiences.services import api_keys, lists

pytestmark = [pytest.mark.django_db, pytest.mark.urls("audiences.track_urls")]

ENDPOINTS = [
    ("PUT", "/api/v1/customers/1"),
    ("DELETE", "/api/v1/customers/1"),
    ("POST", "/api/v1/customers/1/suppress"),
    ("POST", "/api/v1/customers/1/unsuppress"),
    ("POST", "/api/v1/customers/1/events"),
    ("PUT", "/api/v1/customers/1/devices"),
    ("DELETE", "/api/v1/customers/1/devices/abc"),
    ("POST", "/api/v1/events"),
    ("POST", "/api/v1/merge_customers"),
    ("POST", "/api/v1/segments/12/add_customers"),
    ("POST", "/api/v1/segments/12/remove_customers"),
    ("POST", "/api/v2/entity"),
    ("POST", "/api/v2/batch"),
    ("GET", "/api/v1/accounts/region"),
]


def _basic(pair):
    return "Basic " + base64.b64encode(pair.encode()).decode()


class Caller:
    """A program with a key."""

    def __init__(self):
        self.made = api_keys.create("shop", None)
        self.pair = f"{self.made.key.site_id}:{self.made.secret}"
        self.client = Client(headers={"authorization": _basic(self.pair)}, enforce_csrf_checks=True)

    def raw(self, method, path, body=b"", **more):
        return self.client.generic(method, path, body, content_type="application/json", **more)

    def __call__(self, method, path, body=None):
        answer = self.raw(method, path, b"" if body is None else json.dumps(body).encode())
        return answer.status_code, json.loads(answer.content)


@pytest.fixture
def call():
    return Caller()


def _person(action, who="1", **fields):
    return {"type": "person", "action": action, "identifiers": {"id": who}, **fields}


# --- Who may call


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_every_address_wants_a_key(call, method, path):
    for header in (
        None,
        "Bearer x",
        "Basic",
        "Basic %%%",
        "Basic /w==",
        _basic("nobody:nothing"),
        _basic(f"{call.made.key.site_id}:wrong"),
        _basic(f"{call.made.key.site_id}:"),
        _basic(call.made.key.site_id),
        _basic("\0:\0"),
    ):
        headers = {"authorization": header} if header else {}
        answer = Client(headers=headers).generic(method, path, b"{}", content_type="application/json")
        assert answer.status_code == 401
        assert answer["WWW-Authenticate"].startswith("Basic")
        assert set(json.loads(answer.content)) == ({"errors"} if "/v2/" in path else {"meta"})
    assert not Profile.objects.exists()


def test_a_revoked_key_is_refused_from_then_on(call):
    assert call("PUT", "/api/v1/customers/1", {})[0] == 200
    api_keys.revoke(call.made.key, None)
    assert call("PUT", "/api/v1/customers/1", {})[0] == 401
    assert list(AuditEntry.objects.order_by("pk").values_list("verb", flat=True)) == ["api_key.made", "api_key.revoked"]


def test_a_keys_last_use_is_noted_at_most_each_minute(call):
    call("GET", "/api/v1/accounts/region")
    first = ApiKey.objects.get().last_used_at
    assert first is not None
    call("GET", "/api/v1/accounts/region")
    assert ApiKey.objects.get().last_used_at == first
    ApiKey.objects.update(last_used_at=timezone.now() - timedelta(minutes=2))
    call("GET", "/api/v1/accounts/region")
    assert ApiKey.objects.get().last_used_at > first


def test_a_key_is_printed_once_and_only_its_hash_is_kept():
    out = StringIO()
    call_command("create_api_key", "web shop", stdout=out)
    site_id, secret = out.getvalue().strip().split(":")
    row = ApiKey.objects.get()
    assert (row.name, row.site_id) == ("web shop", site_id)
    assert len(bytes.fromhex(secret)) == 32
    assert row.secret_sha256 == api_keys.digest(secret) != secret
    assert secret not in json.dumps(list(AuditEntry.objects.values("after", "before", "object_key")))
    with pytest.raises(CommandError):
        call_command("create_api_key", "  ")


# --- Envelopes


def test_success_is_an_empty_object(call):
    lists.make("vips", "VIPs", None, customerio_segment=12)
    for method, path, body in (
        ("PUT", "/api/v1/customers/1", {"email": "ann@example.com", "plan": "gold"}),
        ("PUT", "/api/v1/customers/2", {}),
        ("POST", "/api/v1/customers/1/events", {"name": "purchase", "data": {"value": 5}}),
        ("POST", "/api/v1/customers/1/events", {"name": "/cart", "type": "page"}),
        ("POST", "/api/v1/events", {"name": "visit", "anonymous_id": "v1"}),
        ("POST", "/api/v1/events", {"name": "invited", "data": {"recipient": "x@example.com"}}),
        ("PUT", "/api/v1/customers/1/devices", {"device": {"id": "d", "platform": "ios"}}),
        ("DELETE", "/api/v1/customers/1/devices/d", {}),
        ("POST", "/api/v1/merge_customers", {"primary": {"id": "1"}, "secondary": {"id": "2"}}),
        ("POST", "/api/v1/segments/12/add_customers", {"ids": ["1", "nobody"]}),
        ("POST", "/api/v1/segments/12/remove_customers?id_type=email", {"ids": ["ann@example.com"]}),
        ("POST", "/api/v1/customers/1/suppress", None),
        ("PUT", "/api/v1/customers/1", {"plan": "gold"}),
        ("POST", "/api/v1/customers/1/unsuppress", {}),
        ("DELETE", "/api/v1/customers/nobody", None),
        ("POST", "/api/v2/entity", _person("identify", attributes={"plan": "gold"})),
        ("POST", "/api/v2/batch", {"batch": [_person("event", name="a"), _person("delete")]}),
    ):
        assert call(method, path, body) == (200, {}), path


def test_the_region_is_this_installations(call, settings):
    settings.PUBLIC_URL = "https://rollcall.example"
    status, body = call("GET", "/api/v1/accounts/region")
    assert (status, body["url"]) == (200, "rollcall.example")


def test_v1_refusals_name_the_field(call):
    status, body = call("POST", "/api/v1/customers/1/events", {"data": {}})
    assert (status, body) == (400, {"meta": {"errors": ["name: is required"]}})
    status, body = call("POST", "/api/v1/merge_customers", {"primary": {"id": "1"}})
    assert (status, body["meta"]["error"].split(":")[0]) == (400, "secondary")
    status, body = call("POST", "/api/v1/merge_customers", {"primary": {"id": "1"}, "secondary": {"id": "2"}})
    assert (status, body) == (400, {"meta": {"error": "primary: no such person"}})
    status, body = call("POST", "/api/v1/segments/99/add_customers", {"ids": ["1"]})
    assert (status, body) == (404, {"meta": {"errors": ["segment 99 does not exist"]}})


def test_v2_refusals_have_reason_field_and_message(call):
    status, body = call("POST", "/api/v2/entity", _person("event"))
    assert (status, body) == (400, {"errors": [{"reason": "required", "field": "name", "message": "is required"}]})


def test_a_batch_takes_the_good_and_names_the_bad_by_their_place(call):
    batch = [
        _person("event", name="purchase", id="a"),
        _person("event"),
        _person("identify", attributes={"x": "y" * 2_000}),
        _person("event", name="purchase", id="b"),
        "nonsense",
    ]
    status, body = call("POST", "/api/v2/batch", {"batch": batch})
    assert status == 207
    assert [(error["batch_index"], error["field"]) for error in body["errors"]] == [
        (1, "name"),
        (2, "attributes.x"),
        (4, "body"),
    ]
    assert Event.objects.count() == 2
    refused = RefusedRow.objects.order_by("pk")
    assert [(row.source, row.field) for row in refused] == [
        ("track_v2", "name"),
        ("track_v2", "attributes.x"),
        ("track_v2", "body"),
    ]
    assert json.loads(refused[0].raw) == batch[1]
    status, body = call("POST", "/api/v2/batch", {"batch": batch[1:3]})
    assert (status, len(body["errors"])) == (400, 2)
    assert call("POST", "/api/v2/batch", {"batch": []})[0] == 400
    assert call("POST", "/api/v2/batch", [])[0] == 400


def test_one_row_that_cannot_be_stored_does_not_stop_a_batch(call):
    body = (
        rb'{"batch": ['
        rb'{"type":"person","action":"event","identifiers":{"id":"1"},"name":"good"},'
        rb'{"type":"person","action":"event","identifiers":{"id":"1"},"name":"bad","attributes":{"x":"\u0000"}},'
        rb'{"type":"person","action":"event","identifiers":{"id":"1\ud800"},"name":"bad"},'
        rb'{"type":"person","action":"event","identifiers":{"id":"2"},"name":"good"}]}'
    )
    answer = call.raw("POST", "/api/v2/batch", body)
    assert answer.status_code == 207
    assert [(e["batch_index"], e["field"]) for e in json.loads(answer.content)["errors"]] == [
        (1, "body.attributes.x"),
        (2, "body.identifiers.id"),
    ]
    assert Event.objects.count() == 2


def test_a_body_over_its_limit_is_413_in_the_envelope_of_its_api(call):
    assert call.raw("PUT", "/api/v1/customers/1", b"x" * 500_001).status_code == 413
    assert call.raw("POST", "/api/v2/entity", b"x" * 32_769).status_code == 413
    answer = call.raw("POST", "/api/v2/batch", b"x" * 2_000_000)
    assert (answer.status_code, list(json.loads(answer.content))) == (413, ["errors"])
    status, body = call(
        "POST", "/api/v2/batch", {"batch": [_person("event", name="x", attributes={"a": "b" * 33_000})]}
    )
    assert (status, body["errors"][0]["field"]) == (400, "body")


def test_a_segment_number_may_be_absurd(call):
    for number in (0, 2**31, 10**30):
        assert call("POST", f"/api/v1/segments/{number}/add_customers", {"ids": ["1"]})[0] == 404


def test_a_busy_database_is_503_and_worth_another_try(call, monkeypatch):
    def busy(*_):
        raise OperationalError("database is locked")

    monkeypatch.setattr(intake, "_take_in", busy)
    answer = call.raw("POST", "/api/v1/customers/1/events", b'{"name": "x"}')
    assert (answer.status_code, answer["Retry-After"]) == (503, "1")


def test_a_wrong_method_is_told_the_right_one(call):
    answer = call.raw("GET", "/api/v1/customers/1/events")
    assert (answer.status_code, answer["Allow"]) == (405, "POST")


def test_ids_in_paths_may_hold_anything_that_is_percent_encoded(call):
    for encoded, plain in (("a%2Fb", "a/b"), ("100%25", "100%"), ("%C3%A9", "é"), ("a%20b", "a b"), ("00042", "00042")):
        assert call("PUT", f"/api/v1/customers/{encoded}", {})[0] == 200
        assert ProfileKey.objects.filter(kind="id", value=plain).exists()
    assert call("PUT", "/api/v1/customers/a%00b", {})[0] == 400
    assert call("PUT", f"/api/v1/customers/{'x' * 151}", {})[0] == 400


def test_the_workspaces_region_reads_phone_numbers(call):
    Workspace.objects.create(pk=1, name="Acme", default_region="DE")
    call("PUT", "/api/v1/customers/1", {"phone": "0151 23456789"})
    call("POST", "/api/v2/batch", {"batch": [_person("identify", "2", attributes={"phone": "0151 23456780"})]})
    assert set(ProfileKey.objects.filter(kind="phone").values_list("value", flat=True)) == {
        "+4915123456789",
        "+4915123456780",
    }


def test_a_known_email_with_a_new_id_updates_the_same_person(call):
    call("PUT", "/api/v1/customers/ann@example.com", {"plan": "gold"})
    call("PUT", "/api/v1/customers/42", {"email": "Ann@Example.com"})
    assert Profile.objects.count() == 1


def test_ids_of_two_people_in_path_and_body_are_200_and_set_aside(call):
    call("PUT", "/api/v1/customers/1", {})
    call("PUT", "/api/v1/customers/ann@example.com", {})
    assert call("PUT", "/api/v1/customers/ann@example.com", {"id": "1", "plan": "gold"}) == (200, {})
    assert RefusedRow.objects.get().field == "id"
    assert Profile.objects.count() == 2


# --- Nothing makes it fail


_NASTY = [
    b"",
    b"null",
    b"[]",
    b'"x"',
    b"{",
    b"\x00",
    b"\xff\xfe",
    b"[" * 60_000,
    b'{"a":' * 400 + b"1" + b"}" * 400,
    b'{"name": "\\ud800"}',
    b'{"name": "\\u0000"}',
    b'{"name": 1e999}',
    b'{"batch": [{"attributes": ' + b"[" * 400 + b"]" * 400 + b"}]}",
    b'{"batch": [null, 1, "x", [], {}]}',
    b'{"name": "x", "timestamp": 1e300}',
    b'{"name": "x", "timestamp": ' + b"9" * 400 + b"}",
    b'{"name": "x", "timestamp": -62135596801}',
    b'{"name": "x", "timestamp": "9999-12-31T23:59:59-14:00"}',
    b'{"name": "x", "data": {"": 1}}',
    b'{"name": "x", "data": {"a": 123456789012345678901234567890}}',
    b'{"' + b"n" * 100_000 + b'": 1}',
    b'{"ids": [[], {}, null]}',
    b'{"ids": ["' + b'","'.join([b"x"] * 2_000) + b'"]}',
    b'{"primary": {"id": "1"}, "secondary": {"id": "1"}}',
    b'{"email": "\xf0\x9f\x98\x80@example.com", "phone": "\xd9\xa1\xd9\xa2", "consent": [1], "created_at": {}}',
    b'{"type":"person","action":"identify","identifiers":{"id":"1"},"attributes":{"consent":{"analytics":{}}}}',
    b'{"type":"person","action":"event","identifiers":{"cio_id":"-1"},"name":"x"}',
]


@pytest.mark.parametrize(("method", "path"), ENDPOINTS)
def test_a_nasty_body_is_answered_and_never_fails(call, method, path):
    lists.make("vips", "VIPs", None, customerio_segment=12)
    for body in _NASTY:
        answer = call.raw(method, path, body)
        assert answer.status_code < 500, body[:80]
        assert isinstance(json.loads(answer.content), dict)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=10,
)
_FIELDS = ("type", "action", "identifiers", "name", "id", "timestamp", "attributes", "data", "ids", "primary", "secondary", "batch", "email", "phone", "anonymous_id", "created_at", "device")  # fmt: skip
_BODY = st.binary(max_size=100) | st.dictionaries(
    st.sampled_from(_FIELDS) | st.text(max_size=9), _JSON, max_size=6
).map(lambda body: json.dumps(body).encode())


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(endpoint=st.sampled_from(ENDPOINTS), body=_BODY)
def test_any_bytes_to_any_address_are_answered_and_never_fail(call, endpoint, body):
    answer = call.raw(*endpoint, body)
    assert answer.status_code < 500
    assert isinstance(json.loads(answer.content), dict)


_ITEM = st.builds(
    lambda name, who, data, n: {**_person("event", who, name=name, attributes=data), "id": f"event-{n}"},
    st.one_of(st.just("purchase"), st.text(max_size=20), _JSON),
    st.one_of(st.sampled_from(["1", "2"]), _JSON),
    st.one_of(st.dictionaries(st.text(max_size=8), _JSON, max_size=3), _JSON),
    st.integers(0, 10**9),
)


_RUNS = itertools.count()  # ids that no earlier example used


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(items=st.lists(_ITEM, min_size=1, max_size=8, unique_by=lambda item: item["id"]))
def test_of_any_batch_the_good_rows_are_stored_and_the_bad_ones_named(call, items):
    run = next(_RUNS)
    for item in items:
        item["id"] += f"-{run}"
    before = Event.objects.count()
    status, body = call("POST", "/api/v2/batch", {"batch": items})
    bad = {error["batch_index"] for error in body.get("errors", [])}
    assert status == (200 if not bad else 400 if len(bad) == len(items) else 207)
    assert bad <= set(range(len(items)))
    assert Event.objects.count() - before == len(items) - len(bad)  # accepted is stored
