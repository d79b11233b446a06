"""Meta Custom Audiences over the Graph API. Translation only: what to send, and what an answer means."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urlencode

import httpx
import orjson
from django import forms

from destinations import identifiers
from destinations.connectors import http
from destinations.connectors.base import (
    UNMATCHABLE,
    Account,
    Capabilities,
    Connector,
    ConnectorError,
    Misconfigured,
    OutcomeUnknown,
    Push,
    Receipt,
    Rejected,
    RemoteAudience,
    Retryable,
    sandbox_page,
)

API_VERSION = "v26.0"

SCHEMA = {
    "email": "EMAIL",
    "phone": "PHONE",
    "external_id": "EXTERN_ID",
    "mobile_ad_id": "MADID",
    "first_name": "FN",
    "last_name": "LN",
    "zip": "ZIP",
    "country": "COUNTRY",
}

# Body codes, as Meta's and its SDKs' pages give them. Subcodes win over codes.
_THROTTLED = {4, 17, 32, 341, 613, *range(80000, 80015)}
_NO_TOKEN = {102, 104, 190, 2500}
_UNDECIDED = {1, 2}
_PERMISSION = {3, 10, 200, 294}
_GONE_SUBCODE = 33
_GONE = {803}
_TERMS = 1870090
_ACCOUNT_LINK = 1870050
_UPLOAD_BLOCKED = 1713230
_UPDATE_IN_PROGRESS = 1870145
_TOO_FEW_LEFT = "audience size too low"


class MetaForm(forms.Form):
    """What Meta needs to know of an ad account."""

    ad_account_id = forms.RegexField(
        r"^\s*(act_)?\d{1,32}\s*$",
        label="Ad account",
        help_text="The number in Ads Manager's address, with or without act_.",
        error_messages={"invalid": "An ad account is a number, such as act_1234567890."},
    )
    customer_file_source = forms.ChoiceField(
        choices=[
            ("USER_PROVIDED_ONLY", "Given by the people themselves"),
            ("PARTNER_PROVIDED_ONLY", "Given by partners"),
            ("BOTH_USER_AND_PARTNER_PROVIDED", "Both"),
        ],
        required=False,
        label="Where the identifiers come from",
    )
    api_version = forms.RegexField(
        r"^v\d{1,3}\.\d$", required=False, label="Graph API version", help_text=f"Left empty: {API_VERSION}."
    )
    access_token = forms.CharField(
        label="Access token",
        widget=forms.PasswordInput(render_value=False),
        help_text="A system user's token with ads_management.",
    )
    app_secret = forms.CharField(
        required=False,
        label="App secret",
        widget=forms.PasswordInput(render_value=False),
        help_text="Only where the app demands proof of it with each call.",
    )

    def clean_ad_account_id(self) -> str:
        return _account_id(self.cleaned_data["ad_account_id"])


class Meta(Connector):
    """One ad account."""

    kind: ClassVar[str] = "meta"
    capabilities: ClassVar[Capabilities] = Capabilities(
        label="Meta",
        purposes=("retargeting", "suppression", "lookalike"),
        identifiers={
            "email": "E-mail",
            "phone": "Phone",
            "external_id": "Your own id (Meta keeps it 90 days)",
            "mobile_ad_id": "Mobile advertising id",
            "first_name": "First name",
            "last_name": "Last name",
            "zip": "Postal code",
            "country": "Country",
        },
        batch_size=10_000,
        calls_per_minute=80,  # 5,000 an hour and 40 for each audience: the standard tier
        base_url="https://graph.facebook.com",
        description_length=250,  # Meta documents no limit
    )
    config_form: ClassVar[type[forms.Form]] = MetaForm
    secret_fields: ClassVar[tuple[str, ...]] = ("access_token", "app_secret")

    def __init__(self, account: Account, client: httpx.Client) -> None:
        super().__init__(account, client)
        self._act = _account_id(str(account.config.get("ad_account_id", "")))
        self._version = str(account.config.get("api_version") or API_VERSION)

    @classmethod
    def account_key(cls, config: Mapping[str, Any]) -> str:
        return f"meta:{_account_id(str(config.get('ad_account_id', '')))}"

    @classmethod
    def page_of(cls, base_url: str, config: Mapping[str, Any], remote_id: str) -> str:
        act = _account_id(str(config.get("ad_account_id", "")))
        if here := sandbox_page("meta", base_url, act.removeprefix("act_"), remote_id):
            return here
        chosen = urlencode({"act": act.removeprefix("act_"), "selected_audience_ids": remote_id})
        return f"https://business.facebook.com/adsmanager/audiences?{chosen}"

    def check(self) -> str:
        account = self._get(self._act, fields="name,currency,account_status,tos_accepted")
        token = self._token()
        name, currency = account.get("name") or self._act, account.get("currency")
        if account.get("account_status", 1) != 1:
            raise Misconfigured(f"{name} ({self._act}) is not active on Meta; see its account quality page.")
        if "scopes" in token and "ads_management" not in token["scopes"]:
            words = f"The token opens {name} ({self._act}) but lacks ads_management, so no audience can be edited."
            raise Misconfigured(words, code="permission")
        terms = account.get("tos_accepted")
        if isinstance(terms, dict) and not terms.get("custom_audience_tos"):
            raise self._terms_not_accepted()
        named = f"{self._act}, {currency}" if currency else self._act
        return f"Connected to {name} ({named}); may edit audiences; {_token_end(token)}."

    def create(self, name: str, description: str) -> str:
        source = self.account.config.get("customer_file_source") or "USER_PROVIDED_ONLY"
        body = {"name": name, "description": description, "subtype": "CUSTOM", "customer_file_source": source}
        response, answer = self._post(f"{self._act}/customaudiences", body)
        remote_id = answer.get("id")
        if not isinstance(remote_id, str) or not _is_id(remote_id):
            raise http.not_understood(response)
        return remote_id

    def describe(self, remote_id: str) -> RemoteAudience:
        fields = "id,name,description,operation_status,delivery_status,approximate_count_lower_bound,approximate_count_upper_bound"
        answer = self._get(self._audience(remote_id), fields=fields)
        operation, delivery = _status(answer, "operation_status"), _status(answer, "delivery_status")
        low, high = _count(answer, "approximate_count_lower_bound"), _count(answer, "approximate_count_upper_bound")
        return RemoteAudience(
            remote_id=remote_id,
            name=str(answer.get("name", "")),
            description=str(answer.get("description") or ""),
            state="; ".join(words for _, words in (operation, delivery) if words),
            usable=operation[0] in (0, 200),
            matched_low=low,
            matched_high=high,
            matched_words="" if low is not None or high is not None else "Meta does not say",
            at=datetime.now(UTC),
        )

    def rename(self, remote_id: str, name: str) -> None:
        self._change(remote_id, {"name": name})

    def describe_as(self, remote_id: str, description: str) -> None:
        self._change(remote_id, {"description": description})

    def _change(self, remote_id: str, fields: Mapping[str, str]) -> None:
        response, answer = self._post(self._audience(remote_id), fields)
        if answer.get("success") is not True and answer.get("id") != remote_id:
            raise http.not_understood(response)

    def push(self, push: Push) -> Receipt:
        if push.validate_only:
            raise NotImplementedError("Meta cannot check a call without applying it")
        body, sent, empty = self._body(push)
        if not sent:
            return Receipt(accepted=True, rejected=empty, received=0)
        response, answer = self._post(f"{self._audience(push.remote_id)}/users", body)
        invalid = answer.get("num_invalid_entries")
        if (
            str(answer.get("audience_id")) != push.remote_id
            or answer.get("num_received") != sent
            or type(invalid) is not int
            or not 0 <= invalid <= sent
        ):
            raise http.not_understood(response)
        return Receipt(
            accepted=True,
            request_id=str(answer.get("session_id", "")),
            rejected=empty,
            rejected_unnamed=invalid,
            received=sent,
            http_status=response.status_code,
        )

    def masked_payload(self, push: Push) -> str:
        body, _, _ = self._body(push)
        data = body["payload"]["data"]
        rows: list[Any] = [[identifiers.masked(value) for value in row] for row in data[:3]]
        if len(data) > 3:
            rows.append(f"… and {len(data) - 3:,} more")
        body["payload"]["data"] = rows
        body.pop("appsecret_proof", None)
        return orjson.dumps(body, option=orjson.OPT_INDENT_2).decode()

    # --- Building and sending

    def _body(self, push: Push) -> tuple[dict[str, Any], int, dict[int, tuple[str, str]]]:
        """The call's body, how many rows it carries, and the identities that have nothing to send."""
        unknown = [kind for kind in push.identifiers if kind not in SCHEMA]
        if unknown or not push.identifiers:
            raise Misconfigured(f"Meta takes none of these identifiers: {', '.join(unknown) or 'none chosen'}.")
        sent = identifiers.sent(push.people, push.identifiers, identifiers.META)
        payload = {"schema": [SCHEMA[kind] for kind in push.identifiers], "is_raw": True, "data": sent.rows}
        session = {
            "session_id": _session_id(push),
            "batch_seq": 1,
            "last_batch_flag": True,
            "estimated_num_total": len(sent.rows),
        }
        body: dict[str, Any] = {"payload": payload, "session": session}
        if push.kind == "remove":
            body["method"] = "DELETE"  # a DELETE's own body is dropped by some proxies
        return body, len(sent.rows), dict.fromkeys(sent.empty, UNMATCHABLE)

    def _audience(self, remote_id: str) -> str:
        if not _is_id(remote_id):
            raise Misconfigured("An audience's id on Meta is a number.", code="audience_gone")
        return remote_id

    def _get(self, path: str, **query: str) -> Mapping[str, Any]:
        response = self.client.get(
            f"/{self._version}/{path}", params={**query, **self._proof()}, headers=self._bearer()
        )
        return self._understood(response)

    def _post(self, path: str, body: Mapping[str, Any]) -> tuple[httpx.Response, Mapping[str, Any]]:
        response = self.client.post(
            f"/{self._version}/{path}",
            content=orjson.dumps({**body, **self._proof()}),
            headers={**self._bearer(), "Content-Type": "application/json"},
        )
        return response, self._understood(response)

    def _bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.account.credentials.get('access_token', '')}"}

    def _proof(self) -> dict[str, str]:
        secret = self.account.credentials.get("app_secret")
        if not secret:
            return {}
        token = self.account.credentials.get("access_token", "")
        return {"appsecret_proof": hmac.new(secret.encode(), token.encode(), hashlib.sha256).hexdigest()}

    def _token(self) -> Mapping[str, Any]:
        """What Meta says of our own token; nothing where it will not."""
        try:
            answer = self._get("debug_token", input_token=self.account.credentials.get("access_token", ""))
        except (Rejected, Misconfigured) as error:
            if isinstance(error, Misconfigured) and error.code == "reconnect":
                raise
            return {}
        data = answer.get("data")
        return data if isinstance(data, dict) else {}

    # --- Understanding answers

    def _understood(self, response: httpx.Response) -> Mapping[str, Any]:
        """The answer's object. Raises the verdict of an error body, whatever its HTTP status is."""
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            answer = None
        if isinstance(answer, dict) and isinstance(answer.get("error"), dict):
            raise http.told(self._verdict(answer["error"], response), response)
        if not response.is_success:
            raise http.refusal(response)
        if not isinstance(answer, dict):
            raise http.not_understood(response)
        return answer

    def _verdict(self, error: Mapping[str, Any], response: httpx.Response) -> ConnectorError:
        """By code. Meta's own words are not passed on: they may repeat what was sent."""
        code, subcode = error.get("code"), error.get("error_subcode")
        where = f"code {code}" + (f"/{subcode}" if subcode else "")
        if isinstance(trace := error.get("fbtrace_id"), str) and re.fullmatch(r"[\w-]{1,64}", trace):
            where += f", trace {trace}"
        if code in _THROTTLED:
            return Retryable(f"Meta asks for fewer calls ({where}).", after=_regain(response), throttled=True)
        if code in _NO_TOKEN:
            return Misconfigured(
                f"Meta no longer accepts the access token ({where}). Reconnect {self._act}.", code="reconnect"
            )
        if subcode == _TERMS:
            return self._terms_not_accepted()
        if subcode == _UPLOAD_BLOCKED or code == 368:
            return Misconfigured(
                f"Meta has blocked uploads ({where}); appeal on its account quality page.", code="blocked"
            )
        if subcode == _UPDATE_IN_PROGRESS:
            return Retryable(f"Meta is still working on an earlier update of this audience ({where}).", after=60.0)
        if _TOO_FEW_LEFT in f"{error.get('message', '')} {error.get('error_user_title', '')}".lower():
            return Retryable(f"Meta refuses removals that would leave an audience so small ({where}).", after=3600.0)
        if code in _GONE or (code == 100 and subcode == _GONE_SUBCODE):
            return Misconfigured(
                f"Meta knows no such audience, or does not show it to us ({where}).", code="audience_gone"
            )
        if code in _PERMISSION:
            hint = " The ad account must be linked to a business." if subcode == _ACCOUNT_LINK else ""
            return Misconfigured(f"Meta does not allow this with the given token ({where}).{hint}", code="permission")
        if code == 2635:
            return Misconfigured(f"Meta no longer speaks the API version {self._version} ({where}).")
        if code in _UNDECIDED or error.get("is_transient") is True or response.status_code >= 500:
            return OutcomeUnknown(f"Meta failed without saying whether it had applied the call ({where}).")
        return Rejected(
            f"Meta refused the call's content ({where}).", code=f"{code}/{subcode}" if subcode else str(code)
        )

    def _terms_not_accepted(self) -> Misconfigured:
        number = self._act.removeprefix("act_")
        link = f"https://business.facebook.com/ads/manage/customaudiences/tos/?act={number}"
        return Misconfigured(f"Meta's Custom Audience terms are not accepted for {self._act}: {link}", code="terms")


