"""Rules and transactions of plans, subscriptions and previews."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from uuid import UUID

from mesh import audit, jobs
from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from mesh.ids import IdSource
from services.billing import store
from services.billing.errors import PlanNotFound, SubscribedToAnotherPlan, SubscriptionNotFound
from services.billing.model import InvoicePreview, NewSubscription, Plan, PlanPlace, Subscription
from services.billing.periods import Period, align, period_containing
from services.billing.rating import rate

PUT_POLICY: Final = "put_policy"

ReadUsage = Callable[[UUID, Period], Awaitable[int]]
"""Returns an organization's billable requests in a period; raises `UsageUnavailable`."""


class Billing:
    """Subscribes organizations and prices their usage.

    Args:
        db: Billing's tables.
        idempotency: Replays.
        read_usage: Asks metering.
        clock: The organization's time.
        ids: New ids.
    """

    def __init__(
        self, *, db: Database, idempotency: Idempotency, read_usage: ReadUsage, clock: Clock, ids: IdSource
    ) -> None:
        self._db = db
        self._idempotency = idempotency
        self._read_usage = read_usage
        self._clock = clock
        self._ids = ids

    async def list_plans(self, *, after: PlanPlace | None, limit: int) -> list[Plan]:
        """Return the plans on offer, cheapest first, behind a place in that order."""
        async with self._db.system() as tx:
            return await store.list_plans(tx, after=after, limit=limit)

    async def subscribe(self, wanted: NewSubscription, asked: Mutation[Subscription, Answer]) -> Answer:
        """Subscribe an organization to the newest version of a plan; on that plan already, return what there is.

        The push of its limits and the audit entry are jobs in the same transaction.

        Raises:
            PlanNotFound: There is no such plan.
            SubscribedToAnotherPlan: The organization is on another one.
        """
        async with self._db.tenant(wanted.organization_id) as tx:
            return await self._idempotency.idempotent(tx, asked, self._subscribe, wanted)

    async def _subscribe(self, tx: Connection, wanted: NewSubscription) -> Subscription:
        plan = await store.find_plan(tx, wanted.plan_id)
        if plan is None:
            raise PlanNotFound
        now = self._clock.now(wanted.organization_id)
        created = await store.insert_subscription(
            tx,
            organization_id=wanted.organization_id,
            subscription_id=self._ids.uuid7(),
            plan=plan,
            start_time=align(now),
            now=now,
        )
        if created is None:
            return await self._existing(tx, wanted.organization_id, wanted.plan_id)
        await self._enqueue_consequences(tx, created)
        return created

    async def preview_invoice(self, organization_id: UUID) -> InvoicePreview:
        """Price the current period so far.

        Raises:
            SubscriptionNotFound: The organization has no subscription.
            UsageUnavailable: Metering does not answer.
        """
        async with self._db.read(organization_id) as tx:
            subscription = await store.find_subscription(tx, organization_id)
            if subscription is None:
                raise SubscriptionNotFound
            plan = await store.find_plan(tx, subscription.plan_id, subscription.plan_version)
        assert plan is not None, "a foreign key holds every subscription's plan"  # noqa: S101
        period = period_containing(subscription.start_time, self._clock.now(organization_id))
        billable_units = await self._read_usage(organization_id, period)
        return InvoicePreview(
            organization_id=organization_id,
            plan_id=plan.plan_id,
            currency_code=plan.price.currency_code,
            period=period,
            lines=rate(plan.price, billable_units),
            billable_units=billable_units,
        )

    async def _existing(self, tx: Connection, organization_id: UUID, plan_id: str) -> Subscription:
        existing = await store.find_subscription(tx, organization_id)
        if existing is None or existing.plan_id != plan_id:
            raise SubscribedToAnotherPlan(metadata={"plan_id": existing.plan_id if existing else ""})
        return existing

    async def _enqueue_consequences(self, tx: Connection, subscription: Subscription) -> None:
        organization_id = subscription.organization_id
        await jobs.enqueue(
            tx,
            PUT_POLICY,
            {
                "plan_id": subscription.plan_id,
                "plan_version": subscription.plan_version,
                "policy_version": subscription.policy_version,
            },
            job_id=self._ids.uuid7(),
            organization_id=organization_id,
        )
        await audit.enqueue(
            tx,
            job_id=self._ids.uuid7(),
            organization_id=organization_id,
            action="subscription.create",
            resource=f"subscription/{subscription.subscription_id}",
            now=self._clock.now(),
            after={"plan_id": subscription.plan_id, "plan_version": subscription.plan_version},
        )
