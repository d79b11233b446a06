"""A whole deployment in which a million people are being added to one audience while others buy, and what the platform's own clock says of them.

Filled from the shop of shop.py. Run inside the installation by rush_fill.py; here is what drives it from outside.
"""

import os
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from destinations.sandbox.control import Sandbox
from tests.benchmarks.shop import Shop
from tests.journeys.deployment import Deployment

EVERYBODY, BUYERS, BOUGHT = "everybody", "buyers_to_be", "bought_30d"
FILL = "from tests.benchmarks import rush_fill\nimport json\nprint('made', json.dumps(rush_fill.fill({arguments})))\n"
LIVE = "from tests.benchmarks import rush_fill\nimport json\nprint('made', json.dumps(rush_fill.go_live({key!r})))\n"
SAID = "from tests.benchmarks import rush_fill\nimport json\nprint('made', json.dumps(rush_fill.said()))\n"


@dataclass(frozen=True, slots=True)
class Said:
    """An urgent call: which connection, remove or add, when what caused it had been received (one moment for each person)."""

    mapping: int
    kind: str
    received: Sequence[float]


class Rush:
    """`mappings`: audience → connection id; `buyers`: ids of people who are in `buyers_to_be`."""

    def __init__(self, folder: Path, made: Shop, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.deployment = Deployment(folder / "var")
        lake = folder / "lake"
        shutil.copytree(made.root, lake, copy_function=os.link)  # flushes and compactions are this deployment's own
        self.deployment.env["LAKE_URL"] = str(lake)
        self.shop = made
        self.mappings: dict[str, int] = {}
        self.buyers: list[str] = []
        self._http: httpx.Client | None = None

    def fill(self, *, platform: str, mentioning: int) -> None:
        """People, files and audiences; every connection is live and has had its first sync, but for `everybody`'s."""
        self.deployment.migrate()
        arguments = (
            f"{str(self.deployment.env['LAKE_URL'])!r}, {self.shop.people}, {self.sandbox.base_url!r}, "
            f"{platform!r}, {mentioning}"
        )
        found = self._shell(FILL.format(arguments=arguments), timeout=3_000)
        self.mappings, self.buyers = found["mappings"], found["buyers"]
        site, _, key = self.deployment.manage("create_api_key", "rush").stdout.split()[-1].partition(":")
        self._http = httpx.Client(base_url=self.deployment.url, auth=(site, key), timeout=30)

    def buy(self, id: str) -> None:
        assert self._http is not None
        body = {"name": "purchase", "data": {"value": 42, "category": "shoes"}}
        assert self._http.post(f"/api/v1/customers/{id}/events", json=body).status_code == 200

    def rush(self, *, a_second: float, most: int, seed: int = 5) -> int:
        """People buy at random moments, from when everybody is being added until that ends; how many."""
        self._shell(LIVE.format(key=EVERYBODY))
        dice, bought = random.Random(seed), 0
        waits_until = time.monotonic() + 600
        while not self._adding():
            assert time.monotonic() < waits_until, self.deployment.log()
            time.sleep(0.2)
        looked = time.monotonic()
        for id in dice.sample(self.buyers, min(most, len(self.buyers))):
            time.sleep(dice.expovariate(a_second))
            self.buy(id)
            bought += 1
            if time.monotonic() - looked > 2:
                looked = time.monotonic()
                if not self._adding():
                    break
        return bought

    def said(self) -> list[Said]:
        return [Said(*one) for one in self._shell(SAID)]

    def added(self) -> int:
        return int(
            self.deployment.query(
                f"SELECT added FROM destinations_run WHERE mapping_id = {self.mappings[EVERYBODY]} ORDER BY id DESC"
            )[0][0]
        )

    def state(self) -> str:
        return str(
            self.deployment.query(
                f"SELECT state FROM destinations_run WHERE mapping_id = {self.mappings[EVERYBODY]} ORDER BY id DESC"
            )[0][0]
        )

    def waiting(self) -> int:
        return int(self.deployment.query("SELECT count(*) FROM destinations_errand WHERE due_at IS NOT NULL")[0][0])

    def _adding(self) -> bool:
        rows = self.deployment.query(
            f"SELECT state, added FROM destinations_run WHERE mapping_id = {self.mappings[EVERYBODY]} ORDER BY id DESC"
        )
        return bool(rows) and rows[0][0] == "sending" and rows[0][1] > 0

    def _shell(self, script: str, timeout: float = 300):
        return self.deployment.shell_json(script, "made", timeout=timeout)

    def remove(self) -> None:
        if self._http is not None:
            self._http.close()
        self.deployment.remove()
