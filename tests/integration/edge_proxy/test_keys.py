from __future__ import annotations

import asyncio
import json
import time

import pytest
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.events.v1 import usage_event_pb2 as events

from tests.support.edge_fakes import API_KEY, grant, key


def problem(answer):
    return answer.status, json.loads(answer.body)["type"].removeprefix("/problems/")


@pytest.mark.parametrize(
    "credential",
    [
        "Authorization: Bearer sk_live_short",
        "X-API-Key: nope",
        "Authorization: Basic abc",
        "X-API-Key: sk_live_" + "0" * 64,
    ],
)
async def test_malformed_key_is_401_without_a_look_up(edge, credential):
    answer = await edge.request("/x", key="", headers=f"{credential}\r\n")
    assert answer.status == 401
    assert "www-authenticate" in answer.headers
    assert edge.backend.auth.resolved == []
    assert edge.upstream.heads == []


async def test_two_credentials_are_400(edge):
    both = await edge.request("/x", headers=f"X-API-Key: {edge.key}\r\n")
    twice = await edge.request("/x", key="", headers=f"X-API-Key: {edge.key}\r\nX-API-Key: {edge.key}\r\n")
    assert (both.status, twice.status) == (400, 400)


async def test_unknown_key_is_asked_for_once_and_then_remembered(edge):
    stranger = key(77)
    assert problem(await edge.request("/x", key=stranger)) == (401, "key-invalid")
    assert problem(await edge.request("/x", key=stranger)) == (401, "key-invalid")
    assert len(edge.backend.auth.resolved) == 1


async def test_misses_of_many_keys_share_calls_and_each_digest_is_asked_once(edge):
    edge.backend.auth.in_snapshot = False
    secrets = [key(number) for number in range(100, 120)]
    for secret in secrets:
        # Past the watch: only a look-up can find these.
        item = grant(secret)
        edge.backend.auth.grants[item.digest] = item
    answers = await asyncio.gather(*(edge.request("/x", key=secret) for secret in secrets * 3))
    assert {answer.status for answer in answers} == {200}
    asked = [digest for batch in edge.backend.auth.resolved for digest in batch]
    assert len(asked) == len(set(asked)) == 20
    assert len(edge.backend.auth.resolved) < 20


async def test_revoked_key_is_refused_as_soon_as_the_push_has_arrived(edge):
    assert (await edge.request("/x")).status == 200
    # Nothing but the push tells the edge: its grants are fresh for minutes.
    edge.backend.auth.add(grant(edge.key, state=auth.KEY_STATE_REVOKED))
    async with asyncio.timeout(60):
        while (answer := await edge.request("/x")).status == 200:
            pass
    assert problem(answer) == (401, "key-invalid")


async def test_suspended_organization_is_403_and_recorded_as_not_billed(edge):
    edge.backend.auth.add(grant(edge.key, state=auth.KEY_STATE_ORGANIZATION_SUSPENDED))
    await edge.until(lambda: edge.worker._cache.changes > 2)
    assert problem(await edge.request("/x")) == (403, "organization-suspended")
    (event,) = await edge.events(1)
    assert (event.status, event.outcome) == (403, events.OUTCOME_REFUSED)
    assert edge.backend.limiter.decisions == []


async def test_expired_key_is_401(edge):
    secret = key(5)
    edge.backend.auth.add(grant(secret, expire_time_us=time.time_ns() // 1_000 - 1))
    assert problem(await edge.request("/x", key=secret)) == (401, "key-invalid")


async def test_address_and_scope_are_enforced(edge):
    here, elsewhere, reader = key(6), key(7), key(8)
    edge.backend.auth.add(
        grant(here, allowed_ips=["127.0.0.0/8"]),
        grant(elsewhere, allowed_ips=["10.0.0.0/8", "not an address"]),
        grant(reader, scopes=["reports:read"]),
    )
    assert (await edge.request("/x", key=here)).status == 200
    assert problem(await edge.request("/x", key=elsewhere)) == (403, "address-not-allowed")
    assert problem(await edge.request("/scoped", key=here)) == (403, "scope-missing")
    assert (await edge.request("/scoped", key=reader)).status == 200


async def test_known_keys_work_while_auth_is_down_and_unknown_ones_are_503(edge):
    await edge.backend.stop()
    assert (await edge.request("/pass/x")).status == 200
    assert problem(await edge.request("/pass/x", key=key(99))) == (503, "keys-unknown")
    await edge.until(lambda: any(reason.startswith("auth") for reason in edge.worker.degraded()))
    health = await edge.request("/health/ready", key="")
    assert health.status == 200
    assert any(reason.startswith("auth") for reason in json.loads(health.body)["degraded"])


async def test_worker_starts_while_auth_is_down_from_the_snapshot_on_disk(surroundings):
    edge = surroundings
    await edge.start()
    await edge.healthy()
    await edge.stop()
    assert edge.key.encode() not in (edge.data_dir / "keys.snapshot").read_bytes()
    await edge.backend.stop()
    await edge.start()
    try:
        assert (await edge.request("/health/ready", key="")).status == 200
        assert (await edge.request("/pass/x")).status == 200
    finally:
        # Events that nobody took stay for the next start.
        edge.worker._sender.flush = lambda _seconds: asyncio.sleep(0)
        await edge.stop()


async def test_worker_without_keys_and_without_auth_is_not_ready(surroundings):
    edge = surroundings
    await edge.backend.stop()
    await edge.start()
    assert (await edge.request("/health/ready", key="")).status == 503
    await edge.stop()


async def test_test_keys_are_marked_in_decision_and_event(edge):
    secret = key(9, test=True)
    edge.backend.auth.add(grant(secret, external_subject="user-1"))
    assert (await edge.request("/x", key=secret)).status == 200
    (event,) = await edge.events(1)
    assert (event.test_mode, event.external_subject, event.api_key_id) == (True, "user-1", API_KEY.bytes)
    (decision,) = edge.backend.limiter.decisions
    assert (decision.test_mode, decision.external_subject) == (True, "user-1")
