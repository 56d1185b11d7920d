from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator

from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from contract.windows import WindowScope
from services.ratelimit.policy_layout import lay_out
from services.ratelimit.rpc.policies import to_policy
from tests.integration.ratelimit.conftest import Running, replica
from tests.support.postgres import TestDatabase
from tests.support.ratelimit import API_KEY, ORGANIZATION, bucket, day, month, policy


def decision(
    cost_units: int = 1, *, test_mode: bool = False, api_key: uuid.UUID = API_KEY, route_id: str = "orders"
) -> pb.Decision:
    return pb.Decision(
        request_id=uuid.uuid4().bytes,
        organization_id=ORGANIZATION.bytes,
        api_key_id=api_key.bytes,
        route_id=route_id,
        cost_units=cost_units,
        test_mode=test_mode,
    )


def kinds(response: pb.DecideResponse) -> list[int]:
    return [verdict.kind for verdict in response.verdicts]


A, D = pb.VERDICT_KIND_ALLOWED, pb.VERDICT_KIND_DENIED


async def test_a_batch_is_decided_in_order_and_told_its_policy_once(running: Running) -> None:
    put = await running.put(to_policy(policy(bucket(3), month(1_000))))
    first, second = await running.decide([decision(), decision(5), decision(2)], [decision()])
    assert kinds(first) == [A, D, A]
    assert kinds(second) == [D]
    assert [list(v.remaining) for v in first.verdicts] == [[2, 999], [2, 999], [0, 997]]
    assert first.verdicts[1].denied_by == 0
    assert 39_000 <= first.verdicts[1].retry_after_ms <= 60_000
    assert list(first.policies) == [put]
    assert list(second.policies) == []
    assert first.live_edges == 1


async def test_messages_of_one_stream_are_decided_in_their_order_while_the_first_one_seeds(running: Running) -> None:
    await running.put(to_policy(policy(bucket(3), month(1_000))))
    running.usage.gate.clear()
    sent: asyncio.Queue[pb.DecideRequest] = asyncio.Queue()

    async def requests() -> AsyncIterator[pb.DecideRequest]:
        while True:
            yield await sent.get()

    call = running.stub().Decide(requests(), metadata=running.metadata("edge_proxy"), timeout=20)
    sent.put_nowait(pb.DecideRequest(batch_id=1, decisions=[decision(2)]))
    await running.usage.asked.wait()
    sent.put_nowait(pb.DecideRequest(batch_id=2, decisions=[decision(2)]))
    # An organization without a policy needs no counter, so its answer shows that the message before it was read.
    stranger = pb.Decision(organization_id=uuid.uuid4().bytes)
    sent.put_nowait(pb.DecideRequest(batch_id=3, decisions=[stranger]))
    assert (await call.read()).batch_id == 3
    running.usage.gate.set()
    answers = [await call.read(), await call.read()]
    assert [(answer.batch_id, kinds(answer)) for answer in answers] == [(1, [A]), (2, [D])]
    call.cancel()


async def test_without_a_policy_the_verdict_says_so(running: Running) -> None:
    (answer,) = await running.decide([decision()])
    assert kinds(answer) == [pb.VERDICT_KIND_NO_POLICY]


async def test_a_policy_is_in_force_on_every_replica_within_a_second(
    running: Running, database: TestDatabase, redis_url: str
) -> None:
    async with replica(database, redis_url) as other:
        await running.put(to_policy(policy(bucket(1))))
        async with asyncio.timeout(60):
            while True:
                (answer,) = await other.decide([decision()])
                if kinds(answer) != [pb.VERDICT_KIND_NO_POLICY]:
                    break
        assert kinds(answer) == [A]
        (answer,) = await running.decide([decision()])
        assert kinds(answer) == [D]


async def test_a_replica_that_missed_a_change_decides_nothing_by_the_old_policy_and_reads_it_again(
    running: Running, database: TestDatabase, redis_url: str
) -> None:
    async with replica(database, redis_url) as other:
        await running.put(to_policy(policy(bucket(50))))
        await until_kind(other, A)
        # The change reaches this replica alone, as if the notice to the other were lost.
        newer = policy(bucket(50), day(1), version=2)
        other.policies._layouts[ORGANIZATION.bytes] = lay_out(policy(bucket(50)))
        await running.put(to_policy(newer))
        assert kinds((await running.decide([decision()]))[0]) == [A]
        other.policies._layouts[ORGANIZATION.bytes] = lay_out(policy(bucket(50)))
        assert kinds((await other.decide([decision()]))[0]) == [pb.VERDICT_KIND_UNAVAILABLE]
        await until_kind(other, D)


async def until_kind(running: Running, kind: int) -> None:
    async with asyncio.timeout(60):
        while kinds((await running.decide([decision()]))[0]) != [kind]:
            await asyncio.sleep(0.02)


async def test_test_keys_have_counters_of_their_own(running: Running) -> None:
    await running.put(to_policy(policy(bucket(1), bucket(1, scope=WindowScope.API_KEY, name="key"))))
    (answer,) = await running.decide([decision(), decision(test_mode=True), decision(), decision(test_mode=True)])
    assert kinds(answer) == [A, A, D, D]
