"""Seeding and deciding with Redis and metering played by the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import grpc
import pytest
from tollway.metering.v1 import metering_service_pb2 as metering_pb
from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from contract.calendar_windows import calendar_instant
from contract.windows import WindowScope
from mesh.clock import ManualClock
from mesh.redis import RedisUnavailable
from services.ratelimit.clients import MeteringUsage
from services.ratelimit.counters import OUTDATED, Answer, Call, Counters
from services.ratelimit.decisions import DecisionService
from services.ratelimit.model import UnseededWindow
from services.ratelimit.policies import Policies
from services.ratelimit.policy_layout import lay_out
from services.ratelimit.seeding import NoUsage, Seeder, UsageUnavailable
from tests.support.ratelimit import API_KEY, ORGANIZATION, bucket, month, policy

NOW = datetime(2026, 11, 21, 2, 7, tzinfo=UTC)
LIMITS = policy(bucket(10), month(100))


class Redis:
    """Answers calls the way it is told to, and remembers them."""

    def __init__(self) -> None:
        self.calls: list[tuple[Call, bool]] = []
        self.answers: list[Answer | Exception] = []

    async def run(self, calls: Sequence[Call], seed_first: Sequence[bool]) -> list[Answer]:
        self.calls += zip(calls, seed_first, strict=True)
        answer = self.answers.pop(0) if self.answers else Answer(records=[])
        if isinstance(answer, Exception):
            raise answer
        return [answer] * len(calls)


class ScriptedCounters(Counters):
    def __init__(self, script: Redis) -> None:
        self._script = script

    async def run(self, calls: Sequence[Call], seed_first: Sequence[bool]) -> list[Answer]:
        return await self._script.run(calls, seed_first)

    teach = run


class Usage:
    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.failures = 0
        self.asked: list[tuple[UUID, datetime, WindowScope]] = []

    async def billable_units(
        self, organization_id: UUID, start_time: datetime, scope: WindowScope
    ) -> dict[bytes, Decimal]:
        self.asked.append((organization_id, start_time, scope))
        await self.gate.wait()
        if self.failures:
            self.failures -= 1
            raise UsageUnavailable
        return {b"": Decimal("41.2")}


@pytest.fixture
async def tasks() -> AsyncIterator[asyncio.TaskGroup]:
    async with asyncio.TaskGroup() as group:
        yield group


def call() -> Call:
    return Call(lay_out(LIMITS), test_mode=False, instant=calendar_instant(NOW))


async def test_waiting_calls_share_one_question_and_a_started_unit_is_a_used_one(tasks: asyncio.TaskGroup) -> None:
    redis, usage = Redis(), Usage()
    seeder = Seeder(usage=usage, run=redis.run, tasks=tasks)
    wanted = [UnseededWindow(key=1, window=2)]
    first, second = seeder.start(call(), wanted), seeder.start(call(), wanted)
    assert first is second
    assert first is not None
    assert seeder.is_running(ORGANIZATION.bytes)
    usage.gate.set()
    await first
    assert usage.asked == [(ORGANIZATION, datetime(2026, 11, 1, tzinfo=UTC), WindowScope.ORGANIZATION)]
    ((seeding, seed_first),) = redis.calls
    assert not seed_first
    assert seeding.arguments(seed_first=False)[-1].endswith(bytes.fromhex("0000000000004540"))  # 42.0
    assert not seeder.is_running(ORGANIZATION.bytes)


async def test_a_question_that_fails_is_asked_again(tasks: asyncio.TaskGroup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.ratelimit.seeding.RETRY_PAUSE_SECONDS_MIN", 0.0)
    redis, usage = Redis(), Usage()
    usage.failures = 2
    usage.gate.set()
    redis.answers = [RedisUnavailable("away")]
    task = Seeder(usage=usage, run=redis.run, tasks=tasks).start(call(), [UnseededWindow(key=1, window=2)])
    assert task is not None
    await task
    assert len(usage.asked) == 4
    assert len(redis.calls) == 2


async def test_seeding_under_a_policy_that_was_replaced_ends_so_that_the_next_call_asks_again(
    tasks: asyncio.TaskGroup,
) -> None:
    redis, usage = Redis(), Usage()
    usage.gate.set()
    redis.answers = [OUTDATED]
    seeder = Seeder(usage=usage, run=redis.run, tasks=tasks)
    task = seeder.start(call(), [UnseededWindow(key=1, window=2)])
    assert task is not None
    await asyncio.wait_for(task, 10)
    assert not seeder.is_running(ORGANIZATION.bytes)
    assert len(usage.asked) == 1


async def test_windows_of_another_policy_are_not_mixed_into_a_question_under_way(tasks: asyncio.TaskGroup) -> None:
    redis, usage = Redis(), Usage()
    seeder = Seeder(usage=usage, run=redis.run, tasks=tasks)
    task = seeder.start(call(), [UnseededWindow(key=1, window=2)])
    newer = lay_out(policy(bucket(10), bucket(20, name="other"), month(100), version=2))
    later = Call(newer, test_mode=False, instant=calendar_instant(NOW))
    assert seeder.start(later, [UnseededWindow(key=1, window=3)]) is task
    usage.gate.set()
    assert task is not None
    await task
    assert len(redis.calls) == 1


async def test_an_organization_in_use_is_asked_about_again_every_quarter_of_an_hour(tasks: asyncio.TaskGroup) -> None:
    now = [0.0]
    redis, usage = Redis(), Usage()
    usage.gate.set()
    seeder = Seeder(usage=usage, run=redis.run, tasks=tasks, now_seconds=lambda: now[0])
    asked = []
    for now[0] in (0.0, 899.0, 900.0, 901.0, 1800.0):
        seeder.ask_again(call())
        while seeder.is_running(ORGANIZATION.bytes):
            await asyncio.sleep(0)
        asked.append(len(usage.asked))
    assert asked == [0, 0, 1, 1, 2]
    seeding, _ = redis.calls[-1]
    assert seeding.arguments(seed_first=False)[-1].endswith(bytes.fromhex("0000000000004540"))  # 42.0


async def test_decisions_have_their_organization_asked_about_again(tasks: asyncio.TaskGroup) -> None:
    redis, usage, asked = Redis(), NoUsage(), []
    redis.answers = [Answer(records=[(1, 0, 0, 9, 99, 5, 6)])]
    service = deciding(redis, usage, tasks)
    service._seeder.ask_again = lambda each: asked.append(each.layout.policy.organization_id)  # type: ignore[method-assign]
    await service.decide([decision()], [])
    assert asked == [ORGANIZATION]


def deciding(
    redis: Redis, usage: Usage | NoUsage, tasks: asyncio.TaskGroup, seed_wait_seconds: float = 60
) -> DecisionService:
    policies = Policies(db=None)  # type: ignore[arg-type]
    policies.take(LIMITS)
    return DecisionService(
        policies=policies,
        counters=ScriptedCounters(redis),
        seeder=Seeder(usage=usage, run=redis.run, tasks=tasks),
        clock=ManualClock(NOW),
        seed_wait_seconds=seed_wait_seconds,
    )


def decision(organization_id: UUID = ORGANIZATION, *, test_mode: bool = False) -> pb.Decision:
    return pb.Decision(
        organization_id=organization_id.bytes, api_key_id=API_KEY.bytes, cost_units=1, test_mode=test_mode
    )


async def test_verdicts_stand_where_their_decisions_stood(tasks: asyncio.TaskGroup) -> None:
    redis = Redis()
    redis.answers = [Answer(records=[(1, 0, 0, 9, 99, 5, 6), (2, 1, 77, 0, 98, 5, 6)])]
    decided = await deciding(redis, NoUsage(), tasks).decide([decision(), decision(UUID(int=9)), decision()], [])
    assert [verdict.kind for verdict in decided.verdicts] == [1, 3, 2]
    allowed, _, denied = decided.verdicts
    assert (list(allowed.remaining), list(allowed.reset_ms), allowed.policy_version) == ([9, 99], [5, 6], 1)
    assert (denied.denied_by, denied.retry_after_ms) == (1, 77)
    assert allowed.calendar_time_us == int(NOW.timestamp()) * 1_000_000


@pytest.mark.parametrize("time_us", [-1, 2**62])
async def test_a_give_back_from_an_impossible_time_costs_nobody_a_verdict(
    tasks: asyncio.TaskGroup, time_us: int
) -> None:
    redis = Redis()
    redis.answers = [Answer(records=[(1, 0, 0, 9, 99, 5, 6)])]
    back = pb.GiveBack(organization_id=ORGANIZATION.bytes, api_key_id=API_KEY.bytes, calendar_time_us=time_us)
    decided = await deciding(redis, NoUsage(), tasks).decide([decision()], [back])
    assert [verdict.kind for verdict in decided.verdicts] == [pb.VERDICT_KIND_ALLOWED]


async def test_give_backs_that_redis_did_not_take_are_not_acknowledged(tasks: asyncio.TaskGroup) -> None:
    redis = Redis()
    redis.answers = [RedisUnavailable("away"), Answer(records=[])]
    back = pb.GiveBack(organization_id=ORGANIZATION.bytes, api_key_id=API_KEY.bytes)
    service = deciding(redis, NoUsage(), tasks)
    assert [(await service.decide([], [back])).has_given_back for _ in range(2)] == [False, True]
    redis.answers = [RedisUnavailable("away")]
    assert (await service.decide([decision()], [])).has_given_back


@pytest.mark.parametrize("answer", [RedisUnavailable("away"), Answer()])
async def test_without_counters_the_verdict_is_unavailable(
    tasks: asyncio.TaskGroup, answer: Answer | Exception
) -> None:
    redis = Redis()
    redis.answers = [answer]
    decided = await deciding(redis, NoUsage(), tasks).decide([decision()], [])
    assert [verdict.kind for verdict in decided.verdicts] == [pb.VERDICT_KIND_UNAVAILABLE]


async def test_a_slow_metering_service_delays_no_decision_beyond_its_share(tasks: asyncio.TaskGroup) -> None:
    redis, usage = Redis(), Usage()
    unseeded = Answer(unseeded=(UnseededWindow(key=1, window=2),))
    redis.answers = [unseeded, Answer(records=[(1, 0, 0, 9, 99, 5, 6)]), Answer(records=[(1, 0, 0, 8, 98, 5, 6)])]
    service = deciding(redis, usage, tasks, seed_wait_seconds=0)
    for _ in range(2):
        decided = await service.decide([decision()], [])
        assert [verdict.kind for verdict in decided.verdicts] == [pb.VERDICT_KIND_ALLOWED]
    # Asked first, then decided without; the second batch does not ask while the question is open.
    assert [seed_first for _, seed_first in redis.calls] == [True, False, False]
    usage.gate.set()


async def test_test_keys_are_never_seeded(tasks: asyncio.TaskGroup) -> None:
    redis = Redis()
    redis.answers = [Answer(records=[(1, 0, 0, 9, 99, 5, 6)])]
    await deciding(redis, NoUsage(), tasks).decide([decision(test_mode=True)], [])
    assert [seed_first for _, seed_first in redis.calls] == [False]


class Metering:
    """The stub of metering."""

    def __init__(self) -> None:
        self.request: metering_pb.QueryUsageRequest | None = None
        self.rows: list[metering_pb.UsageRow] = []
        self.code: grpc.StatusCode | None = None

    async def QueryUsage(
        self, request: metering_pb.QueryUsageRequest, timeout: float
    ) -> metering_pb.QueryUsageResponse:
        self.request = request
        if self.code:
            raise grpc.aio.AioRpcError(self.code, grpc.aio.Metadata(), grpc.aio.Metadata())
        return metering_pb.QueryUsageResponse(rows=self.rows)


@pytest.mark.parametrize(
    ("scope", "group", "name"),
    [
        (WindowScope.ORGANIZATION, [], b""),
        (WindowScope.API_KEY, [str(API_KEY)], API_KEY.bytes),
        (WindowScope.ROUTE, ["orders"], b"orders"),
    ],
)
async def test_usage_is_asked_for_by_the_windows_scope(scope: WindowScope, group: list[str], name: bytes) -> None:
    metering = Metering()
    metering.rows = [metering_pb.UsageRow(group=group, billable_units="12.5")]
    usage = MeteringUsage(metering=metering, clock=ManualClock(NOW))
    found = await usage.billable_units(ORGANIZATION, datetime(2026, 11, 1, tzinfo=UTC), scope)
    assert found == {name: Decimal("12.5")}
    assert metering.request is not None
    assert metering.request.end_time.ToDatetime(UTC) == datetime(2026, 11, 21, 2, 30, tzinfo=UTC)


async def test_metering_that_is_away_is_usage_that_is_away() -> None:
    metering = Metering()
    metering.code = grpc.StatusCode.UNAVAILABLE
    with pytest.raises(UsageUnavailable):
        await MeteringUsage(metering=metering, clock=ManualClock(NOW)).billable_units(
            ORGANIZATION, NOW, WindowScope.ORGANIZATION
        )
