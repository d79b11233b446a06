"""The lowest floor: people, segments, audiences and who is in them."""

from django.apps import AppConfig


class AudiencesConfig(AppConfig):
    name = "audiences"
