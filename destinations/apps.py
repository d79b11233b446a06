"""The middle floor: accounts on platforms, what each has been told, and the telling."""

from django.apps import AppConfig


class DestinationsConfig(AppConfig):
    name = "destinations"

    def ready(self) -> None:
        """Tell the floor below which platforms there are (names of audiences hold them, and must fit there) and how fast they are reached."""
        from audiences import channels, findings
        from destinations import paces
        from destinations.connectors import registry

        channels.tell(
            channels.Channel(
                kind,
                connector.capabilities.label,
                connector.capabilities.name_length,
                connector.capabilities.can_rename,
            )
            for kind, connector in registry.CONNECTORS.items()
        )
        findings.paces(paces.of)
