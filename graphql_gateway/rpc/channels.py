"""Channels to the services for calls in the name of whoever called the gateway.

They are mesh's channels with the request id and the trace, and **no credentials**: `mesh.rpc.client.Clients` would put
the gateway's own name on a call that has none, and an anonymous request would reach a service as a trusted process.
"""

from __future__ import annotations

from collections.abc import Iterable

import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor

from graphql_gateway.rpc.calls import service_name
from mesh.config import ProcessSettings
from mesh.rpc.client import open_channel, request_metadata
from mesh.rpc.tls import channel_credentials


class Channels:
    """The channels of the services that this installation has.

    Args:
        settings: Where they are.
        services: What is offered; one whose package has no address in the settings is left out.
    """

    def __init__(self, settings: ProcessSettings, services: Iterable[ServiceDescriptor]) -> None:
        self._by_service: dict[str, grpc.aio.Channel] = {}
        credentials = channel_credentials(settings)
        for service in services:
            address = getattr(settings, f"{service_name(service)}_address", None)
            if address is not None:
                self._by_service[str(service.full_name)] = open_channel(address, service, request_metadata, credentials)

    def find(self, service: ServiceDescriptor) -> grpc.aio.Channel | None:
        """Return the channel to a service, or None where this installation has none."""
        return self._by_service.get(str(service.full_name))

    def all(self) -> dict[str, grpc.aio.Channel]:
        """Return every channel by the full name of its service."""
        return dict(self._by_service)

    async def close(self) -> None:
        """Close them."""
        for channel in self._by_service.values():
            await channel.close(None)
