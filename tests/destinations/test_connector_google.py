"""What is Google's own: the shape of its calls, receipts and match rates, tokens that renew themselves, and its reasons."""

import json
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import httpx
import pyarrow as pa
import pytest
from google.ads.datamanager_util import Formatter
from google.ads.datamanager_util.format import Encoding

from destinations import secrets
from destinations.connectors import google_tokens, registry
from destinations.connectors.base import (
    Account,
    ConnectorError,
    Misconfigured,
    OutcomeUnknown,
    Push,
    Rejected,
    Retryable,
)
from destinations.connectors.google import Google, GoogleForm
from destinations.connectors.google_answers import matched_range

PEOPLE = pa.table(
    {
        "identity_no": pa.array([11, 12, 13, 14], pa.int64()),
        "email": ["Ma.ry+x@gmail.com", "bob@example.com", None, None],
        "phone": ["+1 555 987 6543", None, "+4915112345678", None],
        "external_id": ["a", "b", "c", "d"],
        "first_name": ["Mary", None, None, "Ann"],
        "last_name": ["O'Brien", "Bobson", None, "Annson"],
        "country": ["US", "DE", None, "de"],
        "zip": ["94105", "10115", None, " 10117 "],
    }
)
CONTACT = ("email", "phone", "first_name", "last_name", "zip", "country")
ADD = Push("add", "600", 7, PEOPLE, CONTACT)


def google(
    answer: httpx.Response | Callable[[httpx.Request], httpx.Response],
    credentials: dict[str, str] | None = None,
    **config: Any,
) -> tuple[Google, list[httpx.Request]]:
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answer(request) if callable(answer) else answer

    account = Account(
        "https://datamanager.googleapis.com",
        {"account_id": "123-456-7890", **config},
        credentials or {"access_token": "t"},
    )
    client = httpx.Client(base_url=account.base_url, transport=httpx.MockTransport(handle))
    return Google(account, client), asked


TAKEN = httpx.Response(200, json={"requestId": "r1"})


def refused(
    status: int, reason: str = "", *details: dict[str, Any], headers: dict[str, str] | None = None
) -> httpx.Response:
    info = [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "x"}] if reason else []
    error = {"code": status, "message": "words of mary@example.com", "status": "UNKNOWN", "details": [*info, *details]}
    return httpx.Response(status, json={"error": error}, headers=headers)


def test_an_ingest_is_one_type_of_data_hashed_as_googles_own_utility_does():
    connector, asked = google(TAKEN, login_account_id="999-999-9999")
    receipt = connector.push(ADD)
    assert receipt.accepted and receipt.pending and receipt.request_id == "r1" and receipt.received == 4
    request, body = asked[0], json.loads(asked[0].content)
    assert (request.method, request.url.path) == ("POST", "/v1/audienceMembers:ingest")
    assert body["encoding"] == "HEX"
    assert body["termsOfService"] == {"customerMatchTermsOfServiceStatus": "ACCEPTED"}
    assert body["consent"] == {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_GRANTED"}
    assert body["destinations"] == [
        {
            "reference": "list",
            "operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": "1234567890"},
            "productDestinationId": "600",
            "loginAccount": {"accountType": "GOOGLE_ADS", "accountId": "9999999999"},
        }
    ]
    official = Formatter()
    mary = body["audienceMembers"][0]["userData"]["userIdentifiers"]
    assert mary == [
        {"emailAddress": official.process_email_address("Ma.ry+x@gmail.com", Encoding.HEX)},
        {"phoneNumber": official.process_phone_number("+1 555 987 6543", Encoding.HEX)},
        {
            "address": {
                "givenName": official.process_given_name("Mary", Encoding.HEX),
                "familyName": official.process_family_name("O'Brien", Encoding.HEX),
                "regionCode": "US",
                "postalCode": "94105",
            }
        },
    ]
    assert len(body["audienceMembers"][1]["userData"]["userIdentifiers"]) == 1, "half an address is none"
    ann = body["audienceMembers"][3]["userData"]["userIdentifiers"]
    assert ann[0]["address"]["regionCode"] == "DE" and ann[0]["address"]["postalCode"] == "10117"
    assert all(set(member) == {"destinationReferences", "userData"} for member in body["audienceMembers"])


def test_a_removal_says_nothing_of_terms_or_consent():
    connector, asked = google(TAKEN)
    connector.push(Push("remove", "600", 8, PEOPLE, CONTACT))
    body = json.loads(asked[0].content)
    assert asked[0].url.path == "/v1/audienceMembers:remove" and not {"termsOfService", "consent"} & set(body)


