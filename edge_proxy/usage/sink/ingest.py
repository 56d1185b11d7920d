"""Sends events to `metering` over one bidirectional stream.

Batches are written in the order in which they are given and answered once committed, in any order. When the stream
breaks, everything that was not answered fails at once, and the next batch opens a new stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

import grpc.aio
import structlog
from tollway.metering.v1 import metering_service_pb2 as metering

from edge_proxy.usage.journal.reader import Batch
from edge_proxy.usage.sink.base import SinkUnavailable

ANSWER_SECONDS: Final = 30.0

log = structlog.get_logger()

IngestCall = Any  # grpc.aio.StreamStreamCall[IngestRequest, IngestResponse]; not generic at run time


class IngestSink:
    """`metering.Ingest` as a sink.

    Args:
        open_stream: Opens the stream, credentials included.
    """

    def __init__(self, open_stream: Callable[[], IngestCall]) -> None:
        self._open_stream = open_stream
        self._call: IngestCall | None = None
        self._reader: asyncio.Task[None] | None = None
        self._waiting: dict[int, asyncio.Future[metering.IngestResponse]] = {}
        self._batch_id = 0
        self._write_lock = asyncio.Lock()
        self.is_available = True
        self.dead_events = 0

    async def send(self, batch: Batch) -> None:
        """Send a batch and wait for its commit."""
        future = await self._write(batch)
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                answer = await future
        except TimeoutError:
            self._break(f"no answer in {ANSWER_SECONDS:.0f} s")
            raise SinkUnavailable from None
        self.is_available = True
        self.dead_events += answer.dead_count
        if answer.dead_count:
            log.error("events_dead", count=answer.dead_count, journal=str(batch.journal_id))

    async def close(self) -> None:
        """End the stream."""
        if self._call is not None:
            self._call.cancel()
        if self._reader is not None:
            await asyncio.gather(self._reader, return_exceptions=True)

    async def _write(self, batch: Batch) -> asyncio.Future[metering.IngestResponse]:
        async with self._write_lock:
            if self._call is None:
                self._call = self._open_stream()
                self._reader = asyncio.create_task(self._read(self._call))
            self._batch_id += 1
            request = metering.IngestRequest(
                batch_id=self._batch_id,
                journal_id=str(batch.journal_id),
                next_offset=batch.next_position,
                events=batch.payloads,
            )
            future = self._waiting[self._batch_id] = asyncio.get_running_loop().create_future()
            # Whoever waited may have been cancelled at the end; the stream's end must not complain about that.
            future.add_done_callback(lambda done: done.cancelled() or done.exception())
            try:
                await self._call.write(request)
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError) as error:
                self._break(str(error) or type(error).__name__)
                raise SinkUnavailable from None
            return future

    async def _read(self, call: IngestCall) -> None:
        reason = "ended"
        try:
            async for answer in call:
                waiting = self._waiting.pop(answer.batch_id, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
        except grpc.aio.AioRpcError as error:
            reason = f"{error.code().name}: {error.details()}"
        except asyncio.CancelledError:
            reason = "closed"
        if self._call is call:
            self._break(reason)

    def _break(self, reason: str) -> None:
        call, self._call = self._call, None
        if self.is_available:
            log.warning("ingest_stream_lost", reason=reason)
        self.is_available = False
        if call is not None:
            call.cancel()
        waiting, self._waiting = self._waiting, {}
        for future in waiting.values():
            if not future.done():
                future.set_exception(SinkUnavailable(reason))
