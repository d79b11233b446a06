"""The customer's PostgreSQL: how it is reached, what we may write there, our tables in their schema, and what its errors mean in words.

Nothing outside the one schema is read or written. No word of the server's own gets out: it may hold a person's data.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import orjson
import psycopg
from django.conf import settings
from psycopg import sql

from destinations.connectors import http
from destinations.connectors.base import Misconfigured, Retryable
from destinations.record import shape

FORMAT = 1  # of what is kept in `_rollcall`; a newer one is not touched
SCHEMA = re.compile(r"(?!pg_)[a-z_][a-z0-9_]{0,62}")
RESERVED = frozenset({"information_schema", "public"})
CONNECT_SECONDS = 10
STATEMENT = "30min"  # no statement of ours takes longer; one that does is stuck
_SSL = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")

BOOK, PEOPLE = "_rollcall", "_people"
# `missing` in _people: of whom rows lack that others have already. 1: events, 2: everything.
_BOOKKEEPING = {
    BOOK: "part text PRIMARY KEY, value jsonb NOT NULL",
    PEOPLE: "person_no bigint PRIMARY KEY, external_id text NOT NULL UNIQUE, missing smallint NOT NULL DEFAULT 0",
}
_INDEXES = (
    (shape.MEMBERSHIPS, ("external_id",)),
    (shape.DELIVERED_PEOPLE, ("external_id",)),
    (shape.EVENTS, ("external_id", "time")),
    (shape.HOLDOUTS, ("external_id",)),
)
OURS = (*(table.name for table in shape.TABLES), *_BOOKKEEPING)


class NotAnAddress(ValueError):
    """What was given cannot be an address of a PostgreSQL, in words."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a PostgreSQL is, and as whom we come."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)
    sslmode: str = ""

    def __str__(self) -> str:
        return f"{self.user}@{self.host}:{self.port}/{self.database}"


