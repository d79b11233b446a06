"""What the sandbox's platforms hold, in one SQLite file that survives being killed. No wire formats here.

A member set is a set of identifiers: (kind, value), hashes as bytes and readable values as text. `row` ties together those
that came in one row. Names, postal code and country identify a person only together, so they are one identifier, `address`.
"""

import hashlib
import json
import secrets
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from destinations.sandbox import journal
from destinations.sandbox.database import Database
from destinations.sandbox.journal import Journal

KINDS = ("email", "phone", "external_id", "mobile_ad_id", "address")
MATCHABLE_PERCENT = 62
PLATFORMS = ("meta", "google", "openlist", "webhook")

Value = bytes | str
Row = Sequence[tuple[int, Value]]  # (index of KINDS, value)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS account (
    platform TEXT, id TEXT, name TEXT NOT NULL, currency TEXT NOT NULL, strict INTEGER NOT NULL DEFAULT 0,
    secret TEXT NOT NULL DEFAULT '', PRIMARY KEY (platform, id));
CREATE TABLE IF NOT EXISTS token (
    platform TEXT, value TEXT, account TEXT, state TEXT NOT NULL DEFAULT 'valid', expires_at REAL, PRIMARY KEY (platform, value));
CREATE TABLE IF NOT EXISTS audience (
    no INTEGER PRIMARY KEY AUTOINCREMENT, platform TEXT NOT NULL, account TEXT NOT NULL, id TEXT NOT NULL, name TEXT NOT NULL,
    details TEXT NOT NULL DEFAULT '{}', created_at REAL NOT NULL, changed_at REAL NOT NULL, deleted INTEGER NOT NULL DEFAULT 0,
    changes INTEGER NOT NULL DEFAULT 0, counted INTEGER NOT NULL DEFAULT 0, people INTEGER NOT NULL DEFAULT 0,
    matched INTEGER NOT NULL DEFAULT 0, UNIQUE (platform, id));
CREATE TABLE IF NOT EXISTS member (
    audience INTEGER, kind INTEGER, value, row INTEGER NOT NULL, lead INTEGER NOT NULL, matched INTEGER NOT NULL,
    PRIMARY KEY (audience, kind, value)) WITHOUT ROWID;
