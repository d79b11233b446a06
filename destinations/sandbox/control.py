"""The client of a running sandbox, for tests and the demo: make accounts, turn dials, read what each platform holds.

`started()` runs one in a process of its own. What comes back holds hashes of people: keep it out of logs.
"""

import base64
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import orjson

MANAGE = Path(__file__).resolve().parents[2] / "manage.py"


class Sandbox:
    """A sandbox at an address. `account` may be left out of most calls to mean any."""

    def __init__(self, base_url: str, *, seconds: float = 60) -> None:
        self.base_url = base_url.rstrip("/")
        self._http = httpx.Client(base_url=f"{self.base_url}/_sandbox", timeout=seconds, trust_env=False)

    def close(self) -> None:
        self._http.close()

    def is_up(self) -> bool:
        try:
            return self._http.get("/health").is_success
        except httpx.TransportError:
            return False

    # --- Accounts

    def account(
        self, platform: str, account: str, *, name: str = "", currency: str = "", strict: bool = False, secret: str = ""
    ) -> dict[str, Any]:
        """Make or change an account. `strict`: only tokens made by `token()` open it. `secret`: Meta's app secret, or a webhook's."""
        body = {
            "platform": platform,
            "id": account,
            "name": name,
            "currency": currency,
            "strict": strict,
            "secret": secret,
        }
        made: dict[str, Any] = self._post("accounts", body)
        return made

    def token(
        self,
        platform: str,
        value: str,
        *,
        account: str | None = None,
        state: str = "valid",
        expires_at: float | None = None,
    ) -> None:
        """Make or change a token; `state` is valid, expired or revoked."""
        body = {"platform": platform, "value": value, "account": account, "state": state, "expires_at": expires_at}
        self._post("tokens", body)

    # --- Faults

    def dial(
        self,
        action: str,
        *,
        platform: str | None = None,
        account: str | None = None,
        op: str | None = None,
        audience: str | None = None,
        times: int | None = 1,
        skip: int = 0,
        **params: Any,
    ) -> int:
        """Have calls go wrong; its id. `op`: check, create, describe, describe_as, rename, add, remove, poll, members. `times` None: until cleared.

        throttle    retry_after="seconds"|"date"|"absent"|"absurd"|"minutes", seconds=2
        budget      calls=10, seconds=60: more than that are throttled (with times=None)
        error       status=500
        hang        seconds=60, apply=False: then the connection drops, unless applied
        drop        applied, then the connection drops
        late        seconds=5: the connection drops now, and the call is applied later
        garbled     apply=True: HTTP 200 with something unreadable
        partial     rows=[0, 5] or every=10: those rows are refused inside a success
        poison      values=[…]: a call that carries one of these is refused whole
        small_removals   below=100: removals that would leave fewer people are refused
        refuse      why="terms"|"blocked"|"permission"|"expired"|"revoked"|"gone"
        processing  seconds=5, applied_last=False (google): how long receipts are pending; whether it takes effect only then
        fail        reason="…" (google): the receipt says that the whole call failed
        """
        body = {
            "action": action,
            "platform": platform,
            "account": account,
            "op": op,
            "audience": audience,
            "times": times,
            "skip": skip,
            "params": params,
        }
        made: int = self._post("dials", body)["id"]
        return made

    def clear_dials(self, dial: int | None = None) -> None:
        self._http.delete("/dials", params={} if dial is None else {"id": dial}).raise_for_status()

    # --- What the platforms hold

    def audiences(self, platform: str | None = None, account: str | None = None) -> list[dict[str, Any]]:
        """platform, account, id, name, description, people, matched and age of each."""
        found: list[dict[str, Any]] = self._get("audiences", platform=platform, account=account)
        return found

    def audience(self, platform: str, audience: str) -> dict[str, Any]:
        found: dict[str, Any] = self._get(f"audiences/{platform}/{audience}")
        return found

    def identifiers(self, platform: str, audience: str) -> set[tuple[str, str]]:
        """The whole member set as (kind, value): kinds are email, phone, external_id, mobile_ad_id, address; hashes as hex."""
        return {(kind, value) for kind, value in self._lines(f"audiences/{platform}/{audience}/identifiers")}

    def holds(self, platform: str, audience: str, identifiers: list[tuple[str, str]]) -> dict[str, Any]:
        """What `audiences` says of one, and under `holds` whether each (kind, value) is in its member set."""
        found: dict[str, Any] = self._post(f"audiences/{platform}/{audience}/holds", {"identifiers": identifiers})
        return found

    def members(self, platform: str, audience: str) -> list[dict[str, str]]:
        """kind → value of every row that came in and still has an identifier in the set."""
        return list(self._lines(f"audiences/{platform}/{audience}/members"))

    def delete_audience(self, platform: str, audience: str) -> None:
        """As somebody at the platform would."""
        self._http.delete(f"/audiences/{platform}/{audience}").raise_for_status()

    def forget(self, platform: str, audience: str, people: int) -> int:
        """Lose so many people of an audience, as a hand at the platform would."""
        forgotten: int = self._post(f"audiences/{platform}/{audience}/forget", {"people": people})["forgotten"]
        return forgotten

    def put(self, platform: str, audience: str, people: list[dict[str, str]]) -> None:
        """Add people (kind → value) that nobody sent."""
        self._post(f"audiences/{platform}/{audience}/put", {"people": people})

    def calls(self, platform: str | None = None, account: str | None = None, *, after: int = 0) -> list[dict[str, Any]]:
        """The call log, oldest first: id, at, ms, platform, account, op, audience, rows, status (0: dropped), dial."""
        found: list[dict[str, Any]] = self._get("calls", platform=platform, account=account, after=after)
        return found

    def reset(self) -> None:
        """Everything forgotten."""
        self._post("reset", {})

    def _get(self, path: str, **query: Any) -> Any:
        response = self._http.get(
            f"/{path}", params={name: value for name, value in query.items() if value is not None}
        )
        response.raise_for_status()
        return orjson.loads(response.content)

    def _post(self, path: str, body: dict[str, Any]) -> Any:
        response = self._http.post(f"/{path}", json=body)
        response.raise_for_status()
        return orjson.loads(response.content)

    def _lines(self, path: str) -> Iterator[Any]:
        response = self._http.get(f"/{path}")
        response.raise_for_status()
        return (orjson.loads(line) for line in response.content.splitlines())


