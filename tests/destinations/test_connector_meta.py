"""What is Meta's own: the shape of its calls beside the official SDK's, and what each of its codes means."""

import hashlib
import hmac
import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import orjson
import pyarrow as pa
import pytest
from facebook_business.adobjects.customaudience import CustomAudience

from destinations.connectors.base import (
    Account,
    ConnectorError,
    Misconfigured,
    OutcomeUnknown,
    Push,
    Rejected,
    Retryable,
)
from destinations.connectors.meta import Meta, MetaForm

TOKEN, SECRET = "EAAB-canary-token", "canary-app-secret"
PEOPLE = pa.table(
    {
        "identity_no": pa.array([11, 12, 13], pa.int64()),
        "email": ["mary@example.com", "bob@example.com", None],
        "phone": ["+15559876543", None, "+4915112345678"],
        "external_id": ["00042", "43", "44"],
        "first_name": ["Mary", "Bob", None],
        "country": ["US", "DE", "FR"],
    }
)
ADD = Push("add", "600", 7, PEOPLE, ("email", "phone", "external_id"))


def meta(
    answer: httpx.Response | Callable[[httpx.Request], httpx.Response], **config: Any
) -> tuple[Meta, list[httpx.Request]]:
    """The connector of act_1 before a platform that gives one answer, and what it was asked."""
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answer(request) if callable(answer) else answer

    credentials = {"access_token": TOKEN} | ({"app_secret": SECRET} if config.pop("proof", False) else {})
    account = Account("https://graph.facebook.com", {"ad_account_id": "1", **config}, credentials)
    client = httpx.Client(base_url=account.base_url, transport=httpx.MockTransport(handle))
    return Meta(account, client), asked


def taken(**changes: Any) -> httpx.Response:
    body = {
        "audience_id": "600",
        "session_id": "1",
        "num_received": 3,
        "num_invalid_entries": 0,
        "invalid_entry_samples": {},
    }
    return httpx.Response(200, json=body | changes)


def refused(
    code: int, subcode: int | None = None, status: int = 400, headers: dict[str, str] | None = None, **more: Any
):
    error = {
        "message": "words of mary@example.com",
        "type": "OAuthException",
        "code": code,
        "fbtrace_id": "AbC-_1",
        **more,
    }
    if subcode:
        error["error_subcode"] = subcode
    return httpx.Response(status, json={"error": error}, headers=headers)


def test_an_add_is_the_call_that_the_official_sdk_makes():
    connector, asked = meta(taken())
    connector.push(ADD)
    (request,) = asked
    assert (request.method, request.url.path) == ("POST", "/v26.0/600/users")
    assert request.headers["Authorization"] == f"Bearer {TOKEN}" and not request.url.query
    body = json.loads(request.content)
    rows = [["mary@example.com", "+15559876543", "00042"]]
    official = CustomAudience.format_params(["EMAIL", "PHONE", "EXTERN_ID"], rows, is_raw=True)["payload"]
    assert body["payload"] | {"data": body["payload"]["data"][:1]} == official
    assert body["payload"]["data"][1][1] == "" and body["payload"]["data"][2][0] == "", (
        "what is missing is empty, not hashed"
    )
    assert "method" not in body


def test_a_session_is_the_operations_own_and_fits_63_bits():
    connector, asked = meta(taken())
    sessions = []
    for push in (
        ADD,
        ADD,
        Push("add", "600", 8, PEOPLE, ADD.identifiers),
        Push("remove", "600", 7, PEOPLE, ADD.identifiers),
    ):
        connector.push(push)
        sessions.append(json.loads(asked[-1].content)["session"])
    ids = [session["session_id"] for session in sessions]
    assert ids[0] == ids[1] and len({*ids}) == 3 and all(0 <= number < 2**63 for number in ids)
    assert sessions[0] == {"session_id": ids[0], "batch_seq": 1, "last_batch_flag": True, "estimated_num_total": 3}


def test_a_removal_carries_its_people_in_the_body_and_never_in_the_address():
    connector, asked = meta(taken())
    connector.push(Push("remove", "600", 7, PEOPLE, ADD.identifiers))
    assert asked[0].method == "POST" and not asked[0].url.query
    assert json.loads(asked[0].content)["method"] == "DELETE"


def test_an_app_secret_is_proven_and_never_sent():
    connector, asked = meta(httpx.Response(200, json={"success": True}), proof=True)
    connector.rename("600", "new")
    proof = hmac.new(SECRET.encode(), TOKEN.encode(), hashlib.sha256).hexdigest()
    assert json.loads(asked[0].content) == {"name": "new", "appsecret_proof": proof}
    connector, asked = meta(taken(), proof=True)
    assert proof not in connector.masked_payload(ADD) and TOKEN not in connector.masked_payload(ADD)


