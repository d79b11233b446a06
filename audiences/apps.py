"""The lowest floor: people, segments, audiences and who is in them."""

from typing import Any

from django.apps import AppConfig
from django.db import connections
from django.db.models.signals import post_migrate


class AudiencesConfig(AppConfig):
    name = "audiences"

    def ready(self) -> None:
        post_migrate.connect(_guard, sender=self)


def _guard(*, using: str, **_: Any) -> None:
    """A migration that makes a table anew, as SQLite's do, loses the triggers on it: they are back when it is done."""
    from audiences.models import frozen

    tables = connections[using].introspection.table_names()
    if {frozen.VERSIONS, frozen.TRAIL} <= set(tables) and len(frozen.installed(connections[using])) < len(
        frozen.GUARDS
    ):
        frozen.install(connections[using])
