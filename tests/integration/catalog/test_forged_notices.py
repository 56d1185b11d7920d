"""Every role can NOTIFY on every channel, so a listener takes a notice for a hint and nothing more."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from prometheus_client import REGISTRY

from mesh.clock import SystemClock
from mesh.database.pools import Database
from mesh.ids import RandomIds
from mesh.jobs import Worker, enqueue
from services.auth.key_changes import CHANNEL as KEY_CHANGES
from services.auth.key_changes import KeyChanges
from services.auth.principal_changes import CHANNEL as PRINCIPAL_CHANGES
from services.auth.principal_changes import PrincipalChanges
from services.auth.signing_keys import CHANNEL as SIGNING_KEYS
from services.ratelimit import store
from services.ratelimit.policies import Policies
from services.ratelimit.store import POLICIES_CHANNEL
from tests.support.accounts import seed_key, seed_organization
from tests.support.ratelimit import bucket, policy
from tests.support.running_auth import running_auth

ROOT = Path(__file__).resolve().parents[3]
WAIT_SECONDS = 20
NONSENSE = [
    "",
    "x",
    "key",
    "key x y",
    "key  ",
    f"key {UUID(int=7)} {UUID(int=8)}",
    f"key {UUID(int=7)}",
    f"organization {UUID(int=7)}",
    "organization ",
    "organization \U0001f4a3",
    str(UUID(int=9)),
    "0" * 199,
    "0" * 7_000,
]


async def connect(database, service, **options):
    return await Database.connect(
        tenant_dsn=database.dsn(service), system_dsn=database.dsn(f"{service}_system"), name=service, **options
    )


async def forge(database, channel, payloads):
    """Sends notices as a role of another service."""
    stranger = await asyncpg.connect(database.dsn("notification"))
    try:
        await stranger.executemany("SELECT pg_notify($1, $2)", [(channel, payload) for payload in payloads])
    finally:
        await stranger.close()


def connections(channel):
    """How often a listener had to connect."""
    labels = {"channel": channel, "cause": "connected"}
    return REGISTRY.get_sample_value("tollway_database_gaps_total", labels) or 0


async def eventually_connected(channel):
    async def connected():
        return connections(channel) > 0

    await eventually(connected)


async def eventually(holds):
    async with asyncio.timeout(WAIT_SECONDS):
        while not await holds():
            await asyncio.sleep(0.01)


def test_every_channel_has_its_test_here():
    """A new listener comes with a test of what a forged notice does to it."""
    sources = [path for folder in ("services", "mesh", "edge_proxy") for path in (ROOT / folder).rglob("*.py")]
    followed = {path.parent.name for path in sources if re.search(r"\.follow\(", path.read_text())}
    assert followed == {"auth", "ratelimit", "jobs", "database"}


async def test_forged_key_notices_neither_change_a_grant_nor_end_the_watch(database):
    dsn = database.dsn("auth_system")
    owner = await seed_organization(dsn)
    key_id, digest = await seed_key(dsn, owner.organization_id, owner.owner_id)
    db, stopping = await connect(database, "auth", pool_size_max=2), asyncio.Event()
    changes = KeyChanges(db=db, clock=SystemClock())
    running = asyncio.create_task(changes.run(stopping))

    async def listening():
        return changes._listening

    await eventually(listening)
    watch = changes.watch()
    while not (await asyncio.wait_for(anext(watch), WAIT_SECONDS))[1]:
        pass
    await forge(database, KEY_CHANGES, [*NONSENSE, f"key {owner.organization_id} {key_id}"])
    try:
        async with asyncio.timeout(WAIT_SECONDS):
            while not (grants := (await anext(watch))[0]):
                pass
        # The notice made auth read the key again; what it says comes from the table: the key is active.
        assert {(grant.digest, grant.state.name) for grant in grants} == {(digest, "ACTIVE")}
        assert changes._listening
    finally:
        await watch.aclose()
        stopping.set()
        await running
        await db.close()


async def test_forged_notices_of_signing_keys_change_no_key(database):
    async with running_auth(database) as auth:
        keys, read_at = auth.signing_keys, auth.signing_keys._read_at
        published, stopping = keys.jwks_json(), asyncio.Event()
        running = asyncio.create_task(keys.run(stopping))
        try:
            await eventually_connected(SIGNING_KEYS)
            await forge(database, SIGNING_KEYS, NONSENSE)

            async def read_again():
                return keys._read_at > read_at

            await eventually(read_again)
            assert keys.jwks_json() == published
            assert not running.done()
        finally:
            stopping.set()
            await running


async def test_forged_principal_notices_refuse_nobody_and_do_not_end_the_watch(database):
    dsn = database.dsn("auth_system")
    owner = await seed_organization(dsn)
    db, stopping = await connect(database, "auth", pool_size_max=2), asyncio.Event()
    changes = PrincipalChanges(db=db, clock=SystemClock())
    running = asyncio.create_task(changes.run(stopping))

    async def listening():
        return changes.is_listening

    await eventually(listening)
    watch = changes.watch()
    while not (await asyncio.wait_for(anext(watch), WAIT_SECONDS))[1]:
        pass
    await forge(database, PRINCIPAL_CHANGES, [*NONSENSE, "9" * 19, "-1", "\u0661", str(2**63 - 1), "1"])
    try:
        async with db.system() as tx:
            await tx.execute("UPDATE memberships SET role = 'member' WHERE person_id = $1", owner.owner_id)
        async with asyncio.timeout(WAIT_SECONDS):
            while not (heard := (await anext(watch))[0]):
                pass
        # The real change is the first thing that is heard, over the same connection.
        assert [change.person_id for change in heard] == [owner.owner_id]
        assert changes.is_listening
    finally:
        await watch.aclose()
        stopping.set()
        await running
        await db.close()


async def test_forged_policy_notices_change_no_limit_and_end_no_process(database):
    db = await connect(database, "ratelimit", pool_size_max=2)
    policies, connected = Policies(db), connections(POLICIES_CHANNEL)
    running = asyncio.create_task(policies.run())
    try:
        await asyncio.wait_for(policies.loaded.wait(), WAIT_SECONDS)
        await forge(database, POLICIES_CHANNEL, [*NONSENSE, *(str(UUID(int=number)) for number in range(1_000))])
        real = policy(bucket(5))
        async with db.tenant(real.organization_id) as tx:
            await store.put_policy(tx, real, SystemClock().now())

        async def in_force():
            return policies.find(real.organization_id.bytes) is not None

        await eventually(in_force)
        assert len(policies._layouts) == 1
        assert connections(POLICIES_CHANNEL) == connected + 1
        assert not running.done()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await db.close()


@pytest.mark.parametrize("service", ["auth", "billing", "notification"])
async def test_forged_job_notices_run_nothing_and_real_jobs_still_run(database, service):
    db, stopping, ran = await connect(database, service, pool_size_max=2), asyncio.Event(), []

    async def note(job):
        ran.append(job.kind)

    worker = Worker(db=db, name=service, handlers={"real": note}, clock=SystemClock(), ids=RandomIds())
    running = asyncio.create_task(worker.run(stopping))
    try:
        await forge(database, f"{service}_jobs", ["real", *NONSENSE])
        async with db.system() as tx:
            await enqueue(tx, "real", {}, job_id=RandomIds().uuid7())

        async def done():
            return bool(ran)

        await eventually(done)
        assert ran == ["real"]
        assert not running.done()
    finally:
        stopping.set()
        await running
        await db.close()
