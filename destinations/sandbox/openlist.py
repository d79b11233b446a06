"""OpenList, a platform that exists only here: plain REST, answers row by row, and members that connectors may read.

Every call: Authorization: Bearer TOKEN, X-Account: ACCOUNT.

    GET    /openlist/v1/account                     → name, currency, may_edit, token_ends
    POST   /openlist/v1/lists                       {name, description} → 201 {id, name, description, received, matched}
    GET    /openlist/v1/lists/ID                    → the same
    PATCH  /openlist/v1/lists/ID                    {name} or {description} → the same
    DELETE /openlist/v1/lists/ID                    → 204
    POST   /openlist/v1/lists/ID/members:add        {members: [{external_id?, email_sha256?}, …]} (at most 5,000)
    POST   /openlist/v1/lists/ID/members:remove       → 200 {received, accepted, errors: [{index, code, message}]}
    GET    /openlist/v1/lists/ID/members?after=&limit=   → {members: [{external_id?, email_sha256?}], next}
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any

from destinations.sandbox.store import KINDS, Audience, Row, Store, stored
from destinations.sandbox.web import Call, Request, Response, Wish, answer, perform

MOST_MEMBERS = 5_000
MOST_READ = 10_000
_PATH = re.compile(r"/openlist/v1/lists(?:/(?P<list>\w+)(?P<members>/members(?::(?P<verb>add|remove))?)?)?")
_REFUSALS = {
    "terms": (403, "terms_not_accepted"),
    "blocked": (403, "blocked"),
    "permission": (403, "forbidden"),
    "too_small": (409, "too_small"),
    "poison": (422, "invalid_member"),
    "gone": (404, "no_such_list"),
    "expired": (401, "token_expired"),
    "revoked": (401, "token_revoked"),
}


class OpenList:
    """Answers what lies under /openlist/. The header X-Account names the account."""

    name = "openlist"

    def __init__(self, store: Store) -> None:
        self.store = store

    def handles(self, path: str) -> bool:
        return path.startswith("/openlist/")

    def handle(self, request: Request) -> Response:
        account = request.headers.get("x-account", "main")
        state, ends = self.store.token(self.name, request.bearer, account)
        if state != "valid":
            return _no("revoked" if state == "unknown" else state)
        if request.path == "/openlist/v1/account":
            row = self.store.account(self.name, account)
            about = {"name": row["name"], "currency": row["currency"], "may_edit": True, "token_ends": ends}
            return perform(self, self.store, request, Call(account, "check"), lambda _: answer(about))
        found = _PATH.fullmatch(request.path)
        if found is None:
            return _no("gone")
        if found["list"] is None:
            if request.method == "POST":
                return perform(
                    self, self.store, request, Call(account, "create"), lambda _: self._create(request, account)
                )
            return answer({"lists": [self._shown(audience) for audience in self.store.audiences(self.name, account)]})
        audience = self.store.audience(self.name, found["list"])
        if audience is None or audience.account != account:
            return _no("gone")
        if found["members"]:
            return self._members(request, audience, found["verb"])
        return self._list(request, audience)

    # --- How it words its refusals

    def throttled(self, call: Call, headers: list[tuple[str, str]]) -> Response:
        return answer({"error": {"code": "slow_down"}}, 429, headers)

    def failed(self, status: int) -> Response:
        return answer({"error": {"code": "unavailable"}}, status)

    def refused(self, call: Call, why: str) -> Response:
        return _no(why)

    # --- Lists and members

    def _create(self, request: Request, account: str) -> Response:
        name = str(request.fields.get("name", "")).strip()
        if not name:
            return answer({"error": {"code": "name_missing"}}, 422)
        description = str(request.fields.get("description", ""))
        return answer(self._shown(self.store.create(self.name, account, name, description=description)), 201)

    def _list(self, request: Request, audience: Audience) -> Response:
        verbs: dict[str, tuple[str, Callable[[Wish], Response]]] = {
            "GET": ("describe", lambda _: answer(self._shown(audience))),
            "PATCH": (
                "rename" if "name" in request.fields else "describe_as",
                lambda _: self._change(request, audience),
            ),
            "DELETE": ("delete", lambda _: self._delete(audience)),
        }
        if request.method not in verbs:
            return answer({"error": {"code": "method"}}, 405)
        op, work = verbs[request.method]
        return perform(self, self.store, request, Call(audience.account, op, audience), work)

    def _change(self, request: Request, audience: Audience) -> Response:
        given = {name: str(request.fields[name]) for name in ("name", "description") if name in request.fields}
        self.store.change(audience, name=given.get("name") or None, description=given.get("description"))
        changed = self.store.audience(self.name, audience.id)
        return answer(self._shown(changed or audience))

    def _delete(self, audience: Audience) -> Response:
        self.store.change(audience, deleted=True)
        return Response(204, b"")

    def _shown(self, audience: Audience) -> dict[str, Any]:
        people, matched = self.store.sizes(audience)
        said = {"id": audience.id, "name": audience.name, "description": audience.description}
        return {**said, "received": people, "matched": matched, "at": self.store.now()}

    def _members(self, request: Request, audience: Audience, verb: str | None) -> Response:
        if verb is None:
            call = Call(audience.account, "members", audience)
            return perform(self, self.store, request, call, lambda _: self._page(request, audience))
        given = request.fields.get("members")
        if not isinstance(given, list) or not 0 < len(given) <= MOST_MEMBERS:
            return answer({"error": {"code": "members"}}, 422)

        def work(wish: Wish) -> Response:
            rows, errors = _rows(given, wish.refused)
            (self.store.add if verb == "add" else self.store.remove)(audience, rows)
            return answer({"received": len(given), "accepted": len(rows), "errors": errors})

        call = Call(audience.account, verb, audience, len(given))
        return perform(
            self, self.store, request, call, work, lambda: {str(value) for one in given for value in one.values()}
        )

    def _page(self, request: Request, audience: Audience) -> Response:
        limit = min(int(request.query.get("limit", MOST_READ)), MOST_READ)
        after = int(request.query["after"]) if request.query.get("after") else None
        found = list(self.store.members(audience, after=after, limit=limit))
        names = {"external_id": "external_id", "email": "email_sha256"}
        members = [{names[kind]: value for kind, value in person.items()} for _, person in found]
        return answer({"members": members, "next": str(found[-1][0]) if len(found) == limit else None})


def _rows(given: list[Mapping[str, Any]], refused: Collection[int]) -> tuple[list[Row], list[dict[str, Any]]]:
    rows: list[Row] = []
    errors: list[dict[str, Any]] = []
    for index, one in enumerate(given):
        email = stored(str(one.get("email_sha256", "")))
        row: list[tuple[int, bytes | str]] = []
        if isinstance(email, bytes):
            row.append((KINDS.index("email"), email))
        if one.get("external_id"):
            row.append((KINDS.index("external_id"), str(one["external_id"])))
        if index in refused:
            errors.append({"index": index, "code": "not_wanted", "message": "The platform did not want this row."})
        elif not row or (email != "" and isinstance(email, str)):
            errors.append({"index": index, "code": "invalid_member", "message": "There is no identifier in this row."})
        else:
            rows.append(row)
    return rows, errors


def _no(why: str) -> Response:
    status, code = _REFUSALS[why]
    return answer({"error": {"code": code}}, status)
