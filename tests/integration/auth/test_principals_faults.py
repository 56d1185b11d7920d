"""What verifiers know about principals comes back by itself, whatever was away: auth in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import pytest

from mesh.clock import SystemClock
from mesh.config import ProcessSettings
from mesh.ids import RandomIds
from mesh.rpc.access import CredentialsInvalid
from mesh.rpc.client import Clients
from mesh.rpc.principals import HELD_MAX, Principals
from mesh.rpc.stream_watch import WatchAway
from mesh.rpc.tokens import SessionSigner
from services.auth.principal_changes import CHANNEL
from tests.support.accounts import SeededOrganization, seed_organization
from tests.support.auth_process import SIGNING_SEED, auth_process, bring_back, lose
from tests.support.postgres import TestDatabase
from tests.support.processes import process_fields

WAIT_SECONDS = 60
MANY = 100_000
END = "UPDATE sessions SET revoke_time = now(), revoke_reason = 'x' WHERE session_id = $1"


class VerifyingProcess:
    """A service that verifies tokens, as far as that goes."""

    def __init__(self, port: int) -> None:
        settings = ProcessSettings(**process_fields("billing"), auth_address=f"127.0.0.1:{port}")
        self.clients = Clients(settings, process="billing")
        self.principals = Principals(clock=SystemClock())
        self.watch = self.clients.watch_principals(self.principals)
        self.verifier = self.clients.verifier(SystemClock(), self.principals)

    async def refuses(self, token: str) -> bool:
        try:
            await self.verifier.principal(f"Bearer {token}")
        except CredentialsInvalid:
            return True
        return False

    async def until_refused(self, token: str) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while not await self.refuses(token):
                await asyncio.sleep(0.01)

    async def until(self, *, connected: bool) -> None:
        async with asyncio.timeout(WAIT_SECONDS):
            while self.watch.is_connected != connected:
                await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def verifying(port: int) -> AsyncIterator[VerifyingProcess]:
    process = VerifyingProcess(port)
    running = asyncio.create_task(process.watch.run())
    try:
        await process.until(connected=True)
        yield process
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await process.clients.close()


class People:
    """An owner who signs in as often as the test likes, with changes made by hand."""

    def __init__(self, owner: SeededOrganization, connection: asyncpg.Connection, version: int) -> None:
        self._owner = owner
        self._version = version
        self._signer = SessionSigner(seed=SIGNING_SEED, clock=SystemClock(), ids=RandomIds())
        self.connection = connection

    async def sign_in(self) -> tuple[UUID, str]:
        session_id, now = RandomIds().uuid7(), datetime.now(UTC)
        await self.connection.execute(
            "INSERT INTO sessions (session_id, person_id, organization_id, create_time, last_use_time, expire_time,"
            " end_time) VALUES ($1, $2, $3, $4, $4, $5, $5)",
            session_id,
            self._owner.owner_id,
            self._owner.organization_id,
            now,
            now + timedelta(days=7),
        )
        return session_id, self.token(session_id)

    def token(self, session_id: UUID) -> str:
        return self._signer.issue(
            person_id=self._owner.owner_id,
            organization_id=self._owner.organization_id,
            role="owner",
            session_id=session_id,
            membership_version=self._version,
        )[0]

    async def end(self, session_id: UUID) -> None:
        await self.connection.execute(END, session_id)


@pytest.fixture
async def people(database: TestDatabase) -> AsyncIterator[People]:
    owner = await seed_organization(database.dsn("auth_system"))
    connection = await asyncpg.connect(database.dsn("auth_system"), command_timeout=WAIT_SECONDS)
    version = await connection.fetchval("SELECT version FROM memberships WHERE person_id = $1", owner.owner_id)
    yield People(owner, connection, version)
    await connection.close()


@pytest.mark.parametrize("fate", ["killed", "frozen", "cut"])
async def test_what_ended_while_auth_was_away_is_refused_on_its_return(
    database: TestDatabase, people: People, fate: str
) -> None:
    before, token_before = await people.sign_in()
    meanwhile, token_meanwhile = await people.sign_in()
    async with auth_process(database) as (process, way), verifying(way.port) as service:
        await people.end(before)
        await service.until_refused(token_before)
        await lose(process, way, fate)
        await service.until(connected=False)
        with pytest.raises(WatchAway):
            await service.watch.check()
        await people.end(meanwhile)
        # What is known stays in force, and what cannot be known works until the token ends.
        assert await service.refuses(token_before)
        assert not await service.refuses(token_meanwhile)
        await bring_back(process, way, fate)
        await service.until_refused(token_meanwhile)
        assert await service.refuses(token_before)
        await service.until(connected=True)
        await service.watch.check()


async def test_a_lost_line_to_the_database_loses_no_change(database: TestDatabase, people: People) -> None:
    session_id, token = await people.sign_in()
    async with auth_process(database) as (_, way), verifying(way.port) as service:
        admin = await asyncpg.connect(database.dsn("admin"))
        await admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> ALL($1)",
            [admin.get_server_pid(), people.connection.get_server_pid()],
        )
        await admin.close()
        await people.end(session_id)
        await service.until_refused(token)
        await service.until(connected=True)


async def test_a_flood_of_forged_notices_hides_no_change(database: TestDatabase, people: People) -> None:
    session_id, token = await people.sign_in()
    async with auth_process(database) as (_, way), verifying(way.port) as service:
        stranger = await asyncpg.connect(database.dsn("notification"))
        await stranger.execute(
            f"SELECT pg_notify('{CHANNEL}', payload) FROM (SELECT generate_series(1, 50000)::text"
            " UNION ALL VALUES (''), ('x'), ('-1'), ('9' || repeat('0', 30)), ('١٢')) AS forged (payload)"
        )
        await people.end(session_id)
        await service.until_refused(token)
        await stranger.close()


async def test_two_auths_tell_the_same(database: TestDatabase, people: People) -> None:
    (first, token_first), (second, token_second) = await people.sign_in(), await people.sign_in()
    async with (
        auth_process(database) as (process, way),
        auth_process(database) as (_, other_way),
        verifying(way.port) as service,
        verifying(other_way.port) as other_service,
    ):
        await people.end(first)
        await asyncio.gather(*(each.until_refused(token_first) for each in (service, other_service)))
        await lose(process, way, "killed")
        await people.end(second)
        await other_service.until_refused(token_second)
        assert not await service.refuses(token_second)


async def test_a_hundred_thousand_changes_at_once_are_all_in_force_in_bounded_room(
    database: TestDatabase, people: People
) -> None:
    await people.sign_in()
    ids = await people.connection.fetch(
        "INSERT INTO sessions (session_id, person_id, organization_id, create_time, last_use_time, expire_time,"
        " end_time) SELECT gen_random_uuid(), person_id, organization_id, create_time, last_use_time, expire_time,"
        f" end_time FROM sessions, generate_series(1, {MANY}) RETURNING session_id"
    )
    async with auth_process(database) as (_, way), verifying(way.port) as service:
        await people.connection.execute("UPDATE sessions SET revoke_time = now(), revoke_reason = 'x'")
        committed = time.monotonic()
        async with asyncio.timeout(WAIT_SECONDS):
            while service.principals.held_count < MANY:
                await asyncio.sleep(0.01)
        assert time.monotonic() - committed < WAIT_SECONDS
        assert service.principals.held_count <= HELD_MAX
        for row in ids[:: MANY // 100]:
            assert await service.refuses(people.token(row["session_id"]))
        # Whoever connects anew gets them all as a snapshot.
        async with verifying(way.port) as other:
            assert other.principals.held_count >= MANY
