"""The sandbox's own API under /_sandbox/: making accounts, turning dials, reading what the platforms hold. No platform has one.

Every body is a JSON object; control.py is its client.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from destinations.sandbox.store import KINDS, PLATFORMS, Audience, Store, stored
from destinations.sandbox.web import Request, Response, answer

STYLESHEET = Path(__file__).parent / "pages" / "style.css"
_AUDIENCE = re.compile(rf"/_sandbox/audiences/({'|'.join(PLATFORMS)})/([\w-]+)(?:/(\w+))?")


class ControlApi:
    """Answers what lies under /_sandbox/."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def handles(self, path: str) -> bool:
        return path.startswith("/_sandbox/")

    def handle(self, request: Request) -> Response:
        if found := _AUDIENCE.fullmatch(request.path):
            audience = self.store.audience(found[1], found[2])
            if audience is None:
                return answer({"error": "no such audience"}, 404)
            return self._audience(request, audience, found[3] or "")
        doors: dict[tuple[str, str], Callable[[dict[str, Any], dict[str, str]], Response]] = {
            ("GET", "health"): lambda given, query: answer({"ok": True}),
            ("GET", "style.css"): lambda given, query: Response(
                200, STYLESHEET.read_bytes(), (("Content-Type", "text/css; charset=utf-8"),)
            ),
            ("POST", "accounts"): self._set_account,
            ("POST", "tokens"): self._set_token,
            ("POST", "dials"): self._set_dial,
            ("GET", "dials"): lambda given, query: answer([dict(row) for row in self.store.journal.dials()]),
            ("DELETE", "dials"): self._clear_dials,
            ("GET", "audiences"): self._audiences,
            ("GET", "calls"): self._calls,
            ("POST", "reset"): self._reset,
        }
        door = doors.get((request.method, request.path.removeprefix("/_sandbox/").rstrip("/")))
        if door is None:
            return answer({"error": "there is nothing here"}, 404)
        return door(request.fields, request.query)

    def _set_account(self, given: dict[str, Any], query: dict[str, str]) -> Response:
        platform, account = str(given["platform"]), str(given["id"]).removeprefix("act_")
        self.store.set_account(
            platform,
            account,
            name=given.get("name", ""),
            currency=given.get("currency", ""),
            strict=bool(given.get("strict", False)),
            secret=given.get("secret", ""),
        )
        return answer(_without_secret(dict(self.store.account(platform, account))))

    def _set_token(self, given: dict[str, Any], query: dict[str, str]) -> Response:
        account = given.get("account")
        self.store.set_token(
            str(given["platform"]),
            str(given["value"]),
            account=None if account is None else str(account).removeprefix("act_"),
            state=given.get("state", "valid"),
            expires_at=given.get("expires_at"),
        )
        return answer({"ok": True})

    def _set_dial(self, given: dict[str, Any], query: dict[str, str]) -> Response:
        account = given.get("account")
        dial = self.store.journal.set_dial(
            str(given["action"]),
            platform=given.get("platform"),
            account=None if account is None else str(account).removeprefix("act_"),
            op=given.get("op"),
            audience=given.get("audience"),
            params=given.get("params") or {},
            skip=int(given.get("skip", 0)),
            times=given.get("times"),
        )
        return answer({"id": dial})

    def _clear_dials(self, given: dict[str, Any], query: dict[str, str]) -> Response:
        self.store.journal.clear_dials(int(query["id"]) if "id" in query else None)
        return answer({"ok": True})

    def _audiences(self, given: dict[str, Any], query: dict[str, str]) -> Response:
        account = query.get("account")
        found = self.store.audiences(query.get("platform"), account and account.removeprefix("act_"))
        return answer([self._shown(audience) for audience in found])

    def _calls(self, given: dict[str, Any], query: dict[str, str]) -> Response:
        account = query.get("account")
        rows = self.store.journal.calls(
            query.get("platform"), account and account.removeprefix("act_"), after=int(query.get("after", 0))
        )
        return answer([dict(row) for row in rows])

    def _reset(self, given: dict[str, Any], query: dict[str, str]) -> Response:
        self.store.reset()
        return answer({"ok": True})

    def _audience(self, request: Request, audience: Audience, verb: str) -> Response:
        match (request.method, verb):
            case ("GET", ""):
                return answer(self._shown(audience))
            case ("DELETE", ""):
                self.store.change(audience, deleted=True)
                return answer({"ok": True})
            case ("GET", "identifiers"):
                return _lines(orjson.dumps(pair) for pair in self.store.identifiers(audience))
            case ("GET", "members"):
                return _lines(orjson.dumps(person) for _, person in self.store.members(audience))
            case ("POST", "holds"):
                pairs = [(str(kind), str(value)) for kind, value in request.fields["identifiers"]]
                return answer({**self._shown(audience), "holds": self.store.holds(audience, pairs)})
            case ("POST", "forget"):
                return answer({"forgotten": self.store.forget(audience, int(request.fields["people"]))})
            case ("POST", "put"):
                rows = [
                    [(KINDS.index(kind), stored(value)) for kind, value in person.items()]
                    for person in request.fields["people"]
                ]
                self.store.add(audience, rows)
                return answer({"ok": True})
        return answer({"error": "there is nothing here"}, 404)

    def _shown(self, audience: Audience) -> dict[str, Any]:
        people, matched = self.store.sizes(audience)
        return {
            "platform": audience.platform,
            "account": audience.account,
            "id": audience.id,
            "name": audience.name,
            "description": audience.description,
            "people": people,
            "matched": matched,
            "age": round(self.store.now() - audience.created_at),
        }


def _without_secret(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "secret"}


def _lines(lines: Any) -> Response:
    return Response(200, b"\n".join(lines), (("Content-Type", "application/x-ndjson"),))
