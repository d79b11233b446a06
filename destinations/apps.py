"""The middle floor: accounts on platforms, what each has been told, and the telling."""

from django.apps import AppConfig


class DestinationsConfig(AppConfig):
    name = "destinations"
