"""Accepts from a socket that all workers share."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final

import structlog

from edge_proxy.http1.server.protocol import Server

ACCEPTS_PER_TURN_MAX: Final = 4
ACCEPTS_AT_END_MAX: Final = 65_536
ACCEPT_PAUSE_SECONDS: Final = 0.1

log = structlog.get_logger()


class Acceptor:
    """Takes connections from the shared socket, a few per turn, so that workers share a burst.

    Args:
        listener: The inherited socket.
        server: Whose connections they become.
        tasks: Runs the set-up of each connection.
    """

    def __init__(self, listener: socket.socket, server: Server) -> None:
        self._listener = listener
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._starting: set[asyncio.Task[Any]] = set()
        self._paused: asyncio.TimerHandle | None = None
        listener.setblocking(False)

    def start(self) -> None:
        """Start accepting."""
        self._loop.add_reader(self._listener.fileno(), self._accept, ACCEPTS_PER_TURN_MAX)

    async def stop(self) -> None:
        """Accept what is queued, so that nobody who got through is reset, then stop."""
        self._loop.remove_reader(self._listener.fileno())
        self._accept(ACCEPTS_AT_END_MAX)
        if self._paused is not None:
            self._paused.cancel()
        self._listener.close()
        if self._starting:
            await asyncio.wait(self._starting)

    def _accept(self, count_max: int) -> None:
        for _ in range(count_max):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                # Out of descriptors or memory: the socket stays readable, so look again a little later.
                log.error("not_accepted", error=str(error))  # noqa: TRY400 - the reason says it all
                self._loop.remove_reader(self._listener.fileno())
                self._paused = self._loop.call_later(ACCEPT_PAUSE_SECONDS, self.start)
                return
            connection.setblocking(False)
            task = self._loop.create_task(self._start(connection))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _start(self, connection: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(self._server.new_connection, connection)
        except OSError:
            # It was gone before it could be looked at.
            connection.close()
