"""Plans on the wire."""

from __future__ import annotations

from typing import Any, Final

from tollway.billing.v1 import billing_service_pb2 as pb

from mesh.pagination import PageTokens
from services.billing.model import Plan, PlanPlace
from services.billing.rpc.values import to_decimal, to_money
from services.billing.service import Billing

PLANS: Final = "plans"


class PlanRpcs:
    """Handles the RPCs about plans.

    Args:
        billing: The rules.
        page_tokens: Pages.
    """

    def __init__(self, billing: Billing, page_tokens: PageTokens) -> None:
        self._plans = billing
        self._page_tokens = page_tokens

    async def ListPlans(self, request: pb.ListPlansRequest, context: Any) -> pb.ListPlansResponse:
        """List the plans on offer."""
        wanted = self._page_tokens.read(page_size=request.page_size, page_token=request.page_token, listing=PLANS)
        after = from_place_text(wanted.after_key) if wanted.after_key else None
        plans = await self._plans.list_plans(after=after, limit=wanted.fetch_limit)
        page = self._page_tokens.page(
            plans, [to_place_text(plan.place) for plan in plans], request=wanted, listing=PLANS
        )
        return pb.ListPlansResponse(plans=[to_plan(plan) for plan in page.rows], next_page_token=page.next_page_token)


def to_plan(plan: Plan) -> pb.Plan:
    """Write a plan."""
    price = plan.price
    return pb.Plan(
        plan_id=plan.plan_id,
        name=plan.name,
        version=plan.version,
        base_fee=to_money(price.base_fee_minor, price.currency_code),
        included_requests=price.included_requests,
        overage_unit_price=to_decimal(price.overage_unit_price) if price.overage_unit_price is not None else "",
        requests_per_minute=plan.requests_per_minute,
        requests_per_month_max=plan.requests_per_month_max,
    )


def to_place_text(place: PlanPlace) -> str:
    """Write a place in the list, for a page token."""
    return f"{place.base_fee_minor} {place.plan_id}"


def from_place_text(text: str) -> PlanPlace:
    """Read a place in the list."""
    base_fee_minor, _, plan_id = text.partition(" ")
    return PlanPlace(base_fee_minor=int(base_fee_minor), plan_id=plan_id)