def _account_id(text: str) -> str:
    return f"act_{text.strip().removeprefix('act_')}"


def _is_id(text: str) -> bool:
    return bool(re.fullmatch(r"[0-9]{1,32}", text))


def _session_id(push: Push) -> int:
    """63 bits, the same for a repeat of the same operation and for nothing else in the ad account."""
    digest = hashlib.sha256(f"{push.remote_id}:{push.kind}:{push.operation_id}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _count(answer: Mapping[str, Any], field: str) -> int | None:
    """A size bound; Meta writes -1 where it does not say."""
    value = answer.get(field)
    return value if isinstance(value, int) and value >= 0 else None


def _status(answer: Mapping[str, Any], field: str) -> tuple[int, str]:
    value = answer.get(field)
    if not isinstance(value, dict):
        return 0, ""
    code = value.get("code")
    return (code if isinstance(code, int) else 0), str(value.get("description", ""))


def _regain(response: httpx.Response) -> float | None:
    """Seconds until Meta expects to answer again, the longest that it names; None where it names none."""
    try:
        usage = orjson.loads(response.headers.get("X-Business-Use-Case-Usage", ""))
        minutes = [float(use["estimated_time_to_regain_access"]) for uses in usage.values() for use in uses]
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError):
        minutes = []
    seconds = max([minute * 60 for minute in minutes] + [http.pause(response) or 0.0])
    return min(seconds, http.LONGEST_PAUSE) or None


def _token_end(token: Mapping[str, Any]) -> str:
    ends = token.get("expires_at")
    if not isinstance(ends, int):
        return "Meta does not say when the token ends"
    if ends == 0:
        return "the token does not end"
    moment = datetime.fromtimestamp(ends, UTC)
    year = "" if moment.year == datetime.now(UTC).year else f" {moment.year}"
    return f"token ends {moment.day} {moment:%B}{year}"
