"""One request's way, top to bottom: route, key, limit, upstream, record.

Every answer that a client can take for whole is behind its event in the journal: the last bytes go out only after the
append has returned. Whatever goes wrong ends in one of three places: `_refuse` (the edge answers by itself),
`_break_off` (the answer had begun; the connection is reset, so that nobody takes it for whole) or `_client_left`
(nobody to answer).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Protocol

import structlog
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.events.v1 import usage_event_pb2 as events
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from contract import key_format, outcomes
from edge_proxy.http1.client.connection import UpstreamBusy, UpstreamConnection, UpstreamFailed, UpstreamTimedOut
from edge_proxy.http1.client.pool import Origin, Upstreams
from edge_proxy.http1.server.answer import VIA, DateLine, forwarded_fields, plain_answer, problem_answer
from edge_proxy.http1.server.body import ClientLeft
from edge_proxy.http1.server.protocol import CONTINUE, NEVER, ClientConnection
from edge_proxy.http1.server.request import RequestHead
from edge_proxy.keys.grant import Grant
from edge_proxy.keys.resolve import AuthUnavailable, KeyResolver
from edge_proxy.limiter.decide_client import DecideClient
from edge_proxy.limiter.header_fields import limit_lines
from edge_proxy.limiter.local_share import Asking, LocalShare
from edge_proxy.limiter.policy import CALENDAR_KINDS, Policies
from edge_proxy.pipeline import problems
from edge_proxy.pipeline.exchange import LAST_CHUNK, Exchange, frame, id_text
from edge_proxy.pipeline.problems import Refused
from edge_proxy.pipeline.tracing import is_sampled, span
from edge_proxy.pipeline.wire import ID_FIELD, route_bytes
from edge_proxy.process.metrics import WorkerMetrics
from edge_proxy.routing.routes import LimiterAway, MethodNotAllowed, Route, RouteTable
from edge_proxy.usage.journal.writer import JournalBroken, JournalWriter
from mesh.ids import IdSource

IDEMPOTENT_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
HEALTH_PATHS: Final = frozenset({"/health", "/health/live", "/health/ready"})
log = structlog.get_logger()

_CLOSE: Final = b"Connection: close\r\n"
_CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"


class Health(Protocol):
    """Answers health questions on the public port."""

    def __call__(self, path: str) -> tuple[int, bytes]:
        """Return status and JSON body."""
        ...


class Pipeline:
    """Serves requests.

    Args:
        table: Routes; replaced as a whole on reload.
        peppers: For key digests, newest first.
        keys: Finds grants.
        limiter: Finds verdicts.
        share: Decides while the limiter cannot.
        policies: For header fields.
        upstreams: Connections.
        journal: Where events go.
        metrics: What is counted.
        ids: Request ids.
        now_us: Wall time in microseconds.
        decision_deadline_ms: Told to the limiter.
        health: Answers on the public port.
    """

    def __init__(
        self,
        *,
        table: RouteTable,
        peppers: list[bytes],
        keys: KeyResolver,
        limiter: DecideClient,
        share: LocalShare,
        policies: Policies,
        upstreams: Upstreams,
        journal: JournalWriter,
        metrics: WorkerMetrics,
        ids: IdSource,
        now_us: Callable[[], int],
        decision_deadline_ms: int,
        health: Health,
    ) -> None:
        self.table = table
        self._peppers = peppers
        self._keys = keys
        self._limiter = limiter
        self._share = share
        self._policies = policies
        self._upstreams = upstreams
        self._journal = journal
        self._metrics = metrics
        self._ids = ids
        self._now_us = now_us
        self._decision_deadline_ms = decision_deadline_ms
        self._health = health
        self._date = DateLine()
        self.in_flight = 0

    async def handle(self, client: ClientConnection, head: RequestHead) -> bool:
        """Answer one request; return whether the connection goes on."""
        if head.path in HEALTH_PATHS and head.method in {"GET", "HEAD"}:
            return self._answer_health(client, head)
        exchange = self._begin(client, head)
        self.in_flight += 1
        try:
            with span("edge.request", exchange, server=True):
                return await self._serve(exchange)
        finally:
            self.in_flight -= 1
            client.when_left = None
            self._metrics.request(
                exchange.route.id if exchange.route is not None else "",
                exchange.status,
                exchange.outcome,
                exchange.duration_us / 1e6,
            )

    def refuse_early(self, client: ClientConnection, refused: Refused) -> None:
        """Answer something that was not even a request; without a key there is nothing to record."""
        self._metrics.problems[refused.problem.name] += 1
        text = id_text(self._ids.uuid7_bytes())
        answer, _ = problem_answer(
            refused.problem,
            refused.detail,
            text,
            headers=refused.headers,
            date=self._date.get(),
            keep_alive=False,
            with_body=True,
        )
        client.write(answer)

    def _begin(self, client: ClientConnection, head: RequestHead) -> Exchange:
        request_id = self._ids.uuid7_bytes()
        text = id_text(request_id)
        # A new trace takes its id from the request; it is not sampled.
        traceparent = head.traceparent or f"00-{request_id.hex()}-{text[19:23]}{text[24:]}-00"
        return Exchange(client, head, request_id, text, self._now_us(), traceparent)

    async def _serve(self, exchange: Exchange) -> bool:
        try:
            await self._pass_through(exchange)
        except Refused as refused:
            await self._refuse(exchange, refused)
        except (UpstreamFailed, UpstreamTimedOut, UpstreamBusy) as lost:
            await self._upstream_lost(exchange, lost)
        except ClientLeft:
            await self._client_left(exchange)
        except JournalBroken:
            # An answer that cannot be recorded must not look whole.
            self._metrics.counters["events_not_recorded"] += 1
            exchange.keep_alive = False
            exchange.client.abort()
        except Exception:
            # The loop's edge: a defect of ours costs one request, never the connection's other bytes.
            log.exception("request_failed", request_id=exchange.id_text)
            await self._refuse(exchange, Refused(problems.INTERNAL, close=True))
        return exchange.keep_alive

    async def _pass_through(self, exchange: Exchange) -> None:
        route = exchange.route = self._route(exchange.head)
        if route.needs_key:
            await self._authenticate(exchange, route)
            self._authorize(exchange, route)
        self._check_room(exchange, route)
        if exchange.grant is not None:
            await self._admit(exchange, route, exchange.grant)
        await self._forward(exchange, route)

    # Route, key, limit.

    def _route(self, head: RequestHead) -> Route:
        found = self.table.match(head.host, head.method, head.path)
        if isinstance(found, Route):
            return found
        if isinstance(found, MethodNotAllowed):
            allow = f"Allow: {', '.join(found.allow)}\r\n".encode("ascii")
            raise Refused(problems.METHOD_NOT_ALLOWED, headers=allow)
        raise Refused(problems.NO_ROUTE)

    async def _authenticate(self, exchange: Exchange, route: Route) -> None:
        digests = self._digests(exchange.client, exchange.head)
        grant = None
        for digest in digests:
            grant = self._keys.held(digest)
            if grant is not None:
                self._metrics.counters["key_cache_hits"] += 1
                break
        else:
            grant = await self._find(exchange, digests)
        if grant is None or grant.state == auth.KEY_STATE_REVOKED:
            raise Refused(problems.KEY_INVALID)
        if grant.expire_time_us and grant.expire_time_us <= exchange.start_us:
            raise Refused(problems.KEY_INVALID, "The API key has expired.")
        exchange.grant = grant
        exchange.wire = route_bytes(grant, route, exchange.head.method, self._decision_deadline_ms)

    async def _find(self, exchange: Exchange, digests: tuple[bytes, ...]) -> Grant | None:
        self._metrics.counters["key_cache_misses"] += 1
        with span("edge.resolve_key", exchange):
            try:
                found = await asyncio.gather(*(self._keys.find(digest) for digest in digests))
            except AuthUnavailable:
                raise Refused(problems.KEYS_UNKNOWN) from None
        return next((grant for grant in found if grant is not None), None)

    def _digests(self, client: ClientConnection, head: RequestHead) -> tuple[bytes, ...]:
        """Return the digests of the key that was shown, one per pepper."""
        shown = head.authorizations + head.api_keys
        if not shown:
            raise Refused(problems.KEY_MISSING)
        if len(shown) > 1:
            raise Refused(problems.BAD_REQUEST, "Show one API key, in one field.")
        raw = shown[0]
        memo = client.key_memo
        if memo is not None and memo[0] == raw:
            return memo[1]
        key = raw
        if head.authorizations:
            scheme, _, key = raw.partition(b" ")
            if scheme.lower() != b"bearer":
                raise Refused(problems.KEY_MISSING)
        text = key.strip().decode("latin-1")
        if key_format.parse(text) is None:
            raise Refused(problems.KEY_INVALID)
        digests = tuple(key_format.digest(text, pepper) for pepper in self._peppers)
        client.key_memo = (raw, digests)
        return digests

    def _authorize(self, exchange: Exchange, route: Route) -> None:
        grant = exchange.grant
        if grant is None:
            return
        if grant.state != auth.KEY_STATE_ACTIVE:
            raise Refused(problems.ORGANIZATION_SUSPENDED)
        if grant.networks and not grant.allows_address(exchange.client.peer):
            raise Refused(problems.ADDRESS_NOT_ALLOWED)
        if route.scopes and not route.scopes <= grant.scopes:
            missing = ", ".join(sorted(route.scopes - grant.scopes))
            raise Refused(problems.SCOPE_MISSING, f"Missing: {missing}.")

    def _check_room(self, exchange: Exchange, route: Route) -> None:
        length = exchange.head.content_length
        if length is not None and length > route.body_bytes_max:
            raise Refused(problems.BODY_TOO_LARGE, f"At most {route.body_bytes_max} bytes.")
        if not self._journal.has_room(self.in_flight):
            exchange.is_recordable = False
            raise Refused(problems.JOURNAL_FULL)

    async def _admit(self, exchange: Exchange, route: Route, grant: Grant) -> None:
        verdict = await self._decide(exchange, route, grant)
        exchange.verdict = verdict
        if verdict is None or verdict.kind == ratelimit.VERDICT_KIND_ALLOWED:
            return
        if verdict.kind == ratelimit.VERDICT_KIND_NO_POLICY:
            raise Refused(problems.LIMITS_UNKNOWN)
        policy = exchange.policy
        windows = policy.windows if policy is not None else ()
        is_quota = verdict.denied_by < len(windows) and windows[verdict.denied_by].kind in CALENDAR_KINDS
        retry_after = f"Retry-After: {max(1, -(-verdict.retry_after_ms // 1000))}\r\n".encode("ascii")
        raise Refused(problems.QUOTA_EXCEEDED if is_quota else problems.RATE_LIMITED, headers=retry_after)

    async def _decide(self, exchange: Exchange, route: Route, grant: Grant) -> ratelimit.Verdict | None:
        """Return the limiter's verdict, the local share's, or None where the route lets everything pass."""
        wire = exchange.wire
        assert wire is not None  # noqa: S101 - set together with the grant
        decision = b"%b%b%b" % (ID_FIELD, exchange.id, wire.decision)
        asked_us = self._now_us()
        with span("edge.decide", exchange):
            if is_sampled(exchange.traceparent):
                decision += ratelimit.Decision(traceparent=exchange.traceparent).SerializeToString()
            verdict = await self._limiter.decide(decision)
        self._metrics.decision_latency.observe((self._now_us() - asked_us) / 1e6)
        exchange.policy = self._policies.get(grant.organization_id)
        if verdict is not None and verdict.kind != ratelimit.VERDICT_KIND_UNAVAILABLE:
            exchange.is_admitted_by_limiter = verdict.kind == ratelimit.VERDICT_KIND_ALLOWED
            self._share.note(grant.organization_id, grant.test_mode, verdict)
            return verdict
        return self._decide_alone(route, grant)

    def _decide_alone(self, route: Route, grant: Grant) -> ratelimit.Verdict | None:
        self._metrics.counters[f"limiter_away_{route.limiter_away.value}"] += 1
        match route.limiter_away:
            case LimiterAway.CLOSED:
                raise Refused(problems.LIMITER_UNAVAILABLE)
            case LimiterAway.OPEN:
                return None
            case LimiterAway.DEGRADE:
                asking = Asking(
                    organization_id=grant.organization_id,
                    api_key_id=grant.api_key_id,
                    route_id=route.id,
                    cost_units=route.cost_units,
                    test_mode=grant.test_mode,
                )
                return self._share.decide(asking, datetime.fromtimestamp(self._now_us() / 1e6, UTC))

    # Upstream.

    async def _forward(self, exchange: Exchange, route: Route) -> None:
        origin = self._upstreams.pick(route.upstream)
        with span("edge.upstream", exchange):
            connection = await origin.acquire(route.connect_timeout_seconds)
            pump: asyncio.Task[None] | None = None
            try:
                try:
                    pump = self._send(exchange, route, origin, connection)
                    await connection.head()
                except UpstreamFailed as failed:
                    if not self._may_retry(failed, exchange):
                        raise
                    origin.release(connection, self._upstreams.now)
                    connection = await origin.open(route.connect_timeout_seconds)
                    pump = self._send(exchange, route, origin, connection)
                    await connection.head()
                await self._answer(exchange, route, connection)
            finally:
                if pump is not None and not pump.done():
                    # The upstream answered without reading all: neither connection can be used again.
                    pump.cancel()
                    connection.is_reusable = False
                exchange.client.when_left = None
                origin.release(connection, self._upstreams.now)

    def _may_retry(self, failed: UpstreamFailed, exchange: Exchange) -> bool:
        """Tell whether a kept connection went stale under a request that may safely be sent again (RFC 9110 9.2.2)."""
        head = exchange.head
        return failed.is_stale and head.method in IDEMPOTENT_METHODS and not head.has_body

    def _send(
        self, exchange: Exchange, route: Route, origin: Origin, connection: UpstreamConnection
    ) -> asyncio.Task[None] | None:
        """Send the request; return the task that sends the rest of its body, if there is a rest."""
        client, head = exchange.client, exchange.head
        message = self._upstream_head(exchange, route, origin)
        client.when_left = connection.client_left
        if client.is_gone:
            raise ClientLeft
        body = client.body
        if body is None or body.is_complete:
            if body is not None:
                message += frame(body.take(), is_chunked=head.is_chunked, is_last=True)
                self._check_size(exchange, route)
            connection.deadline = self._upstreams.now + route.first_byte_timeout_seconds
            connection.begin(message, head_request=head.method == "HEAD")
            return None
        if head.expects_continue and not body.size:
            client.write(CONTINUE)
        connection.begin(message, head_request=head.method == "HEAD")
        return asyncio.create_task(self._send_body(exchange, route, connection))

    async def _send_body(self, exchange: Exchange, route: Route, connection: UpstreamConnection) -> None:
        client, is_chunked = exchange.client, exchange.head.is_chunked
        try:
            while data := await client.read_body():
                self._check_size(exchange, route)
                connection.write(frame(data, is_chunked=is_chunked, is_last=False))
                await connection.drain()
        except (Refused, ClientLeft) as error:
            connection.fail(error)
            return
        if is_chunked:
            connection.write(LAST_CHUNK)
        if not connection.has_head:
            connection.deadline = self._upstreams.now + route.first_byte_timeout_seconds

    def _check_size(self, exchange: Exchange, route: Route) -> None:
        body = exchange.client.body
        if body is not None and body.size > route.body_bytes_max:
            raise Refused(problems.BODY_TOO_LARGE, f"At most {route.body_bytes_max} bytes.", close=True)

    def _upstream_head(self, exchange: Exchange, route: Route, origin: Origin) -> bytes:
        head = exchange.head
        path = route.upstream_path(head.path)
        parts = [f"{head.method} {path}".encode("ascii"), head.query, b" HTTP/1.1\r\n", origin.host_line, *head.lines]
        parts.append(exchange.client.forwarded_lines(head.host))
        parts.append(b"Via: %b, 1.1 tollway\r\n" % b", ".join(head.via) if head.via else VIA)
        parts.append(f"X-Request-Id: {exchange.id_text}\r\ntraceparent: {exchange.traceparent}\r\n".encode("ascii"))
        if exchange.wire is not None:
            parts.append(exchange.wire.internal_lines)
        else:
            # Without keys of ours, credentials are the upstream's business.
            parts += (b"Authorization: %b\r\n" % value for value in head.authorizations)
            parts += (b"X-Api-Key: %b\r\n" % value for value in head.api_keys)
        if head.is_chunked:
            parts.append(_CHUNKED)
        elif head.content_length is not None:
            parts.append(b"Content-Length: %d\r\n" % head.content_length)
        parts.append(b"\r\n")
        return b"".join(parts)

    # Answer.

    async def _answer(self, exchange: Exchange, route: Route, connection: UpstreamConnection) -> None:
        exchange.upstream_latency_us = self._now_us() - exchange.start_us
        exchange.has_upstream_answer = True
        exchange.status = connection.status
        exchange.outcome = events.OUTCOME_ANSWERED
        head = exchange.head
        has_no_body = head.method == "HEAD" or connection.status in {204, 304}
        if connection.is_complete:
            data = b"" if has_no_body else connection.take()
            framing = self._length_line(connection) if has_no_body else b"Content-Length: %d\r\n" % len(data)
            exchange.response_bytes = len(data)
            exchange.keep_alive = exchange.client.keeps_alive(head)
            answer = self._answer_head(exchange, connection, framing) + data
            await self._record(exchange)
            exchange.client.write(answer)
            return
        await self._stream(exchange, route, connection)

    async def _stream(self, exchange: Exchange, route: Route, connection: UpstreamConnection) -> None:
        client, head = exchange.client, exchange.head
        is_chunked = connection.content_length is None and head.minor_version == 1
        framing = _CHUNKED if is_chunked else self._length_line(connection)
        exchange.keep_alive = client.keeps_alive(head) and (is_chunked or connection.content_length is not None)
        client.write(
            self._answer_head(exchange, connection, framing) + self._next_piece(exchange, connection, is_chunked)
        )
        exchange.is_started = True
        while True:
            await client.drain()
            connection.deadline = self._upstreams.now + route.idle_timeout_seconds
            data = await connection.read()
            connection.deadline = NEVER
            exchange.response_bytes += len(data)
            if connection.is_complete:
                await self._record(exchange)
                client.write(frame(data, is_chunked=is_chunked, is_last=True))
                return
            client.write(frame(data, is_chunked=is_chunked, is_last=False))

    def _next_piece(self, exchange: Exchange, connection: UpstreamConnection, is_chunked: bool) -> bytes:
        """Return the body bytes that came together with the head."""
        data = connection.take()
        exchange.response_bytes += len(data)
        return frame(data, is_chunked=is_chunked, is_last=False)

    def _length_line(self, connection: UpstreamConnection) -> bytes:
        if connection.content_length is None or connection.status == 204:
            return b""
        return b"Content-Length: %d\r\n" % connection.content_length

    def _answer_head(self, exchange: Exchange, connection: UpstreamConnection, framing: bytes) -> bytes:
        status = connection.status
        lines = forwarded_fields(connection.fields)
        return b"".join(
            (
                b"HTTP/1.1 %d %b\r\n" % (status, problems.reason_phrase(status)),
                *lines,
                framing,
                VIA,
                b"X-Request-Id: %b\r\n" % exchange.id_text.encode("ascii"),
                self._limit_lines(exchange),
                b"" if exchange.keep_alive else _CLOSE,
                b"\r\n",
            )
        )

    def _limit_lines(self, exchange: Exchange) -> bytes:
        if exchange.verdict is None:
            return b""
        return limit_lines(exchange.policy, exchange.verdict, self._now_us() / 1e6)

    # Endings.

    async def _refuse(self, exchange: Exchange, refused: Refused) -> None:
        """Answer by ourselves; where the upstream's answer had begun, break it off instead."""
        if exchange.is_started:
            await self._break_off(exchange)
            return
        client, problem = exchange.client, refused.problem
        self._metrics.problems[problem.name] += 1
        exchange.status = problem.status
        exchange.keep_alive = client.keeps_alive(exchange.head) and not refused.close
        answer, exchange.response_bytes = problem_answer(
            problem,
            refused.detail,
            exchange.id_text,
            headers=refused.headers + self._limit_lines(exchange),
            date=self._date.get(),
            keep_alive=exchange.keep_alive,
            with_body=exchange.head.method != "HEAD",
        )
        await self._record_quietly(exchange)
        client.write(answer)

    async def _upstream_lost(self, exchange: Exchange, lost: Exception) -> None:
        if exchange.is_started:
            await self._break_off(exchange)
            return
        problem, exchange.outcome = problems.UPSTREAM_UNREACHABLE, events.OUTCOME_UPSTREAM_UNREACHABLE
        if isinstance(lost, UpstreamTimedOut):
            problem, exchange.outcome = problems.UPSTREAM_TIMEOUT, events.OUTCOME_UPSTREAM_TIMEOUT
        elif isinstance(lost, UpstreamBusy):
            problem = problems.UPSTREAM_BUSY
        await self._refuse(exchange, Refused(problem))

    async def _break_off(self, exchange: Exchange) -> None:
        exchange.outcome = events.OUTCOME_UPSTREAM_ABORTED
        exchange.keep_alive = False
        exchange.client.abort()
        await self._record_quietly(exchange)

    async def _client_left(self, exchange: Exchange) -> None:
        exchange.keep_alive = False
        if exchange.has_upstream_answer:
            exchange.outcome = events.OUTCOME_CLIENT_LEFT_DURING_ANSWER
        else:
            # 499 is what proxies write down for this; nobody was sent it.
            exchange.status = 499
            exchange.outcome = events.OUTCOME_CLIENT_LEFT_BEFORE_ANSWER
        await self._record_quietly(exchange)

    async def _record_quietly(self, exchange: Exchange) -> None:
        """Append the event of a request that is not billed, or whose client is gone; a broken journal loses it."""
        try:
            await self._record(exchange)
        except JournalBroken:
            self._metrics.counters["events_not_recorded"] += 1

    async def _record(self, exchange: Exchange) -> None:
        """Append the event. Once this returns, the answer's end may be told.

        Raises:
            JournalBroken: The event could not be written.
        """
        exchange.duration_us = max(0, self._now_us() - exchange.start_us)
        grant, wire = exchange.grant, exchange.wire
        if grant is None or wire is None or not exchange.is_recordable:
            return
        body = exchange.client.body
        varying = events.UsageEvent(
            start_time_us=exchange.start_us,
            duration_us=exchange.duration_us,
            upstream_latency_us=exchange.upstream_latency_us,
            status=exchange.status,
            outcome=exchange.outcome,  # type: ignore[arg-type]  # plain int from the same enum
            request_bytes=body.size if body is not None else 0,
            response_bytes=exchange.response_bytes,
            traceparent=exchange.traceparent if is_sampled(exchange.traceparent) else "",
        ).SerializeToString()
        await self._journal.append(b"%b%b%b%b" % (ID_FIELD, exchange.id, varying, wire.event))
        if outcomes.gives_back(exchange.outcome, exchange.status, admitted=exchange.is_admitted_by_limiter):
            self._give_back(exchange, grant)

    def _give_back(self, exchange: Exchange, grant: Grant) -> None:
        route, verdict = exchange.route, exchange.verdict
        if route is None or verdict is None:
            return
        self._metrics.counters["give_backs"] += 1
        self._limiter.give_back(
            ratelimit.GiveBack(
                request_id=exchange.id,
                organization_id=grant.organization_id,
                api_key_id=grant.api_key_id,
                route_id=route.id,
                cost_units=route.cost_units,
                test_mode=grant.test_mode,
                calendar_time_us=verdict.calendar_time_us,
            )
        )

    def _answer_health(self, client: ClientConnection, head: RequestHead) -> bool:
        status, body = self._health(head.path)
        keep_alive = client.keeps_alive(head)
        answer = plain_answer(status, "application/json", body, date=self._date.get(), keep_alive=keep_alive)
        client.write(answer if head.method == "GET" else answer[: answer.index(b"\r\n\r\n") + 4])
        return keep_alive
