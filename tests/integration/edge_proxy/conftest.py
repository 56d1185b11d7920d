"""A worker in the test's own event loop (uvloop, as in production), in front of stand-ins on real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import uvloop

from edge_proxy.config import EdgeSettings
from edge_proxy.http1.server.options import ServerOptions
from edge_proxy.pipeline.client_fields import RULES
from edge_proxy.process.worker import Acceptor, Worker
from edge_proxy.routing import file as routes_file
from tests.support.edge_fakes import PEPPER, Backend, FakeUpstream, grant, key
from tests.support.processes import process_fields

ROUTES = """
version: 1
upstreams:
  demo: {urls: ["${TOLLWAY_UPSTREAM_URL}"], connections_max: 100}
routes:
  - {id: open, match: {path_prefix: /open}, upstream: demo, auth: none}
  - {id: small, match: {path_prefix: /small}, upstream: demo, body_bytes_max: 10}
  - {id: quick, match: {path_prefix: /quick}, upstream: demo, timeouts: {first_byte_ms: 200, idle_ms: 200}}
  - {id: scoped, match: {path_prefix: /scoped}, upstream: demo, scopes: ["reports:read"]}
  - {id: closed, match: {path_prefix: /closed}, upstream: demo, limiter_unavailable: closed}
  - {id: pass, match: {path_prefix: /pass}, upstream: demo, limiter_unavailable: open}
  - {id: item, match: {path: "/items/{item_id}", methods: [GET, HEAD]}, upstream: demo, cost_units: 3}
  - id: stripped
    match: {path_prefix: /v9/api}
    upstream: demo
    rewrite: {strip_prefix: /v9, add_prefix: /base}
  - {id: api, match: {path_prefix: /}, upstream: demo}
"""


STILL_TURNS = 40


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes
    raw: bytes


@dataclass
class Edge:
    """A running worker and its surroundings."""

    backend: Backend
    upstream: FakeUpstream
    key: str
    data_dir: Path
    changes: dict[str, Any]
    server_options: ServerOptions
    routes: str = ROUTES
    port: int = 0
    worker: Worker = field(init=False)
    _stack: contextlib.AsyncExitStack = field(default_factory=contextlib.AsyncExitStack)

    async def start(self) -> None:
        path = self.data_dir / "routes.yaml"
        path.write_text(self.routes)
        address = self.backend.address
        settings = EdgeSettings(
            **{
                **process_fields("edge_proxy"),
                "key_peppers": f"1:{PEPPER.hex()}",
                "auth_address": address,
                "ratelimit_address": address,
                "metering_address": address,
                "edge_data_dir": self.data_dir,
                "edge_config": path,
                "edge_decision_deadline_ms": 500,
                "edge_drain_seconds": 5.0,
                "edge_journal_sync_ms": 20,
                **self.changes,
            }
        )
        tasks = await self._stack.enter_async_context(asyncio.TaskGroup())
        table = routes_file.parse(self.routes, {"TOLLWAY_UPSTREAM_URL": self.upstream.url})
        self.worker = Worker(settings, table, path, 0, replace(self.server_options, fields=RULES))
        self._background = self.worker.start(tasks)
        listener = socket.create_server(("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self._acceptor = Acceptor(listener, self.worker.server)
        self._acceptor.start()

    async def until(self, condition: Callable[[], object], timeout_seconds: float = 30.0) -> None:
        async with asyncio.timeout(timeout_seconds):
            while not condition():
                await asyncio.sleep(0.005)

    async def until_still(self, progress: Callable[[], int]) -> None:
        """Wait until a number that something else drives has stayed the same for many turns of the loop."""
        seen, turns = progress(), 0
        while turns < STILL_TURNS:
            await asyncio.sleep(0.005)
            turns = turns + 1 if progress() == seen else 0
            seen = progress()

    async def healthy(self) -> None:
        await self.until(lambda: not self.worker.degraded())

    async def healthy_but(self, reason: str) -> None:
        """Wait until one thing and nothing else is wrong."""
        await self.until(lambda: len(self.worker.degraded()) == 1 and self.worker.degraded()[0].startswith(reason))

    async def stop(self, *, drain: bool = True) -> None:
        await self._acceptor.stop()
        if drain:
            await self.worker.stop()
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.worker.close()
        await self._stack.aclose()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def raw(self, data: bytes, *, eof: bool = True) -> bytes:
        """Send bytes, return everything until the edge closes the connection."""
        async with self.connection() as (reader, writer):
            writer.write(data)
            async with asyncio.timeout(60):
                return await reader.read()

    async def request(
        self, path: str = "/x", *, method: str = "GET", headers: str = "", body: bytes = b"", key: str | None = None
    ) -> Answer:
        shown = self.key if key is None else key
        credential = f"Authorization: Bearer {shown}\r\n" if shown else ""
        length = f"Content-Length: {len(body)}\r\n" if body else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: edge.test\r\nConnection: close\r\n{credential}{length}{headers}\r\n"
        return parse_answer(await self.raw(head.encode() + body))

    async def events(self, count: int) -> list[Any]:
        return await self.backend.metering.wait_for(count)


def parse_answer(raw: bytes) -> Answer:
    head, _, body = raw.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    found = re.match(r"HTTP/1\.1 (\d+)", lines[0])
    assert found, raw
    headers = {}
    for line in lines[1:]:
        name, _, value = line.partition(": ")
        headers[name.lower()] = value
    return Answer(int(found[1]), headers, body, raw)


@pytest.fixture
def server_options() -> ServerOptions:
    """What a test file overrides that has less patience."""
    return ServerOptions()


@pytest.fixture
async def surroundings(tmp_path: Path, server_options: ServerOptions) -> AsyncIterator[Edge]:
    """Everything but the worker."""
    backend, upstream = Backend(), FakeUpstream()
    await backend.start()
    await upstream.start()
    secret = key()
    backend.auth.add(grant(secret))
    yield Edge(backend, upstream, secret, tmp_path, {}, server_options)
    await upstream.stop()
    await backend.stop()


@pytest.fixture
async def edge(surroundings: Edge) -> AsyncIterator[Edge]:
    await surroundings.start()
    await surroundings.healthy()
    yield surroundings
    await surroundings.stop()