"""
_NAMES = (
    ("Acme Test", "USD"),
    ("Acme EU", "EUR"),
    ("Acme US", "USD"),
    ("Acme UK", "GBP"),
    ("Acme Nordics", "SEK"),
    ("Acme Japan", "JPY"),
)


@dataclass(frozen=True, slots=True)
class Audience:
    """One audience of a platform. `people` and `matched` are counted when asked for (Store.sizes)."""

    no: int
    platform: str
    account: str
    id: str
    name: str
    details: dict[str, Any]
    created_at: float
    changed_at: float

    @property
    def description(self) -> str:
        """What its connector says of it."""
        return str(self.details.get("description", ""))


class Store:
    """Accounts, audiences and who is in them. `journal` is what happened to them."""

    def __init__(
        self, path: Path, *, now: Callable[[], float] = time.time, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.now, self.sleep = now, sleep  # seconds since 1970; a simulation drives both
        self._database = Database(path, _SCHEMA + journal.SCHEMA)
        self.journal = Journal(self._database, now)
        with self._database.writing() as db:
            start = str(secrets.randbelow(10**8) + 10**8)  # so that a new file's ids are not an old file's
            db.execute("INSERT OR IGNORE INTO fact VALUES ('start', ?)", (start,))
            self._start = db.execute("SELECT value FROM fact WHERE name = 'start'").fetchone()[0]

    # --- Accounts and tokens

    def account(self, platform: str, account: str) -> sqlite3.Row:
        """The account, made on first use."""
        found = self.known_account(platform, account)
        if found is None:
            self.set_account(platform, account)
            found = self.known_account(platform, account)
            assert found is not None
        return found

    def known_account(self, platform: str, account: str) -> sqlite3.Row | None:
        return self._database.one("SELECT * FROM account WHERE platform = ? AND id = ?", platform, account)

    def accounts(self) -> list[sqlite3.Row]:
        return self._database.all("SELECT * FROM account ORDER BY platform, name, id")

    def set_account(
        self, platform: str, account: str, *, name: str = "", currency: str = "", strict: bool = False, secret: str = ""
    ) -> None:
        """Make or change an account. `strict`: only tokens that were made for it open it."""
        number = (
            int(account)
            if account.isascii() and account.isdigit()
            else int(hashlib.sha256(account.encode()).hexdigest(), 16)
        )
        usual = _NAMES[number % len(_NAMES)]
        with self._database.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO account VALUES (?, ?, ?, ?, ?, ?)",
                (platform, account, name or usual[0], currency or usual[1], strict, secret),
            )

    def set_token(
        self,
        platform: str,
        value: str,
        *,
        account: str | None = None,
        state: str = "valid",
        expires_at: float | None = None,
    ) -> None:
        with self._database.writing() as db:
            db.execute(
                "INSERT OR REPLACE INTO token VALUES (?, ?, ?, ?, ?)", (platform, value, account, state, expires_at)
            )

    def token(self, platform: str, value: str, account: str | None) -> tuple[str, float | None]:
        """(state, when it ends): valid, expired, revoked or unknown. A new token is taken, unless the account is strict."""
        if not value:
            return "unknown", None
        found = self._database.one("SELECT * FROM token WHERE platform = ? AND value = ?", platform, value)
        if found is None:
            strict = account is not None and self.account(platform, account)["strict"]
            for state in ("expired", "revoked", "unknown"):
                if state in value:
                    return state, None
            return ("unknown", None) if strict else ("valid", None)
        if found["account"] is not None and account is not None and found["account"] != account:
            return "unknown", found["expires_at"]
        if found["state"] == "valid" and found["expires_at"] and found["expires_at"] < self.now():
            return "expired", found["expires_at"]
        return found["state"], found["expires_at"]

    # --- Audiences

    def create(self, platform: str, account: str, name: str, *, audience_id: str = "", **details: Any) -> Audience:
        now = self.now()
        with self._database.writing() as db:
            cursor = db.execute(
                "INSERT INTO audience (platform, account, id, name, details, created_at, changed_at) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (platform, account, audience_id or secrets.token_hex(8), name, json.dumps(details), now, now),
            )
            if not audience_id:
                db.execute(
                    "UPDATE audience SET id = ? WHERE no = ?",
                    (f"{self._start}{cursor.lastrowid:07d}", cursor.lastrowid),
                )
            row = db.execute("SELECT * FROM audience WHERE no = ?", (cursor.lastrowid,)).fetchone()
        return _audience(row)

    def audience(self, platform: str, audience_id: str) -> Audience | None:
        row = self._database.one(
            "SELECT * FROM audience WHERE platform = ? AND id = ? AND NOT deleted", platform, audience_id
        )
        return _audience(row) if row else None

    def audiences(self, platform: str | None = None, account: str | None = None) -> list[Audience]:
        rows = self._database.all(
            "SELECT * FROM audience WHERE NOT deleted AND platform = coalesce(?, platform) AND account = coalesce(?, account) ORDER BY no",
            platform,
            account,
        )
        return [_audience(row) for row in rows]

    def change(
        self,
        audience: Audience,
        *,
        name: str | None = None,
        description: str | None = None,
        deleted: bool = False,
    ) -> None:
        with self._database.writing() as db:
            db.execute(
                "UPDATE audience SET name = coalesce(?, name), deleted = ?, changed_at = ? WHERE no = ?",
                (name, deleted, self.now(), audience.no),
            )
            if description is not None:
                sql = "UPDATE audience SET details = json_set(details, '$.description', ?) WHERE no = ?"
                db.execute(sql, (description, audience.no))
            if deleted:
                db.execute("DELETE FROM member WHERE audience = ?", (audience.no,))

    def add(self, audience: Audience, rows: Iterable[Row]) -> None:
        """Put the rows' identifiers into the set; the first of a row decides whether its person is matchable."""
        new: list[tuple[int, int, Value, int, int, int]] = []
        for row in rows:
            tie = _tie(row)
            for position, (kind, value) in enumerate(row):
                matched = position == 0 and is_matchable(value)
                new.append((audience.no, kind, value, tie, position == 0, matched))
        new.sort(
            key=lambda member: (member[1], isinstance(member[2], str), member[2])
        )  # as the table is, so fewer pages
        with self._database.writing() as db:
            db.executemany("INSERT OR REPLACE INTO member VALUES (?, ?, ?, ?, ?, ?)", new)
            self._touch(db, audience)

    def remove(self, audience: Audience, rows: Iterable[Row]) -> None:
        gone = [(audience.no, kind, value) for row in rows for kind, value in row]
        with self._database.writing() as db:
            db.executemany("DELETE FROM member WHERE audience = ? AND kind = ? AND value = ?", gone)
            self._touch(db, audience)

    def clear(self, audience: Audience) -> None:
        with self._database.writing() as db:
            db.execute("DELETE FROM member WHERE audience = ?", (audience.no,))
            self._touch(db, audience)

    def forget(self, audience: Audience, people: int) -> int:
        """Lose some people, as a hand in the platform's own pages would; how many."""
        with self._database.writing() as db:
            ties = [
                row["row"]
                for row in db.execute(
                    "SELECT DISTINCT row FROM member WHERE audience = ? AND lead LIMIT ?", (audience.no, people)
                )
            ]
            db.executemany("DELETE FROM member WHERE audience = ? AND row = ?", [(audience.no, tie) for tie in ties])
            self._touch(db, audience)
        return len(ties)

    def sizes(self, audience: Audience) -> tuple[int, int]:
        """(people, of whom matched)."""
        row = self._database.one("SELECT changes, counted, people, matched FROM audience WHERE no = ?", audience.no)
        assert row is not None
        if row["changes"] == row["counted"]:
            return row["people"], row["matched"]
        counts = self._database.one(
            "SELECT coalesce(sum(lead), 0) people, coalesce(sum(matched), 0) matched FROM member WHERE audience = ?",
            audience.no,
        )
        assert counts is not None
        with self._database.writing() as db:
            db.execute(
                "UPDATE audience SET counted = ?, people = ?, matched = ? WHERE no = ?",
                (row["changes"], counts["people"], counts["matched"], audience.no),
            )
        return counts["people"], counts["matched"]

    def identifiers(self, audience: Audience) -> Iterator[tuple[str, str]]:
        """Every (kind, value), hashes as hex, in no particular order of people."""
        with self._database.reading() as db:
            for kind, value in db.execute("SELECT kind, value FROM member WHERE audience = ?", (audience.no,)):
                yield KINDS[kind], readable(value)

    def holds(self, audience: Audience, pairs: Iterable[tuple[str, str]]) -> list[bool]:
        """Of each (kind, value) whether it is in the set."""
        asked = [(audience.no, KINDS.index(kind), stored(value)) for kind, value in pairs]
        with self._database.reading() as db:
            sql = "SELECT 1 FROM member WHERE audience = ? AND kind = ? AND value = ?"
            return [db.execute(sql, one).fetchone() is not None for one in asked]

    def members(
        self, audience: Audience, *, after: int | None = None, limit: int | None = None
    ) -> Iterator[tuple[int, dict[str, str]]]:
        """(tie, kind → value) of each row that came in, by tie; `after` and `limit` page through them."""
        chosen = "SELECT DISTINCT row FROM member WHERE audience = :no AND row > coalesce(:after, row - 1) ORDER BY row LIMIT :limit"
        with self._database.reading() as db:
            found = db.execute(
                f"SELECT row, kind, value FROM member WHERE audience = :no AND row IN ({chosen}) ORDER BY row, kind",  # noqa: S608
                {"no": audience.no, "after": after, "limit": -1 if limit is None else limit},
            )
            tie, person = None, {}
            for row, kind, value in found:
                if row != tie and tie is not None:
                    yield tie, person
                    person = {}
                tie = row
                person[KINDS[kind]] = readable(value)
            if tie is not None:
                yield tie, person

    def _touch(self, db: sqlite3.Connection, audience: Audience) -> None:
        db.execute("UPDATE audience SET changes = changes + 1, changed_at = ? WHERE no = ?", (self.now(), audience.no))

    def reset(self) -> None:
        """As if new."""
        with self._database.writing() as db:
            for table in ("account", "token", "audience", "member", "call", "dial", "late", "request", "seen"):
                db.execute(f"DELETE FROM {table}")  # noqa: S608 - a name from the line above


def is_matchable(value: Value) -> bool:
    """Whether the platform knows a person of this first identifier: the same answer always, for 62 of 100."""
    digest = value if isinstance(value, bytes) else hashlib.sha256(value.encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") % 100 < MATCHABLE_PERCENT


def stored(value: str) -> Value:
    """A 64-digit hash as its bytes, anything else as it is."""
    if len(value) == 64:
        try:
            return bytes.fromhex(value)
        except ValueError:
            return value
    return value


def readable(value: Value) -> str:
    return value.hex() if isinstance(value, bytes) else value


def _tie(row: Row) -> int:
    digest = hashlib.blake2b(digest_size=8)
    for kind, value in row:
        digest.update(b"%d" % kind)
        digest.update(value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest(), "big") >> 1


def _audience(row: sqlite3.Row) -> Audience:
    return Audience(
        row["no"],
        row["platform"],
        row["account"],
        row["id"],
        row["name"],
        json.loads(row["details"]),
        row["created_at"],
        row["changed_at"],
    )
