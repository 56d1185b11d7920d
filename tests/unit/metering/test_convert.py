from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from tollway.metering.v1 import metering_service_pb2 as pb

from mesh.rpc.errors import InvalidFields
from services.metering.model import Dimension, UsageRow
from services.metering.rpc.usage import from_query_usage_request, to_decimal_string, to_query_usage_response

ORGANIZATION = uuid.UUID(int=5)
START = datetime(2026, 11, 1, 12, 15, tzinfo=UTC)


def at(instant: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(instant)
    return timestamp


def request(**changes: object) -> pb.QueryUsageRequest:
    values: dict[str, object] = {
        "organization_id": str(ORGANIZATION),
        "start_time": at(START),
        "end_time": at(START + timedelta(days=1)),
        "granularity": pb.GRANULARITY_DAY,
        "group_by": [pb.DIMENSION_ROUTE, pb.DIMENSION_API_KEY],
    }
    return pb.QueryUsageRequest(**{**values, **changes})  # type: ignore[arg-type]


def test_a_question_keeps_its_meaning() -> None:
    query = from_query_usage_request(request())
    assert (query.organization_id, query.start_time, query.end_time) == (
        ORGANIZATION,
        START,
        START + timedelta(days=1),
    )
    assert query.width == timedelta(days=1)
    assert query.group_by == (Dimension.ROUTE, Dimension.API_KEY)
    assert from_query_usage_request(request(granularity=pb.GRANULARITY_UNSPECIFIED)).width is None


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"organization_id": "nobody"}, "organization_id"),
        ({"start_time": None}, "start_time"),
        ({"start_time": at(START + timedelta(minutes=1))}, "start_time"),
        ({"end_time": at(START + timedelta(microseconds=1))}, "end_time"),
        ({"end_time": at(START)}, "end_time"),
        ({"end_time": at(START + timedelta(days=763))}, "end_time"),
        ({"end_time": Timestamp(seconds=10**15)}, "end_time"),
        ({"granularity": 77}, "granularity"),
        ({"group_by": [0]}, "group_by"),
        ({"group_by": [1, 2, 3, 1]}, "group_by"),
    ],
)
def test_wrong_fields_are_named(changes: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidFields) as caught:
        from_query_usage_request(request(**changes))
    assert {violation.field for violation in caught.value.violations} == {field}


@pytest.mark.parametrize(
    ("value", "text"),
    [("0", "0"), ("100", "100"), ("1E+3", "1000"), ("2.50", "2.5"), ("0.000000001", "0.000000001"), ("7.0", "7")],
)
def test_decimals_are_written_without_exponent(value: str, text: str) -> None:
    assert to_decimal_string(Decimal(value)) == text


def test_rows_are_written_whole() -> None:
    row = UsageRow(
        start_time=START,
        group=("orders", "2xx"),
        request_count=3,
        billable_count=2,
        billable_units=Decimal(5),
        test_count=1,
    )
    (written,) = to_query_usage_response([row]).rows
    assert (written.start_time.ToDatetime(UTC), list(written.group), written.billable_units) == (
        START,
        ["orders", "2xx"],
        "5",
    )
    assert (written.request_count, written.billable_count, written.test_count) == (3, 2, 1)
