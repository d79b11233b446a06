"""Signed webhooks by the Standard Webhooks specification: any receiver that checks them can keep an audience. Translation only."""

import base64
import binascii
import hashlib
import hmac
import time
import uuid
from collections.abc import Mapping
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
    ConnectorError,
    Misconfigured,
    Push,
    Receipt,
    RemoteAudience,
    Retryable,
)

LABELS = {
    "external_id": "Your own id",
    "email": "E-mail",
    "phone": "Phone",
    "mobile_ad_id": "Mobile advertising id",
    "first_name": "First name",
    "last_name": "Last name",
    "zip": "Postal code",
    "country": "Country",
}


class WebhookForm(forms.Form):
    """Where a receiver is, and how it knows us."""

    url = forms.CharField(
        label="Address",
        max_length=500,
        required=False,
        help_text="https://… that takes a POST. Left empty: the base URL.",
    )
    format = forms.ChoiceField(
        choices=[("hashed", "Hashed (SHA-256)"), ("readable", "Readable")], required=False, label="Identifiers"
    )
    secret = forms.CharField(
        label="Signing secret", widget=forms.PasswordInput(render_value=False), help_text="whsec_… with 24 to 64 bytes."
    )

    def clean_url(self) -> str:
        url: str = self.cleaned_data["url"].strip()
        if url and not url.startswith(("https://", "http://")):
            raise forms.ValidationError("The address begins with https://.")
        return url

    def clean_secret(self) -> str:
        secret: str = self.cleaned_data["secret"].strip()
        try:
            signing_key(secret)
        except Misconfigured as error:
            raise forms.ValidationError(str(error)) from None
        return secret


class Webhook(Connector):
    """One receiver."""

    kind: ClassVar[str] = "webhook"
    capabilities: ClassVar[Capabilities] = Capabilities(
        label="Webhook",
        purposes=("retargeting", "suppression", "analytics", "warehouse"),
        identifiers=LABELS,
        batch_size=500,  # about 75 KB; the specification would like 20
        calls_per_minute=600,
        base_url="",
        description_length=500,
    )
    config_form: ClassVar[type[forms.Form]] = WebhookForm
    secret_fields: ClassVar[tuple[str, ...]] = ("secret",)

    def __init__(self, account: Account, client: httpx.Client) -> None:
        super().__init__(account, client)
        self._url = str(account.config.get("url") or account.base_url)
        if not self._url:
            raise Misconfigured("The webhook has no address.")
        readable = account.config.get("format") == "readable"
        self._recipes = identifiers.READABLE if readable else identifiers.HASHED

    @classmethod
    def account_key(cls, config: Mapping[str, Any]) -> str:
        digest = hashlib.sha256(str(config.get("url", "")).encode()).hexdigest()[:16]  # an address may hold a secret
        return f"webhook:{digest}"

    def check(self) -> str:
        started = time.monotonic()
        response = self._send(_new_id(), "rollcall.test", {})
        ms = round((time.monotonic() - started) * 1000)
        host = httpx.URL(self._url).host
        return f"{host} took a signed test event ({response.status_code} in {ms} ms); whether it checks signatures is for it to say."

    def create(self, name: str, description: str) -> str:
        remote_id = uuid.uuid4().hex
        audience = {"id": remote_id, "name": name, "description": description}
        self._send(f"msg_created_{remote_id}", "audience.created", {"audience": audience})
        return remote_id

    def describe(self, remote_id: str) -> RemoteAudience:
        return RemoteAudience(
            remote_id=remote_id, name="", matched_words="A webhook does not say", at=datetime.now(UTC)
        )

    def rename(self, remote_id: str, name: str) -> None:
        self._send(_new_id(), "audience.renamed", {"audience": {"id": remote_id, "name": name}})

    def describe_as(self, remote_id: str, description: str) -> None:
        about = {"id": remote_id, "description": description}
        self._send(_new_id(), "audience.described", {"audience": about})

    def push(self, push: Push) -> Receipt:
        if push.validate_only:
            raise NotImplementedError("A webhook cannot check a call without applying it")
        members, empty = self._members(push)
        if not members:
            return Receipt(accepted=True, rejected=empty, received=0)
        message = f"msg_{push.kind}_{push.remote_id}_{push.operation_id}"
        response = self._send(message, _event(push), {"audience": {"id": push.remote_id}, "members": members})
        return Receipt(
            accepted=True, request_id=message, rejected=empty, received=len(members), http_status=response.status_code
        )

    def masked_payload(self, push: Push) -> str:
        members, _ = self._members(push)
        shown: list[Any] = [{kind: identifiers.masked(value) for kind, value in one.items()} for one in members[:3]]
        if len(members) > 3:
            shown.append(f"… and {len(members) - 3:,} more")
        data = {"audience": {"id": push.remote_id}, "members": shown}
        return orjson.dumps(_envelope(_event(push), data), option=orjson.OPT_INDENT_2).decode()

    def _members(self, push: Push) -> tuple[list[dict[str, str]], dict[int, tuple[str, str]]]:
        kinds = [kind for kind in push.identifiers if kind in self._recipes]
        if not kinds:
            raise Misconfigured("This connection has no identifier that a webhook takes.")
        sent = identifiers.sent(push.people, kinds, self._recipes)
        members = [{kind: value for kind, value in zip(kinds, row, strict=True) if value} for row in sent.rows]
        return members, dict.fromkeys(sent.empty, UNMATCHABLE)

    def _send(self, message_id: str, event: str, data: Mapping[str, Any]) -> httpx.Response:
        """The answer of a receiver that took the event. What its answer holds means nothing: 2xx is yes."""
        body = orjson.dumps(_envelope(event, data))
        moment = int(time.time())
        response = self.client.post(
            self._url,
            content=body,
            headers={
                "Content-Type": "application/json",
                "webhook-id": message_id,
                "webhook-timestamp": str(moment),
                "webhook-signature": sign(self.account.credentials.get("secret", ""), message_id, moment, body),
            },
        )
        if not response.is_success:
            raise _verdict(response)
        return response


def sign(secret: str, message_id: str, moment: int, body: bytes) -> str:
    """The `webhook-signature` header's value. Raises Misconfigured where the secret is none."""
    signed = f"{message_id}.{moment}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(signing_key(secret), signed, hashlib.sha256).digest()).decode()


def signing_key(secret: str) -> bytes:
    """The bytes of a whsec_ secret. Raises Misconfigured."""
    try:
        key = base64.b64decode(secret.removeprefix("whsec_"), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith("whsec_") or not 24 <= len(key) <= 64:
        raise Misconfigured("A signing secret is whsec_ and the base64 of 24 to 64 bytes.", code="reconnect")
    return key


def _verdict(response: httpx.Response) -> ConnectorError:
    status, host = response.status_code, response.request.url.host
    if status == 410:
        return http.told(
            Misconfigured(f"{host} says that this address is gone for good (410).", code="audience_gone"), response
        )
    if status == 404:
        return http.told(Misconfigured(f"{host} has nothing at this address (404)."), response)
    if status == 503:
        return http.told(
            Retryable(f"{host} is not available (503).", after=http.pause(response), throttled=True), response
        )
    return http.refusal(response)


def _envelope(event: str, data: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": event, "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds"), "data": data}


def _event(push: Push) -> str:
    return "audience.members_added" if push.kind == "add" else "audience.members_removed"


def _new_id() -> str:
    return f"msg_{uuid.uuid4().hex}"
