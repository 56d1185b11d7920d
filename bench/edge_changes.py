"""How long a change takes from whoever makes it to three edges: the part of `make bench-auth` with edges in it.

Every edge is a process of its own and is asked over a kept connection, one request after the other, as fast as it
answers. What is told is when the first answer shows the change, counted from before the change was asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

import asyncpg
from google.protobuf import field_mask_pb2
from tollway.auth.v1 import auth_service_pb2 as pb

from bench.auth_installation import PEPPER, Edge, Installation, clients_of, open_folder, running
from contract import key_format
from mesh.rpc.client import Clients

EDGES: Final = 3
NOTICED_SECONDS_MAX: Final = 30.0
_HEAD_END: Final = b"\r\n\r\n"

Seen = Callable[[int, bytes], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change, the request that shows it, and how its effect looks."""

    make: Callable[[], Awaitable[object]]
    path: str
    key: str
    seen: Seen


class Asker:
    """Asks one edge over one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, path: str, key: str) -> tuple[int, bytes]:
        """Send a request and return status and body."""
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: bench\r\nX-API-Key: {key}\r\n\r\n".encode())
        head = await self._reader.readuntil(_HEAD_END)
        length = next(
            int(line.partition(b":")[2]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")
        )
        return int(head[9:12]), await self._reader.readexactly(length)

    async def until(self, change: Change) -> float:
        """Ask until a change is seen and return when that was."""
        async with asyncio.timeout(NOTICED_SECONDS_MAX):
            while True:
                status, body = await self.ask(change.path, change.key)
                if change.seen(status, body):
                    return time.perf_counter()
                await asyncio.sleep(0.001)


async def measure(changes: int) -> dict[str, list[float]]:
    """Make changes of every kind and return how long each took to each edge, in seconds, by kind."""
    taken: dict[str, list[float]] = {}
    with open_folder() as folder:
        async with (
            upstream() as url,
            running(folder, edges=EDGES, upstream=url) as installation,
            askers(installation.edges) as asking,
            Changes.of(installation) as made,
        ):
            for _ in range(changes):
                for kind, change in await made.next_round():
                    taken.setdefault(kind, []).extend(await _time(asking, change))
    return taken


async def _time(asking: list[Asker], change: Change) -> list[float]:
    """Make a change and return after how long each edge showed it."""
    watching = [asyncio.ensure_future(asker.until(change)) for asker in asking]
    await asyncio.sleep(0.01)
    start = time.perf_counter()
    await change.make()
    seconds = [at - start for at in await asyncio.gather(*watching)]
    if min(seconds) <= 0:
        raise AssertionError("seen before it was made")
    return seconds


class Changes:
    """Makes the changes of one installation, as those would who make them."""

    def __init__(self, installation: Installation, clients: Clients, database: asyncpg.Connection) -> None:
        self._installation = installation
        self._clients = clients
        self._database = database
        self._version = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, installation: Installation) -> AsyncIterator[Changes]:
        """Open what changes are made over."""
        clients = clients_of(installation.auth_address, "billing")
        database = await installation.connect()
        try:
            yield cls(installation, clients, database)
        finally:
            await database.close()
            await clients.close()

    async def next_round(self) -> list[tuple[str, Change]]:
        """Return one change of each kind, with keys of its own."""
        revoked, expiring, scoped, planned = await self._installation.seed_keys(4)
        plan = f"plan-{self._version}"
        return [
            ("revoke", Change(make=lambda: self._revoke(revoked), path="/x", key=revoked, seen=_is(401))),
            ("expire", Change(make=lambda: self._expire(expiring), path="/x", key=expiring, seen=_is(401))),
            ("scope_lost", Change(make=lambda: self._scopes(scoped), path="/scoped", key=scoped, seen=_is(403))),
            (
                "scope_won",
                Change(make=lambda: self._scopes(scoped, "bench"), path="/scoped", key=scoped, seen=_is(200)),
            ),
            ("suspend", Change(make=lambda: self._state(plan, True), path="/x", key=planned, seen=_is(403))),
            ("resume", Change(make=lambda: self._state(plan, False), path="/x", key=planned, seen=_is(200))),
            (
                "plan",
                Change(
                    make=lambda: self._state(plan + "-new", False),
                    path="/x",
                    key=planned,
                    seen=lambda _status, body: f"{plan}-new".encode() in body,
                ),
            ),
        ]

    async def _revoke(self, key: str) -> None:
        request = pb.RevokeApiKeyRequest(organization_id=self._organization_id, api_key_id=await self._id_of(key))
        await self._clients.auth.RevokeApiKey(request, metadata=self._installation.owner())

    async def _expire(self, key: str) -> None:
        # No RPC ends a key in the past, so it is done as an administrator would do it by hand.
        await self._database.execute(
            "UPDATE api_keys SET expire_time = $2 WHERE digest = $1",
            key_format.digest(key, PEPPER),
            datetime.now(UTC) - timedelta(seconds=1),
        )

    async def _scopes(self, key: str, *scopes: str) -> None:
        request = pb.UpdateApiKeyRequest(
            organization_id=self._organization_id,
            api_key=pb.ApiKey(api_key_id=await self._id_of(key), scopes=scopes),
            update_mask=field_mask_pb2.FieldMask(paths=["scopes"]),
        )
        await self._clients.auth.UpdateApiKey(request, metadata=self._installation.owner())

    async def _state(self, plan_id: str, suspended: bool) -> None:
        self._version += 1
        await self._clients.auth.SetOrganizationState(
            pb.SetOrganizationStateRequest(
                organization_id=self._organization_id,
                plan_id=plan_id,
                suspended=suspended,
                state_version=self._version,
                idempotency_key=f"bench-{self._version}",
            )
        )

    async def _id_of(self, key: str) -> str:
        digest = key_format.digest(key, PEPPER)
        found: UUID = await self._database.fetchval("SELECT api_key_id FROM api_keys WHERE digest = $1", digest)
        return str(found)

    @property
    def _organization_id(self) -> str:
        return str(self._installation.organization_id)


def _is(wanted: int) -> Seen:
    return lambda status, _body: status == wanted


@contextlib.asynccontextmanager
async def askers(edges: Any) -> AsyncIterator[list[Asker]]:
    """Connect to every edge."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(_asker(edge)) for edge in edges]


@contextlib.asynccontextmanager
async def _asker(edge: Edge) -> AsyncIterator[Asker]:
    reader, writer = await asyncio.open_connection("127.0.0.1", edge.port)
    try:
        yield Asker(reader, writer)
    finally:
        writer.close()


@contextlib.asynccontextmanager
async def upstream() -> AsyncIterator[str]:
    """Serve requests by telling the plan that the edge names."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(_HEAD_END)
                lines = [line for line in head.split(b"\r\n") if line.lower().startswith(b"x-tollway-plan-id:")]
                body = lines[0] if lines else b"-"
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
