"""What is the webhook's own: signatures by the Standard Webhooks specification, its events, and its statuses."""

import base64
import json
import time
from datetime import UTC, datetime
from typing import Any

import httpx
import pyarrow as pa
import pytest
from standardwebhooks.webhooks import Webhook as Official
from standardwebhooks.webhooks import WebhookVerificationError

from destinations.connectors.base import (
    Account,
    ConnectorError,
    Misconfigured,
    OutcomeUnknown,
    Push,
    Rejected,
    Retryable,
)
from destinations.connectors.webhook import Webhook, WebhookForm, sign
from destinations.sandbox.web import Request
from destinations.sandbox.webhook import is_signed

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
PEOPLE = pa.table(
    {
        "identity_no": pa.array([1, 2], pa.int64()),
        "external_id": ["00042", None],
        "email": [" Mary@Example.COM ", "bob@example.com"],
        "phone": ["+1 555 987 6543", None],
    }
)
ADD = Push("add", "aud1", 7, PEOPLE, ("external_id", "email", "phone"))


def webhook(answer: httpx.Response, secret: str = SECRET, **config: Any) -> tuple[Webhook, list[httpx.Request]]:
    asked: list[httpx.Request] = []

    def handle(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return answer

    account = Account("", {"url": "https://crm.example/hooks/in", **config}, {"secret": secret})
    return Webhook(account, httpx.Client(transport=httpx.MockTransport(handle))), asked


def test_the_official_package_verifies_what_we_sign():
    connector, asked = webhook(httpx.Response(204))
    connector.push(ADD)
    (request,) = asked
    event = Official(SECRET).verify(request.content, dict(request.headers))
    assert event["type"] == "audience.members_added" and set(event) == {"type", "timestamp", "data"}
    with pytest.raises(WebhookVerificationError):
        Official(SECRET).verify(request.content + b" ", dict(request.headers))


def test_our_signature_is_the_official_one_to_the_letter():
    moment, body = int(time.time()), b'{"type":"x"}'
    official = Official(SECRET).sign("msg_1", datetime.fromtimestamp(moment, UTC), body.decode())
    assert sign(SECRET, "msg_1", moment, body) == official


def test_the_sandboxs_receiver_takes_only_what_is_signed_now_by_the_secret():
    body, now = b"{}", int(time.time())

    def asked(**changes: str) -> Request:
        headers = {
            "webhook-id": "m",
            "webhook-timestamp": str(now),
            "webhook-signature": sign(SECRET, "m", now, body),
        } | changes
        return Request("POST", "/webhooks/a", {name.replace("_", "-"): value for name, value in headers.items()}, body)

    other = "whsec_" + base64.b64encode(bytes(32)).decode()
    assert is_signed(asked(), SECRET, now)
    assert is_signed(asked(webhook_signature=f"v1a,xx v1,!! {sign(SECRET, 'm', now, body)}"), SECRET, now)
    assert not is_signed(asked(), other, now)
    assert not is_signed(asked(webhook_id="n"), SECRET, now)
    assert not is_signed(asked(webhook_signature=""), SECRET, now)
    old = now - 3600
    assert not is_signed(asked(webhook_timestamp=str(old), webhook_signature=sign(SECRET, "m", old, body)), SECRET, now)


def test_members_go_hashed_or_readable_as_configured():
    connector, asked = webhook(httpx.Response(200))
    connector.push(ADD)
    hashed = json.loads(asked[0].content)["data"]
    assert hashed["audience"] == {"id": "aud1"}
    assert hashed["members"][0]["external_id"] == "00042" and hashed["members"][0]["email"].startswith("f1904cf1")
    assert set(hashed["members"][1]) == {"email"}
    connector, asked = webhook(httpx.Response(200), format="readable")
    connector.push(Push("remove", "aud1", 7, PEOPLE, ADD.identifiers))
    event = json.loads(asked[0].content)
    assert event["type"] == "audience.members_removed"
    assert event["data"]["members"][0] == {"external_id": "00042", "email": "mary@example.com", "phone": "+15559876543"}


def test_the_message_id_is_the_operations_own():
    connector, asked = webhook(httpx.Response(200))
    for push in (
        ADD,
        ADD,
        Push("add", "aud1", 8, PEOPLE, ADD.identifiers),
        Push("remove", "aud1", 7, PEOPLE, ADD.identifiers),
    ):
        connector.push(push)
    ids = [request.headers["webhook-id"] for request in asked]
    assert ids[0] == ids[1] and len({*ids}) == 3


def test_making_and_renaming_an_audience_are_announced():
    connector, asked = webhook(httpx.Response(200))
    remote_id = connector.create("cart", "people with carts")
    connector.rename(remote_id, "cart v2")
    made, renamed = (json.loads(request.content) for request in asked)
    assert made["type"] == "audience.created" and made["data"]["audience"]["id"] == remote_id
    assert renamed["type"] == "audience.renamed" and renamed["data"]["audience"] == {"id": remote_id, "name": "cart v2"}


@pytest.mark.parametrize(
    ("answer", "verdict", "code"),
    [
        (httpx.Response(410), Misconfigured, "audience_gone"),
        (httpx.Response(404), Misconfigured, "config"),
        (httpx.Response(401), Misconfigured, "reconnect"),
        (httpx.Response(301, headers={"Location": "http://169.254.169.254/"}), Misconfigured, "config"),
        (httpx.Response(400), Rejected, "400"),
        (httpx.Response(422), Rejected, "422"),
        (httpx.Response(429, headers={"Retry-After": "9"}), Retryable, None),
        (httpx.Response(503, headers={"Retry-After": "9"}), Retryable, None),
        (httpx.Response(500), OutcomeUnknown, None),
        (httpx.Response(502), OutcomeUnknown, None),
    ],
)
def test_each_status_has_its_verdict(answer, verdict, code):
    with pytest.raises(ConnectorError) as told:
        webhook(answer)[0].push(ADD)
    assert type(told.value) is verdict
    assert code is None or told.value.code == code
    if verdict is Retryable:
        assert told.value.after == 9.0 and told.value.throttled


@pytest.mark.parametrize("answer", [httpx.Response(200), httpx.Response(202, content=b"<html>"), httpx.Response(204)])
def test_any_2xx_is_yes_whatever_it_holds(answer):
    receipt = webhook(answer)[0].push(ADD)
    assert (
        receipt.accepted and not receipt.pending and receipt.received == 2 and receipt.http_status == answer.status_code
    )


@pytest.mark.parametrize(
    "secret", ["", "whsec_", "whsec_AAAA", "c2VjcmV0", "whsec_!!!", "whsec_" + base64.b64encode(bytes(65)).decode()]
)
def test_a_secret_that_is_none_is_found_before_anything_is_sent(secret):
    connector, asked = webhook(httpx.Response(200), secret=secret)
    with pytest.raises(Misconfigured):
        connector.push(ADD)
    assert not asked
    assert "secret" in WebhookForm({"url": "https://crm.example/", "secret": secret}).errors


def test_an_address_is_never_part_of_the_account_key():
    """An address may hold a secret, and keys are shown."""
    key = Webhook.account_key({"url": "https://crm.example/hooks/s3cr3t"})
    assert "s3cr3t" not in key and key == Webhook.account_key({"url": "https://crm.example/hooks/s3cr3t"})
    assert key != Webhook.account_key({"url": "https://crm.example/hooks/other"})
