"""Decide streams, leases and policies with everything behind them played by the test."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any
from uuid import UUID

import hiredis
import pytest
from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from contract.calendar_windows import calendar_instant_of
from contract.windows import WindowScope
from mesh.ids import SequenceIds
from mesh.redis import RedisUnavailable
from mesh.rpc.errors import InvalidFields
from services.ratelimit.counters import Call, Counters
from services.ratelimit.decisions import Decided
from services.ratelimit.errors import DecisionBatchTooLarge
from services.ratelimit.leases import EdgeLeases
from services.ratelimit.model import Policy
from services.ratelimit.policies import Policies
from services.ratelimit.policy_layout import PolicyLayout, lay_out
from services.ratelimit.rpc.handler import RateLimitHandler
from services.ratelimit.rpc.policies import to_policy
from tests.support.ratelimit import API_KEY, ORGANIZATION, bucket, month, policy


class Pipe:
    """Redis' end of the pipe."""

    def __init__(self, *replies: object) -> None:
        self.replies = list(replies)
        self.commands: list[tuple[Any, ...]] = []

    def call(self, commands: Sequence[tuple[Any, ...]], keys: Sequence[bytes] = ()) -> asyncio.Future[list[Any]]:
        self.commands += commands
        answered: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        replies = [self.replies.pop(0) if self.replies else 1 for _ in commands]
        failures = [reply for reply in replies if isinstance(reply, RedisUnavailable)]
        if failures:
            answered.set_exception(failures[0])
        else:
            answered.set_result(replies)
        return answered


class Decisions:
    """Decides by a plan: batches wait for their turn."""

    def __init__(self) -> None:
        self.layout: PolicyLayout = lay_out(policy(bucket()))
        self.turns: dict[int, asyncio.Event] = {}

    async def decide(self, decisions: Sequence[pb.Decision], give_backs: Sequence[pb.GiveBack]) -> Decided:
        turn = self.turns.get(len(decisions))
        if turn is not None:
            await turn.wait()
        verdicts = [pb.Verdict(kind=pb.VERDICT_KIND_ALLOWED)] * len(decisions)
        return Decided(verdicts=verdicts, layouts=[self.layout])


class PutPolicies:
    async def put(self, put: Policy) -> Policy:
        return put

    async def get(self, organization_id: UUID) -> Policy:
        return policy(bucket(), organization_id=organization_id)


@pytest.fixture
def decisions() -> Decisions:
    return Decisions()


@pytest.fixture
def handler(decisions: Decisions) -> RateLimitHandler:
    leases = EdgeLeases(pipe=Pipe(), ids=SequenceIds())  # type: ignore[arg-type]
    return RateLimitHandler(decisions=decisions, policies=PutPolicies(), leases=leases)  # type: ignore[arg-type]


async def requests(*messages: pb.DecideRequest) -> AsyncIterator[pb.DecideRequest]:
    for message in messages:
        yield message


def batch(batch_id: int, size: int) -> pb.DecideRequest:
    return pb.DecideRequest(batch_id=batch_id, decisions=[pb.Decision()] * size)


async def test_answers_leave_as_they_are_ready_and_the_policy_goes_with_its_first_use(
    handler: RateLimitHandler, decisions: Decisions
) -> None:
    decisions.turns[1] = asyncio.Event()
    stream = handler.Decide(requests(batch(1, 1), batch(2, 2), batch(3, 3)), None)
    first, second = await anext(stream), await anext(stream)
    decisions.turns[1].set()
    third = await anext(stream)
    assert [first.batch_id, second.batch_id, third.batch_id] == [2, 3, 1]
    assert [len(answer.policies) for answer in (first, second, third)] == [1, 0, 0]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_a_policy_is_told_again_when_its_version_changes(handler: RateLimitHandler, decisions: Decisions) -> None:
    async def two() -> AsyncIterator[pb.DecideRequest]:
        yield batch(1, 1)
        await told.wait()
        yield batch(2, 1)

    told = asyncio.Event()
    stream = handler.Decide(two(), None)
    assert [each.version for each in (await anext(stream)).policies] == [1]
    decisions.layout = lay_out(policy(bucket(), version=2))
    told.set()
    assert [each.version for each in (await anext(stream)).policies] == [2]
    await stream.aclose()


