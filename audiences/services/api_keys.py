"""Keys with which programs send people and events: 256 random bits, shown once and kept as a SHA-256."""

import hashlib
import secrets
from dataclasses import dataclass

from django.db import transaction
from django.utils import timezone

from audiences.models import ApiKey, User
from audiences.services import trail


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key that was just made. `secret` cannot be had again."""

    key: ApiKey
    secret: str


def digest(secret: str) -> str:
    """What is kept of a secret. A random one of 256 bits needs no slow hash."""
    return hashlib.sha256(secret.encode()).hexdigest()


def create(name: str, actor: User | None) -> NewKey:
    """A new key. Raises ValueError on an empty name or one of more than 100 characters."""
    name = name.strip()
    if not 0 < len(name) <= 100:
        raise ValueError("A key needs a name of at most 100 characters.")
    secret = secrets.token_hex(32)
    with transaction.atomic():
        key = ApiKey.objects.create(
            name=name, site_id=secrets.token_hex(10), secret_sha256=digest(secret), created_by=actor
        )
        trail.record(actor, "api_key.made", "api_key", key.site_id, after={"name": name})
    return NewKey(key, secret)


def revoke(key: ApiKey, actor: User | None, reason: str = "") -> None:
    """From now on the key is refused. Revoking it again changes nothing."""
    with transaction.atomic():
        if ApiKey.objects.filter(pk=key.pk, revoked_at__isnull=True).update(revoked_at=timezone.now()):
            trail.record(actor, "api_key.revoked", "api_key", key.site_id, before={"name": key.name}, reason=reason)
    key.refresh_from_db()
