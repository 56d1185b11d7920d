"""Two replicas of ratelimit on a real cluster of three masters."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from services.ratelimit.rpc.policies import to_policy
from tests.integration.ratelimit.conftest import replica
from tests.support.postgres import TestDatabase
from tests.support.ratelimit import API_KEY, bucket, month, policy
from tests.support.redis_servers import Node, redis_cluster
from tests.support.redis_versions import SERVERS

LIMIT = 20
ORGANIZATIONS = [uuid.UUID(int=0x0190_0000_0000_7000_8000_0000_0000_1000 + number) for number in range(12)]


@pytest.fixture(params=sorted(SERVERS))
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[Node]]:
    with redis_cluster(SERVERS[request.param], tmp_path) as nodes:
        yield nodes


async def test_two_replicas_on_a_cluster_admit_exactly_the_limit(database: TestDatabase, cluster: list[Node]) -> None:
    url = "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster)
    async with replica(database, url, 2.0) as one, replica(database, url, 2.0) as other:
        for organization in ORGANIZATIONS:
            limits = policy(bucket(LIMIT, period_seconds=86_400), month(10 * LIMIT), organization_id=organization)
            await one.put(to_policy(limits))
        await until_known(other)
        batch = [
            pb.Decision(organization_id=organization.bytes, api_key_id=API_KEY.bytes, route_id="r", cost_units=1)
            for organization in ORGANIZATIONS
        ]
        answers = await asyncio.gather(*(each.decide(*[batch] * LIMIT) for each in (one, other)))
        verdicts = [answer.verdicts for stream in answers for answer in stream]
        for place in range(len(ORGANIZATIONS)):
            kinds = [each[place].kind for each in verdicts]
            assert kinds.count(pb.VERDICT_KIND_ALLOWED) == LIMIT
            assert kinds.count(pb.VERDICT_KIND_DENIED) == LIMIT
        assert all(node.client.dbsize() for node in cluster)


async def until_known(other: object) -> None:
    """Waits until a replica has heard of the last policy; a cost of nothing that fits asks without taking."""
    ask = pb.Decision(organization_id=ORGANIZATIONS[-1].bytes, api_key_id=API_KEY.bytes, cost_units=1_000)
    async with asyncio.timeout(60):
        while True:
            (answer,) = await other.decide([ask])  # type: ignore[attr-defined]
            if answer.verdicts[0].kind == pb.VERDICT_KIND_DENIED:
                return
