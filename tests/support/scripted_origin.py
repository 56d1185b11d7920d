"""An origin on a raw socket that sends exactly the bytes it is told to, in the pieces it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from edge_proxy.http1.client.connection import UpstreamConnection
from edge_proxy.http1.client.origin import parse_origin
from edge_proxy.http1.client.pool import Origin, OriginLimits, Sweep

FIN, RESET, KEEP = "fin", "reset", "keep"
DEADLINE_SECONDS = 10.0


@dataclass
class Script:
    """What the origin does for one request: pieces, each a write of its own, then how it ends."""

    pieces: list[bytes]
    end: str = KEEP
    late: bytes = b""


@dataclass
class ScriptedOrigin:
    """One script per request, in order; the last one repeats."""

    scripts: list[Script] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    connections: int = 0
    port: int = 0
    may_send_late: asyncio.Event = field(default_factory=asyncio.Event)
    has_sent_late: asyncio.Event = field(default_factory=asyncio.Event)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        connection = writer.get_extra_info("socket")
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                self.heads.append(await reader.readuntil(b"\r\n\r\n"))
                script = self.scripts[min(len(self.heads), len(self.scripts)) - 1]
                for piece in script.pieces:
                    writer.write(piece)
                    await writer.drain()
                    # Each piece is a read of its own on the other side, which runs in this loop too.
                    for _ in range(4):
                        await asyncio.sleep(0)
                if script.late:
                    await self.may_send_late.wait()
                    writer.write(script.late)
                    await writer.drain()
                    self.has_sent_late.set()
                if script.end == RESET:
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    writer.transport.abort()
                    return
                if script.end == FIN:
                    break
        writer.close()


@dataclass
class Client:
    """The pool's side of it."""

    origin: Origin
    sweep: Sweep
    served: ScriptedOrigin

    async def acquire(self) -> UpstreamConnection:
        return self.origin.kept() or await self.origin.open(5.0)

    async def ask(self, method: str = "GET") -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        """Exchange one request; return status, fields and body, whole."""
        connection = await self.acquire()
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                head = f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n".encode()
                connection.begin(head, head_request=method == "HEAD")
                await connection.head()
                body = b""
                while not connection.is_complete:
                    body += await connection.read()
                body += connection.take()
                return connection.status, connection.fields, body
        finally:
            self.origin.release(connection)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while not condition():
                await asyncio.sleep(0.001)


@contextlib.asynccontextmanager
async def scripted(*scripts: Script, connections_max: int = 8) -> AsyncIterator[Client]:
    """Serve scripts on a free port."""
    served = ScriptedOrigin(list(scripts))
    server = await asyncio.start_server(served.serve, "127.0.0.1", 0)
    served.port = server.sockets[0].getsockname()[1]
    sweep = Sweep()
    limits = OriginLimits(connections_max=connections_max, keep_alive_connections=8, keep_alive_idle_seconds=30)
    try:
        yield Client(Origin(parse_origin(f"http://127.0.0.1:{served.port}"), limits, sweep), sweep, served)
    finally:
        sweep.close()
        server.close()