@pytest.mark.parametrize(
    "answer",
    [
        taken(num_received=2),
        taken(num_received="3"),
        taken(num_invalid_entries=None),
        taken(num_invalid_entries=4),
        taken(num_invalid_entries=-1),
        taken(num_invalid_entries=True),
        taken(audience_id="601"),
        httpx.Response(200, json={}),
        httpx.Response(200, json=[]),
        httpx.Response(200, json={"success": True}),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, content=b""),
        httpx.Response(200, content=b"\xff\xfe"),
    ],
)
def test_a_yes_that_is_not_wholly_understood_is_unknown(answer):
    with pytest.raises(OutcomeUnknown):
        meta(answer)[0].push(ADD)


def test_invalid_entries_are_counted_and_their_samples_go_nowhere(caplog):
    caplog.set_level(logging.DEBUG)
    sample = "f1904cf1a9d73a55fa5de0ac823c4403ded71afd4c3248d00bdcd0866552bb79"
    receipt = meta(taken(num_invalid_entries=2, invalid_entry_samples={sample: "bad"}))[0].push(ADD)
    assert receipt.accepted and receipt.rejected_unnamed == 2 and receipt.received == 3
    assert sample not in repr(receipt) and sample not in caplog.text


CODES = [
    (refused(4), Retryable, None),
    (refused(17, 2446079), Retryable, None),
    (refused(32), Retryable, None),
    (refused(341), Retryable, None),
    (refused(613, 1487742), Retryable, None),
    (refused(613, 1996), Retryable, None),
    (refused(80003), Retryable, None),
    (refused(80004), Retryable, None),
    (refused(190), Misconfigured, "reconnect"),
    (refused(190, 463, 401), Misconfigured, "reconnect"),
    (refused(104), Misconfigured, "reconnect"),
    (refused(100, 33), Misconfigured, "audience_gone"),
    (refused(803), Misconfigured, "audience_gone"),
    (refused(100, 1713230), Misconfigured, "blocked"),
    (refused(368), Misconfigured, "blocked"),
    (refused(200, 1870090, 403), Misconfigured, "terms"),
    (refused(200, 1870050, 403), Misconfigured, "permission"),
    (refused(294, None, 403), Misconfigured, "permission"),
    (refused(10, None, 403), Misconfigured, "permission"),
    (refused(2635), Misconfigured, "config"),
    (refused(2650, 1870145), Retryable, None),
    (refused(2650, message="Audience Size too low: You cannot remove users from this audience"), Retryable, None),
    (refused(1, status=500), OutcomeUnknown, None),
    (refused(2, status=503), OutcomeUnknown, None),
    (refused(9999, is_transient=True), OutcomeUnknown, None),
    (refused(2650), Rejected, "2650"),
    (refused(100, 1870069), Rejected, "100/1870069"),
    (refused(100), Rejected, "100"),
    (httpx.Response(502, content=b"<html>Bad gateway"), OutcomeUnknown, None),
    (httpx.Response(302, headers={"Location": "https://elsewhere.example"}), Misconfigured, "config"),
    (httpx.Response(200, json={"error": {"code": 190, "message": "in a 200"}}), Misconfigured, "reconnect"),
]


@pytest.mark.parametrize(("answer", "verdict", "code"), CODES, ids=[f"{n}" for n in range(len(CODES))])
def test_each_code_has_its_verdict(answer, verdict, code):
    with pytest.raises(ConnectorError) as told:
        meta(answer)[0].push(ADD)
    assert type(told.value) is verdict, told.value
    assert told.value.http_status == answer.status_code
    assert code is None or told.value.code == code
    assert "mary" not in str(told.value), "Meta's own words may repeat what was sent"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        (
            {
                "X-Business-Use-Case-Usage": '{"1":[{"estimated_time_to_regain_access":3},{"estimated_time_to_regain_access":1}]}'
            },
            180,
        ),
        ({"X-Business-Use-Case-Usage": '{"1":[{"estimated_time_to_regain_access":0}]}'}, None),
        ({"X-Business-Use-Case-Usage": '{"1":[{"estimated_time_to_regain_access":100000}]}'}, 3600),
        ({"X-Business-Use-Case-Usage": "nonsense"}, None),
        ({"X-Business-Use-Case-Usage": '{"1":{}}', "Retry-After": "9"}, 9),
    ],
)
def test_throttling_by_body_pauses_the_account_as_long_as_meta_says(headers, seconds):
    with pytest.raises(Retryable) as told:
        meta(refused(80003, headers=headers))[0].push(ADD)
    assert told.value.throttled and told.value.after == seconds


