"""What a person sees at the platforms: accounts, their audiences, the last calls. Read only; identifiers are shortened."""

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from django.template import Context, Engine

from destinations.sandbox import control
from destinations.sandbox.meta import bounds
from destinations.sandbox.store import MATCHABLE_PERCENT, PLATFORMS, Audience, Store
from destinations.sandbox.web import Request, Response

LABELS = {"meta": "Meta-shaped", "google": "Google-shaped", "openlist": "OpenList", "webhook": "Webhook receiver"}
MEMBERS_SHOWN = 20
CALLS_SHOWN = 25

_ENGINE = Engine(
    dirs=[str(Path(__file__).parent / "pages")],
    libraries={"humanize": "django.contrib.humanize.templatetags.humanize"},
    builtins=["django.contrib.humanize.templatetags.humanize"],
)
_ACCOUNT = re.compile(rf"/accounts/({'|'.join(PLATFORMS)})/([\w-]+)/")
_AUDIENCE = re.compile(rf"/accounts/({'|'.join(PLATFORMS)})/([\w-]+)/([\w-]+)/")
_HEADERS = (
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", "default-src 'none'; style-src 'self'; frame-ancestors 'none'; base-uri 'none'"),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Cache-Control", "no-store"),
)


class Pages:
    """Answers / and what lies under /accounts/."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def handles(self, path: str) -> bool:
        return path == "/" or path.startswith("/accounts/")

    def handle(self, request: Request) -> Response:
        if request.path == "/":
            return _page("index.html", accounts=self._accounts(), percent=MATCHABLE_PERCENT)
        if found := _ACCOUNT.fullmatch(request.path):
            return self._account(found[1], found[2])
        if found := _AUDIENCE.fullmatch(request.path):
            audience = self.store.audience(found[1], found[3])
            if audience is not None and audience.account == found[2]:
                return self._audience(audience)
        return _page("missing.html", status=404)

    def _accounts(self) -> list[dict[str, Any]]:
        rows = self.store.accounts()
        return [
            {
                **dict(row),
                "label": LABELS[row["platform"]],
                "audiences": len(self.store.audiences(row["platform"], row["id"])),
            }
            for row in rows
        ]

    def _account(self, platform: str, account: str) -> Response:
        row = self.store.known_account(platform, account)
        if row is None:
            return _page("missing.html", status=404)
        secret = (row["secret"] or control.webhook_secret(account)) if platform == "webhook" else ""
        return _page(
            "account.html",
            account=dict(row),
            label=LABELS[platform],
            secret=secret,
            audiences=[self._shown(audience) for audience in self.store.audiences(platform, account)],
            calls=[_call(dict(call)) for call in self.store.journal.calls(platform, account, newest=CALLS_SHOWN)[::-1]],
        )

    def _audience(self, audience: Audience) -> Response:
        members = [
            [(kind, value[:8]) for kind, value in person.items()]
            for _, person in self.store.members(audience, limit=MEMBERS_SHOWN)
        ]
        return _page(
            "audience.html",
            account=dict(self.store.account(audience.platform, audience.account)),
            label=LABELS[audience.platform],
            audience=self._shown(audience),
            members=members,
        )

    def _shown(self, audience: Audience) -> dict[str, Any]:
        people, matched = self.store.sizes(audience)
        low, high = bounds(matched)
        return {
            "id": audience.id,
            "name": audience.name,
            "description": audience.description,
            "people": people,
            "matched": matched,
            "reach": f"{low:,}–{high:,}" if low >= 0 else "too few to say",
            "changed": _moment(audience.changed_at),
        }


def _call(call: dict[str, Any]) -> dict[str, Any]:
    return {**call, "when": _moment(call["at"]), "outcome": call["status"] or "dropped"}


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %b %Y, %H:%M:%S UTC")


def _page(template: str, *, status: int = 200, **context: Any) -> Response:
    return Response(status, _ENGINE.get_template(template).render(Context(context)).encode(), _HEADERS)