def address(url: str) -> Address:
    """postgresql://user:password@host:port/database?sslmode=require. Raises NotAnAddress."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port or 5432
    except ValueError:
        raise NotAnAddress("is not an address: write postgresql://user:password@host:5432/database") from None
    database = unquote(parts.path.removeprefix("/"))
    if parts.scheme not in ("postgres", "postgresql") or not (parts.hostname and parts.username and database):
        raise NotAnAddress("is not an address: write postgresql://user:password@host:5432/database")
    options = parse_qs(parts.query, keep_blank_values=True)
    unknown = sorted(set(options) - {"sslmode"})
    if unknown or "/" in database:
        raise NotAnAddress(f"may hold sslmode and nothing else behind the database; not {', '.join(unknown) or '/'}")
    sslmode = (options.get("sslmode") or [""])[-1]
    if sslmode and sslmode not in _SSL:
        raise NotAnAddress(f"names an unknown sslmode; there are {', '.join(_SSL)}")
    user, password = unquote(parts.username), unquote(parts.password or "")
    if any("\0" in text for text in (parts.hostname, database, user, password)):
        raise NotAnAddress("holds a NUL character")
    return Address(parts.hostname, port, database, user, password, sslmode)


def schema_problem(schema: str) -> str:
    """Why a schema may not be called so; empty: it may."""
    if not SCHEMA.fullmatch(schema):
        return "must be 1 to 63 small letters, digits and _, not begin with a digit, and not with pg_"
    if schema in RESERVED:
        return "is not for us alone; name one of its own"
    return ""


class Target:
    """One connection, and one schema in it. Each `transaction()` is one at the server."""

    def __init__(self, connection: psycopg.Connection[Any], schema: str, where: Address) -> None:
        self.connection, self.schema, self._where = connection, schema, where

    @contextmanager
    def transaction(self) -> Iterator[psycopg.Cursor[Any]]:
        """A transaction in which nothing is found but by its full name. Raises Misconfigured and Retryable."""
        try:
            with self.connection.transaction(), self.connection.cursor() as cursor:
                # Settings of the session would be lost, or be others', behind a pooler.
                cursor.execute(
                    f"SET LOCAL search_path = pg_catalog; SET LOCAL timezone = 'UTC'; SET LOCAL datestyle = 'ISO';"
                    f" SET LOCAL lock_timeout = '30s'; SET LOCAL statement_timeout = '{STATEMENT}'"
                )
                yield cursor
        except psycopg.Error as error:
            failure = _meaning(error, self._where, self.schema)
        else:
            return
        raise failure  # outside the except clause, so that no server's words hang on to it

    def name(self, table: str) -> sql.Identifier:
        return sql.Identifier(self.schema, table)

    def sql(self, text: str, **parts: Any) -> sql.Composed:
        """A statement in which {name} of a table of ours stands for its full name, and other parts for what is given."""
        tables = {name: self.name(name) for name in OURS}
        return sql.SQL(text).format(**tables, **parts)

    # --- What is there.

    def look(self) -> str:
        """Whether we may write here, in a sentence. Raises Misconfigured with what to do, and Retryable."""
        with self.transaction() as cursor:
            there = self._check(cursor, None)
        state = "which is filled already" if there else "which the first load makes"
        return f"Connected to {self._where}; writes to the schema {self.schema}, {state}."

    def prepare(self, installation: str, era: str, fence: int) -> None:
        """Our tables are there afterwards, are this installation's, and nobody with an older fence writes any more. What was written in
        another era is gone. Raises Misconfigured and Overtaken."""
        with self.transaction() as cursor:
            if not self._check(cursor, installation):
                self._make(cursor, installation, era)
            cursor.execute(self.sql("SELECT part, value FROM {_rollcall} WHERE part IN ('made', 'load') FOR UPDATE"))
            known = dict(cursor.fetchall())
            if known["made"].get("era") != era:
                for table in (*(table.name for table in shape.TABLES), PEOPLE):
                    cursor.execute(self.sql("DELETE FROM {table}", table=self.name(table)))
                cursor.execute(self.sql("DELETE FROM {_rollcall} WHERE part NOT IN ('made', 'load')"))
                self.keep(cursor, "made", {"installation": installation, "format": FORMAT, "era": era})
            elif known.get("load", {}).get("fence", 0) > fence:
                raise Overtaken
            self.keep(cursor, "load", {"fence": fence})

    def mine(self, cursor: psycopg.Cursor[Any], fence: int) -> None:
        """Nobody else writes until this transaction ends. Raises Overtaken."""
        cursor.execute(self.sql("SELECT (value ->> 'fence')::bigint FROM {_rollcall} WHERE part = 'load' FOR UPDATE"))
        if cursor.fetchone() != (fence,):
            raise Overtaken

    def kept(self, part: str) -> dict[str, Any]:
        """How far a part has got; empty at first."""
        with self.transaction() as cursor:
            cursor.execute(self.sql("SELECT value FROM {_rollcall} WHERE part = %s"), [part])
            row = cursor.fetchone()
        return dict(row[0]) if row else {}

    def keep(self, cursor: psycopg.Cursor[Any], part: str, value: Mapping[str, Any]) -> None:
        """In the transaction that got it so far."""
        cursor.execute(
            self.sql(
                "INSERT INTO {_rollcall} (part, value) VALUES (%s, %s) ON CONFLICT (part) DO UPDATE SET value = excluded.value"
            ),
            [part, orjson.dumps(dict(value)).decode()],
        )

    def empty(self, installation: str) -> int:
        """Drop what we have made, and nothing else; how many tables. Raises Misconfigured."""
        with self.transaction() as cursor:
            if not self._check(cursor, installation):
                return 0
            for table in OURS:
                cursor.execute(self.sql("DROP TABLE {table}", table=self.name(table)))
        return len(OURS)

    def _make(self, cursor: psycopg.Cursor[Any], installation: str, era: str) -> None:
        cursor.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [self.schema])
        if cursor.fetchone() is None:
            cursor.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(self.schema)))
        for name, definition in _BOOKKEEPING.items():
            cursor.execute(
                self.sql("CREATE TABLE {table} ({columns})", table=self.name(name), columns=sql.SQL(definition))
            )
        for table in shape.TABLES:
            columns = [
                sql.SQL("{} {}").format(
                    sql.Identifier(column.name),
                    sql.SQL(column.postgresql + (" NOT NULL" if column.name in table.key else "")),
                )
                for column in table.columns
            ]
            key = sql.SQL(", ").join(map(sql.Identifier, table.key))
            cursor.execute(
                self.sql(
                    "CREATE TABLE {table} ({columns}, PRIMARY KEY ({key}))",
                    table=self.name(table.name),
                    columns=sql.SQL(", ").join(columns),
                    key=key,
                )
            )
        for table, on in _INDEXES:
            key = sql.SQL(", ").join(map(sql.Identifier, on))
            cursor.execute(self.sql("CREATE INDEX ON {table} ({key})", table=self.name(table.name), key=key))
        self.keep(cursor, "made", {"installation": installation, "format": FORMAT, "era": era})

    def _check(self, cursor: psycopg.Cursor[Any], installation: str | None) -> bool:
        """Whether our tables are there. Raises Misconfigured where we may not write, or where somebody else has."""
        user, database, schema = self._where.user, self._where.database, self.schema
        cursor.execute(
            "SELECT has_database_privilege(current_database(), 'TEMP'), has_database_privilege(current_database(), 'CREATE'),"
            " (SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = %(schema)s),"
            " (SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = %(schema)s),"
            " ARRAY(SELECT relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            "        WHERE nspname = %(schema)s AND relname = ANY(%(ours)s))",
            {"schema": schema, "ours": list(OURS)},
        )
        row = cursor.fetchone()
        assert row is not None
        temporary, may_make_schema, usage, create, tables = row
        if not temporary:
            raise _denied(
                f"may not make temporary tables in {database}", f"GRANT TEMPORARY ON DATABASE {database} TO {user}"
            )
        if usage is None and not may_make_schema:
            raise _denied(
                f"may not make the schema {schema} in {database}",
                f"CREATE SCHEMA {schema} AUTHORIZATION {user}",
            )
        if usage is False:
            raise _denied(f"may not use the schema {schema}", f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {user}")
        if not tables:
            if create is False:
                raise _denied(
                    f"may not make tables in the schema {schema}", f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {user}"
                )
            return False
        if BOOK not in tables:
            raise Misconfigured(
                f"The schema {schema} holds {_listed(sorted(tables))} already, which Rollcall has not made. Name another schema."
            )
        self._check_privileges(cursor)
        cursor.execute(self.sql("SELECT value FROM {_rollcall} WHERE part = 'made'"))
        found = cursor.fetchone()
        made = found[0] if found and isinstance(found[0], dict) else {}
        if made.get("format", FORMAT + 1) > FORMAT:
            raise Misconfigured(f"The schema {schema} was filled by a newer Rollcall than this one.")
        if installation is not None and made.get("installation") != installation:
            raise Misconfigured(f"The schema {schema} is filled by another Rollcall. Name another schema.")
        return True

    def _check_privileges(self, cursor: psycopg.Cursor[Any]) -> None:
        cursor.execute(
            "SELECT relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE nspname = %s AND relname = ANY(%s) AND NOT (has_table_privilege(c.oid, 'SELECT')"
            " AND has_table_privilege(c.oid, 'INSERT') AND has_table_privilege(c.oid, 'UPDATE') AND has_table_privilege(c.oid, 'DELETE'))"
            " ORDER BY 1",
            [self.schema, list(OURS)],
        )
        barred = [name for (name,) in cursor.fetchall()]
        if barred:
            raise _denied(
                f"may not read and write {_listed(barred)} in the schema {self.schema}",
                f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {self.schema} TO {self._where.user}",
            )


class Overtaken(Exception):
    """Another load has begun since: stop, and write nothing."""


@contextmanager
def opened(where: Address, schema: str) -> Iterator[Target]:
    """A connection to an address that was resolved and checked by the same look-up. Raises Misconfigured and Retryable."""
    try:
        addresses = http.resolve(where.host, where.port)
    except OSError:
        addresses = []
    if not addresses:
        raise Retryable(f"{where.host} could not be found.")
    inside = not all(http.is_public(one) for one in addresses)
    if inside and not settings.ALLOW_PRIVATE_DESTINATIONS:
        raise Misconfigured(f"{where.host} leads to a private address, and those are not called.")
    try:
        connection = psycopg.connect(
            host=where.host,
            hostaddr=addresses[0],
            port=where.port,
            dbname=where.database,
            user=where.user,
            password=where.password,
            passfile="/dev/null",  # this machine's own passwords are nobody else's
            sslmode=where.sslmode or ("prefer" if inside else "require"),
            connect_timeout=CONNECT_SECONDS,
            keepalives_idle=30,
            tcp_user_timeout=60_000,
            application_name="rollcall",
            client_encoding="utf8",
            prepare_threshold=None,  # poolers know none
            autocommit=True,  # each transaction is begun by name
        )
    except psycopg.Error as error:
        failure = _meaning(error, where, schema)
    else:
        with connection:
            yield Target(connection, schema, where)
        return
    raise failure


def _denied(what: str, remedy: str) -> Misconfigured:
    return Misconfigured(
        f"The user {what}. An administrator of the database can allow it: {remedy};", code="permission"
    )


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


_SAYS = {
    "28": ("The user name or the password is not accepted.", "reconnect"),
    "3D000": ("There is no such database.", "config"),
    "42501": ("The user may not do this in the schema.", "permission"),
}


def _meaning(error: psycopg.Error, where: Address, schema: str) -> Misconfigured | Retryable:
    """The server's error in our words. Only its code is looked at: its own words may hold a row."""
    state = error.sqlstate or ""
    if not state and "password authentication failed" in str(error):  # a failed connection has no code
        state = "28P01"
    elif not state and re.search(r'database "[^"]*" does not exist', str(error)):
        state = "3D000"
    elif not state and re.search(r"pg_hba\.conf|no password supplied|role .* does not exist", str(error)):
        state = "28000"
    for code, (words, kind) in _SAYS.items():
        if state.startswith(code):
            return Misconfigured(f"{where}: {words}", code=kind)
    if state.startswith("42"):
        return Misconfigured(
            f"{where}: the tables in the schema {schema} are not as Rollcall made them ({state}). Name another schema, or empty this one."
        )
    if state.startswith("53"):
        return Retryable(f"{where}: the server has no room left ({state}).")
    if state in ("55P03", "57014"):
        return Retryable(f"{where}: somebody else's work there holds ours up ({state}).")
    return Retryable(f"{where.host} could not be reached." if not state else f"{where}: the load broke off ({state}).")