def test_somebody_with_half_an_address_only_is_named_and_left_out():
    table = PEOPLE.set_column(1, "email", pa.array([None] * 4, pa.string())).slice(1, 1)
    connector, asked = google(TAKEN)
    receipt = connector.push(Push("add", "600", 7, table, CONTACT))
    assert set(receipt.rejected) == {12} and not receipt.pending and not asked


def test_lists_of_own_ids_take_own_ids_and_say_what_they_left_out():
    connector, asked = google(TAKEN, upload_key_type="USER_ID")
    receipt = connector.push(Push("add", "600", 7, PEOPLE, ("email", "external_id")))
    body = json.loads(asked[0].content)
    assert [member["userIdData"] for member in body["audienceMembers"]] == [{"userId": own} for own in "abcd"]
    assert "email" in receipt.warnings[0]
    with pytest.raises(Misconfigured):
        connector.push(Push("add", "600", 7, PEOPLE, ("email",)))
    with pytest.raises(Misconfigured):
        google(TAKEN)[0].push(Push("add", "600", 7, PEOPLE, ("external_id", "first_name")))


def test_a_rehearsal_is_checked_by_google_and_leaves_no_receipt():
    connector, asked = google(httpx.Response(200, json={}))
    receipt = connector.push(Push("add", "600", 7, PEOPLE, CONTACT, validate_only=True))
    assert json.loads(asked[0].content)["validateOnly"] is True
    assert receipt.accepted and not receipt.pending


@pytest.mark.parametrize("body", [{}, {"requestId": ""}, {"requestId": 5}, {"error": {"code": 1}}, []])
def test_a_yes_without_a_request_id_is_unknown(body):
    with pytest.raises(OutcomeUnknown):
        google(httpx.Response(200, json=body))[0].push(ADD)


# --- Receipts


def status(
    name: str, *, records: object = "1000", rate: str = "", errors: list[tuple[str, str]] = ()
) -> httpx.Response:
    detail = {"recordCount": records, "userIdentifierCount": "2000"} | ({"uploadMatchRateRange": rate} if rate else {})
    told: dict[str, Any] = {
        "requestStatus": name,
        "audienceMembersIngestionStatus": {"userDataIngestionStatus": detail},
    }
    if errors:
        told["errorInfo"] = {"errorCounts": [{"reason": reason, "recordCount": count} for reason, count in errors]}
    return httpx.Response(200, json={"requestStatusPerDestination": [told]})


def test_a_receipt_is_pending_then_tells_how_many_matched():
    assert google(status("PROCESSING", records=None))[0].poll("r1").pending
    receipt = google(status("SUCCESS", rate="MATCH_RATE_RANGE_61_TO_70"))[0].poll("r1")
    assert receipt.accepted and not receipt.pending and receipt.received == 1000 and receipt.rejected_unnamed == 0
    assert (receipt.matched_low, receipt.matched_high) == (610, 709)


def test_a_partial_success_counts_whom_it_refused_and_why():
    errors = [("PROCESSING_ERROR_REASON_INVALID_FORMAT", "3"), ("PROCESSING_ERROR_REASON_DENIED_CONSENT", "4")]
    receipt = google(status("PARTIAL_SUCCESS", errors=errors))[0].poll("r1")
    assert receipt.accepted and receipt.rejected_unnamed == 7
    assert "PROCESSING_ERROR_REASON_INVALID_FORMAT: 3" in receipt.warnings


@pytest.mark.parametrize("name", ["FAILED", "FAILURE"])
def test_a_failed_receipt_refuses_the_whole_call(name):
    with pytest.raises(Rejected, match="INTERNAL_ERROR") as told:
        google(status(name, errors=[("PROCESSING_ERROR_REASON_INTERNAL_ERROR", "1000")]))[0].poll("r1")
    assert told.value.whole


@pytest.mark.parametrize(
    "answer",
    [
        status("SOMETHING_NEW"),
        status("SUCCESS", records=None),
        status("PARTIAL_SUCCESS"),
        status("PARTIAL_SUCCESS", errors=[("X", "1001")]),
        httpx.Response(200, json={}),
        httpx.Response(200, json={"requestStatusPerDestination": []}),
        httpx.Response(200, json={"requestStatusPerDestination": [{}, {}]}),
    ],
)
def test_a_receipt_that_is_not_understood_settles_nothing(answer):
    with pytest.raises(OutcomeUnknown):
        google(answer)[0].poll("r1")


@pytest.mark.parametrize(
    ("said", "low", "high"),
    [
        ("MATCH_RATE_RANGE_LESS_THAN_20", 0, 199),
        ("MATCH_RATE_RANGE_20_TO_30", 200, 309),
        ("MATCH_RATE_RANGE_91_TO_100", 910, 1000),
        ("MATCH_RATE_RANGE_NOT_ELIGIBLE", None, None),
        ("MATCH_RATE_RANGE_UNKNOWN", None, None),
        ("", None, None),
    ],
)
def test_a_match_rate_range_becomes_numbers_of_people(said, low, high):
    assert matched_range(said, 1000) == (low, high)


