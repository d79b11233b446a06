"""A platform that speaks Google's Data Manager API as far as user lists go. It lets nobody read members, as the real one does.

A call is applied when it comes in; its receipt says so a moment later. A dial lets it be applied only then: the order of
two requests is nowhere promised.
"""

import re
import secrets
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from destinations.sandbox.store import KINDS, Audience, Row, Store, is_matchable, stored
from destinations.sandbox.web import NO_WISH, Call, Request, Response, Wish, answer, perform

MOST_MEMBERS = 10_000
MOST_IDENTIFIERS = 10
MOST_DESCRIPTION = 250
PROCESSING_SECONDS = 1.0
DOMAIN = "datamanager.googleapis.com"

_LISTS = re.compile(r"/v1/accountTypes/GOOGLE_ADS/accounts/(?P<account>\d+)/userLists(?:/(?P<list>\w+))?")
_MEMBERS = re.compile(r"/v1/audienceMembers:(?P<verb>ingest|remove|removeAll)")
_STATUS = "/v1/requestStatus:retrieve"
_TOKEN = "/token"  # noqa: S105 - a path
_TYPES = {"userData": "CONTACT_ID", "userIdData": "USER_ID", "mobileData": "MOBILE_ID"}
_STATUS_OF = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
    504: "DEADLINE_EXCEEDED",
}
_RANGES = (
    (20, "LESS_THAN_20"),
    (31, "20_TO_30"),
    (41, "31_TO_40"),
    (51, "41_TO_50"),
    (61, "51_TO_60"),
    (71, "61_TO_70"),
    (81, "71_TO_80"),
    (91, "81_TO_90"),
)


class Refusal(Exception):
    """An answer that says no."""

    def __init__(self, response: Response) -> None:
        super().__init__()
        self.response = response


@dataclass(frozen=True, slots=True)
class Members:
    """The members of a call, read and found to be in order."""

    rows: list[Row]
    identifiers: int
    type: str


