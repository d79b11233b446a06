"""How people and events are recognised again: look-ups by key, the keys of events, and keyed hashes of those who must not come back."""

import base64
import functools
import hashlib
import hmac
import secrets
from collections.abc import Iterable

import orjson
from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from django.conf import settings

from audiences.clock import DAY
from audiences.models import EventKey, KeptSecret
from audiences.people import bulk

EVENT_KEYS_KEPT_US = 30 * DAY
UNIQUE_KINDS = ("id", "anonymous_id")
Key = tuple[str, str]  # kind, value: ("email", "ann@example.com")

_SECRET = "tombstones"  # noqa: S105 - the row's name


def find(keys: Iterable[Key]) -> dict[Key, int]:
    """The live profile of each key that has one. An e-mail or phone may be shared: the oldest answers. `cio_id` is not a key."""
    by_kind: dict[str, set[str]] = {}
    for kind, value in keys:
        by_kind.setdefault(kind, set()).add(value)
    found: dict[Key, int] = {}
    for kind, values in by_kind.items():
        condition, parameters = bulk.among("value", values)
        if kind in UNIQUE_KINDS:
            columns, end = "value, profile_no", bulk.for_key_share()  # a key in use is not deleted before we commit
        else:
            columns, end = "value, MIN(profile_no)", "GROUP BY value"
        rows = bulk.fetch(
            f"SELECT {columns} FROM audiences_profilekey WHERE kind = %s AND {condition} {end}",  # noqa: S608 - no values in it
            [kind, *parameters],
        )
        found.update(((kind, value), profile_no) for value, profile_no in rows)
    return found


def oldest_other(key: Key, than: int) -> int | None:
    """Who else answers to a shared key."""
    rows = bulk.fetch(
        "SELECT MIN(profile_no) FROM audiences_profilekey WHERE kind = %s AND value = %s AND profile_no <> %s",
        [*key, than],
    )
    return rows[0][0]


def event_keys(
    profile_no: int, who: Key, name: str, event_id: str, given_time_us: int | None, properties: str
) -> tuple[str, str] | None:
    """(key, content) of an API event, 128 bits as hex each; None if nothing tells a repeat from a second occurrence.

    With an id, the id alone is the key and `content` shows whether a repeat says the same. Without one, the profile,
    name, explicit time and data are both.
    """
    if event_id:
        return _hash("id", event_id), _hash(*who, name, str(given_time_us), properties)
    if given_time_us is None:
        return None
    key = _hash("content", str(profile_no), name, str(given_time_us), properties)
    return key, key


def forget_event_keys(before_us: int, at_most: int = 10_000) -> int:
    """Drop the oldest keys of events that were received before; how many. Call it again while that is `at_most`."""
    old = EventKey.objects.filter(received_us__lt=before_us).order_by("received_us").values_list("pk", flat=True)
    return EventKey.objects.filter(pk__in=list(old[:at_most])).delete()[0]


def random_key() -> str:
    """The key of an event that cannot be recognised again."""
    return secrets.token_hex(16)


def _hash(*parts: str) -> str:
    return hashlib.sha256(orjson.dumps(parts)).hexdigest()[:32]


# --- Tombstones. Their key is a random secret in the database, wrapped by CREDENTIALS_KEYS: it outlives every rotation
# of those, since whoever reads it under an older key wraps it anew under the newest, and neither the database nor the
# settings alone suffice to try out e-mail addresses against the hashes.


def digests(keys: Iterable[Key]) -> dict[Key, str]:
    """The keyed hash of each."""
    secret = _tombstone_secret()
    return {key: hmac.digest(secret, "\0".join(key).encode(), "sha256").hex() for key in set(keys)}


def tombstoned(keys: Iterable[Key]) -> dict[Key, str]:
    """Those that must not come back, with the cause."""
    if not bulk.fetch("SELECT 1 FROM audiences_tombstone LIMIT 1"):
        return {}
    by_digest = {digest: key for key, digest in digests(keys).items()}
    if not by_digest:
        return {}
    condition, parameters = bulk.among("digest", by_digest)
    rows = bulk.fetch(f"SELECT digest, cause FROM audiences_tombstone WHERE {condition}", parameters)  # noqa: S608 - likewise
    return {by_digest[digest]: cause for digest, cause in rows}


def rewrap() -> None:
    """Wrap the tombstones' secret by the newest of CREDENTIALS_KEYS. Part of rotating them; harmless at any time."""
    row = KeptSecret.objects.filter(name=_SECRET).first()
    if row is not None:
        KeptSecret.objects.filter(name=_SECRET, wrapped=row.wrapped).update(
            wrapped=_wrapping(tuple(settings.CREDENTIALS_KEYS)).rotate(row.wrapped.encode()).decode()
        )


def _tombstone_secret() -> bytes:
    wrapped = KeptSecret.objects.filter(name=_SECRET).values_list("wrapped", flat=True).first()
    if wrapped is None:
        fresh = _wrapping(tuple(settings.CREDENTIALS_KEYS)).encrypt(secrets.token_bytes(32)).decode()
        bulk.insert(KeptSecret, ("name", "wrapped"), [(_SECRET, fresh)], "ON CONFLICT (name) DO NOTHING")
        wrapped = KeptSecret.objects.values_list("wrapped", flat=True).get(name=_SECRET)
    secret, under_newest = _unwrap(wrapped, tuple(settings.CREDENTIALS_KEYS))
    if not under_newest:
        rewrap()
    return secret


@functools.lru_cache(maxsize=8)
def _unwrap(wrapped: str, credentials_keys: tuple[str, ...]) -> tuple[bytes, bool]:
    secret = _wrapping(credentials_keys).decrypt(wrapped.encode())
    try:
        _wrapping(credentials_keys[:1]).decrypt(wrapped.encode())
    except InvalidToken:  # an older key wrapped it
        return secret, False
    return secret, True


@functools.lru_cache(maxsize=8)
def _wrapping(credentials_keys: tuple[str, ...]) -> MultiFernet:
    derived = [hashlib.sha256(b"rollcall tombstones\0" + key.encode()).digest() for key in credentials_keys]
    return MultiFernet([Fernet(base64.urlsafe_b64encode(key)) for key in derived])
