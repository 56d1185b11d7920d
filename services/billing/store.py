"""Reads and writes billing's tables. Every function runs inside the transaction that it is given."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final
from uuid import UUID

from mesh.database.connection import Connection
from mesh.database.sql import load
from services.billing.model import Plan, PlanPlace, Subscription
from services.billing.rating import Price

QUERIES: Final = load(__package__)
NEWEST: Final = 0
BEFORE_ALL: Final = PlanPlace(base_fee_minor=-1, plan_id="")


async def list_plans(tx: Connection, *, after: PlanPlace | None, limit: int) -> list[Plan]:
    """Return the newest version of each plan, cheapest first, behind a place in that order."""
    place = after or BEFORE_ALL
    return [_plan(row) for row in await tx.fetch(QUERIES["select_plans"], place.base_fee_minor, place.plan_id, limit)]


async def find_plan(tx: Connection, plan_id: str, version: int = NEWEST) -> Plan | None:
    """Return one version of a plan."""
    row = await tx.fetchrow(QUERIES["select_plan"], plan_id, version)
    return _plan(row) if row else None


async def find_subscription(tx: Connection, organization_id: UUID) -> Subscription | None:
    """Return an organization's active subscription."""
    row = await tx.fetchrow(QUERIES["select_active_subscription"], organization_id)
    return Subscription(**row) if row else None


async def insert_subscription(
    tx: Connection, *, organization_id: UUID, subscription_id: UUID, plan: Plan, start_time: datetime, now: datetime
) -> Subscription | None:
    """Store a subscription; None where the organization has an active one."""
    row = await tx.fetchrow(
        QUERIES["insert_subscription"],
        organization_id,
        subscription_id,
        plan.plan_id,
        plan.version,
        int(now.timestamp() * 1_000_000),
        start_time,
        now,
    )
    return Subscription(**row) if row else None


def _plan(row: Any) -> Plan:
    return Plan(
        plan_id=row["plan_id"],
        version=row["version"],
        name=row["name"],
        price=Price(
            currency_code=row["currency_code"],
            base_fee_minor=row["base_fee_minor"],
            included_requests=row["included_requests"],
            overage_unit_price=row["overage_unit_price"],
        ),
        requests_per_minute=row["requests_per_minute"],
        requests_per_month_max=row["requests_per_month_max"],
    )