# --- Reasons

FIELD = {
    "@type": "type.googleapis.com/google.rpc.BadRequest",
    "fieldViolations": [
        {
            "field": "audience_members.audience_members[2].user_data.user_identifiers[0].email_address",
            "description": "words of mary@example.com",
            "reason": "INVALID_SHA256_FORMAT",
        }
    ],
}
RETRY = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "31.5s"}


@pytest.mark.parametrize(
    ("answer", "verdict", "code"),
    [
        (refused(429, "RESOURCE_EXHAUSTED"), Retryable, None),
        (refused(503, "UNAVAILABLE"), Retryable, None),
        (refused(500, "INTERNAL_ERROR"), OutcomeUnknown, None),
        (refused(504, "DEADLINE_EXCEEDED"), OutcomeUnknown, None),
        (refused(401), Misconfigured, "reconnect"),
        (refused(403, "PERMISSION_DENIED"), Misconfigured, "permission"),
        (refused(404, "NOT_FOUND"), Misconfigured, "audience_gone"),
        (refused(400, "INVALID_USER_LIST_ID"), Misconfigured, "audience_gone"),
        (refused(400, "TERMS_AND_CONDITIONS_NOT_SIGNED"), Misconfigured, "terms"),
        (refused(400, "DISPLAY_NAME_ALREADY_USED"), Misconfigured, "config"),
        (refused(400, "TOO_MANY_AUDIENCE_MEMBERS"), Rejected, "TOO_MANY_AUDIENCE_MEMBERS"),
        (refused(400, "INVALID_SHA256_FORMAT", FIELD), Rejected, "INVALID_SHA256_FORMAT"),
        (refused(400, "<script>"), Rejected, "400"),
        (httpx.Response(502, content=b"<html>"), OutcomeUnknown, None),
    ],
)
def test_each_reason_has_its_verdict(answer, verdict, code):
    with pytest.raises(ConnectorError) as told:
        google(answer)[0].push(ADD)
    assert type(told.value) is verdict, told.value
    assert code is None or told.value.code == code
    assert told.value.http_status == answer.status_code
    assert "mary" not in str(told.value), "Google's own words may repeat what was sent"


def test_the_member_that_google_points_at_is_named():
    with pytest.raises(Rejected) as told:
        google(refused(400, "INVALID_SHA256_FORMAT", FIELD))[0].push(ADD)
    assert told.value.whole and set(told.value.rows) == {13}
    assert told.value.rows[13][0] == "INVALID_SHA256_FORMAT" and "mary" not in told.value.rows[13][1]


def test_a_retry_delay_in_the_body_or_in_the_header_is_kept():
    for answer, seconds in (
        (refused(429, "RESOURCE_EXHAUSTED", RETRY), 31.5),
        (refused(429, "RESOURCE_EXHAUSTED", headers={"Retry-After": "12"}), 12.0),
        (refused(429, "RESOURCE_EXHAUSTED"), None),
    ):
        with pytest.raises(Retryable) as told:
            google(answer)[0].push(ADD)
        assert told.value.throttled and told.value.after == seconds


# --- Lists


def test_a_list_is_made_with_its_type_and_longest_membership():
    connector, asked = google(httpx.Response(200, json={"id": "77", "displayName": "cart"}), upload_key_type="USER_ID")
    assert connector.create("cart", "") == "77"
    body = json.loads(asked[0].content)
    assert asked[0].url.path == "/v1/accountTypes/GOOGLE_ADS/accounts/1234567890/userLists"
    assert body["ingestedUserListInfo"] == {"uploadKeyTypes": ["USER_ID"]} and body["membershipDuration"] == "46656000s"


def test_renaming_patches_only_the_name():
    connector, asked = google(httpx.Response(200, json={"id": "77", "displayName": "new"}))
    connector.rename("77", "new")
    assert asked[0].method == "PATCH" and asked[0].url.params["updateMask"] == "displayName"
    assert json.loads(asked[0].content) == {"displayName": "new"}
    with pytest.raises(OutcomeUnknown):
        connector.rename("77", "another")


def test_describing_gives_sizes_by_network_and_the_match_rate():
    answer = {
        "id": "77",
        "displayName": "cart",
        "membershipStatus": "OPEN",
        "sizeInfo": {"displayNetworkMembersCount": "1200", "searchNetworkMembersCount": "900"},
        "ingestedUserListInfo": {"contactIdInfo": {"matchRatePercentage": 62}},
    }
    told = google(httpx.Response(200, json=answer))[0].describe("77")
    assert (told.matched_low, told.matched_high) == (900, 1200) and told.usable
    assert told.matched_words == "62 % matched; 1,200 on Display; 900 on Search"
    silent = google(httpx.Response(200, json={"id": "77", "displayName": "cart"}))[0].describe("77")
    assert silent.matched_low is None and silent.matched_words == "Google does not say"


