"""What a sink is."""

from __future__ import annotations

from typing import Protocol

from edge_proxy.usage.journal.reader import Batch


class SinkUnavailable(Exception):
    """The sink could not commit a batch; the same batch is sent again later."""


class Sink(Protocol):
    """Where journalled events go. Sending the same events twice must count them once."""

    dead_events: int
    """Events that the sink has told to be dead letters."""

    @property
    def is_available(self) -> bool:
        """Tell whether the sink can take events, as far as is known."""
        ...

    async def send(self, batch: Batch) -> None:
        """Return once everything in the batch is committed.

        Raises:
            SinkUnavailable: It is not, or that is not known.
        """
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...
