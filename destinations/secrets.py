"""Credentials at rest: sealed with AES-GCM under a key of their own, bound to the row that holds them. Nothing else is kept here."""

import base64
import functools
import hashlib
import os

import orjson
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.conf import settings

_VERSION = "1"


class Unreadable(Exception):
    """What was sealed cannot be opened: its key is gone, it was changed, or it belongs to another row."""


def seal(plain: dict[str, str], aad: str) -> str:
    """Encrypt under the newest key. `aad` names the row that will hold it, and must be given again to open it."""
    key_id, cipher = _ciphers()[0]
    nonce = os.urandom(12)
    sealed = cipher.encrypt(nonce, orjson.dumps(plain), _bound(key_id, aad))
    return f"{_VERSION}.{key_id}.{base64.urlsafe_b64encode(nonce + sealed).decode()}"


def unseal(sealed: str, aad: str) -> dict[str, str]:
    """What was sealed for this row; an empty text holds nothing. Raises Unreadable."""
    if not sealed:
        return {}
    version, key_id, body = (*sealed.split("."), "", "", "")[:3]
    if version != _VERSION:
        raise Unreadable("These credentials were sealed in a way that is not known.")
    cipher = dict(_ciphers()).get(key_id)
    if cipher is None:
        raise Unreadable(f"The key {key_id} that sealed these credentials is not among CREDENTIALS_KEYS.")
    try:
        raw = base64.urlsafe_b64decode(body)
        plain: dict[str, str] = orjson.loads(cipher.decrypt(raw[:12], raw[12:], _bound(key_id, aad)))
    except (InvalidTag, ValueError):
        raise Unreadable("These credentials were changed, or belong to another row.") from None
    return plain


def is_newest(sealed: str) -> bool:
    """Whether the newest key sealed it, or there is nothing to seal."""
    return not sealed or sealed.split(".")[1:2] == [_ciphers()[0][0]]


def _bound(key_id: str, aad: str) -> bytes:
    return f"destination-credentials:{key_id}:{aad}".encode()


def _ciphers() -> list[tuple[str, AESGCM]]:
    """(key id, cipher), newest first."""
    return [_derived(key) for key in settings.CREDENTIALS_KEYS]


@functools.lru_cache(maxsize=16)
def _derived(key: str) -> tuple[str, AESGCM]:
    secret = HKDF(SHA256(), 32, salt=None, info=b"rollcall credentials").derive(key.encode())
    return hashlib.sha256(b"key id" + secret).hexdigest()[:8], AESGCM(secret)