# --- Tokens

REFRESH = {"client_id": "c", "client_secret": "s", "refresh_token": "1//long"}


@pytest.fixture(autouse=True)
def _no_tokens():
    google_tokens._tokens.clear()
    yield
    google_tokens._tokens.clear()


def renewing(tokens: list[str], accepted: set[str]) -> Callable[[httpx.Request], httpx.Response]:
    """A platform whose token endpoint gives these tokens in turn, and whose API takes some."""
    left = iter(tokens)

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "oauth2.googleapis.com":
            return httpx.Response(200, json={"access_token": next(left), "expires_in": 3600})
        token = request.headers["Authorization"].removeprefix("Bearer ")
        return TAKEN if token in accepted else refused(401)

    return answer


def test_a_refresh_token_earns_one_access_token_for_many_calls():
    connector, asked = google(renewing(["first"], {"first"}), REFRESH)
    for number in range(3):
        connector.push(Push("add", "600", number, PEOPLE, CONTACT))
    assert [request.url.host for request in asked].count("oauth2.googleapis.com") == 1
    assert b"1%2F%2Flong" in asked[0].content and not asked[0].url.query


def test_fault_22_a_token_that_ends_in_the_middle_is_renewed_once_by_all_workers_together():
    google(renewing(["old"], {"old"}), REFRESH)[0].push(ADD)
    renewals: list[int] = []
    inner = renewing([f"new{n}" for n in range(20)], {f"new{n}" for n in range(20)})

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "oauth2.googleapis.com":
            renewals.append(1)
            time.sleep(0.05)
        return inner(request)

    outcomes = []

    def work() -> None:
        outcomes.append(google(answer, REFRESH)[0].push(ADD).accepted)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == [True] * 8 and len(renewals) == 1


def test_a_token_that_is_refused_even_when_new_is_for_a_person():
    connector, asked = google(renewing(["a", "b", "c"], set()), REFRESH)
    with pytest.raises(Misconfigured) as told:
        connector.push(ADD)
    assert told.value.code == "reconnect" and len(asked) == 4


def test_a_revoked_refresh_token_is_for_a_person():
    connector, asked = google(httpx.Response(400, json={"error": "invalid_grant"}), REFRESH)
    with pytest.raises(Misconfigured, match="Reconnect") as told:
        connector.push(ADD)
    assert told.value.code == "reconnect" and len(asked) == 1


def test_an_access_token_alone_is_used_as_it_is_and_not_tried_twice():
    connector, asked = google(refused(401))
    with pytest.raises(Misconfigured):
        connector.push(ADD)
    assert len(asked) == 1


def test_tokens_are_earned_from_the_sandbox_too(sandbox, account_number):
    destination = SimpleNamespace(
        pk=1,
        kind="google",
        base_url=sandbox.base_url,
        config={"account_id": account_number},
        credentials=secrets.seal(REFRESH, "1"),
    )
    with registry.open(destination, seconds=10) as connector:
        remote_id = connector.create("by refresh token", "")
        assert connector.push(Push("add", remote_id, 1, PEOPLE, CONTACT)).pending
        assert "renews itself" in connector.check()
    assert sandbox.audience("google", remote_id)["people"] == 4


def test_the_sandbox_names_the_bad_member_as_google_does(sandbox, account_number):
    destination = SimpleNamespace(
        pk=1,
        kind="google",
        base_url=sandbox.base_url,
        config={"account_id": account_number},
        credentials=secrets.seal({"access_token": "x"}, "1"),
    )
    with registry.open(destination, seconds=10) as connector:
        remote_id = connector.create("bad member", "")
        body, numbers, _ = connector._body(Push("add", remote_id, 1, PEOPLE, CONTACT))
        body["audienceMembers"][2]["userData"]["userIdentifiers"][0] = {"emailAddress": "not a hash"}
        with pytest.raises(Rejected) as told:
            connector._call("POST", "/v1/audienceMembers:ingest", body, numbers=numbers)
        assert set(told.value.rows) == {13}
    assert sandbox.identifiers("google", remote_id) == set(), "one bad member, and nothing is applied"


@pytest.mark.parametrize("given", ["123-456-7890", "1234567890", " 123 456 7890 "])
def test_the_form_takes_an_account_in_each_way_people_write_it(given):
    form = GoogleForm({"account_id": given, "access_token": "x"})
    assert form.is_valid() and form.cleaned_data["account_id"] == "1234567890"
    assert Google.account_key({"account_id": given}) == "google:1234567890"
