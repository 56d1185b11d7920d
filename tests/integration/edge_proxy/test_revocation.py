"""A revoked key is refused for good: by an edge that restarts, while auth is killed, frozen or cut off."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from tollway.auth.v1 import auth_service_pb2 as auth

from edge_proxy.keys.files import KeyFiles
from tests.support.accounts import seed_key, seed_organization
from tests.support.auth_process import auth_process, bring_back, lose
from tests.support.edge_fakes import key
from tests.support.postgres import TestDatabase

KEPT, REVOKED = key(1), key(2)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():
            await asyncio.sleep(0.01)


async def seed(dsn: str) -> UUID:
    """Makes two keys and returns the id of the one that will be revoked."""
    owner = await seed_organization(dsn)
    await seed_key(dsn, owner.organization_id, owner.owner_id, KEPT)
    revoked_id, _ = await seed_key(dsn, owner.organization_id, owner.owner_id, REVOKED)
    return revoked_id


async def revoke(dsn: str, api_key_id: UUID) -> None:
    connection = await asyncpg.connect(dsn)
    await connection.execute("UPDATE api_keys SET revoke_time = now() WHERE api_key_id = $1", api_key_id)
    await connection.close()


def copy_keys(data_dir: Path, folder: Path) -> bool:
    """Takes the files as a crash would leave them and tells whether the revocation is among them."""
    folder.mkdir(exist_ok=True)
    for path in data_dir.glob("keys.*"):
        shutil.copy(path, folder)
    loaded = KeyFiles(folder).load()
    return loaded is not None and auth.KEY_STATE_REVOKED in {grant.state for grant in loaded.grants}


@pytest.mark.parametrize("fate", ["killed", "frozen", "cut"])
async def test_a_revoked_key_stays_refused_by_an_edge_that_restarts_while_auth_is_away(
    surroundings, database: TestDatabase, tmp_path: Path, fate: str
) -> None:
    dsn = database.dsn("auth_system")
    revoked_id = await seed(dsn)
    edge = surroundings
    async with auth_process(database) as (process, way):
        edge.changes["auth_address"] = f"127.0.0.1:{way.port}"
        await edge.start()
        await edge.until(lambda: not edge.worker.degraded(), 30)
        assert [(await edge.request("/pass", key=shown)).status for shown in (KEPT, REVOKED)] == [200, 200]
        await edge.worker._key_saver.save_snapshot()

        await revoke(dsn, revoked_id)

        async def is_refused() -> bool:
            return (await edge.request("/pass", key=REVOKED)).status == 401

        await eventually(is_refused)
        await lose(process, way, fate)
        await edge.until(lambda: copy_keys(edge.data_dir, tmp_path / "after_crash"))
        await edge.until(lambda: any("key watch is not connected" in reason for reason in edge.worker.degraded()))
        again = dataclasses.replace(edge, data_dir=tmp_path / "after_crash", _stack=contextlib.AsyncExitStack())
        await again.start()
        assert (await again.request("/pass", key=KEPT)).status == 200
        assert (await again.request("/pass", key=REVOKED)).status == 401

        await bring_back(process, way, fate)
        for one in (edge, again):
            await one.until(lambda one=one: not one.worker.degraded(), 30)
            assert (await one.request("/pass", key=KEPT)).status == 200
            assert (await one.request("/pass", key=REVOKED)).status == 401
        await again.stop()
        await edge.stop()


async def test_a_key_that_was_revoked_while_the_line_was_cut_is_refused_and_saved_on_return(
    surroundings, database: TestDatabase, tmp_path: Path
) -> None:
    dsn = database.dsn("auth_system")
    revoked_id = await seed(dsn)
    edge = surroundings
    async with auth_process(database) as (_, way):
        edge.changes["auth_address"] = f"127.0.0.1:{way.port}"
        await edge.start()
        await edge.until(lambda: not edge.worker.degraded(), 30)
        await edge.worker._key_saver.save_snapshot()
        way.swallow()
        await edge.until(edge.worker.degraded)
        await revoke(dsn, revoked_id)
        assert (await edge.request("/pass", key=REVOKED)).status == 200
        way.pass_on()
        await edge.until(lambda: not edge.worker.degraded(), 30)
        assert (await edge.request("/pass", key=REVOKED)).status == 401

        async def is_gone_from_the_files() -> bool:
            copy_keys(edge.data_dir, tmp_path / "after_crash")
            grants = KeyFiles(tmp_path / "after_crash").load().grants
            return {grant.state for grant in grants} != {auth.KEY_STATE_ACTIVE} or len(grants) == 1

        await eventually(is_gone_from_the_files)
        await edge.stop()
