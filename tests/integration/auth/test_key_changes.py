"""Keys reach the edges: resolved in batches, pushed when they change."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg
import grpc
import pytest
from tollway.auth.v1 import auth_service_pb2 as pb

from mesh.rpc.errors import from_grpc
from services.auth import change_streams, key_changes
from tests.support.accounts import seed_key, seed_organization
from tests.support.running_auth import read_to_the_end

EDGE = "edge_proxy"


async def watch(auth: Any, **fields: Any) -> Any:
    """Opens a watch once the listener is connected."""
    for _ in range(100):
        call = auth.stub.WatchKeys(pb.WatchKeysRequest(**fields), metadata=auth.process(EDGE))
        try:
            return call, await asyncio.wait_for(call.read(), 30)
        except grpc.aio.AioRpcError as error:
            if from_grpc(error).reason != "KEY_WATCH_UNAVAILABLE":
                raise
            await asyncio.sleep(0.05)
    raise AssertionError("the listener never connected")


async def read_snapshot(call: Any, first: pb.WatchKeysResponse) -> list[pb.KeyGrant]:
    grants, part = list(first.grants), first
    while not part.snapshot_complete:
        part = await asyncio.wait_for(call.read(), 30)
        grants += part.grants
    return grants


async def changes_until(call: Any, state: int, count: int = 1) -> set[bytes]:
    """Reads changes until so many keys have a state, in one message or several; others may come before."""
    found: set[bytes] = set()
    async with asyncio.timeout(60):
        while len(found) < count:
            found |= {grant.digest for grant in (await call.read()).grants if grant.state == state}
    return found


async def execute(auth: Any, sql: str, *values: Any) -> None:
    connection = await asyncpg.connect(auth.database.dsn("auth_system"))
    try:
        await connection.execute(sql, *values)
    finally:
        await connection.close()


async def test_known_digests_are_resolved_and_unknown_ones_are_absent(auth: Any) -> None:
    owner = await seed_organization(auth.database.dsn("auth_system"))
    api_key_id, digest = await seed_key(auth.database.dsn("auth_system"), owner.organization_id, owner.owner_id)
    answer = await auth.stub.ResolveKeys(
        pb.ResolveKeysRequest(digests=[b"x" * 32, digest]), metadata=auth.process(EDGE)
    )
    (grant,) = answer.grants
    assert (grant.digest, grant.api_key_id) == (digest, api_key_id.bytes)
    assert grant.organization_id == owner.organization_id.bytes
    assert (grant.mode, grant.state, grant.expire_time_us) == (pb.KEY_MODE_LIVE, pb.KEY_STATE_ACTIVE, 0)


async def test_a_digest_of_the_wrong_length_is_refused(auth: Any) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await auth.stub.ResolveKeys(pb.ResolveKeysRequest(digests=[b"short"]), metadata=auth.process(EDGE))
    assert from_grpc(refused.value).reason == "INVALID_FIELDS"


async def test_snapshot_holds_the_keys_that_can_serve(auth: Any) -> None:
    dsn = auth.database.dsn("auth_system")
    owner = await seed_organization(dsn)
    _, live = await seed_key(dsn, owner.organization_id, owner.owner_id)
    revoked_id, _ = await seed_key(dsn, owner.organization_id, owner.owner_id)
    await execute(auth, "UPDATE api_keys SET revoke_time = now() WHERE api_key_id = $1", revoked_id)
    call, first = await watch(auth)
    assert [grant.digest for grant in await read_snapshot(call, first)] == [live]
    call.cancel()


async def test_a_revocation_is_pushed_within_a_second(auth: Any) -> None:
    dsn = auth.database.dsn("auth_system")
    owner = await seed_organization(dsn)
    keys = [await seed_key(dsn, owner.organization_id, owner.owner_id) for _ in range(3)]
    call, first = await watch(auth)
    await read_snapshot(call, first)
    taken = []
    for api_key_id, digest in keys:
        await execute(auth, "UPDATE api_keys SET revoke_time = now() WHERE api_key_id = $1", api_key_id)
        committed = time.monotonic()
        assert await changes_until(call, pb.KEY_STATE_REVOKED) == {digest}
        taken.append(time.monotonic() - committed)
    # Whoever shares the machine may slow one of them down; nothing on the way waits for a second.
    assert min(taken) < 1.0, taken
    call.cancel()


async def test_a_key_made_and_revoked_through_the_rpcs_is_pushed_both_times(auth: Any) -> None:
    owner = await seed_organization(auth.database.dsn("auth_system"))
    metadata = auth.person(owner.owner_id, owner.organization_id)
    organization_id = str(owner.organization_id)
    call, first = await watch(auth)
    await read_snapshot(call, first)
    created = await auth.stub.CreateApiKey(
        pb.CreateApiKeyRequest(organization_id=organization_id, name="ci"), metadata=metadata
    )
    await auth.stub.RevokeApiKey(
        pb.RevokeApiKeyRequest(organization_id=organization_id, api_key_id=created.api_key.api_key_id),
        metadata=metadata,
    )
    assert len(await changes_until(call, pb.KEY_STATE_REVOKED)) == 1
    call.cancel()


async def test_every_change_raises_the_version_of_a_grant_and_traffic_does_not(auth: Any) -> None:
    dsn = auth.database.dsn("auth_system")
    owner = await seed_organization(dsn)
    api_key_id, digest = await seed_key(dsn, owner.organization_id, owner.owner_id)

    async def version() -> int:
        request = pb.ResolveKeysRequest(digests=[digest])
        (grant,) = (await auth.stub.ResolveKeys(request, metadata=auth.process(EDGE))).grants
        return int(grant.version)

    versions = [await version()]
    for state in ("suspended", "active"):
        await execute(auth, "UPDATE organizations SET state = $1", state)
        versions.append(await version())
    for change in ("scopes = '{read}'", "allowed_ips = '{192.0.2.0/24}'", "revoke_time = now()"):
        await execute(auth, f"UPDATE api_keys SET {change} WHERE api_key_id = $1", api_key_id)
        versions.append(await version())
    assert versions == sorted(set(versions))
    await execute(auth, "UPDATE organizations SET state = 'active', name = 'else'")
    await execute(auth, "UPDATE api_keys SET last_use_time = now()")
    assert await version() == versions[-1]


async def test_a_stream_without_changes_shows_that_it_lives(auth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_streams, "HEARTBEAT_SECONDS", 0.02)
    call, first = await watch(auth)
    await read_snapshot(call, first)
    for _ in range(3):
        assert await asyncio.wait_for(call.read(), 30) == pb.WatchKeysResponse()
    call.cancel()


async def test_a_stream_shows_that_it_lives_while_its_snapshot_is_read(
    auth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_streams, "HEARTBEAT_SECONDS", 0.02)
    (await watch(auth))[0].cancel()
    enough, take_snapshot = asyncio.Event(), key_changes.store.keys.take_snapshot

    async def take_slowly(*args: Any, **kwargs: Any) -> Any:
        await enough.wait()
        return await take_snapshot(*args, **kwargs)

    monkeypatch.setattr(key_changes.store.keys, "take_snapshot", take_slowly)
    call, first = await watch(auth)
    assert (first, await asyncio.wait_for(call.read(), 30)) == (pb.WatchKeysResponse(),) * 2
    enough.set()
    await read_snapshot(call, first)
    call.cancel()


async def test_a_stream_that_is_closed_while_its_snapshot_is_read_says_so(
    auth: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_streams, "HEARTBEAT_SECONDS", 0.02)
    (await watch(auth))[0].cancel()

    async def never(*_values: Any, **_fields: Any) -> Any:
        await asyncio.Event().wait()

    monkeypatch.setattr(key_changes.store.keys, "take_snapshot", never)
    call, _ = await watch(auth)
    auth.key_changes._close_all("test")
    with pytest.raises(grpc.aio.AioRpcError) as closed:
        await read_to_the_end(call)
    assert from_grpc(closed.value).reason == "KEY_WATCH_UNAVAILABLE"


async def test_suspending_an_organization_pushes_all_its_keys(auth: Any) -> None:
    dsn = auth.database.dsn("auth_system")
    owner, other = await seed_organization(dsn), await seed_organization(dsn, "other")
    digests = {(await seed_key(dsn, owner.organization_id, owner.owner_id))[1] for _ in range(3)}
    await seed_key(dsn, other.organization_id, other.owner_id)
    call, first = await watch(auth)
    await read_snapshot(call, first)
    await execute(
        auth, "UPDATE organizations SET state = 'suspended' WHERE organization_id = $1", owner.organization_id
    )
    assert await changes_until(call, pb.KEY_STATE_ORGANIZATION_SUSPENDED, len(digests)) == digests
    call.cancel()


async def test_a_lost_listener_closes_the_streams_and_comes_back(auth: Any) -> None:
    call, first = await watch(auth)
    await read_snapshot(call, first)
    admin = await asyncpg.connect(auth.database.dsn("admin"))
    try:
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() AND application_name = ''"
        )
    finally:
        await admin.close()
    with pytest.raises(grpc.aio.AioRpcError) as closed:
        await read_to_the_end(call)
    assert from_grpc(closed.value).reason == "KEY_WATCH_UNAVAILABLE"
    again, first = await watch(auth)
    await read_snapshot(again, first)
    again.cancel()


async def test_changes_during_the_snapshot_are_not_lost(auth: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    dsn = auth.database.dsn("auth_system")
    owner = await seed_organization(dsn)
    api_key_id, digest = await seed_key(dsn, owner.organization_id, owner.owner_id)
    (await watch(auth))[0].cancel()
    take_snapshot = key_changes.store.keys.take_snapshot

    async def take_then_change(*args: Any, **kwargs: Any) -> Any:
        taken = await take_snapshot(*args, **kwargs)
        await execute(auth, "UPDATE api_keys SET revoke_time = now() WHERE api_key_id = $1", api_key_id)
        return taken

    monkeypatch.setattr(key_changes.store.keys, "take_snapshot", take_then_change)
    call, first = await watch(auth)
    assert [grant.state for grant in await read_snapshot(call, first)] == [pb.KEY_STATE_ACTIVE]
    assert await changes_until(call, pb.KEY_STATE_REVOKED) == {digest}
    call.cancel()