async def test_give_backs_are_acknowledged(handler: RateLimitHandler) -> None:
    stream = handler.Decide(requests(pb.DecideRequest(batch_id=1, give_backs=[pb.GiveBack()]), batch(2, 1)), None)
    assert [(answer.batch_id, answer.has_given_back) async for answer in stream] == [(1, True), (2, True)]


async def test_a_batch_that_is_too_large_ends_the_stream(handler: RateLimitHandler) -> None:
    with pytest.raises(DecisionBatchTooLarge):
        await anext(handler.Decide(requests(batch(1, 1_001)), None))


async def test_policies_are_put_and_got(handler: RateLimitHandler) -> None:
    message = to_policy(policy(bucket(), month()))
    assert await handler.PutPolicy(pb.PutPolicyRequest(policy=message), None) == message
    got = await handler.GetPolicy(pb.GetPolicyRequest(organization_id=str(ORGANIZATION)), None)
    assert got.organization_id == str(ORGANIZATION)
    with pytest.raises(InvalidFields):
        await handler.GetPolicy(pb.GetPolicyRequest(organization_id="x"), None)


async def test_leases_are_counted_by_redis_and_never_fewer_than_here() -> None:
    pipe = Pipe(7, hiredis.ReplyError("OOM"), RedisUnavailable("away"))
    leases = EdgeLeases(pipe=pipe, ids=SequenceIds())  # type: ignore[arg-type]
    assert leases.live_count == 1
    names = [leases.acquire() for _ in range(9)]
    renewing = asyncio.create_task(leases.run())
    await until(lambda: leases.live_count == 9 and bool(pipe.commands))
    assert pipe.commands[0][-9:] == tuple(sorted(names))
    for name in names:
        leases.release(name)
    assert leases.live_count == 7
    renewing.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await renewing


async def test_a_forgotten_script_is_told_apart_and_a_refused_one_decides_nothing() -> None:
    layout = lay_out(policy(bucket()))
    answer = b"\x00" + layout.record.pack(1, 0, 0, 9, 60)
    pipe = Pipe(hiredis.ReplyError("NOSCRIPT No matching script"), hiredis.ReplyError("READONLY"), answer)
    calls = [Call(layout, test_mode=mode, instant=calendar_instant_of(0)) for mode in (False, True)]
    counters = Counters(pipe)  # type: ignore[arg-type]
    found = [*await counters.run(calls, [True, False]), *await counters.teach(calls[:1], [True])]
    assert [command[0] for command in pipe.commands] == ["EVALSHA", "EVALSHA", "EVAL"]
    assert found[0].is_forgotten
    assert (found[1].records, found[1].is_final) == (None, True)
    assert found[2].records == [(1, 0, 0, 9, 60)]


def test_keys_of_one_organization_carry_its_hash_tag_and_are_named_once() -> None:
    limits = policy(bucket(), bucket(scope=WindowScope.API_KEY, name="k"), bucket(scope=WindowScope.ROUTE, name="r"))
    call = Call(lay_out(limits), test_mode=False, instant=calendar_instant_of(0))
    for place in range(3):
        call.decide(place, API_KEY.bytes, "orders", 1)
    call.give_back(b"i" * 16, API_KEY.bytes, "orders", 1, 0)
    count, *rest = call.arguments(seed_first=False)
    keys = rest[:count]
    assert count == 5
    assert len(set(keys)) == 5
    assert all(key.startswith(b"rl2:{" + ORGANIZATION.hex.encode() + b"}:") for key in keys)
    assert [call.key_name(number) for number in (1, 2, 3)] == [b"o", b"k" + API_KEY.bytes, b"rorders"]


def test_an_older_policy_never_replaces_a_newer_one() -> None:
    policies = Policies(db=None)  # type: ignore[arg-type]
    for version in (2, 1, 3, 3, 2):
        policies.take(policy(bucket(version), version=version))
    found = policies.find(ORGANIZATION.bytes)
    assert found is not None
    assert found.policy.version == 3
    assert policies.find(b"x" * 16) is None


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0)
