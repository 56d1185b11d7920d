"""Stand-ins for the collaborators of a pipeline step: no socket, no clock, everything they were asked is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from edge_proxy.http1.server.refusal import ClientLeft
from edge_proxy.http1.server.request import HeadParser, RequestHead
from edge_proxy.keys.grant import Grant, from_message
from edge_proxy.pipeline.client_fields import RULES
from edge_proxy.pipeline.exchange import Exchange, id_text
from edge_proxy.routing import file as routes_file
from edge_proxy.routing.routes import Route
from edge_proxy.usage.journal.writer import JournalBroken
from tests.support.edge_fakes import grant as grant_message
from tests.support.edge_fakes import key

REQUEST_ID = bytes(range(16))
UNSAMPLED = "00-" + "1" * 32 + "-" + "2" * 16 + "-00"
START_US = 1_700_000_000_000_000


class FakeBody:
    """A request's body that has arrived whole."""

    def __init__(self, data: bytes, *, is_complete: bool = True) -> None:
        self.data = data
        self.size = len(data)
        self.is_complete = is_complete

    def take(self) -> bytes:
        return self.data


class FakeClient:
    """A client connection that keeps what it was sent."""

    def __init__(self, *, peer: str = "192.0.2.1", is_keeping: bool = True) -> None:
        self.peer = peer
        self.written: list[bytes] = []
        self.memo: Any = None
        self.when_left: Callable[[], None] | None = None
        self.body: Any = None
        self.is_gone = False
        self.is_aborted = False
        self.never_reads = False
        self._is_keeping = is_keeping

    @property
    def sent(self) -> bytes:
        return b"".join(self.written)

    def keeps_alive(self, head: RequestHead) -> bool:
        return self._is_keeping and head.keep_alive

    def write(self, data: bytes) -> None:
        self.written.append(data)

    async def drain(self) -> None:
        if self.is_gone:
            raise ClientLeft

    async def read_body(self) -> bytes:
        if self.never_reads:
            await asyncio.Event().wait()
        return b""

    def abort(self) -> None:
        self.is_aborted = True

    def forwarded_lines(self, host: str) -> bytes:
        return f"X-Forwarded-Host: {host}\r\n".encode()


class FakeKeys:
    """A resolver: `cached` answers at once, `known` only when asked."""

    def __init__(self, *, cached: dict[bytes, Grant] | None = None, known: dict[bytes, Grant] | None = None) -> None:
        self.cached = cached or {}
        self.known = known or {}
        self.error: Exception | None = None
        self.refused: set[bytes] = set()
        self.prefixes: tuple[bytes, ...] = ()
        self.asked: list[bytes] = []

    def may_be_imported(self, key: bytes) -> bool:
        return key.startswith(self.prefixes)

    def held(self, digest: bytes) -> Grant | None:
        return self.cached.get(digest)

    def must_ask(self, digest: bytes) -> bool:
        return digest not in self.refused

    async def find(self, digest: bytes) -> Grant | None:
        self.asked.append(digest)
        if self.error is not None:
            raise self.error
        return self.known.get(digest)


class FakeDecideClient:
    """Answers every decision with one verdict."""

    def __init__(self, verdict: ratelimit.Verdict | None = None) -> None:
        self.verdict = verdict
        self.decisions: list[ratelimit.Decision] = []
        self.give_backs: list[ratelimit.GiveBack] = []

    async def decide(self, decision: bytes) -> ratelimit.Verdict | None:
        self.decisions.append(ratelimit.Decision.FromString(decision))
        return self.verdict

    def give_back(self, item: ratelimit.GiveBack) -> None:
        self.give_backs.append(item)


class FakeShare:
    """A local share that admits everything and remembers what the limiter said."""

    def __init__(self) -> None:
        self.noted: list[ratelimit.Verdict] = []
        self.asked: list[Any] = []
        self.verdict = ratelimit.Verdict(kind=ratelimit.VERDICT_KIND_ALLOWED)

    def note(self, asking: Any, policy: Any, verdict: ratelimit.Verdict) -> None:
        self.noted.append(verdict)

    def decide(self, asking: Any, now_us: int) -> ratelimit.Verdict:
        self.asked.append(asking)
        return self.verdict


class FakeJournal:
    """A journal in memory, which can be full or broken."""

    def __init__(self) -> None:
        self.payloads: list[bytes] = []
        self.is_full = False
        self.is_broken = False
        self.before_append: Callable[[], None] = lambda: None

    def has_room(self, in_flight: int) -> bool:
        return not self.is_full

    async def append(self, payload: bytes) -> None:
        self.before_append()
        if self.is_broken:
            raise JournalBroken
        self.payloads.append(payload)


