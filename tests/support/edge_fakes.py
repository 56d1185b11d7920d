"""Small stand-ins for what the edge talks to, each on a real gRPC server or socket on a free port.

They behave as the protos say, remember what they were asked, and can be told to misbehave.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from uuid import UUID

import grpc.aio
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.auth.v1 import auth_service_pb2_grpc as auth_grpc
from tollway.events.v1 import usage_event_pb2 as events
from tollway.metering.v1 import metering_service_pb2 as metering
from tollway.metering.v1 import metering_service_pb2_grpc as metering_grpc
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit
from tollway.ratelimit.v1 import ratelimit_service_pb2_grpc as ratelimit_grpc

from contract import key_format
from tests.support.ports import next_port

PEPPER = bytes(range(32))
HEARTBEAT_SECONDS = 1.0
ORGANIZATION = UUID(int=0x0190_0000_0000_7000_8000_0000_0000_0001)
API_KEY = UUID(int=0x0190_0000_0000_7000_8000_0000_0000_0002)


def key(number: int = 1, *, test: bool = False) -> str:
    mode = auth.KEY_MODE_TEST if test else auth.KEY_MODE_LIVE
    return key_format.mint(mode, number.to_bytes(28, "big"))


def grant(secret: str, **changes: object) -> auth.KeyGrant:
    values: dict[str, object] = {
        "digest": key_format.digest(secret, PEPPER),
        "api_key_id": API_KEY.bytes,
        "organization_id": ORGANIZATION.bytes,
        "mode": key_format.parse(secret),
        "state": auth.KEY_STATE_ACTIVE,
    }
    return auth.KeyGrant(**(values | changes))


class FakeAuth(auth_grpc.AuthServiceServicer):
    def __init__(self) -> None:
        self.grants: dict[bytes, auth.KeyGrant] = {}
        self.in_snapshot = True
        self.resolved: list[list[bytes]] = []
        self.prefixes: list[str] = []
        self.uses: list[auth.KeyUse] = []
        self._watchers: list[asyncio.Queue[auth.KeyGrant]] = []

    def add(self, *grants: auth.KeyGrant) -> None:
        for item in grants:
            self.grants[item.digest] = item
            for watcher in self._watchers:
                watcher.put_nowait(item)

    async def ResolveKeys(self, request, context):
        self.resolved.append(list(request.digests))
        await asyncio.sleep(0)
        return auth.ResolveKeysResponse(grants=[self.grants[d] for d in request.digests if d in self.grants])

    async def ReportKeyUses(self, request, context):
        self.uses += request.uses
        return auth.ReportKeyUsesResponse()

    async def WatchKeys(self, request, context):
        queue: asyncio.Queue[auth.KeyGrant] = asyncio.Queue()
        self._watchers.append(queue)
        yield auth.WatchKeysResponse(
            grants=list(self.grants.values()) if self.in_snapshot else [],
            imported_prefixes=auth.ImportedPrefixes(prefixes=self.prefixes),
            snapshot_complete=True,
        )
        while True:
            grants = []
            with contextlib.suppress(TimeoutError):
                grants = [await asyncio.wait_for(queue.get(), HEARTBEAT_SECONDS)]
            yield auth.WatchKeysResponse(grants=grants)


class FakeLimiter(ratelimit_grpc.RateLimitServiceServicer):
    """Counts exactly, per organization, in one minute-bucket that never refills and one month."""

    def __init__(self) -> None:
        self.burst = 1_000_000
        self.month = 1_000_000
        self.live_edges = 1
        self.used = 0
        self.hang = False
        self.no_policy = False
        self.batches: list[int] = []
        self.decisions: list[ratelimit.Decision] = []
        self.give_backs: list[ratelimit.GiveBack] = []
        self.remember = True
        self.takes_give_backs = True

    def policy(self) -> ratelimit.Policy:
        window = ratelimit.Window
        return ratelimit.Policy(
            organization_id=str(ORGANIZATION),
            version=1,
            windows=[
                window(
                    name="burst",
                    kind=ratelimit.WINDOW_KIND_TOKEN_BUCKET,
                    limit=self.burst,
                    period_seconds=60,
                    scope=ratelimit.WINDOW_SCOPE_ORGANIZATION,
                ),
                window(
                    name="month",
                    kind=ratelimit.WINDOW_KIND_CALENDAR_MONTH,
                    limit=self.month,
                    scope=ratelimit.WINDOW_SCOPE_ORGANIZATION,
                    counts_billable_only=True,
                ),
            ],
        )

    async def Decide(self, requests, context):
        sent_policy = False
        async for request in requests:
            while self.hang:
                await asyncio.sleep(0.01)
            if self.remember:
                self.batches.append(len(request.decisions))
                self.decisions += request.decisions
                self.give_backs += request.give_backs
            yield ratelimit.DecideResponse(
                batch_id=request.batch_id,
                verdicts=[self._verdict(d) for d in request.decisions],
                policies=[] if sent_policy else [self.policy()],
                live_edges=self.live_edges,
                has_given_back=self.takes_give_backs,
            )
            sent_policy = True

    def _verdict(self, decision: ratelimit.Decision) -> ratelimit.Verdict:
        if self.no_policy:
            return ratelimit.Verdict(kind=ratelimit.VERDICT_KIND_NO_POLICY)
        left = [self.burst - self.used, self.month - self.used]
        allowed = min(left) >= decision.cost_units
        if allowed:
            self.used += decision.cost_units
            left = [value - decision.cost_units for value in left]
        return ratelimit.Verdict(
            kind=ratelimit.VERDICT_KIND_ALLOWED if allowed else ratelimit.VERDICT_KIND_DENIED,
            policy_version=1,
            remaining=left,
            reset_ms=[1_000, 864_000_000],
            denied_by=0 if left[0] <= left[1] else 1,
            retry_after_ms=0 if allowed else 1_500,
            calendar_time_us=time.time_ns() // 1_000,
        )


class FakeMetering(metering_grpc.MeteringServiceServicer):
    def __init__(self) -> None:
        self.events: dict[bytes, events.UsageEvent] = {}
        self.duplicates = 0
        self.count = 0
        self.remember = True
        self.fail = False

    async def Ingest(self, requests, context):
        async for request in requests:
            if self.fail:
                await context.abort(grpc.StatusCode.UNAVAILABLE, "told to fail")
            self.count += len(request.events)
            for payload in request.events if self.remember else ():
                event = events.UsageEvent.FromString(payload)
                if event.id in self.events:
                    self.duplicates += 1
                self.events[event.id] = event
            yield metering.IngestResponse(batch_id=request.batch_id, accepted_count=len(request.events))

    async def wait_for(self, count: int, timeout_seconds: float = 30.0) -> list[events.UsageEvent]:
        async with asyncio.timeout(timeout_seconds):
            while len(self.events) < count:
                await asyncio.sleep(0.01)
        return list(self.events.values())


@dataclass
class Backend:
    """All three services on one server."""

    auth: FakeAuth = field(default_factory=FakeAuth)
    limiter: FakeLimiter = field(default_factory=FakeLimiter)
    metering: FakeMetering = field(default_factory=FakeMetering)
    port: int = 0
    server: grpc.aio.Server | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self, port: int = 0) -> None:
        self.server = grpc.aio.server()
        auth_grpc.add_AuthServiceServicer_to_server(self.auth, self.server)
        ratelimit_grpc.add_RateLimitServiceServicer_to_server(self.limiter, self.server)
        metering_grpc.add_MeteringServiceServicer_to_server(self.metering, self.server)
        self.port = self.server.add_insecure_port(f"127.0.0.1:{port or self.port or next_port()}")
        await self.server.start()

    async def stop(self) -> None:
        if self.server is not None:
            await self.server.stop(None)
            self.server = None


UpstreamScript = Callable[[bytes, asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bool]]


class FakeUpstream:
    """A socket that remembers each head it was sent and answers with a script; True keeps the connection."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.connections = 0
        self.script: UpstreamScript = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port or next_port())
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
            self.drop_connections()
            await self._server.wait_closed()
            self._server = None

    def drop_connections(self) -> None:
        for writer in list(self._writers):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                if not await self.script(head, reader, writer):
                    break
        self._writers.discard(writer)
        writer.close()


def answer(raw: bytes, *, keep: bool = True) -> UpstreamScript:
    async def script(head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        length = content_length(head)
        if length:
            await reader.readexactly(length)
        writer.write(raw)
        await writer.drain()
        return keep

    return script


def content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        if line.lower().startswith(b"content-length:"):
            return int(line.partition(b":")[2])
    return 0


@contextlib.asynccontextmanager
async def running(*parts: Backend | FakeUpstream) -> AsyncIterator[None]:
    for part in parts:
        await part.start()
    try:
        yield
    finally:
        for part in parts:
            await part.stop()