def webhook_secret(account: str) -> str:
    """The signing secret that a webhook account of the sandbox has unless it was given another."""
    digest = hashlib.sha256(f"sandbox webhook {account}".encode()).digest()
    return f"whsec_{base64.b64encode(digest).decode()}"


class Process:
    """A sandbox in a process of its own, which can be killed and started again over the same file."""

    def __init__(self, folder: Path, port: int = 0) -> None:
        self.folder = folder
        self.port = port
        self.base_url = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Sandbox:
        """Start it and wait until it answers. The port stays the same over a restart."""
        command = [
            sys.executable,
            str(MANAGE),
            "sandbox",
            "--port",
            str(self.port),
            "--file",
            str(self.folder / "sandbox.sqlite3"),
        ]
        environment = {**os.environ, "DATA_DIR": str(self.folder), "PYTHONUNBUFFERED": "1"}
        self._process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)  # noqa: S603 - our own
        assert self._process.stdout is not None
        self.base_url = self._process.stdout.readline().strip().rpartition(" ")[2]
        if not self.base_url:
            raise RuntimeError("the sandbox did not start")
        self.port = int(self.base_url.rpartition(":")[2])
        sandbox = Sandbox(self.base_url)
        ends = time.monotonic() + 20
        while not sandbox.is_up():
            if time.monotonic() > ends:
                raise RuntimeError("the sandbox did not answer")
            time.sleep(0.02)
        return sandbox

    def kill(self) -> None:
        """kill −9."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


@contextmanager
def started(folder: Path, port: int = 0) -> Iterator[Sandbox]:
    """A sandbox for as long as the block lasts."""
    process = Process(folder, port)
    sandbox = process.start()
    try:
        yield sandbox
    finally:
        sandbox.close()
        process.kill()
