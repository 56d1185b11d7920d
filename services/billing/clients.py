"""What billing asks of other services: usage of metering, limits in force of ratelimit."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Final
from uuid import UUID

import grpc
import grpc.aio
from google.protobuf import timestamp_pb2
from tollway.metering.v1 import metering_service_pb2
from tollway.ratelimit.v1 import ratelimit_service_pb2

from mesh.rpc.client import Clients
from services.billing.errors import UsageUnavailable
from services.billing.model import Plan
from services.billing.periods import Period

MINUTE_SECONDS: Final = 60
_AWAY: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})


class UsageReader:
    """Asks metering for usage.

    Args:
        clients: The other services.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def billable_units(self, organization_id: UUID, period: Period) -> int:
        """Return the units that an organization is billed for in a period: the cost units of its billable requests.

        Raises:
            UsageUnavailable: Metering does not answer.
        """
        request = metering_service_pb2.QueryUsageRequest(
            organization_id=str(organization_id),
            start_time=_to_timestamp(period.start_time),
            end_time=_to_timestamp(period.end_time),
        )
        try:
            answer = await self._clients.metering.QueryUsage(request)
        except grpc.aio.AioRpcError as error:
            if error.code() in _AWAY:
                raise UsageUnavailable(repr(error)) from error
            raise
        # Cost units are whole numbers, and metering sums them exactly.
        return int(sum((Decimal(row.billable_units or 0) for row in answer.rows), Decimal()))


class LimitsWriter:
    """Puts limits in force at the limiter.

    Args:
        clients: The other services.
    """

    def __init__(self, clients: Clients) -> None:
        self._clients = clients

    async def put(self, plan: Plan, *, organization_id: UUID, version: int) -> None:
        """Put a plan's limits in force for an organization; a version that is not newer changes nothing."""
        policy = to_policy(plan, organization_id=organization_id, version=version)
        await self._clients.ratelimit.PutPolicy(ratelimit_service_pb2.PutPolicyRequest(policy=policy))


def to_policy(plan: Plan, *, organization_id: UUID, version: int) -> ratelimit_service_pb2.Policy:
    """Return a plan's limits: a minute's rate that may come at once and, where there is one, the month's quota."""
    windows = [
        ratelimit_service_pb2.Window(
            name="burst",
            kind=ratelimit_service_pb2.WINDOW_KIND_TOKEN_BUCKET,
            limit=plan.requests_per_minute,
            period_seconds=MINUTE_SECONDS,
            scope=ratelimit_service_pb2.WINDOW_SCOPE_ORGANIZATION,
        )
    ]
    if plan.requests_per_month_max is not None:
        windows.append(
            ratelimit_service_pb2.Window(
                name="month",
                kind=ratelimit_service_pb2.WINDOW_KIND_CALENDAR_MONTH,
                limit=plan.requests_per_month_max,
                scope=ratelimit_service_pb2.WINDOW_SCOPE_ORGANIZATION,
                counts_billable_only=True,
            )
        )
    return ratelimit_service_pb2.Policy(organization_id=str(organization_id), version=version, windows=windows)


def _to_timestamp(instant: datetime) -> timestamp_pb2.Timestamp:
    converted = timestamp_pb2.Timestamp()
    converted.FromDatetime(instant)
    return converted
