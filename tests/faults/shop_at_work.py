"""A deployment at work: a retargeting audience and its suppression audience on one sandbox account, and people who act over HTTP."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from destinations.sandbox.control import Sandbox
from tests.destinations.scene import sha
from tests.journeys.deployment import Deployment

CART, BOUGHT = "cart", "bought_180d"

_FILL = """
import json
from destinations.models import Mapping
from destinations.sandbox.control import Sandbox
from tests.audiences.people_in import identify, track
from tests.destinations import scene
scene.workspace()
scene.imported(*(f"p{{n}}" for n in range({people})))
identify("zoe", email="zoe@example.com")
track("zoe", "purchase")
bought = scene.audience({bought!r}, {{"event": "purchase", "count": {{"at_least": 1}}, "within": "180d"}}, "suppression")
cart = scene.audience({cart!r}, scene.NO_PURCHASE)
cart.excluded_by.add(bought)
for made, account in ((bought, {account!r} + "9"), (cart, {account!r})):
    scene.live(Sandbox({base_url!r}), account, made, kind={kind!r})
print("made", json.dumps({{row.audience.key: row.pk for row in Mapping.objects.all()}}))
"""


class ShopAtWork:
    """Everybody p0, p1, … is in `cart` until they buy; then they are in `bought_180d`, on an account of its own."""

    kind = "openlist"  # 5,000 people a call

    def __init__(self, folder: Path, sandbox: Sandbox, account: str) -> None:
        self.sandbox, self.account = sandbox, account
        self.deployment = Deployment(folder)
        self.mappings: dict[str, int] = {}
        self._http: httpx.Client | None = None

    def fill(self, people: int) -> None:
        self.deployment.migrate()
        script = _FILL.format(
            people=people,
            base_url=self.sandbox.base_url,
            account=self.account,
            kind=self.kind,
            cart=CART,
            bought=BOUGHT,
        )
        self.mappings = self.deployment.shell_json(script, "made")
        made = self.deployment.manage("create_api_key", "shop").stdout.split()[-1]
        site, _, key = made.partition(":")
        self._http = httpx.Client(base_url=self.deployment.url, auth=(site, key), timeout=30)

    def act(self, who: str, name: str = "purchase", **body: Any) -> None:
        """An event over HTTP, answered."""
        assert self._http is not None
        answer = self._http.post(f"/api/v1/customers/{who}/events", json={"name": name, "data": {}, **body})
        assert answer.status_code == 200, answer.text

    def identify(self, id: str, **attributes: Any) -> None:
        assert self._http is not None
        answer = self._http.put(f"/api/v1/customers/{id}", json=attributes)
        assert answer.status_code == 200, answer.text

    def emails(self, audience: str) -> set[str]:
        """The hashed e-mails that the platform has of it."""
        there = self._there(audience)
        found = self.sandbox.identifiers(self.kind, there) if there else set()
        return {value for kind, value in found if kind == "email"}

    def calls(self, audience: str, op: str) -> list[dict[str, Any]]:
        """The platform's log of one audience."""
        made = self.sandbox.calls(self.kind, self._account(audience))
        return [call for call in made if call["op"] == op and call["audience"] == self._there(audience)]

    def _there(self, audience: str) -> str:
        there = [row for row in self.sandbox.audiences(self.kind, self._account(audience)) if row["name"] == audience]
        return str(there[-1]["id"]) if there else ""

    def _account(self, audience: str) -> str:
        return self.account if audience == CART else f"{self.account}9"

    def has(self, audience: str, *ids: str) -> bool:
        return {sha(f"{id}@example.com") for id in ids} <= self.emails(audience)

    def lacks(self, audience: str, *ids: str) -> bool:
        return not {sha(f"{id}@example.com") for id in ids} & self.emails(audience)

    def remove(self) -> None:
        if self._http is not None:
            self._http.close()
        self.deployment.remove()


def eventually(holds: Callable[[], bool], *, within: float = 60.0, every: float = 0.02) -> float:
    """Wait until it holds; how long that took, in seconds."""
    began = time.monotonic()
    while not holds():
        assert time.monotonic() - began < within, "it does not come to hold"
        time.sleep(every)
    return time.monotonic() - began
