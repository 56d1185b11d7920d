"""Takes batches from the edges' journals in, over one stream per edge worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final
from uuid import UUID

from tollway.metering.v1 import metering_service_pb2 as pb

from services.metering.errors import BatchTooLarge, JournalIdInvalid, NextOffsetInvalid
from services.metering.ingest import EVENTS_PER_BATCH_MAX
from services.metering.model import BatchResult, IngestBatch, Source
from services.metering.service import IngestQueue

BATCHES_IN_FLIGHT_MAX: Final = 32
JOURNAL_SOURCE_PREFIX: Final = "journal:"

_Pending = tuple[int, asyncio.Future[BatchResult]]


class IngestRpcs:
    """Handles `Ingest`.

    Args:
        queue: Takes batches in.
    """

    def __init__(self, queue: IngestQueue) -> None:
        self._queue = queue

    async def Ingest(self, request_iterator: AsyncIterator[pb.IngestRequest], context: Any) -> AsyncIterator[Any]:
        """Take batches in and answer each after its commit. A failed transaction ends the stream, unanswered."""
        pending: asyncio.Queue[_Pending | None] = asyncio.Queue(BATCHES_IN_FLIGHT_MAX)
        reader = asyncio.create_task(self._read(request_iterator, pending))
        try:
            while (item := await pending.get()) is not None:
                batch_id, future = item
                result = await future
                yield pb.IngestResponse(
                    batch_id=batch_id,
                    accepted_count=result.accepted_count,
                    duplicate_count=result.duplicate_count,
                    dead_count=result.dead_count,
                )
            await reader
        finally:
            reader.cancel()

    async def _read(self, requests: AsyncIterator[pb.IngestRequest], pending: asyncio.Queue[_Pending | None]) -> None:
        try:
            async for request in requests:
                batch = _from_ingest_request(request)
                await pending.put((request.batch_id, await self._queue.submit(batch)))
        except Exception:
            await pending.put(None)
            raise
        await pending.put(None)


def _from_ingest_request(request: pb.IngestRequest) -> IngestBatch:
    if len(request.events) > EVENTS_PER_BATCH_MAX:
        raise BatchTooLarge(f"{len(request.events)} events")
    if request.next_offset < 0:
        raise NextOffsetInvalid(str(request.next_offset))
    try:
        journal_id = UUID(request.journal_id)
    except ValueError:
        raise JournalIdInvalid(request.journal_id[:100]) from None
    source = Source(name=f"{JOURNAL_SOURCE_PREFIX}{journal_id}", partition=0)
    return IngestBatch(source=source, next_offset=request.next_offset, payloads=request.events)
