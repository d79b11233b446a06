"""A platform that speaks Meta's Graph API as far as custom audiences go. It lets nobody read members, as the real one does."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import orjson

from destinations.sandbox.store import KINDS, Audience, Row, Store, stored
from destinations.sandbox.web import Call, Request, Response, Wish, answer, perform

MOST_ROWS = 10_000
MOST_DESCRIPTION = 250
_KIND = {"EMAIL": "email", "PHONE": "phone", "EXTERN_ID": "external_id", "MADID": "mobile_ad_id"}
_SINGLE = {"EMAIL_SHA256": "EMAIL", "PHONE_SHA256": "PHONE", "MOBILE_ADVERTISER_ID": "MADID"}
_DESCRIBING = ("FN", "LN", "FI", "CT", "ST", "ZIP", "COUNTRY", "GEN", "DOBY", "DOBM", "DOBD")
_PLAIN = ("EXTERN_ID", "MADID")
_PATH = re.compile(r"/v\d+\.\d+/(?P<node>[\w-]+)(?:/(?P<edge>\w+))?/?")


class Refusal(Exception):
    """An answer that says no."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


class Meta:
    """Answers what lies under /v…/."""

    name = "meta"

    def __init__(self, store: Store) -> None:
        self.store = store

    def handles(self, path: str) -> bool:
        return _PATH.fullmatch(path) is not None

    def handle(self, request: Request) -> Response:
        found = _PATH.fullmatch(request.path)
        assert found is not None
        given = {**request.query, **request.fields}
        method = str(given.pop("method", request.method)).upper()
        token = request.bearer or str(given.get("access_token", ""))
        node, edge = found["node"], found["edge"] or ""
        try:
            if node == "debug_token":
                return self._debug_token(request, given, token)
            if node.startswith("act_"):
                return self._account(request, given, token, method, node.removeprefix("act_"), edge)
            return self._audience(request, given, token, method, node, edge)
        except Refusal as refusal:
            return refusal.response

    # --- How it words its refusals

    def throttled(self, call: Call, headers: list[tuple[str, str]]) -> Response:
        if not headers:  # as the real one, which tells minutes in a header of its own, or nothing
            usage = {
                call.account: [{"type": "custom_audience", "call_count": 100, "estimated_time_to_regain_access": 0}]
            }
            headers = [("X-Business-Use-Case-Usage", orjson.dumps(usage).decode())]
        return _error(80003, "There have been too many calls to this ad-account.", 2446079, headers=headers)

    def failed(self, status: int) -> Response:
        return _error(2, "Service temporarily unavailable", status=status)

    def refused(self, call: Call, why: str) -> Response:
        match why:
            case "terms":
                return _error(200, "The Custom Audience Terms of Service have not been accepted.", 1870090, 403)
            case "blocked":
                return _error(100, "Upload Blocked", 1713230)
            case "permission":
                return _error(200, "Requires ads_management permission", status=403)
            case "too_small":
                return _error(2650, "Audience Size too low: You cannot remove users from this audience.")
            case "poison":
                return _error(100, "Invalid parameter", 1487390)
            case "gone":
                return _gone()
        return _error(190, "Error validating access token", 463 if why == "expired" else 460, 401)

    # --- Nodes

    def _debug_token(self, request: Request, given: Mapping[str, Any], token: str) -> Response:
        _, ends = self._authorised(token, None, given)
        known, ends = self.store.token(self.name, str(given.get("input_token", "")), None)
        data = {
            "app_id": "1",
            "type": "SYSTEM_USER",
            "is_valid": known == "valid",
            "expires_at": int(ends or 0),
            "scopes": ["ads_management", "ads_read", "business_management"],
        }
        return answer({"data": data})

    def _account(
        self, request: Request, given: Mapping[str, Any], token: str, method: str, account: str, edge: str
    ) -> Response:
        self._authorised(token, account, given)
        row = self.store.account(self.name, account)
        if edge == "customaudiences" and method == "POST":
            return perform(self, self.store, request, Call(account, "create"), lambda _: self._create(account, given))
        if edge == "customaudiences":
            found = [self._shown(audience) for audience in self.store.audiences(self.name, account)]
            return answer({"data": found, "paging": {}})
        if edge:
            return _unsupported()
        about = {
            "id": f"act_{account}",
            "account_id": account,
            "name": row["name"],
            "currency": row["currency"],
            "account_status": 1,
            "tos_accepted": {"custom_audience_tos": 1},
        }
        return perform(self, self.store, request, Call(account, "check"), lambda _: answer(about))

    def _create(self, account: str, given: Mapping[str, Any]) -> Response:
        name = str(given.get("name", "")).strip()
        if not name or given.get("subtype", "CUSTOM") != "CUSTOM" or not given.get("customer_file_source"):
            return _error(100, "Invalid parameter", 1870053)
        if len(str(given.get("description", ""))) > MOST_DESCRIPTION:
            return _error(100, "Param description is too long")
        return answer({"id": self.store.create(self.name, account, name, description=given.get("description", "")).id})

    def _audience(
        self, request: Request, given: Mapping[str, Any], token: str, method: str, node: str, edge: str
    ) -> Response:
        audience = self.store.audience(self.name, node)
        self._authorised(token, audience.account if audience else None, given)
        if audience is None:
            return self._missing(request, node)
        account = audience.account
        if edge == "users" and method in ("POST", "DELETE"):
            return self._users(request, given, method, audience)
        if edge == "sessions":
            return answer({"data": []})
        if edge:
            return _unsupported()
        if method == "GET":
            call = Call(account, "describe", audience)
            return perform(self, self.store, request, call, lambda _: answer(self._shown(audience)))
        if method == "DELETE":
            call = Call(account, "delete", audience)
            return perform(self, self.store, request, call, lambda _: self._changed(audience, deleted=True))
        name, description = given.get("name"), given.get("description")
        call = Call(account, "rename" if name else "describe_as", audience)
        return perform(
            self,
            self.store,
            request,
            call,
            lambda _: self._changed(
                audience,
                name=None if name is None else str(name),
                description=None if description is None else str(description),
            ),
        )

    def _missing(self, request: Request, node: str) -> Response:
        self.store.journal.log(
            at=self.store.now(),
            platform=self.name,
            account="",
            op="missing",
            audience=node[:40],
            rows=0,
            status=400,
            dial="",
        )
        return _gone()

    def _changed(
        self, audience: Audience, *, name: str | None = None, description: str | None = None, deleted: bool = False
    ) -> Response:
        if description is not None and len(description) > MOST_DESCRIPTION:
            return _error(100, "Param description is too long")
        self.store.change(audience, name=name or None, description=description, deleted=deleted)
        return answer({"success": True})

    def _shown(self, audience: Audience) -> dict[str, Any]:
        low, high = bounds(self.store.sizes(audience)[1])
        return {
            "id": audience.id,
            "name": audience.name,
            "description": audience.description,
            "subtype": "CUSTOM",
            "operation_status": {"code": 200, "description": "Normal"},
            "delivery_status": {"code": 200, "description": "This audience is ready for use."}
            if high >= 1000
            else {"code": 300, "description": "This audience is too small to be used."},
            "approximate_count_lower_bound": low,
            "approximate_count_upper_bound": high,
            "time_updated": int(audience.changed_at),
        }

    # --- Members

    def _users(self, request: Request, given: Mapping[str, Any], method: str, audience: Audience) -> Response:
        payload, session = _object(given.get("payload")), _object(given.get("session"))
        schema, data = payload.get("schema"), payload.get("data")
        if isinstance(schema, str) and schema in _SINGLE and isinstance(data, list):
            schema, data = [_SINGLE[schema]], [value if isinstance(value, list) else [value] for value in data]
        if not isinstance(schema, list) or not isinstance(data, list) or not set(schema) <= {*_KIND, *_DESCRIBING}:
            return _error(100, "Data is missing or does not match schema", 1870069)
        if len(data) > MOST_ROWS or not data:
            return _error(100, "Too many or no rows", 1870088)
        if any(not isinstance(row, list) or len(row) != len(schema) for row in data):
            return _error(100, "Data is missing or does not match schema", 1870069)

        def work(wish: Wish) -> Response:
            rows, invalid = _rows(schema, data, wish.refused)
            (self.store.remove if method == "DELETE" else self.store.add)(audience, rows)
            told = {
                "audience_id": audience.id,
                "session_id": str(session.get("session_id", secrets.randbits(62))),
                "num_received": len(data),
                "num_invalid_entries": len(invalid),
                "invalid_entry_samples": {str(value): "invalid" for value in invalid[:100]},
            }
            return answer(told)

        call = Call(audience.account, "remove" if method == "DELETE" else "add", audience, len(data))
        return perform(self, self.store, request, call, work, lambda: {value for row in data for value in row})

    def _authorised(self, token: str, account: str | None, given: Mapping[str, Any]) -> tuple[str, float | None]:
        state, ends = self.store.token(self.name, token, account)
        if state != "valid":
            call = Call(account or "", "token")
            raise Refusal(self.refused(call, "expired" if state == "expired" else "revoked"))
        secret = self.store.account(self.name, account)["secret"] if account is not None else ""
        if secret:
            proof = hmac.new(secret.encode(), token.encode(), hashlib.sha256).hexdigest()
            if given.get("appsecret_proof") != proof:
                raise Refusal(_error(100, "Invalid appsecret_proof provided in the API argument"))
        return state, ends


