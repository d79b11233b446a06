"""What happened and what shall happen in the sandbox: the call log, dials, late calls, receipts, messages seen. Never who was sent."""

import json
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from destinations.sandbox.database import Database

SCHEMA = """
CREATE TABLE IF NOT EXISTS call (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, ms INTEGER NOT NULL, platform TEXT NOT NULL, account TEXT NOT NULL, op TEXT NOT NULL,
    audience TEXT NOT NULL, rows INTEGER NOT NULL, status INTEGER NOT NULL, dial TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS call_of ON call (platform, account, at);
CREATE TABLE IF NOT EXISTS dial (
    id INTEGER PRIMARY KEY AUTOINCREMENT, platform TEXT, account TEXT, op TEXT, audience TEXT, action TEXT NOT NULL,
    params TEXT NOT NULL, skip INTEGER NOT NULL, remaining INTEGER);
CREATE TABLE IF NOT EXISTS late (id INTEGER PRIMARY KEY, due REAL NOT NULL, request TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS request (id TEXT PRIMARY KEY, audience TEXT NOT NULL, ready_at REAL NOT NULL, answer TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS seen (id TEXT PRIMARY KEY);
"""


@dataclass(frozen=True, slots=True)
class Dial:
    """A fault asked for: what is to go wrong in a call, and how."""

    id: int
    action: str
    params: dict[str, Any]


class Journal:
    """The journal's tables."""

    def __init__(self, database: Database, now: Callable[[], float]) -> None:
        self._database = database
        self._now = now

    def log(
        self, *, at: float, platform: str, account: str, op: str, audience: str, rows: int, status: int, dial: str
    ) -> None:
        """One line of the call log. It never holds what was in the call."""
        with self._database.writing() as db:
            db.execute(
                "INSERT INTO call (at, ms, platform, account, op, audience, rows, status, dial) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (at, round((self._now() - at) * 1000), platform, account, op, audience, rows, status, dial),
            )

    def calls(
        self, platform: str | None = None, account: str | None = None, *, after: int = 0, newest: int | None = None
    ) -> list[sqlite3.Row]:
        """The call log, oldest first; `newest` keeps only so many."""
        rows = self._database.all(
            "SELECT * FROM call WHERE platform = coalesce(?, platform) AND account = coalesce(?, account) AND id > ?"
            " ORDER BY id DESC LIMIT ?",
            platform,
            account,
            after,
            -1 if newest is None else newest,
        )
        return rows[::-1]

    def set_dial(
        self,
        action: str,
        *,
        platform: str | None,
        account: str | None,
        op: str | None,
        audience: str | None,
        params: dict[str, Any],
        skip: int,
        times: int | None,
    ) -> int:
        with self._database.writing() as db:
            cursor = db.execute(
                "INSERT INTO dial (platform, account, op, audience, action, params, skip, remaining) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (platform, account, op, audience, action, json.dumps(params), skip, times),
            )
            return int(cursor.lastrowid or 0)

    def clear_dials(self, dial: int | None = None) -> None:
        with self._database.writing() as db:
            db.execute("DELETE FROM dial WHERE id = coalesce(?, id)", (dial,))

    def take_dial(self, platform: str, account: str, op: str, audience: str) -> Dial | None:
        """The first dial that this call meets, used up by one."""
        meets = (
            "FROM dial WHERE coalesce(platform, ?1) = ?1 AND coalesce(account, ?2) = ?2 AND coalesce(op, ?3) = ?3"
            " AND coalesce(audience, ?4) = ?4 AND coalesce(remaining, 1) > 0 ORDER BY id"
        )
        call = (platform, account, op, audience)
        if self._database.one(f"SELECT id {meets} LIMIT 1", *call) is None:
            return None
        with self._database.writing() as db:
            for row in db.execute(f"SELECT * {meets}", call).fetchall():
                params = json.loads(row["params"])
                if row["action"] == "budget" and not self._over_budget(db, platform, account, params):
                    continue
                if row["skip"]:
                    db.execute("UPDATE dial SET skip = skip - 1 WHERE id = ?", (row["id"],))
                    continue
                db.execute("UPDATE dial SET remaining = remaining - 1 WHERE id = ?", (row["id"],))
                return Dial(row["id"], row["action"], params)
        return None

    def dials(self) -> list[sqlite3.Row]:
        return self._database.all("SELECT * FROM dial ORDER BY id")

    def _over_budget(self, db: sqlite3.Connection, platform: str, account: str, params: dict[str, Any]) -> bool:
        since = self._now() - float(params.get("seconds", 60))
        row = db.execute(
            "SELECT count(*) FROM call WHERE platform = ? AND account = ? AND at > ? AND dial <> 'budget'",
            (platform, account, since),
        ).fetchone()
        return bool(row[0] >= int(params.get("calls", 0)))

    def put_late(self, due: float, request: str) -> None:
        with self._database.writing() as db:
            db.execute("INSERT INTO late (due, request) VALUES (?, ?)", (due, request))

    def take_late(self) -> list[str]:
        """The late calls that are due, taken out."""
        if self._database.one("SELECT id FROM late WHERE due <= ?", self._now()) is None:
            return []
        with self._database.writing() as db:
            return [
                row["request"]
                for row in db.execute("DELETE FROM late WHERE due <= ? RETURNING request", (self._now(),))
            ]

    def put_request(self, request_id: str, audience: str, ready_at: float, answer: dict[str, Any]) -> None:
        with self._database.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO request VALUES (?, ?, ?, ?)",
                (request_id, audience, ready_at, json.dumps(answer)),
            )

    def request(self, request_id: str) -> sqlite3.Row | None:
        return self._database.one("SELECT * FROM request WHERE id = ?", request_id)

    def first_seen(self, message_id: str) -> bool:
        with self._database.writing() as db:
            return db.execute("INSERT OR IGNORE INTO seen VALUES (?)", (message_id,)).rowcount == 1
