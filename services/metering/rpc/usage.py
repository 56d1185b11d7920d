"""Answers questions about usage."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp
from tollway.metering.v1 import metering_service_pb2 as pb

from mesh.rpc.access import current_principal
from mesh.rpc.errors import Violations
from services.metering.model import Dimension, UsageQuery, UsageRow
from services.metering.service import UsageService

BUCKET: Final = timedelta(minutes=15)
RANGE_MAX: Final = timedelta(days=762)  # 25 months
DIMENSIONS_MAX: Final = 3

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_WIDTHS: Final[dict[int, timedelta | None]] = {
    pb.GRANULARITY_UNSPECIFIED: None,
    pb.GRANULARITY_QUARTER_HOUR: BUCKET,
    pb.GRANULARITY_HOUR: timedelta(hours=1),
    pb.GRANULARITY_DAY: timedelta(days=1),
}
_DIMENSIONS: Final[dict[int, Dimension]] = {
    pb.DIMENSION_API_KEY: Dimension.API_KEY,
    pb.DIMENSION_ROUTE: Dimension.ROUTE,
    pb.DIMENSION_STATUS_CLASS: Dimension.STATUS_CLASS,
}


class UsageRpcs:
    """Handles `QueryUsage`.

    Args:
        usage: Answers questions.
    """

    def __init__(self, usage: UsageService) -> None:
        self._usage = usage

    async def QueryUsage(self, request: pb.QueryUsageRequest, context: Any) -> pb.QueryUsageResponse:
        """Sum usage."""
        rows = await self._usage.query(from_query_usage_request(request), current_principal())
        return to_query_usage_response(rows)


def from_query_usage_request(request: pb.QueryUsageRequest) -> UsageQuery:
    """Read a question.

    Raises:
        InvalidFields: With everything that is wrong with it.
    """
    violations = Violations()
    organization_id = _organization_id(request.organization_id, violations)
    start_time = _instant(request.start_time, request.HasField("start_time"), "start_time", violations)
    end_time = _instant(request.end_time, request.HasField("end_time"), "end_time", violations)
    if start_time and end_time:
        violations.check(start_time < end_time, "end_time", "must be after start_time")
        violations.check(end_time - start_time <= RANGE_MAX, "end_time", "must be at most 25 months after start_time")
    violations.check(request.granularity in _WIDTHS, "granularity", "must be a known granularity")
    group_by = _dimensions(list(request.group_by), violations)
    violations.raise_if_any()
    return UsageQuery(
        organization_id=organization_id or UUID(int=0),
        start_time=start_time or _EPOCH,
        end_time=end_time or _EPOCH,
        width=_WIDTHS[request.granularity],
        group_by=group_by,
    )


def to_query_usage_response(rows: list[UsageRow]) -> pb.QueryUsageResponse:
    """Write sums."""
    response = pb.QueryUsageResponse()
    for row in rows:
        written = response.rows.add(
            group=row.group,
            request_count=row.request_count,
            billable_count=row.billable_count,
            billable_units=to_decimal_string(row.billable_units),
            test_count=row.test_count,
        )
        written.start_time.FromDatetime(row.start_time)
    return response


def to_decimal_string(value: Decimal) -> str:
    """Write a decimal without exponent and without trailing zeros behind the point."""
    text = format(value, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


def _organization_id(text: str, violations: Violations) -> UUID | None:
    try:
        return UUID(text)
    except ValueError:
        violations.add("organization_id", "must be a UUID")
        return None


def _instant(value: Timestamp, is_given: bool, field: str, violations: Violations) -> datetime | None:
    if not violations.check(is_given, field, "must be given"):
        return None
    try:
        instant = value.ToDatetime(UTC)
    except (ValueError, OverflowError):
        violations.add(field, "must be a valid instant")
        return None
    on_grid = value.nanos == 0 and (instant - _EPOCH) % BUCKET == timedelta()
    return instant if violations.check(on_grid, field, "must be a multiple of 15 minutes") else None


def _dimensions(values: list[int], violations: Violations) -> tuple[Dimension, ...]:
    violations.check(len(values) <= DIMENSIONS_MAX, "group_by", f"must be at most {DIMENSIONS_MAX} dimensions")
    violations.check(len(set(values)) == len(values), "group_by", "must name each dimension once")
    violations.check(all(value in _DIMENSIONS for value in values), "group_by", "must be known dimensions")
    return tuple(_DIMENSIONS[value] for value in values if value in _DIMENSIONS)