def route(options: str = "") -> Route:
    """Return a compiled route; `options` are further YAML fields of it."""
    text = f"""
version: 1
upstreams: {{one: {{urls: ["http://127.0.0.1:1"]}}}}
routes:
  - {{id: only, match: {{path_prefix: /}}, upstream: one{", " + options if options else ""}}}
"""
    return routes_file.parse(text, {}).routes["only"]


def request_head(
    target: str = "/x", *, method: str = "GET", fields: str = "", secret: str | None = None
) -> RequestHead:
    """Return a parsed head that shows a key."""
    credential = f"X-API-Key: {secret}\r\n" if secret else ""
    return HeadParser(RULES).parse(f"{method} {target} HTTP/1.1\r\nHost: a\r\n{credential}{fields}\r\n".encode())


def held_grant(secret: str | None = None, **changes: Any) -> Grant:
    return from_message(grant_message(secret or key(), **changes), fresh_until=1e9)


def exchange(head: RequestHead | None = None, client: FakeClient | None = None) -> Exchange:
    made: Any = client or FakeClient()
    return Exchange(made, head or request_head(), REQUEST_ID, id_text(REQUEST_ID), START_US, UNSAMPLED)


def now_us() -> int:
    return START_US + 5_000


class FakeSweep:
    """A coarse clock that stands."""

    now = 1_000.0


class FakeConnection:
    """A connection whose answer is there already, whole or in pieces."""

    def __init__(
        self,
        *,
        status: int = 200,
        fields: list[tuple[bytes, bytes]] | None = None,
        body: list[bytes] | None = None,
        content_length: int | None = None,
        is_streamed: bool = False,
        error: Exception | None = None,
    ) -> None:
        self.status = status
        self.fields = fields or []
        self.content_length = content_length
        self.is_complete = not is_streamed
        self.is_reusable = True
        self.has_head = False
        self.has_excess = False
        self.deadline = self.expires = float("inf")
        self.deadlines_at_head: tuple[float, float] | None = None
        self.sent = b""
        self._pieces = body or []
        self._error = error

    def begin(self, head: bytes, *, head_request: bool) -> None:
        self.sent += head

    def write(self, data: bytes) -> None:
        self.sent += data

    async def drain(self, deadline: float) -> None:
        pass

    async def head(self) -> None:
        self.deadlines_at_head = (self.deadline, self.expires)
        if self._error is not None:
            raise self._error
        self.has_head = True

    def take(self) -> bytes:
        if self.is_complete:
            data, self._pieces = b"".join(self._pieces), []
            return data
        return self._pieces.pop(0) if self._pieces else b""

    async def read(self) -> bytes:
        data = self._pieces.pop(0) if self._pieces else b""
        self.is_complete = not self._pieces
        return data

    def fail(self, error: Exception) -> None:
        self._error = error

    def abandon(self) -> None:
        raise AssertionError("nobody left")


class FakeOrigin:
    """An origin with at most one kept connection, which opens others or fails to."""

    def __init__(self, *, kept: FakeConnection | None = None, error: Exception | None = None) -> None:
        self.url = f"http://origin-{id(self)}"
        self.host_line = b"Host: origin\r\n"
        self.released: list[FakeConnection] = []
        self.opened = 0
        self._kept = kept
        self._error = error

    def kept(self) -> FakeConnection | None:
        kept, self._kept = self._kept, None
        return kept

    async def open(self, connect_timeout_seconds: float) -> FakeConnection:
        self.opened += 1
        if self._error is not None:
            raise self._error
        return FakeConnection()

    def release(self, connection: FakeConnection) -> None:
        self.released.append(connection)


class FakePool:
    """Origins in their order."""

    def __init__(self, *origins: FakeOrigin) -> None:
        self.origins = list(origins)
        self.rested: list[FakeOrigin] = []

    def pick(self) -> FakeOrigin:
        return self.origins[0]

    def others(self, tried: FakeOrigin) -> list[FakeOrigin]:
        return [origin for origin in self.origins if origin is not tried]

    def rest(self, origin: FakeOrigin) -> None:
        self.rested.append(origin)


class FakeRelay:
    """Takes every answer."""

    def __init__(self) -> None:
        self.answered: list[FakeConnection] = []

    async def answer(self, asked: Exchange, on: Route, connection: FakeConnection) -> None:
        self.answered.append(connection)


class FakeRecorder:
    """Remembers what was so when the event was written."""

    def __init__(self) -> None:
        self.at_record: Callable[[], Any] = lambda: None
        self.seen: list[Any] = []
        self.error: Exception | None = None

    async def record(self, asked: Exchange) -> None:
        if self.error is not None:
            raise self.error
        found = self.at_record()
        self.seen.append(list(found) if isinstance(found, list) else found)
