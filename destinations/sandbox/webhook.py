"""A receiver of signed webhooks at /webhooks/ACCOUNT, which checks the signature itself and keeps the members it is told of."""

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Any

from destinations.sandbox.control import webhook_secret
from destinations.sandbox.store import KINDS, Row, Store, stored
from destinations.sandbox.web import Call, Request, Response, answer, perform

TOLERANCE_SECONDS = 300
_PATH = re.compile(r"/webhooks/(?P<account>[\w-]+)/?")
_OPS = {
    "audience.created": "create",
    "audience.renamed": "rename",
    "audience.described": "describe_as",
    "audience.members_added": "add",
    "audience.members_removed": "remove",
    "rollcall.test": "check",
}
_STATUSES = {"gone": 410, "permission": 403, "poison": 422, "expired": 401, "revoked": 401}


class Webhook:
    """Answers /webhooks/…."""

    name = "webhook"

    def __init__(self, store: Store) -> None:
        self.store = store

    def handles(self, path: str) -> bool:
        return _PATH.fullmatch(path) is not None

    def handle(self, request: Request) -> Response:
        found = _PATH.fullmatch(request.path)
        assert found is not None
        account = found["account"]
        secret = self.store.account(self.name, account)["secret"] or webhook_secret(account)
        if not is_signed(request, secret, self.store.now()):
            return answer({"error": "signature"}, 401)
        event = request.fields
        op, data = _OPS.get(str(event.get("type"))), event.get("data")
        if op is None or not isinstance(data, dict):
            return answer({"error": "event"}, 422)
        about = data.get("audience") if isinstance(data.get("audience"), dict) else {}
        assert isinstance(about, dict)
        audience = self.store.audience(self.name, str(about.get("id", "")))
        members = data.get("members") if isinstance(data.get("members"), list) else []
        assert isinstance(members, list)
        call = Call(account, op, audience, len(members))
        return perform(
            self,
            self.store,
            request,
            call,
            lambda _: self._keep(request, call, about, members),
            lambda: {str(value) for member in members for value in member.values()},
        )

    # --- How it words its refusals

    def throttled(self, call: Call, headers: list[tuple[str, str]]) -> Response:
        return answer({"error": "slow down"}, 429, headers)

    def failed(self, status: int) -> Response:
        return answer({"error": "failed"}, status)

    def refused(self, call: Call, why: str) -> Response:
        return answer({"error": why}, _STATUSES.get(why, 400))

    def _keep(
        self, request: Request, call: Call, about: Mapping[str, Any], members: list[Mapping[str, str]]
    ) -> Response:
        audience, first = call.audience, self.store.journal.first_seen(request.headers.get("webhook-id", ""))
        if call.op == "check":
            return Response(204, b"")
        if audience is None:
            audience = self.store.create(
                self.name,
                call.account,
                str(about.get("name") or about.get("id")),
                audience_id=str(about["id"]),
                description=str(about.get("description", "")),
            )
        if first and call.op == "rename":
            self.store.change(audience, name=str(about.get("name")))
        if first and call.op == "describe_as":
            self.store.change(audience, description=str(about.get("description", "")))
        if first and call.op == "add":
            self.store.add(audience, [_row(member) for member in members])
        if first and call.op == "remove":
            self.store.remove(audience, [_row(member) for member in members])
        return Response(204, b"")


def is_signed(request: Request, secret: str, now: float) -> bool:
    """Whether one of the request's signatures is the secret's, and it is of now."""
    moment = request.headers.get("webhook-timestamp", "")
    if not moment.isascii() or not moment.isdigit() or abs(now - int(moment)) > TOLERANCE_SECONDS:
        return False
    signed = f"{request.headers.get('webhook-id', '')}.{moment}.".encode() + request.body
    right = hmac.new(base64.b64decode(secret.removeprefix("whsec_")), signed, hashlib.sha256).digest()
    for signature in request.headers.get("webhook-signature", "").split():
        version, _, given = signature.partition(",")
        try:
            if version == "v1" and hmac.compare_digest(base64.b64decode(given), right):
                return True
        except binascii.Error:
            continue
    return False


def _row(member: Mapping[str, str]) -> Row:
    keys = [(KINDS.index(kind), stored(str(value))) for kind, value in member.items() if kind in KINDS]
    describing = [str(value) for kind, value in member.items() if kind not in KINDS]
    return [*keys, (KINDS.index("address"), "|".join(describing))] if describing else keys
