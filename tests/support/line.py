"""A line to a server that a test can cut, or that swallows what is sent: forwards bytes until told not to."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Line:
    """A forwarder on a port of its own."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._is_swallowing = False
        self.port = 0

    async def connect(self) -> None:
        """Lets connections through, on the same port as before where there was one."""
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Breaks every connection and refuses new ones."""
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    def swallow(self) -> None:
        """Loses every byte in both directions from now on, and tells nobody; connections stay open."""
        self._is_swallowing = True

    def pass_on(self) -> None:
        """Lets new connections through again; those that lost bytes go on losing them."""
        self._is_swallowing = False

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            back_reader, back_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back_writer}
        loss = _Loss(self)
        await asyncio.gather(_pump(reader, back_writer, loss), _pump(back_reader, writer, loss))
        self._writers -= {writer, back_writer}

    @property
    def is_swallowing(self) -> bool:
        return self._is_swallowing


class _Loss:
    """What one connection has lost: once something, then everything."""

    def __init__(self, line: Line) -> None:
        self._line = line
        self._has_lost = False

    def takes(self) -> bool:
        self._has_lost |= self._line.is_swallowing
        return self._has_lost


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, loss: _Loss) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            if not loss.takes():
                writer.write(data)
                await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def line(host: str, port: int) -> AsyncIterator[Line]:
    """Opens a line."""
    opened = Line(host, port)
    await opened.connect()
    try:
        yield opened
    finally:
        await opened.cut()