class Google:
    """Answers what lies under /v1/, and /token."""

    name = "google"

    def __init__(self, store: Store) -> None:
        self.store = store

    def handles(self, path: str) -> bool:
        return path == _TOKEN or path.startswith("/v1/")

    def handle(self, request: Request) -> Response:
        try:
            if request.path == _TOKEN:
                return self._token(request)
            if found := _LISTS.fullmatch(request.path):
                return self._lists(request, found["account"], found["list"])
            if found := _MEMBERS.fullmatch(request.path):
                return self._members(request, found["verb"])
            if request.path == _STATUS:
                return self._status(request)
        except Refusal as refusal:
            return refusal.response
        return _error(404, "NOT_FOUND", "Method not found.")

    # --- How it words its refusals

    def throttled(self, call: Call, headers: list[tuple[str, str]]) -> Response:
        return _error(429, "RESOURCE_EXHAUSTED", "Too many requests.", headers=headers)

    def failed(self, status: int) -> Response:
        reason = "INTERNAL_ERROR" if status == 500 else _STATUS_OF.get(status, "INTERNAL_ERROR")
        return _error(status, reason, "Something went wrong.")

    def refused(self, call: Call, why: str) -> Response:
        match why:
            case "terms":
                return _error(400, "TERMS_AND_CONDITIONS_NOT_SIGNED", "Customer Match terms are not accepted.")
            case "blocked":
                return _error(403, "DESTINATION_ACCOUNT_NOT_ALLOWED", "The account may not use Customer Match.")
            case "permission":
                return _error(403, "PERMISSION_DENIED", "The caller does not have permission, or it was not found.")
            case "too_small":
                return _error(400, "INVALID_ARGUMENT", "The list is too small.")
            case "poison":
                return _error(400, "INVALID_AUDIENCE_MEMBER", "An audience member is not valid.")
            case "gone":
                return _gone()
        return _error(401, "", "Request had invalid authentication credentials.")

    # --- Tokens

    def _token(self, request: Request) -> Response:
        given = request.fields
        refresh = str(given.get("refresh_token", ""))
        state, _ = self.store.token(self.name, refresh, None)
        self.store.journal.log(
            at=self.store.now(), platform=self.name, account="", op="token", audience="", rows=0, status=200, dial=""
        )
        if given.get("grant_type") != "refresh_token" or not given.get("client_id") or not given.get("client_secret"):
            return answer({"error": "invalid_request"}, 400)
        if state != "valid":
            return answer({"error": "invalid_grant", "error_description": "Token has been expired or revoked."}, 400)
        access = f"ya29.{secrets.token_urlsafe(24)}"
        self.store.set_token(self.name, access, expires_at=self.store.now() + 3600)
        return answer({"access_token": access, "expires_in": 3600, "token_type": "Bearer", "scope": "datamanager"})

    def _authorise(self, request: Request, account: str | None) -> None:
        state, _ = self.store.token(self.name, request.bearer, account)
        if state != "valid":
            raise Refusal(self.refused(Call(account or "", "token"), "expired"))

    # --- User lists

    def _lists(self, request: Request, account: str, list_id: str | None) -> Response:
        self._authorise(request, account)
        self.store.account(self.name, account)
        if list_id is None:
            if request.method == "POST":
                return perform(
                    self, self.store, request, Call(account, "create"), lambda _: self._create(request, account)
                )
            return perform(self, self.store, request, Call(account, "check"), lambda _: self._listed(account))
        audience = self.store.audience(self.name, list_id)
        if audience is None or audience.account != account:
            return _gone()
        verbs: dict[str, tuple[str, Callable[[], Response]]] = {
            "GET": ("describe", lambda: answer(self._shown(audience))),
            "PATCH": self._patch(request, audience),
            "DELETE": ("delete", lambda: self._delete(audience)),
        }
        if request.method not in verbs:
            return _error(404, "NOT_FOUND", "Method not found.")
        op, work = verbs[request.method]
        return perform(self, self.store, request, Call(account, op, audience), lambda _: work())

    def _listed(self, account: str) -> Response:
        return answer({"userLists": [self._shown(audience) for audience in self.store.audiences(self.name, account)]})

    def _create(self, request: Request, account: str) -> Response:
        given = request.fields
        name, info = given.get("displayName"), given.get("ingestedUserListInfo")
        types = info.get("uploadKeyTypes") if isinstance(info, dict) else None
        if not name or not isinstance(types, list) or not set(types) <= set(_TYPES.values()):
            return _error(400, "REQUIRED_FIELD_MISSING", "A required field is missing.")
        if name in {audience.name for audience in self.store.audiences(self.name, account)}:
            return _error(400, "DISPLAY_NAME_ALREADY_USED", "The display name is used by another list.")
        description = str(given.get("description", ""))
        if len(description) > MOST_DESCRIPTION:
            return _error(400, "FIELD_VALUE_TOO_LONG", "The description is too long.")
        return answer(self._shown(self.store.create(self.name, account, name, types=types, description=description)))

    def _patch(self, request: Request, audience: Audience) -> tuple[str, Callable[[], Response]]:
        if request.query.get("updateMask") == "description":
            return "describe_as", lambda: self._describe_as(request, audience)
        return "rename", lambda: self._rename(request, audience)

    def _describe_as(self, request: Request, audience: Audience) -> Response:
        description = request.fields.get("description")
        if not isinstance(description, str) or len(description) > MOST_DESCRIPTION:
            return _error(400, "FIELD_VALUE_TOO_LONG", "The description is too long, or none.")
        self.store.change(audience, description=description)
        return answer(self._shown(self.store.audience(self.name, audience.id) or audience))

    def _rename(self, request: Request, audience: Audience) -> Response:
        name = request.fields.get("displayName")
        if request.query.get("updateMask") not in ("displayName", "display_name") or not name:
            return _error(400, "REQUIRED_FIELD_MISSING", "The update mask names nothing that was given.")
        taken = {other.name for other in self.store.audiences(self.name, audience.account) if other.no != audience.no}
        if name in taken:
            return _error(400, "DISPLAY_NAME_ALREADY_USED", "The display name is used by another list.")
        self.store.change(audience, name=name)
        renamed = self.store.audience(self.name, audience.id)
        return answer(self._shown(renamed or audience))

    def _delete(self, audience: Audience) -> Response:
        self.store.change(audience, deleted=True)
        return answer({})

    def _shown(self, audience: Audience) -> dict[str, Any]:
        people, matched = self.store.sizes(audience)
        return {
            "name": f"accountTypes/GOOGLE_ADS/accounts/{audience.account}/userLists/{audience.id}",
            "id": audience.id,
            "displayName": audience.name,
            "description": audience.description,
            "membershipStatus": "OPEN",
            "readOnly": False,
            "ingestedUserListInfo": {
                "uploadKeyTypes": audience.details.get("types", ["CONTACT_ID"]),
                "contactIdInfo": {"matchRatePercentage": round(100 * matched / people) if people else 0},
            },
            "sizeInfo": {
                "displayNetworkMembersCount": str(matched // 10 * 10),
                "searchNetworkMembersCount": str(matched * 9 // 100 * 10),
            },
        }

    # --- Members

    def _members(self, request: Request, verb: str) -> Response:
        given = request.fields
        audience = self._destination(request, given)
        members = given.get("audienceMembers")
        count = len(members) if isinstance(members, list) else 0
        call = Call(audience.account, "add" if verb == "ingest" else "remove", audience, count)

        def work(wish: Wish) -> Response:
            if verb == "removeAll":
                self.store.clear(audience)
                return answer({"requestId": secrets.token_hex(16)})
            return self._apply(request, audience, call, wish)

        return perform(
            self, self.store, request, call, work, lambda: _values(members if isinstance(members, list) else [])
        )

    def _destination(self, request: Request, given: Mapping[str, Any]) -> Audience:
        destinations = given.get("destinations")
        first = destinations[0] if isinstance(destinations, list) and destinations else {}
        account = str((first.get("operatingAccount") or {}).get("accountId", ""))
        self._authorise(request, account)
        audience = self.store.audience(self.name, str(first.get("productDestinationId", "")))
        if audience is None or audience.account != account:
            raise Refusal(_gone())
        return audience

    def _apply(self, request: Request, audience: Audience, call: Call, wish: Wish) -> Response:
        given, adding = request.fields, call.op == "add"
        terms = (given.get("termsOfService") or {}).get("customerMatchTermsOfServiceStatus")
        if adding and terms != "ACCEPTED":
            return _error(400, "TERMS_AND_CONDITIONS_NOT_SIGNED", "Customer Match terms are not accepted.")
        try:
            read = _read(given, audience.details.get("types", ["CONTACT_ID"]))
        except Refusal as refusal:
            return refusal.response
        if given.get("validateOnly"):
            return answer({"requestId": secrets.token_hex(16)})
        kept = [row for index, row in enumerate(read.rows) if index not in wish.refused]
        request_id = secrets.token_hex(16)
        ready = self.store.now() + (PROCESSING_SECONDS if wish.seconds is None else wish.seconds)
        if wish.applied_last:
            self.store.journal.put_late(ready, request.again().frozen())
        elif not wish.failure:
            (self.store.add if adding else self.store.remove)(audience, kept)
        self.store.journal.put_request(request_id, audience.id, ready, _receipt(read, kept, wish, adding=adding))
        return answer({"requestId": request_id})

    def _status(self, request: Request) -> Response:
        row = self.store.journal.request(request.query.get("requestId", ""))
        audience = self.store.audience(self.name, row["audience"]) if row else None
        self._authorise(request, audience.account if audience else None)
        if row is None:
            return _error(404, "NOT_FOUND", "The request was not found.")

        def work(wish: Wish = NO_WISH) -> Response:
            pending = row["ready_at"] > self.store.now()
            status = {"requestStatus": "PROCESSING"} if pending else orjson.loads(row["answer"])
            return answer({"requestStatusPerDestination": [status]})

        return perform(self, self.store, request, Call(audience.account if audience else "", "poll", audience), work)


def _read(given: Mapping[str, Any], types: Sequence[str]) -> Members:
    """The call's members. One that is not in order refuses them all, as Google's fast-fail model has it."""
    members = given.get("audienceMembers")
    if given.get("encoding") != "HEX" or not isinstance(members, list) or not members:
        raise Refusal(_error(400, "REQUIRED_FIELD_MISSING", "A required field is missing."))
    if len(members) > MOST_MEMBERS:
        raise Refusal(_error(400, "TOO_MANY_AUDIENCE_MEMBERS", "There are too many audience members."))
    kinds = {key for member in members for key in member if key != "destinationReferences"}
    if len(kinds) != 1:
        raise Refusal(_error(400, "MULTIPLE_DATA_TYPES_NOT_ALLOWED", "One type of data a request."))
    kind = kinds.pop()
    if _TYPES.get(kind) not in types:
        raise Refusal(_error(400, "INVALID_USER_LIST_TYPE", "The list is not made of such identifiers."))
    rows: list[Row] = []
    total = 0
    for index, member in enumerate(members):
        row = _row(index, kind, member[kind])
        total += len(row)
        rows.append(row)
    return Members(rows, total, kind)


def _row(index: int, kind: str, data: Mapping[str, Any]) -> Row:
    if kind == "userIdData":
        return [(KINDS.index("external_id"), str(data["userId"]))]
    if kind == "mobileData":
        return [(KINDS.index("mobile_ad_id"), str(value)) for value in data["mobileIds"]]
    given = data.get("userIdentifiers", [])
    if not 0 < len(given) <= MOST_IDENTIFIERS:
        raise Refusal(_error(400, "TOO_MANY_USER_IDENTIFIERS", "Too many or no identifiers.", field=_field(index)))
    row: list[tuple[int, bytes | str]] = []
    for place, identifier in enumerate(given):
        if "address" in identifier:
            address = identifier["address"]
            parts = [str(address.get(part, "")) for part in ("givenName", "familyName", "regionCode", "postalCode")]
            if not all(parts) or any(isinstance(stored(part), str) for part in parts[:2]):
                raise Refusal(_error(400, "INVALID_SHA256_FORMAT", "Not a hash.", field=_field(index, place)))
            row.append((KINDS.index("address"), "|".join(parts)))
            continue
        name, text = (
            ("email", identifier.get("emailAddress"))
            if "emailAddress" in identifier
            else ("phone", identifier.get("phoneNumber"))
        )
        value = stored(str(text))
        if isinstance(value, str):
            raise Refusal(_error(400, "INVALID_SHA256_FORMAT", "Not a hash.", field=_field(index, place)))
        row.append((KINDS.index(name), value))
    return row


def _receipt(read: Members, kept: list[Row], wish: Wish, *, adding: bool) -> dict[str, Any]:
    """What requestStatus:retrieve will say of a call."""
    count = {"recordCount": str(len(read.rows))}
    stem = read.type.removesuffix("Data")
    ids = {"userData": "userIdentifierCount", "userIdData": "userIdCount", "mobileData": "mobileIdCount"}[read.type]
    detail: dict[str, Any] = {**count, ids: str(read.identifiers)}
    if adding and read.type == "userData":
        matched = sum(is_matchable(row[0][1]) for row in read.rows)
        detail["uploadMatchRateRange"] = match_rate_range(matched, len(read.rows))
    status = {
        "requestStatus": "SUCCESS",
        f"audienceMembers{'Ingestion' if adding else 'Removal'}Status": {
            f"{stem}Data{'Ingestion' if adding else 'Removal'}Status": detail
        },
    }
    if wish.failure:
        status["requestStatus"] = "FAILED"
        status["errorInfo"] = {"errorCounts": [{"reason": wish.failure, **count}]}
    elif missing := len(read.rows) - len(kept):
        status["requestStatus"] = "PARTIAL_SUCCESS"
        reason = {"reason": "PROCESSING_ERROR_REASON_INVALID_FORMAT", "recordCount": str(missing)}
        status["errorInfo"] = {"errorCounts": [reason]}
    return status


def match_rate_range(matched: int, of: int) -> str:
    """The enum of the range in which the share lies: [0, 20), [20, 31), … [91, 100]."""
    percent = 100 * matched / of
    for below, name in _RANGES:
        if percent < below:
            return f"MATCH_RATE_RANGE_{name}"
    return "MATCH_RATE_RANGE_91_TO_100"


def _values(members: Sequence[Mapping[str, Any]]) -> Collection[str]:
    """Every text in the members, for a poison dial to look among."""
    found: set[str] = set()
    for member in members:
        for identifier in (member.get("userData") or {}).get("userIdentifiers", []):
            found.update(value for value in identifier.values() if isinstance(value, str))
        found.add(str((member.get("userIdData") or {}).get("userId", "")))
    return found


def _field(member: int, identifier: int | None = None) -> str:
    field = f"audience_members.audience_members[{member}]"
    return field if identifier is None else f"{field}.user_data.user_identifiers[{identifier}]"


def _gone() -> Response:
    return _error(404, "INVALID_USER_LIST_ID", "The user list was not found.")


def _error(
    code: int, reason: str, message: str, *, field: str = "", headers: Collection[tuple[str, str]] = ()
) -> Response:
    """A google.rpc.Status."""
    details: list[dict[str, Any]] = []
    if reason:
        details.append({"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": DOMAIN})
    if field:
        violation = {"field": field, "description": message, "reason": reason}
        details.append({"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [violation]})
    error = {"code": code, "message": message, "status": _STATUS_OF.get(code, "UNKNOWN"), "details": details}
    return answer({"error": error}, code, headers)
