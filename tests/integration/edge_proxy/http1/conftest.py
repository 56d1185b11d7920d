"""The HTTP server alone: sockets in, a handler of the test out. Nothing of the product takes part."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

import pytest
import uvloop

from edge_proxy.http1.server.acceptor import Acceptor
from edge_proxy.http1.server.options import ServerOptions
from edge_proxy.http1.server.protocol import ClientConnection, Server
from edge_proxy.http1.server.refusal import ClientLeft, Unacceptable
from edge_proxy.http1.server.request import RequestHead

SMALL = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def pytest_asyncio_loop_factories(config, item):
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Site:
    """A running server, what its handler saw, and clients for it."""

    options: ServerOptions = field(default_factory=ServerOptions)
    heads: list[RequestHead] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    refusals: list[Unacceptable] = field(default_factory=list)
    failures: list[Exception] = field(default_factory=list)
    respond: Callable[[ClientConnection, RequestHead], Awaitable[bytes]] | None = None
    remember: bool = True
    answered: int = 0
    port: int = 0

    async def start(self) -> None:
        self.server = Server(self._handle, self._refuse, self.options)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self._acceptor = Acceptor(listener, self.server)
        self._acceptor.start()

    async def stop(self) -> None:
        await self._acceptor.stop()
        await self.server.drain(1.0)

    async def _handle(self, client: ClientConnection, head: RequestHead) -> bool:
        if self.remember:
            self.heads.append(head)
        try:
            raw = SMALL if self.respond is None else await self.respond(client, head)
        except (ClientLeft, Unacceptable) as error:
            self.failures.append(error)
            return False
        self.answered += 1
        client.write(raw)
        return client.keeps_alive(head)

    def _refuse(self, client: ClientConnection, unacceptable: Unacceptable) -> None:
        self.refusals.append(unacceptable)
        client.write(b"HTTP/1.1 %d Refused\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % unacceptable.status)

    async def read_all(self, client: ClientConnection, head: RequestHead) -> bytes:
        """Answer with the size of the body, once all of it has come."""
        body = b""
        while data := await client.read_body():
            body += data
        self.bodies.append(body)
        return SMALL

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def exchange(self, raw: bytes) -> bytes:
        """Send bytes, return everything until the server closes."""
        async with self.connection() as (reader, writer), asyncio.timeout(60):
            writer.write(raw)
            return await reader.read()

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(60):
            while not condition():
                await asyncio.sleep(0.005)


@pytest.fixture
def options() -> ServerOptions:
    """What a test overrides that has less patience."""
    return ServerOptions()


@pytest.fixture
async def site(options: ServerOptions) -> AsyncIterator[Site]:
    running = Site(options)
    await running.start()
    yield running
    await running.stop()


class TurnMeter:
    """Counts, for every turn of the event loop, how much of something happened in it."""

    def __init__(self, count: Callable[[], int]) -> None:
        self._count = count
        self._last = count()
        self._loop = asyncio.get_running_loop()
        self.most = 0
        self.turns = 0
        self._handle = self._loop.call_soon(self._look)

    def _look(self) -> None:
        now = self._count()
        self.most = max(self.most, now - self._last)
        self._last = now
        self.turns += 1
        self._handle = self._loop.call_soon(self._look)

    def stop(self) -> None:
        self._handle.cancel()