def bounds(matched: int) -> tuple[int, int]:
    """The size as Meta tells it: two leading digits, up and down; -1 below a hundred."""
    if matched < 100:
        return -1, -1
    step = 10 ** (len(str(matched)) - 2)
    return matched // step * step, -(-matched // step) * step


def _rows(
    schema: Sequence[str], data: Sequence[Sequence[str]], refused: Collection[int]
) -> tuple[list[Row], list[str]]:
    """The rows' identifiers, and a value of each row that was refused or held one that is no hash."""
    rows: list[Row] = []
    invalid: list[str] = []
    keys = [(place, KINDS.index(_KIND[name]), name in _PLAIN) for place, name in enumerate(schema) if name in _KIND]
    describing = [place for place, name in enumerate(schema) if name not in _KIND]
    for index, given in enumerate(data):
        if refused and index in refused:
            invalid.append(next(filter(None, given), ""))
            continue
        row: list[tuple[int, bytes | str]] = []
        bad = ""
        for place, kind, plain in keys:
            value = given[place]
            if not value:
                continue
            kept = value if plain else stored(value)
            if not plain and isinstance(kept, str):
                bad = value
            else:
                row.append((kind, kept))
        if describing and any(given[place] for place in describing):
            row.append((KINDS.index("address"), "|".join(given[place] for place in describing)))
        if bad:
            invalid.append(bad)
        if row:
            rows.append(row)
    return rows, invalid


def _object(value: Any) -> dict[str, Any]:
    """A parameter that is an object, or one as JSON text, as forms and queries carry it."""
    if isinstance(value, str):
        try:
            value = orjson.loads(value)
        except orjson.JSONDecodeError:
            return {}
    return value if isinstance(value, dict) else {}


def _gone() -> Response:
    return _error(100, "Unsupported request: the object does not exist or cannot be loaded.", 33)


def _unsupported() -> Response:
    return _error(100, "Tried accessing nonexisting field", status=400)


def _error(
    code: int, message: str, subcode: int | None = None, status: int = 400, headers: Collection[tuple[str, str]] = ()
) -> Response:
    error: dict[str, Any] = {"message": f"(#{code}) {message}", "type": "OAuthException", "code": code}
    if subcode is not None:
        error["error_subcode"] = subcode
    error["fbtrace_id"] = secrets.token_urlsafe(12)
    return answer({"error": error}, status, headers)
