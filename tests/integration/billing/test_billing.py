"""Subscribing, pushing limits and previewing, with metering, the limiter and auth played by real gRPC servers."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import grpc
import grpc.aio
import pytest
from tollway.auth.v1 import auth_service_pb2, auth_service_pb2_grpc
from tollway.billing.v1 import billing_service_pb2 as pb
from tollway.billing.v1 import billing_service_pb2_grpc
from tollway.metering.v1 import metering_service_pb2, metering_service_pb2_grpc
from tollway.ratelimit.v1 import ratelimit_service_pb2, ratelimit_service_pb2_grpc

from contract.services import SERVICES
from mesh import jobs
from mesh.audit import AuditTrail
from mesh.clock import ManualClock, SystemClock
from mesh.config import ProcessSettings
from mesh.database.idempotency import Idempotency
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.jobs import RetryPolicy, Worker
from mesh.pagination import PageTokens
from mesh.rpc.client import Clients
from mesh.rpc.errors import ReceivedError, from_grpc
from mesh.secretbox import SecretBox
from services.billing.clients import LimitsWriter, UsageReader
from services.billing.jobs import CLEAN_UP, BillingJobs
from services.billing.rpc import BillingHandler
from services.billing.service import Billing
from tests.support.accounts import DATA_KEY
from tests.support.postgres import TestDatabase
from tests.support.processes import process_fields, process_metadata
from tests.support.serving import person_metadata, serving

IDS = RandomIds()
NOW = datetime(2024, 1, 31, 10, 7, tzinfo=UTC)


class FakeMetering(metering_service_pb2_grpc.MeteringServiceServicer):
    """Answers with a number of requests and notes what it was asked."""

    def __init__(self) -> None:
        self.billable_units = 0
        self.asked: list[metering_service_pb2.QueryUsageRequest] = []

    async def QueryUsage(self, request: Any, context: Any) -> metering_service_pb2.QueryUsageResponse:
        self.asked.append(request)
        # Each request costs three units.
        row = metering_service_pb2.UsageRow(
            billable_count=self.billable_units // 3,
            billable_units=str(self.billable_units),
            request_count=self.billable_units // 3 + 7,
        )
        return metering_service_pb2.QueryUsageResponse(rows=[row] if self.billable_units else [])


class FakeRateLimit(ratelimit_service_pb2_grpc.RateLimitServiceServicer):
    """Keeps policies; refuses the first calls where told to."""

    def __init__(self) -> None:
        self.failures_left = 0
        self.policies: list[ratelimit_service_pb2.Policy] = []

    async def PutPolicy(self, request: Any, context: Any) -> ratelimit_service_pb2.Policy:
        if self.failures_left:
            self.failures_left -= 1
            raise RuntimeError("not today")
        self.policies.append(request.policy)
        return request.policy


class FakeAuth(auth_service_pb2_grpc.AuthServiceServicer):
    """Keeps audit entries."""

    def __init__(self) -> None:
        self.entries: list[auth_service_pb2.AuditEntry] = []

    async def AppendAuditEntries(self, request: Any, context: Any) -> auth_service_pb2.AppendAuditEntriesResponse:
        self.entries += request.entries
        return auth_service_pb2.AppendAuditEntriesResponse(appended_count=len(request.entries))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunningBilling:
    stub: billing_service_pb2_grpc.BillingServiceStub
    db: Database
    clock: ManualClock
    metering: FakeMetering
    ratelimit: FakeRateLimit
    auth: FakeAuth
    metering_down: contextlib.AsyncExitStack


@pytest.fixture
async def billing(database: TestDatabase) -> AsyncIterator[RunningBilling]:
    metering, ratelimit, auth = FakeMetering(), FakeRateLimit(), FakeAuth()
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        metering_down = contextlib.AsyncExitStack()
        await enter(metering_down)
        addresses = {
            "metering_address": await metering_down.enter_async_context(
                serving(
                    SERVICES["metering"].descriptor,
                    metering_service_pb2_grpc.add_MeteringServiceServicer_to_server,
                    metering,
                )
            ),
            "ratelimit_address": await enter(
                serving(
                    SERVICES["ratelimit"].descriptor,
                    ratelimit_service_pb2_grpc.add_RateLimitServiceServicer_to_server,
                    ratelimit,
                )
            ),
            "auth_address": await enter(
                serving(SERVICES["auth"].descriptor, auth_service_pb2_grpc.add_AuthServiceServicer_to_server, auth)
            ),
        }
        db = await Database.connect(
            tenant_dsn=database.dsn("billing"), system_dsn=database.dsn("billing_system"), name="b", pool_size_max=5
        )
        stack.push_async_callback(db.close)
        clients = Clients(ProcessSettings(**process_fields("billing"), **addresses), process="billing")
        stack.push_async_callback(clients.close)
        clock = ManualClock(NOW)
        service = Billing(
            db=db,
            idempotency=Idempotency(box=SecretBox({1: DATA_KEY}), clock=clock),
            read_usage=UsageReader(clients).billable_units,
            clock=clock,
            ids=IDS,
        )
        handler = BillingHandler(
            billing=service,
            page_tokens=PageTokens(b"secret"),
        )
        address = await enter(
            serving(
                SERVICES["billing"].descriptor, billing_service_pb2_grpc.add_BillingServiceServicer_to_server, handler
            )
        )
        worker = Worker(
            db=db,
            name="billing",
            handlers=BillingJobs(
                db=db, limits=LimitsWriter(clients), trail=AuditTrail(clients.auth), clock=clock
            ).handlers(),
            clock=SystemClock(),
            ids=IDS,
            retry=RetryPolicy(first_seconds=0.05),
        )
        stopping = asyncio.Event()
        task = asyncio.create_task(worker.run(stopping))

        async def stop() -> None:
            stopping.set()
            await task

        stack.push_async_callback(stop)
        channel = await enter(grpc.aio.insecure_channel(address))
        yield RunningBilling(
            stub=billing_service_pb2_grpc.BillingServiceStub(channel),
            db=db,
            clock=clock,
            metering=metering,
            ratelimit=ratelimit,
            auth=auth,
            metering_down=metering_down,
        )


async def until(condition: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


async def refusal(call: Any) -> ReceivedError:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return from_grpc(refused.value)


async def subscribe(billing: RunningBilling, organization_id: UUID, plan_id: str, **fields: Any) -> pb.Subscription:
    request = pb.CreateSubscriptionRequest(organization_id=str(organization_id), plan_id=plan_id, **fields)
    return await billing.stub.CreateSubscription(request, metadata=process_metadata("cli", "billing"))


async def preview(billing: RunningBilling, organization_id: UUID, **who: Any) -> pb.InvoicePreview:
    request = pb.PreviewInvoiceRequest(organization_id=str(organization_id))
    metadata = person_metadata(IDS.uuid7(), who.get("own_organization_id", organization_id))
    return await billing.stub.PreviewInvoice(request, metadata=metadata)


async def test_plans_are_listed_cheapest_first_and_in_pages(billing: RunningBilling) -> None:
    first = await billing.stub.ListPlans(pb.ListPlansRequest(page_size=2))
    rest = await billing.stub.ListPlans(pb.ListPlansRequest(page_size=2, page_token=first.next_page_token))
    free, starter, pro = [*first.plans, *rest.plans]
    assert rest.next_page_token == ""
    assert (free.plan_id, free.requests_per_minute, free.requests_per_month_max) == ("free", 10, 1_000)
    assert (starter.base_fee.amount_minor, starter.included_requests) == (1_000, 10_000)
    assert starter.overage_unit_price == "0.01"
    assert not starter.HasField("requests_per_month_max")
    assert (pro.plan_id, pro.requests_per_minute, pro.HasField("included_requests")) == ("pro", 300, False)


async def test_a_plan_that_goes_between_two_pages_repeats_none(billing: RunningBilling, database: TestDatabase) -> None:
    first = await billing.stub.ListPlans(pb.ListPlansRequest(page_size=2))
    owner = await asyncpg.connect(database.dsn("owner"))
    await owner.execute("DELETE FROM billing.plans WHERE plan_id = $1", first.plans[-1].plan_id)
    await owner.close()
    rest = await billing.stub.ListPlans(pb.ListPlansRequest(page_size=2, page_token=first.next_page_token))
    assert [plan.plan_id for plan in (*first.plans, *rest.plans)] == ["free", "starter", "pro"]


async def test_a_subscription_pushes_its_limits_and_is_audited(billing: RunningBilling) -> None:
    organization_id = IDS.uuid7()
    subscription = await subscribe(billing, organization_id, "free")
    assert subscription.start_time.ToDatetime(tzinfo=UTC) == NOW.replace(minute=0)
    await until(lambda: billing.ratelimit.policies and billing.auth.entries)
    (policy,) = billing.ratelimit.policies
    assert (policy.organization_id, policy.version) == (str(organization_id), int(NOW.timestamp()) * 1_000_000)
    burst, month = policy.windows
    assert (burst.name, burst.kind, burst.limit, burst.period_seconds) == (
        "burst",
        ratelimit_service_pb2.WINDOW_KIND_TOKEN_BUCKET,
        10,
        60,
    )
    assert (month.name, month.kind, month.limit, month.counts_billable_only) == (
        "month",
        ratelimit_service_pb2.WINDOW_KIND_CALENDAR_MONTH,
        1_000,
        True,
    )
    (entry,) = billing.auth.entries
    assert (entry.action, entry.actor, entry.actor_kind) == ("subscription.create", "cli", "process")
    assert (dict(entry.after)["plan_id"], entry.HasField("before")) == ("free", False)
    assert (entry.address, bool(entry.request_id)) == ("ipv4:127.0.0.1", True)


async def test_a_limiter_that_fails_gets_the_limits_later(billing: RunningBilling) -> None:
    billing.ratelimit.failures_left = 2
    await subscribe(billing, IDS.uuid7(), "pro")
    await until(lambda: billing.ratelimit.policies)
    assert [window.name for window in billing.ratelimit.policies[0].windows] == ["burst"]


async def test_the_same_plan_again_is_the_same_subscription_and_another_is_refused(billing: RunningBilling) -> None:
    organization_id = IDS.uuid7()
    first = await subscribe(billing, organization_id, "starter")
    assert await subscribe(billing, organization_id, "starter") == first
    refused = await refusal(subscribe(billing, organization_id, "pro"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "SUBSCRIBED_TO_ANOTHER_PLAN")
    assert refused.metadata == {"plan_id": "starter"}


async def test_subscribing_at_the_same_time_makes_one_subscription(billing: RunningBilling) -> None:
    organization_id = IDS.uuid7()
    answers = await asyncio.gather(*(subscribe(billing, organization_id, "starter") for _ in range(4)))
    assert len({answer.subscription_id for answer in answers}) == 1


async def test_an_unknown_plan_is_not_found(billing: RunningBilling) -> None:
    refused = await refusal(subscribe(billing, IDS.uuid7(), "gold"))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "PLAN_NOT_FOUND")


async def test_fifteen_thousand_requests_on_starter_cost_sixty_dollars(billing: RunningBilling) -> None:
    organization_id = IDS.uuid7()
    await subscribe(billing, organization_id, "starter")
    billing.metering.billable_units = 15_000
    answer = await preview(billing, organization_id)
    assert (answer.total.amount_minor, answer.total.currency_code) == (6_000, "USD")
    assert [(line.quantity, line.unit_price, line.amount.amount_minor) for line in answer.lines] == [
        ("1", "10.00", 1_000),
        ("10000", "0", 0),
        ("5000", "0.01", 5_000),
    ]
    assert answer.billable_units == 15_000
    (asked,) = billing.metering.asked
    assert asked.start_time.ToDatetime(tzinfo=UTC) == datetime(2024, 1, 31, 10, tzinfo=UTC)
    assert asked.end_time.ToDatetime(tzinfo=UTC) == datetime(2024, 2, 29, 10, tzinfo=UTC)


async def test_the_next_period_begins_a_month_after_the_anchor(billing: RunningBilling) -> None:
    organization_id = IDS.uuid7()
    await subscribe(billing, organization_id, "pro")
    billing.clock.shift(organization_id, 60 * 86_400)
    answer = await preview(billing, organization_id)
    assert answer.period_start_time.ToDatetime(tzinfo=UTC) == datetime(2024, 3, 31, 10, tzinfo=UTC)
    assert answer.period_end_time.ToDatetime(tzinfo=UTC) == datetime(2024, 4, 30, 10, tzinfo=UTC)


async def test_without_a_subscription_there_is_nothing_to_preview(billing: RunningBilling) -> None:
    refused = await refusal(preview(billing, IDS.uuid7()))
    assert (refused.code, refused.reason) == (grpc.StatusCode.NOT_FOUND, "SUBSCRIPTION_NOT_FOUND")


async def test_with_metering_down_a_preview_says_so(billing: RunningBilling) -> None:
    organization_id = IDS.uuid7()
    await subscribe(billing, organization_id, "starter")
    await billing.metering_down.aclose()
    refused = await refusal(preview(billing, organization_id))
    assert (refused.code, refused.reason) == (grpc.StatusCode.UNAVAILABLE, "USAGE_UNAVAILABLE")


async def test_another_tenants_preview_answers_like_that_of_a_missing_one(billing: RunningBilling) -> None:
    organization_id, stranger_id = IDS.uuid7(), IDS.uuid7()
    await subscribe(billing, organization_id, "starter")
    existing = await refusal(preview(billing, organization_id, own_organization_id=stranger_id))
    missing = await refusal(preview(billing, IDS.uuid7(), own_organization_id=stranger_id))
    assert existing == missing
    assert (existing.code, existing.reason) == (grpc.StatusCode.NOT_FOUND, "ORGANIZATION_NOT_FOUND")


async def test_a_replayed_subscription_answers_the_same(billing: RunningBilling) -> None:
    organization_id = IDS.uuid7()
    first = await subscribe(billing, organization_id, "starter", idempotency_key="checkout-1")
    assert await subscribe(billing, organization_id, "starter", idempotency_key="checkout-1") == first
    refused = await refusal(subscribe(billing, organization_id, "pro", idempotency_key="checkout-1"))
    assert refused.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_the_daily_clean_up_may_do_what_it_does(billing: RunningBilling) -> None:
    await subscribe(billing, IDS.uuid7(), "free", idempotency_key="old")
    billing.clock.advance(2 * 86_400)
    async with billing.db.system() as tx:
        await jobs.enqueue(tx, CLEAN_UP, {}, job_id=IDS.uuid7())
    async with asyncio.timeout(60):
        while True:
            async with billing.db.system() as tx:
                if not await tx.fetchval("SELECT count(*) FROM idempotency_keys"):
                    break
            await asyncio.sleep(0.02)
