"""OpenList, a platform that only the sandbox has: it answers row by row and lets members be read, as some real ones do."""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

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
    Misconfigured,
    Push,
    Receipt,
    RemoteAudience,
    Retryable,
    sandbox_page,
)

_FIELD = {"email": "email_sha256", "external_id": "external_id"}
_VERDICTS = {
    "terms_not_accepted": Misconfigured("OpenList's terms are not accepted for this account.", code="terms"),
    "blocked": Misconfigured("OpenList has blocked this account.", code="blocked"),
    "no_such_list": Misconfigured("OpenList knows no such list.", code="audience_gone"),
}


class OpenListForm(forms.Form):
    """What OpenList needs to know of an account."""

    account = forms.RegexField(r"^[\w-]{1,60}$", required=False, label="Account", help_text="Left empty: main.")
    access_token = forms.CharField(label="Access token", widget=forms.PasswordInput(render_value=False))


class OpenList(Connector):
    """One account of the sandbox's OpenList."""

    kind: ClassVar[str] = "openlist"
    capabilities: ClassVar[Capabilities] = Capabilities(
        label="OpenList (sandbox)",
        purposes=("retargeting", "suppression", "analytics"),
        identifiers={"external_id": "Your own id", "email": "E-mail"},
        batch_size=5_000,
        calls_per_minute=600,
        base_url="http://127.0.0.1:9009",
        can_read_members=True,
        settle_seconds=30,
        description_length=500,
    )
    config_form: ClassVar[type[forms.Form]] = OpenListForm
    secret_fields: ClassVar[tuple[str, ...]] = ("access_token",)

    def __init__(self, account: Account, client: httpx.Client) -> None:
        super().__init__(account, client)
        self._account = str(account.config.get("account") or "main")

    @classmethod
    def account_key(cls, config: Mapping[str, Any]) -> str:
        return f"openlist:{config.get('account') or 'main'}"

    @classmethod
    def page_of(cls, base_url: str, config: Mapping[str, Any], remote_id: str) -> str:
        return sandbox_page(
            "openlist", base_url or cls.capabilities.base_url, str(config.get("account") or "main"), remote_id
        )

    def check(self) -> str:
        about = http.json_object(self._call("GET", "account"))
        if not about.get("may_edit"):
            raise Misconfigured("The token may read OpenList's lists, not edit them.", code="permission")
        ends = about.get("token_ends")
        moment = datetime.fromtimestamp(ends, UTC) if isinstance(ends, int | float) else None
        lasting = f"token ends {moment.day} {moment:%B %Y}" if moment else "the token does not end"
        return (
            f"Connected to {about.get('name')} ({self._account}, {about.get('currency')}); may edit lists; {lasting}."
        )

    def create(self, name: str, description: str) -> str:
        response = self._call("POST", "lists", {"name": name, "description": description})
        remote_id = http.json_object(response).get("id")
        if not isinstance(remote_id, str) or not remote_id:
            raise http.not_understood(response)
        return remote_id

    def describe(self, remote_id: str) -> RemoteAudience:
        answer = http.json_object(self._call("GET", self._list(remote_id)))
        matched = answer.get("matched")
        known = matched if isinstance(matched, int) else None
        return RemoteAudience(
            remote_id=remote_id,
            name=str(answer.get("name", "")),
            description=str(answer.get("description") or ""),
            matched_low=known,
            matched_high=known,
            matched_words="" if known is not None else "OpenList does not say",
            at=datetime.now(UTC),
        )

    def rename(self, remote_id: str, name: str) -> None:
        self._change(remote_id, "name", name)

    def describe_as(self, remote_id: str, description: str) -> None:
        self._change(remote_id, "description", description)

    def _change(self, remote_id: str, field: str, value: str) -> None:
        response = self._call("PATCH", self._list(remote_id), {field: value})
        if http.json_object(response).get(field) != value:
            raise http.not_understood(response)

    def push(self, push: Push) -> Receipt:
        if push.validate_only:
            raise NotImplementedError("OpenList cannot check a call without applying it")
        members, numbers, empty = self._members(push)
        if not numbers:
            return Receipt(accepted=True, rejected=empty, received=0)
        path = f"{self._list(push.remote_id)}/members:{push.kind}"
        response = self._call("POST", path, {"members": members})
        answer = http.json_object(response)
        errors = _errors(answer.get("errors"), len(numbers))
        accepted = answer.get("accepted")
        if errors is None or answer.get("received") != len(numbers) or accepted != len(numbers) - len(errors):
            raise http.not_understood(response)
        refused = {numbers[index]: (code, f"OpenList refused this row ({code}).") for index, code in errors.items()}
        return Receipt(
            accepted=True, rejected={**empty, **refused}, received=len(numbers), http_status=response.status_code
        )

    def masked_payload(self, push: Push) -> str:
        members, numbers, _ = self._members(push)
        shown: list[Any] = [{name: identifiers.masked(value) for name, value in one.items()} for one in members[:3]]
        if len(numbers) > 3:
            shown.append(f"… and {len(numbers) - 3:,} more")
        return orjson.dumps({"members": shown}, option=orjson.OPT_INDENT_2).decode()

    def read_members(self, remote_id: str) -> Sequence[str]:
        found: list[str] = []
        after = ""
        while True:
            path = f"{self._list(remote_id)}/members"
            response = self._call("GET", path, params={"after": after} if after else {})
            answer = http.json_object(response)
            members, following = answer.get("members"), answer.get("next")
            if not isinstance(members, list):
                raise http.not_understood(response)
            found += [str(one["external_id"]) for one in members if "external_id" in one]
            if not following:
                return found
            after = str(following)

    def _members(self, push: Push) -> tuple[list[dict[str, str]], list[int], dict[int, tuple[str, str]]]:
        """The members as sent, whom each is, and who has nothing to send."""
        kinds = [kind for kind in push.identifiers if kind in _FIELD]
        if not kinds:
            raise Misconfigured("OpenList takes external ids and e-mails; this connection has neither.")
        sent = identifiers.sent(push.people, kinds, identifiers.HASHED)
        names = [_FIELD[kind] for kind in kinds]
        members = [{name: value for name, value in zip(names, row, strict=True) if value} for row in sent.rows]
        return members, sent.numbers, dict.fromkeys(sent.empty, UNMATCHABLE)

    def _list(self, remote_id: str) -> str:
        if not re.fullmatch(r"\w{1,64}", remote_id):
            raise Misconfigured("A list's id at OpenList is letters and digits.", code="audience_gone")
        return f"lists/{remote_id}"

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, *, params: Mapping[str, str] | None = None
    ) -> httpx.Response:
        token = self.account.credentials.get("access_token", "")
        response = self.client.request(
            method,
            f"/openlist/v1/{path}",
            content=None if body is None else orjson.dumps(body),
            params=params,
            headers={
                "Authorization": f"Bearer {token}",
                "X-Account": self._account,
                "Content-Type": "application/json",
            },
        )
        if response.is_success:
            return response
        try:
            code = orjson.loads(response.content)["error"]["code"]
        except (orjson.JSONDecodeError, KeyError, TypeError):
            code = ""
        if code == "too_small":
            words = "OpenList refuses removals that would leave a list so small."
            raise http.told(Retryable(words, after=http.LONGEST_PAUSE), response)
        verdict = _VERDICTS.get(code)
        raise http.told(Misconfigured(str(verdict), code=verdict.code), response) if verdict else http.refusal(response)


def _errors(given: object, rows: int) -> dict[int, str] | None:
    """Index → code of each refused row; None where one points nowhere."""
    if not isinstance(given, list):
        return None
    errors = {}
    for one in given:
        if not isinstance(one, dict) or type(one.get("index")) is not int or not 0 <= one["index"] < rows:
            return None
        errors[one["index"]] = str(one.get("code", ""))[:80]
    return errors if len(errors) == len(given) else None
