from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from tollway.metering.v1 import metering_service_pb2 as pb

from services.metering.errors import BatchTooLarge, IngestUnavailable, NextOffsetInvalid
from services.metering.ingest import EVENTS_PER_TRANSACTION_MAX
from services.metering.model import BatchResult, IngestBatch, Source
from services.metering.rpc.ingest import IngestRpcs
from services.metering.service import IngestQueue

JOURNAL_ID = "01900000-0000-7000-8000-000000000001"


class Recorder:
    """Takes batches in by remembering how they were merged; fails where it is told to."""

    def __init__(self) -> None:
        self.merged: list[list[int]] = []
        self.failure: Exception | None = None
        self.gate = asyncio.Event()

    async def apply(self, batches: Sequence[IngestBatch]) -> list[BatchResult]:
        await self.gate.wait()
        self.merged.append([len(batch.payloads) for batch in batches])
        if self.failure:
            raise self.failure
        return [BatchResult(accepted_count=len(b.payloads), duplicate_count=0, dead_count=0) for b in batches]


@pytest.fixture
async def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
async def queue(recorder: Recorder) -> AsyncIterator[IngestQueue]:
    made = IngestQueue(recorder.apply)
    writer = asyncio.create_task(made.run())
    yield made
    writer.cancel()


def batch(size: int) -> IngestBatch:
    return IngestBatch(source=Source(name="j", partition=0), next_offset=1, payloads=[b"x"] * size)


async def test_batches_that_wait_become_one_transaction_up_to_its_limit(queue: IngestQueue, recorder: Recorder) -> None:
    half = EVENTS_PER_TRANSACTION_MAX // 2
    futures = [await queue.submit(batch(size)) for size in (half, half, 1, 2)]
    recorder.gate.set()
    results = [await future for future in futures]
    assert [result.accepted_count for result in results] == [half, half, 1, 2]
    assert recorder.merged == [[half, half], [1, 2]]


async def test_a_failed_transaction_fails_its_batches_and_the_next_one_goes_on(
    queue: IngestQueue, recorder: Recorder
) -> None:
    recorder.gate.set()
    for failure in (ValueError("surprise"), IngestUnavailable()):
        recorder.failure = failure
        with pytest.raises(IngestUnavailable):
            await (await queue.submit(batch(1)))
    recorder.failure = None
    assert (await (await queue.submit(batch(1)))).accepted_count == 1


async def requests(*messages: pb.IngestRequest) -> AsyncIterator[pb.IngestRequest]:
    for message in messages:
        yield message


def message(**changes: object) -> pb.IngestRequest:
    values: dict[str, object] = {"batch_id": 1, "journal_id": JOURNAL_ID, "next_offset": 1, "events": [b"x"]}
    return pb.IngestRequest(**{**values, **changes})  # type: ignore[arg-type]


async def test_a_stream_is_answered_batch_by_batch_in_order(queue: IngestQueue, recorder: Recorder) -> None:
    recorder.gate.set()
    handler = IngestRpcs(queue)
    stream = handler.Ingest(requests(message(), message(batch_id=2, events=[b"x"] * 3)), None)
    assert [(answer.batch_id, answer.accepted_count) async for answer in stream] == [(1, 1), (2, 3)]


@pytest.mark.parametrize(
    ("changes", "error"),
    [({"events": [b""] * 5_001}, BatchTooLarge), ({"next_offset": -1}, NextOffsetInvalid)],
)
async def test_a_wrong_batch_ends_the_stream_after_those_before_it(
    queue: IngestQueue, recorder: Recorder, changes: dict[str, object], error: type[Exception]
) -> None:
    recorder.gate.set()
    handler = IngestRpcs(queue)
    stream = handler.Ingest(requests(message(), message(batch_id=2, **changes)), None)
    assert (await anext(stream)).batch_id == 1
    with pytest.raises(error):
        await anext(stream)
