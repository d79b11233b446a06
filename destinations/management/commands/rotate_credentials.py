"""`manage.py rotate_credentials`: seal every destination's credentials anew under the newest key."""

from typing import Any

from django.core.management.base import CommandError
from django.db import transaction

from audiences.management.base import RollcallCommand
from audiences.people import keys
from audiences.services import trail
from destinations import secrets
from destinations.models import Destination, Warehouse
from destinations.services import warehouse


class Command(RollcallCommand):
    help = (
        "Seal all credentials, and the secret of the tombstones, under the first of CREDENTIALS_KEYS. Put the new key first, keep the old ones behind it, "
        "restart, run this, and drop the old ones. It may run while syncs do, and again after being stopped."
    )

    def handle(self, *args: Any, **options: Any) -> None:
        keys.rewrap()
        rotated, unreadable = 0, []
        for destination in Destination.objects.exclude(credentials="").order_by("key"):
            if secrets.is_newest(destination.credentials):
                continue
            try:
                plain = secrets.unseal(destination.credentials, str(destination.pk))
            except secrets.Unreadable:
                unreadable.append(destination.key)
                continue
            rotated += self._keep(destination, secrets.seal(plain, str(destination.pk)))
        for row in Warehouse.objects.exclude(credentials=""):
            if not secrets.is_newest(row.credentials):
                try:
                    sealed = secrets.seal(secrets.unseal(row.credentials, warehouse.AAD), warehouse.AAD)
                except secrets.Unreadable:
                    unreadable.append("the warehouse")
                else:
                    rotated += Warehouse.objects.filter(credentials=row.credentials).update(credentials=sealed)
        self.stdout.write(f"{rotated} rotated.")
        if unreadable:
            raise CommandError(
                f"Cannot be opened with any of CREDENTIALS_KEYS: {', '.join(unreadable)}. Enter their credentials again."
            )

    def _keep(self, destination: Destination, sealed: str) -> int:
        """1, or 0 where somebody entered new credentials meanwhile: theirs stand, and are under the newest key."""
        with transaction.atomic():
            kept = Destination.objects.filter(pk=destination.pk, credentials=destination.credentials).update(
                credentials=sealed
            )
            if kept:
                trail.record(None, "credentials sealed under the newest key", "destination", destination.key)
        return kept