def test_what_is_being_updated_or_too_small_does_not_pause_the_account():
    for answer in (refused(2650, 1870145), refused(2650, message="Audience size too low")):
        with pytest.raises(Retryable) as told:
            meta(answer)[0].push(ADD)
        assert not told.value.throttled and told.value.after


def describing(**fields: Any) -> httpx.Response:
    return httpx.Response(
        200, json={"id": "600", "name": "cart", "operation_status": {"code": 200, "description": "Normal"}, **fields}
    )


def test_describing_says_bounds_or_that_meta_does_not_say():
    told = meta(describing(approximate_count_lower_bound=1100, approximate_count_upper_bound=1300))[0].describe("600")
    assert (told.matched_low, told.matched_high, told.matched_words) == (1100, 1300, "")
    for silent in ({"approximate_count_lower_bound": -1, "approximate_count_upper_bound": -1}, {}):
        told = meta(describing(**silent))[0].describe("600")
        assert (told.matched_low, told.matched_high, told.matched_words) == (None, None, "Meta does not say")


def test_a_flagged_audience_is_not_usable():
    flagged = {"operation_status": {"code": 471, "description": "Flagged"}}
    told = meta(describing(**flagged))[0].describe("600")
    assert not told.usable and "Flagged" in told.state


def checking(account: dict[str, Any], token: dict[str, Any] | None) -> Callable[[httpx.Request], httpx.Response]:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("debug_token"):
            return httpx.Response(200, json={"data": token}) if token is not None else refused(100)
        return httpx.Response(200, json={"name": "Acme EU", "currency": "EUR", "account_status": 1} | account)

    return answer


@pytest.mark.parametrize(
    ("account", "token", "words"),
    [
        ({}, {"expires_at": 4_075_000_000, "scopes": ["ads_management"]}, "token ends 17 February 2099."),
        ({}, {"expires_at": 0, "scopes": ["ads_management"]}, "the token does not end."),
        ({}, None, "Meta does not say when the token ends."),
    ],
)
def test_check_answers_in_words(account, token, words):
    said = meta(checking(account, token))[0].check()
    assert said == f"Connected to Acme EU (act_1, EUR); may edit audiences; {words}"


@pytest.mark.parametrize(
    ("account", "token", "code"),
    [
        ({"tos_accepted": {}}, {"scopes": ["ads_management"]}, "terms"),
        ({}, {"scopes": ["ads_read"]}, "permission"),
        ({"account_status": 2}, {"scopes": ["ads_management"]}, "config"),
    ],
)
def test_check_says_what_a_person_has_to_do(account, token, code):
    with pytest.raises(Misconfigured) as told:
        meta(checking(account, token))[0].check()
    assert told.value.code == code


@pytest.mark.parametrize("given", ["1234", "act_1234", " act_1234 "])
def test_the_form_takes_an_ad_account_in_each_way_people_write_it(given):
    form = MetaForm({"ad_account_id": given, "access_token": TOKEN})
    assert form.is_valid() and form.cleaned_data["ad_account_id"] == "act_1234"
    assert Meta.account_key(form.cleaned_data) == "meta:act_1234" == Meta.account_key({"ad_account_id": given})


@pytest.mark.parametrize("given", ["", "act_", "acme", "act_1/../2", "1 2", "-1"])
def test_the_form_refuses_what_is_no_ad_account(given):
    assert "ad_account_id" in MetaForm({"ad_account_id": given, "access_token": TOKEN}).errors


def test_an_identifier_that_meta_does_not_take_is_a_setting_to_correct():
    for kinds in (("email", "shoe_size"), ()):
        with pytest.raises(Misconfigured):
            meta(taken())[0].push(Push("add", "600", 1, PEOPLE, kinds))


def test_a_call_that_should_only_be_checked_is_never_made():
    connector, asked = meta(taken())
    with pytest.raises(NotImplementedError):
        connector.push(Push("add", "600", 1, PEOPLE, ("email",), validate_only=True))
    assert not asked


def test_the_masked_payload_is_the_call_with_everybody_masked():
    connector, asked = meta(taken())
    shown = orjson.loads(connector.masked_payload(ADD))
    connector.push(ADD)
    real = orjson.loads(asked[0].content)
    assert shown["payload"]["schema"] == real["payload"]["schema"] and shown["session"] == real["session"]
    assert shown["payload"]["data"][0] == [
        f"{real['payload']['data'][0][0][:6]}…",
        f"{real['payload']['data'][0][1][:6]}…",
        "0…",
    ]
