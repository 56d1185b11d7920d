"""Asks metering what an organization has used."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import grpc.aio
from tollway.metering.v1 import metering_service_pb2 as pb

from contract.windows import WindowScope
from mesh.clock import Clock
from services.ratelimit.seeding import UsageUnavailable

DEADLINE_SECONDS: Final = 2.0
_BUCKET: Final = timedelta(minutes=15)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DIMENSIONS: Final[dict[WindowScope, list[pb.Dimension.ValueType]]] = {
    WindowScope.ORGANIZATION: [],
    WindowScope.API_KEY: [pb.DIMENSION_API_KEY],
    WindowScope.ROUTE: [pb.DIMENSION_ROUTE],
}


class MeteringUsage:
    """Usage as metering's rollups have it.

    Args:
        metering: Stub of the service.
        clock: Says up to when to ask.
    """

    def __init__(self, *, metering: Any, clock: Clock) -> None:
        self._metering = metering
        self._clock = clock

    async def billable_units(
        self, organization_id: UUID, start_time: datetime, scope: WindowScope
    ) -> dict[bytes, Decimal]:
        """Return billable units from an instant on: per API key, per route, or in one sum."""
        now = self._clock.now(organization_id)
        request = pb.QueryUsageRequest(organization_id=str(organization_id), group_by=_DIMENSIONS[scope])
        request.start_time.FromDatetime(start_time)
        # Events of an edge whose clock is ahead lie in the next bucket.
        request.end_time.FromDatetime(now - (now - _EPOCH) % _BUCKET + 2 * _BUCKET)
        try:
            answer = await self._metering.QueryUsage(request, timeout=DEADLINE_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise UsageUnavailable(repr(error.code())) from error
        return {_name(scope, row.group): Decimal(row.billable_units) for row in answer.rows}


def _name(scope: WindowScope, group: Any) -> bytes:
    if scope is WindowScope.API_KEY:
        return UUID(group[0]).bytes
    return str(group[0]).encode() if scope is WindowScope.ROUTE else b""
