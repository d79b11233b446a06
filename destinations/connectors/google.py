"""Google Ads customer lists over the Data Manager API. Translation only; its receipts come later, by `poll`.

One list holds one type of data, fixed when the list is made, so a destination is of one type.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urlencode

import httpx
import orjson
from django import forms

from destinations import identifiers
from destinations.connectors import google_answers, google_tokens, http
from destinations.connectors.base import (
    UNMATCHABLE,
    Account,
    Capabilities,
    Connector,
    Misconfigured,
    Push,
    Receipt,
    Rejected,
    RemoteAudience,
    sandbox_page,
)

MEMBERSHIP = "46656000s"  # 540 days, the longest there is
MOST_IDENTIFIERS = 10

# upload key type → the kinds of ours that make it up
KINDS: Mapping[str, tuple[str, ...]] = {
    "CONTACT_ID": ("email", "phone", "first_name", "last_name", "zip", "country"),
    "USER_ID": ("external_id",),
}
_ADDRESS = ("first_name", "last_name", "country", "zip")


class GoogleForm(forms.Form):
    """What Google needs to know of a Google Ads account."""

    account_id = forms.RegexField(
        r"^[\s\d-]{1,20}$", label="Google Ads account", help_text="The customer id, such as 123-456-7890."
    )
    login_account_id = forms.RegexField(
        r"^[\s\d-]{1,20}$",
        required=False,
        label="Manager account",
        help_text="Only where access goes through a manager account.",
    )
    upload_key_type = forms.ChoiceField(
        choices=[("CONTACT_ID", "E-mail, phone, name and address"), ("USER_ID", "Your own user ids")],
        required=False,
        label="What lists are made of",
    )
    consent = forms.ChoiceField(
        choices=[("CONSENT_GRANTED", "Granted: only people who may be sent are sent"), ("NOT_SAID", "Say nothing")],
        required=False,
        label="Consent told to Google",
    )
    access_token = forms.CharField(
        required=False,
        label="Access token",
        widget=forms.PasswordInput(render_value=False),
        help_text="Or the three fields below, which do not end after an hour.",
    )
    client_id = forms.CharField(required=False, label="OAuth client id", widget=forms.PasswordInput(render_value=False))
    client_secret = forms.CharField(
        required=False, label="OAuth client secret", widget=forms.PasswordInput(render_value=False)
    )
    refresh_token = forms.CharField(
        required=False, label="OAuth refresh token", widget=forms.PasswordInput(render_value=False)
    )

    def clean_account_id(self) -> str:
        return _digits(self.cleaned_data["account_id"])

    def clean_login_account_id(self) -> str:
        return _digits(self.cleaned_data["login_account_id"])


class Google(Connector):
    """One Google Ads account."""

    kind: ClassVar[str] = "google"
    capabilities: ClassVar[Capabilities] = Capabilities(
        label="Google Ads",
        purposes=("retargeting", "suppression", "lookalike"),
        identifiers={
            "email": "E-mail",
            "phone": "Phone",
            "first_name": "First name (with last name, country and postal code)",
            "last_name": "Last name (with first name, country and postal code)",
            "country": "Country (with names and postal code)",
            "zip": "Postal code (with names and country)",
            "external_id": "Your own user id (in lists of its own)",
        },
        batch_size=10_000,
        calls_per_minute=240,  # of 300 a minute for a whole project
        base_url=google_tokens.OWN_URL,
        can_validate=True,
        receipts=True,
        description_length=250,  # Google says only that there is a limit (FIELD_VALUE_TOO_LONG)
    )
    config_form: ClassVar[type[forms.Form]] = GoogleForm
    secret_fields: ClassVar[tuple[str, ...]] = ("access_token", "client_id", "client_secret", "refresh_token")

    def __init__(self, account: Account, client: httpx.Client) -> None:
        super().__init__(account, client)
        self._id = _digits(str(account.config.get("account_id", "")))
        self._login = _digits(str(account.config.get("login_account_id") or ""))
        self._type = str(account.config.get("upload_key_type") or "CONTACT_ID")

    @classmethod
    def account_key(cls, config: Mapping[str, Any]) -> str:
        return f"google:{_digits(str(config.get('account_id', '')))}"

    @classmethod
    def page_of(cls, base_url: str, config: Mapping[str, Any], remote_id: str) -> str:
        account = _digits(str(config.get("account_id", "")))
        if here := sandbox_page("google", base_url, account, remote_id):
            return here
        # Its own pages count accounts by another number (`ocid`); `__e` is the one that people and the API know.
        return f"https://ads.google.com/aw/audiences/management/details?{urlencode({'__e': account, 'userListId': remote_id})}"

    def check(self) -> str:
        answer = self._object(self._call("GET", self._lists(), params={"pageSize": "1"}))
        lists = answer.get("userLists", [])
        if not isinstance(lists, list):
            raise Misconfigured("Google answered with something that is no list of audiences.")
        lasting = (
            "the token renews itself"
            if self.account.credentials.get("refresh_token")
            else "the token ends within the hour"
        )
        return f"Connected to Google Ads {google_answers.dashed(self._id)}; may read its lists; {lasting}."

    def create(self, name: str, description: str) -> str:
        info: dict[str, Any] = {"uploadKeyTypes": [self._type]}
        if self._type == "CONTACT_ID":
            info["contactIdInfo"] = {"dataSourceType": "DATA_SOURCE_TYPE_FIRST_PARTY"}
        body = {
            "displayName": name,
            "description": description or name,
            "membershipStatus": "OPEN",
            "membershipDuration": MEMBERSHIP,
            "ingestedUserListInfo": info,
        }
        response = self._call("POST", self._lists(), body)
        remote_id = str(self._object(response).get("id", ""))
        if not _is_id(remote_id):
            raise http.not_understood(response)
        return remote_id

    def describe(self, remote_id: str) -> RemoteAudience:
        answer = self._object(self._call("GET", self._lists(remote_id)))
        sizes, info = answer.get("sizeInfo") or {}, answer.get("ingestedUserListInfo") or {}
        display, search = (
            google_answers.count(sizes.get(name))
            for name in ("displayNetworkMembersCount", "searchNetworkMembersCount")
        )
        known = [size for size in (display, search) if size is not None]
        percent = google_answers.count((info.get("contactIdInfo") or {}).get("matchRatePercentage"))
        words = [f"{percent} % matched"] if percent is not None else []
        words += [
            f"{size:,} on {where}" for size, where in ((display, "Display"), (search, "Search")) if size is not None
        ]
        status = str(answer.get("membershipStatus", ""))
        return RemoteAudience(
            remote_id=remote_id,
            name=str(answer.get("displayName", "")),
            description=str(answer.get("description") or ""),
            state=status.capitalize(),
            usable=status != "CLOSED" and not answer.get("readOnly", False),
            matched_low=min(known, default=None),
            matched_high=max(known, default=None),
            matched_words="; ".join(words) or "Google does not say",
            at=datetime.now(UTC),
        )

    def rename(self, remote_id: str, name: str) -> None:
        self._change(remote_id, "displayName", name)

    def describe_as(self, remote_id: str, description: str) -> None:
        self._change(remote_id, "description", description)

    def _change(self, remote_id: str, field: str, value: str) -> None:
        response = self._call("PATCH", self._lists(remote_id), {field: value}, params={"updateMask": field})
        if self._object(response).get(field) != value:
            raise http.not_understood(response)

    def push(self, push: Push) -> Receipt:
        body, numbers, empty = self._body(push)
        warnings = self._left_out(push)
        if not numbers:
            return Receipt(accepted=True, rejected=empty, received=0, warnings=warnings)
        verb = "ingest" if push.kind == "add" else "remove"
        response = self._call("POST", f"/v1/audienceMembers:{verb}", body, numbers=numbers)
        answer = self._object(response)
        request_id = answer.get("requestId", "")
        if not isinstance(request_id, str) or not (request_id or push.validate_only):
            raise http.not_understood(response)
        return Receipt(
            accepted=True,
            request_id=request_id,
            pending=not push.validate_only,
            rejected=empty,
            received=len(numbers),
            warnings=warnings + google_answers.field_warnings(answer),
            http_status=response.status_code,
        )

    def poll(self, request_id: str) -> Receipt:
        response = self._call("GET", "/v1/requestStatus:retrieve", params={"requestId": request_id})
        told = self._object(response).get("requestStatusPerDestination")
        if not isinstance(told, list) or len(told) != 1 or not isinstance(told[0], dict):
            raise http.not_understood(response)
        status, errors = told[0].get("requestStatus"), google_answers.error_counts(told[0])
        reasons = tuple(f"{reason}: {count}" for reason, count in errors.items())
        if status == "PROCESSING":
            return Receipt(accepted=True, request_id=request_id, pending=True, http_status=response.status_code)
        if status in ("FAILED", "FAILURE"):
            raise http.told(
                Rejected(f"Google refused the whole call ({', '.join(reasons)}).", code=", ".join(errors)), response
            )
        detail = google_answers.detail(told[0])
        records = google_answers.count(detail.get("recordCount"))
        if status not in ("SUCCESS", "PARTIAL_SUCCESS") or records is None:
            raise http.not_understood(response)
        refused = sum(errors.values())
        if status == "PARTIAL_SUCCESS" and not 0 < refused <= records:
            raise http.not_understood(response)
        low, high = google_answers.matched_range(str(detail.get("uploadMatchRateRange", "")), records)
        return Receipt(
            accepted=True,
            request_id=request_id,
            rejected_unnamed=refused if status == "PARTIAL_SUCCESS" else 0,
            received=records,
            matched_low=low,
            matched_high=high,
            warnings=reasons,
            http_status=response.status_code,
        )

    def masked_payload(self, push: Push) -> str:
        body, numbers, _ = self._body(push)
        members = [_masked(member) for member in body["audienceMembers"][:3]]
        if len(numbers) > 3:
            members.append(f"… and {len(numbers) - 3:,} more")
        return orjson.dumps({**body, "audienceMembers": members}, option=orjson.OPT_INDENT_2).decode()

    # --- Building

    def _kinds(self, push: Push) -> tuple[str, ...]:
        """The identifiers of the push that this destination's lists are made of. An address is only sent whole."""
        kinds = tuple(kind for kind in push.identifiers if kind in KINDS.get(self._type, ()))
        if not set(_ADDRESS) <= set(kinds):
            kinds = tuple(kind for kind in kinds if kind not in _ADDRESS)
        if not kinds:
            raise Misconfigured(
                "None of this connection's identifiers fits the lists of this destination: "
                f"they take {', '.join(KINDS.get(self._type, ()))}, and names and addresses only together."
            )
        return kinds

    def _left_out(self, push: Push) -> tuple[str, ...]:
        out = [kind for kind in push.identifiers if kind not in self._kinds(push)]
        return (f"Not sent, as lists of this destination do not take them: {', '.join(out)}",) if out else ()

    def _body(self, push: Push) -> tuple[dict[str, Any], list[int], dict[int, tuple[str, str]]]:
        """The call's body, whom it carries in its order, and the identities that have nothing to send."""
        kinds = self._kinds(push)
        sent = identifiers.sent(push.people, kinds, identifiers.GOOGLE)
        members: list[dict[str, Any]] = []
        numbers: list[int] = []
        empty = list(sent.empty)
        for number, row in zip(sent.numbers, sent.rows, strict=True):
            data = _data(dict(zip(kinds, row, strict=True)))
            if data is None:
                empty.append(number)
            else:
                members.append({"destinationReferences": ["list"], **data})
                numbers.append(number)
        destination: dict[str, Any] = {
            "reference": "list",
            "operatingAccount": {"accountType": "GOOGLE_ADS", "accountId": self._id},
            "productDestinationId": self._remote(push.remote_id),
        }
        if self._login:
            destination["loginAccount"] = {"accountType": "GOOGLE_ADS", "accountId": self._login}
        body: dict[str, Any] = {"destinations": [destination], "audienceMembers": members, "encoding": "HEX"}
        if push.validate_only:
            body["validateOnly"] = True
        if push.kind == "add":
            body["termsOfService"] = {"customerMatchTermsOfServiceStatus": "ACCEPTED"}
            if (self.account.config.get("consent") or "CONSENT_GRANTED") == "CONSENT_GRANTED":
                body["consent"] = {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_GRANTED"}
        return body, numbers, dict.fromkeys(empty, UNMATCHABLE)

    def _lists(self, remote_id: str | None = None) -> str:
        base = f"/v1/accountTypes/GOOGLE_ADS/accounts/{self._id}/userLists"
        return base if remote_id is None else f"{base}/{self._remote(remote_id)}"

    def _remote(self, remote_id: str) -> str:
        if not _is_id(remote_id):
            raise Misconfigured("A list's id at Google is a number.", code="audience_gone")
        return remote_id

    # --- Calling

    def _call(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        params: Mapping[str, str] | None = None,
        numbers: list[int] | None = None,
    ) -> httpx.Response:
        """The answer of a call that went well. A token that ended meanwhile is renewed once: a 401 applied nothing."""
        for attempt in (1, 2):
            token = google_tokens.access_token(self.account, self.client)
            headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
            if self._login:
                headers["login-account"] = f"accountTypes/GOOGLE_ADS/accounts/{self._login}"
            content = None if body is None else orjson.dumps(body)
            response = self.client.request(method, path, content=content, params=params, headers=headers)
            if response.is_success:
                return response
            if response.status_code != 401 or attempt == 2 or not google_tokens.forget(self.account, token):
                break
        raise http.told(google_answers.verdict(response, numbers or [], self._id), response)

    def _object(self, response: httpx.Response) -> Mapping[str, Any]:
        answer = http.json_object(response)
        if "error" in answer:
            raise http.not_understood(response)
        return answer


def _data(person: Mapping[str, str]) -> dict[str, Any] | None:
    """One member's data; None where it has only half an address."""
    if "external_id" in person:
        return {"userIdData": {"userId": person["external_id"]}}
    found: list[dict[str, Any]] = []
    if email := person.get("email"):
        found.append({"emailAddress": email})
    if phone := person.get("phone"):
        found.append({"phoneNumber": phone})
    if all(person.get(kind) for kind in _ADDRESS):
        names = ("givenName", "familyName", "regionCode", "postalCode")
        found.append({"address": {name: person[kind] for name, kind in zip(names, _ADDRESS, strict=True)}})
    return {"userData": {"userIdentifiers": found[:MOST_IDENTIFIERS]}} if found else None


def _masked(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _masked(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_masked(inner, key) for inner in value]
    return value if key == "destinationReferences" else identifiers.masked(str(value))


def _is_id(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,32}", text))


def _digits(text: str) -> str:
    return re.sub(r"[^0-9]", "", text)
