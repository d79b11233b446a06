"""The top floor: whether what we told the platforms is right, and who hears when it is not."""

from django.apps import AppConfig


class QaConfig(AppConfig):
    name = "qa"

    def ready(self) -> None:
        from qa import gates  # noqa: F401 - its receivers are connected by being imported
