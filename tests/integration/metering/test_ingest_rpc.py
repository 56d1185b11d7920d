from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from tollway.metering.v1 import metering_service_pb2 as pb

from mesh.rpc.errors import from_grpc
from tests.integration.metering.conftest import Running
from tests.support.metering import API_KEY, ORGANIZATION, payload


def today() -> dict[str, object]:
    start = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    request = pb.QueryUsageRequest(organization_id=str(ORGANIZATION))
    request.start_time.FromDatetime(start)
    request.end_time.FromDatetime(start + timedelta(days=3))
    return {"start_time": request.start_time, "end_time": request.end_time}


async def ingest(running: Running, *batches: list[bytes]) -> list[pb.IngestResponse]:
    journal_id = str(uuid.uuid4())
    requests = [
        pb.IngestRequest(batch_id=number, journal_id=journal_id, next_offset=number * 100, events=batch)
        for number, batch in enumerate(batches, 1)
    ]
    call = running.stub().Ingest(iter(requests), metadata=running.metadata("edge_proxy"), timeout=10)
    return [response async for response in call]


async def test_batches_are_answered_after_their_commit_and_repetitions_count_once(running: Running) -> None:
    events = [payload() for _ in range(10)]
    answers = await ingest(running, events, [*events, payload(), b"\xff\xff"])
    assert [(a.batch_id, a.accepted_count, a.duplicate_count, a.dead_count) for a in answers] == [
        (1, 10, 0, 0),
        (2, 1, 10, 1),
    ]
    usage = await running.stub().QueryUsage(
        pb.QueryUsageRequest(
            organization_id=str(ORGANIZATION), group_by=[pb.DIMENSION_API_KEY, pb.DIMENSION_STATUS_CLASS], **today()
        ),
        metadata=running.metadata("billing"),
    )
    (row,) = usage.rows
    assert (list(row.group), row.request_count, row.billable_count, row.billable_units, row.test_count) == (
        [str(API_KEY), "2xx"],
        11,
        11,
        "11",
        0,
    )


async def test_all_wrong_fields_of_a_question_are_told_together(running: Running) -> None:
    request = pb.QueryUsageRequest(organization_id=str(ORGANIZATION), group_by=[1, 1])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub().QueryUsage(request, metadata=running.metadata("ratelimit"))
    error = from_grpc(caught.value)
    assert (error.code, error.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELDS")
    assert {violation.field for violation in error.violations} == {"start_time", "end_time", "group_by"}


async def test_a_tenant_that_is_no_id_is_told_before_anything_else_is_looked_at(running: Running) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await running.stub().QueryUsage(
            pb.QueryUsageRequest(organization_id="x"), metadata=running.metadata("ratelimit")
        )
    error = from_grpc(caught.value)
    assert (error.code, [violation.field for violation in error.violations]) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        ["organization_id"],
    )


async def test_a_process_that_is_not_named_may_not_ingest(running: Running) -> None:
    # Nothing is sent: of a message that a refusal overtakes, grpc.aio says INTERNAL by itself.
    call = running.stub().Ingest(metadata=running.metadata("billing"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call.read()
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_a_journal_without_a_uuid_breaks_the_stream(running: Running) -> None:
    call = running.stub().Ingest(
        iter([pb.IngestRequest(journal_id="x", events=[payload()])]), metadata=running.metadata("edge_proxy")
    )
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    assert from_grpc(caught.value).reason == "JOURNAL_ID_INVALID"
