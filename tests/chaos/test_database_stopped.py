"""PostgreSQL is stopped for half a minute under load: cached keys go on working, and a new one works right after it.

Real processes on a real server. CI runs the short form, `tests/integration/edge_proxy/test_database_away.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter

import grpc
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb

from bench import edge_changes
from bench.auth_installation import clients_of, open_folder, running

pytestmark = pytest.mark.timeout(600)

STOPPED_SECONDS = 30.0
KEYS = 50
CLIENTS_PER_EDGE = 4


async def load(edge, keys, stopping, outcomes):
    """Shows keys one after the other until told to stop; counts the statuses and keeps the slowest answer."""
    async with edge_changes.askers([edge]) as (asker,):
        number = 0
        while not stopping.is_set():
            began = time.monotonic()
            status, _ = await asker.ask("/x", keys[number % len(keys)])
            outcomes["slowest"] = max(outcomes["slowest"], time.monotonic() - began)
            outcomes[status] += 1
            number += 1
            await asyncio.sleep(0.005)


async def create_key(clients, installation):
    """Asks for a key until auth can make one."""
    request = pb.CreateApiKeyRequest(organization_id=str(installation.organization_id), name="new")
    while True:
        with contextlib.suppress(grpc.aio.AioRpcError):
            return (await clients.auth.CreateApiKey(request, metadata=installation.owner(), timeout=2)).secret
        await asyncio.sleep(0.01)


async def test_cached_keys_outlive_a_stopped_database_and_a_new_key_works_within_a_second_of_its_return():
    with open_folder() as folder:
        async with edge_changes.upstream() as url, running(folder, edges=2, upstream=url) as installation:
            keys = await installation.seed_keys(KEYS)
            stopping, outcomes = asyncio.Event(), Counter({"slowest": 0.0})
            async with asyncio.TaskGroup() as tasks, edge_changes.askers(installation.edges) as asking:
                for asker in asking:
                    assert {(await asker.ask("/x", key))[0] for key in keys} == {200}
                for edge in installation.edges:
                    for _ in range(CLIENTS_PER_EDGE):
                        tasks.create_task(load(edge, keys, stopping, outcomes))
                await asyncio.to_thread(installation.postgres.stop)
                await asyncio.sleep(STOPPED_SECONDS)
                clients = clients_of(installation.auth_address, "edge_proxy")
                creating = asyncio.create_task(create_key(clients, installation))
                await asyncio.to_thread(installation.postgres.start)
                back = time.monotonic()
                secret = await creating
                for asker in asking:
                    while (await asker.ask("/x", secret))[0] != 200:
                        await asyncio.sleep(0.005)
                new_key_seconds = time.monotonic() - back
                stopping.set()
                await clients.close()
            print(f"\n{dict(outcomes)}, new key after {new_key_seconds:.3f} s")
            slowest = outcomes.pop("slowest")
            assert set(outcomes) == {200}, outcomes
            assert slowest < 2.0
            assert new_key_seconds < 1.0
