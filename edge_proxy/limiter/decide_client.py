"""Asks the limiter: one stream per worker, everything that waits in one turn of the event loop in one message.

A writer task gathers what has accumulated, up to `BATCH_MAX`, and writes it. A message over gRPC costs as much as
dozens of decisions, so the next batch gathers until the one before is answered, or for `PATIENCE_SECONDS` where the
limiter is slow: batches grow with the load, and a single request still goes out at once. Answers come in any order of
batches. A batch that is not answered within the deadline resolves to None for all who wait in it: the route's own
rule then applies. A late "allowed" has consumed units that nobody used; that is accepted, because the alternative is to
wait.

Units that go back travel with whatever is sent next. They are kept until the limiter has said that it took them, and
sent again where it did not or where the stream has broken; the limiter counts each request's once.

The stream counts as healthy from its first answer on. `EXPIRED_BATCHES_MAX` batches in a row without any answer make it
unhealthy: requests then no longer wait at all, and an empty batch is sent as a probe until one is answered or the
stream is opened again. Probes also keep this worker counted among the live edges while it has no traffic.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import grpc.aio
import structlog
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from contract.wire import DECIDE_BATCH_ID, DECIDE_DECISION, DECIDE_GIVE_BACK, varint
from edge_proxy.limiter.local_share import LocalShare
from edge_proxy.limiter.policy import Policies

METHOD: Final = "/tollway.ratelimit.v1.RateLimitService/Decide"
BATCH_MAX: Final = 1_000
BATCHES_WAITING_MAX: Final = 20
GIVE_BACKS_WAITING_MAX: Final = 50_000
GIVE_BACK_AGAIN_SECONDS: Final = 1.0
EXPIRED_BATCHES_MAX: Final = 3
PATIENCE_SECONDS: Final = 0.003
PROBE_SECONDS: Final = 3.0
PROBE_UNHEALTHY_SECONDS: Final = 0.2
SILENCE_SECONDS_MAX: Final = 2.0
BACKOFF_SECONDS_MIN: Final = 0.05
BACKOFF_SECONDS_MAX: Final = 2.0

log = structlog.get_logger()

DecideCall = Any  # grpc.aio.StreamStreamCall of bytes and DecideResponse; not generic at run time


class _Batch:
    """Decisions that share a message."""

    __slots__ = ("batch_id", "decisions", "futures", "is_answered", "timer")

    def __init__(self) -> None:
        self.batch_id = 0
        self.decisions: list[bytes] = []
        self.futures: list[asyncio.Future[ratelimit.Verdict | None]] = []
        self.is_answered = False
        self.timer: asyncio.TimerHandle | None = None

    def resolve_all(self, verdict: ratelimit.Verdict | None) -> None:
        for future in self.futures:
            if not future.done():
                future.set_result(verdict)
        if self.timer is not None:
            self.timer.cancel()


class DecideClient:
    """The limiter, as far as this worker is concerned.

    Args:
        open_stream: Opens the stream, credentials included; takes serialised requests.
        deadline_seconds: How long a request waits for its verdict.
        policies: Filled with the policies that come over the stream.
        share: Told about live edges.
    """

    def __init__(
        self,
        open_stream: Callable[[], DecideCall],
        *,
        deadline_seconds: float,
        policies: Policies,
        share: LocalShare,
    ) -> None:
        self._open_stream = open_stream
        self._deadline_seconds = deadline_seconds
        self._policies = policies
        self._share = share
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[_Batch] = deque()
        self._give_backs: deque[bytes] = deque(maxlen=GIVE_BACKS_WAITING_MAX)
        # Sent and not yet taken, by the message that carried them.
        self._given_back: dict[int, list[bytes]] = {}
        self._in_flight: dict[int, _Batch] = {}
        self._batch_id = 0
        self._wake = asyncio.Event()
        self._answered = asyncio.Event()
        self._expired_in_row = 0
        self._last_answer = 0.0
        self.is_healthy = False
        self.batches = 0

    def decide(self, decision: bytes) -> asyncio.Future[ratelimit.Verdict | None]:
        """Ask for a verdict; None means that the limiter could not be asked in time.

        Args:
            decision: A serialised `Decision`.
        """
        future: asyncio.Future[ratelimit.Verdict | None] = self._loop.create_future()
        if not self.is_healthy:
            future.set_result(None)
            return future
        waiting = self._waiting
        if not waiting or len(waiting[-1].futures) >= BATCH_MAX:
            if len(waiting) >= BATCHES_WAITING_MAX:
                future.set_result(None)
                return future
            waiting.append(_Batch())
            self._wake.set()
        batch = waiting[-1]
        if batch.timer is None:
            batch.timer = self._loop.call_later(self._deadline_seconds, self._expire, batch)
        batch.decisions.append(decision)
        batch.futures.append(future)
        return future

    def give_back(self, message: ratelimit.GiveBack) -> None:
        """Return units of a request that is not billed; the oldest are dropped above a bound."""
        self._give_backs.append(message.SerializeToString())
        self._wake.set()

    async def run(self) -> None:
        """Keep the stream open until cancelled."""
        backoff_seconds = BACKOFF_SECONDS_MIN
        while True:
            reason = await self._run_stream()
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                # The stream can end in the same instant and be told in place of the cancellation.
                raise asyncio.CancelledError
            if self.is_healthy:
                backoff_seconds = BACKOFF_SECONDS_MIN
                log.warning("limiter_stream_lost", reason=reason)
            self._fail_all()
            await asyncio.sleep(backoff_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            backoff_seconds = min(backoff_seconds * 2, BACKOFF_SECONDS_MAX)

    async def _run_stream(self) -> str:
        """Use one stream until it breaks; return why it did."""
        call = self._open_stream()
        self._last_answer = self._loop.time()
        writer = asyncio.create_task(self._write(call))
        prober = asyncio.create_task(self._probe(call))
        try:
            async for answer in call:
                self._take(answer)
        except grpc.aio.AioRpcError as error:
            return f"{error.code().name}: {error.details()}"
        except asyncio.CancelledError:
            # Either the stream was given up by the prober, or this worker is ending.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return "silent"
        finally:
            writer.cancel()
            prober.cancel()
            await asyncio.gather(writer, prober, return_exceptions=True)
            call.cancel()
        return "ended"

    async def _write(self, call: DecideCall) -> None:
        await call.write(self._message(None))
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting or self._give_backs:
                await self._turn()
                batch = self._waiting.popleft() if self._waiting else None
                await call.write(self._message(batch))

    async def _turn(self) -> None:
        """Wait until the batch before is answered, but not for long."""
        if not self._in_flight:
            return
        self._answered.clear()
        timer = self._loop.call_later(PATIENCE_SECONDS, self._answered.set)
        await self._answered.wait()
        timer.cancel()

    async def _probe(self, call: DecideCall) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS if self.is_healthy else PROBE_UNHEALTHY_SECONDS)
            if not self.is_healthy and self._loop.time() - self._last_answer > SILENCE_SECONDS_MAX:
                call.cancel()
                return
            if not self._waiting:
                self._waiting.append(_Batch())
                self._wake.set()

    def _message(self, batch: _Batch | None) -> bytes:
        self._batch_id += 1
        parts = [DECIDE_BATCH_ID, varint(self._batch_id)]
        if batch is not None:
            self.batches += 1
            batch.batch_id = self._batch_id
            self._in_flight[self._batch_id] = batch
            for decision in batch.decisions:
                parts += (DECIDE_DECISION, varint(len(decision)), decision)
        give_backs = [self._give_backs.popleft() for _ in range(min(len(self._give_backs), BATCH_MAX))]
        if give_backs:
            self._given_back[self._batch_id] = give_backs
        for message in give_backs:
            parts += (DECIDE_GIVE_BACK, varint(len(message)), message)
        return b"".join(parts)

    def _take(self, answer: ratelimit.DecideResponse) -> None:
        for policy in answer.policies:
            self._policies.put(policy)
        if answer.live_edges:
            self._share.live_edges = answer.live_edges
        self._last_answer = self._loop.time()
        self._expired_in_row = 0
        if not self.is_healthy:
            self.is_healthy = True
            log.info("limiter_connected", live_edges=answer.live_edges)
        self._answered.set()
        given_back = self._given_back.pop(answer.batch_id, None)
        if given_back is not None and not answer.has_given_back:
            # Redis is away. They go with a later message, which a probe is at the latest.
            self._loop.call_later(GIVE_BACK_AGAIN_SECONDS, self._give_back_again, given_back)
        batch = self._in_flight.pop(answer.batch_id, None)
        if batch is None:
            return
        batch.is_answered = True
        if batch.timer is not None:
            batch.timer.cancel()
        for future, verdict in zip(batch.futures, answer.verdicts, strict=False):
            if not future.done():
                future.set_result(verdict)
        batch.resolve_all(None)

    def _expire(self, batch: _Batch) -> None:
        batch.resolve_all(None)
        self._in_flight.pop(batch.batch_id, None)
        if batch in self._waiting:
            # The write is stuck; what expired need not be sent at all.
            self._waiting.remove(batch)
        self._expired_in_row += 1
        if self._expired_in_row >= EXPIRED_BATCHES_MAX and self.is_healthy:
            log.warning("limiter_unhealthy", expired_batches=self._expired_in_row)
            self.is_healthy = False

    def _give_back_again(self, messages: list[bytes]) -> None:
        """Queue what was not taken, as far as there is room; what has come since is not dropped for it."""
        room = GIVE_BACKS_WAITING_MAX - len(self._give_backs)
        self._give_backs.extendleft(reversed(messages[:room]))

    def _fail_all(self) -> None:
        self.is_healthy = False
        for messages in self._given_back.values():
            self._give_back_again(messages)
        self._given_back.clear()
        for batch in (*self._waiting, *self._in_flight.values()):
            batch.resolve_all(None)
        self._waiting.clear()
        self._in_flight.clear()
