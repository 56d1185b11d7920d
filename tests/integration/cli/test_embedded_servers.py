"""The embedded servers as the tests and the local stack use them."""

from __future__ import annotations

import asyncpg
import pytest
import redis.asyncio as redis

from cli.stack.servers import roles
from contract.services import SERVICES


@pytest.mark.parametrize("service", SERVICES)
async def test_service_roles_land_in_their_own_schema_and_nowhere_else(database, service):
    for role in (service, f"{service}_system"):
        connection = await asyncpg.connect(database.dsn(role))
        try:
            assert await connection.fetchval("SELECT current_schema()") == service
            for other in SERVICES:
                allowed = await connection.fetchval("SELECT has_schema_privilege($1, 'USAGE')", other)
                assert allowed == (other == service)
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute("CREATE TABLE intruder (id int)")
        finally:
            await connection.close()


async def test_no_role_of_a_service_is_superuser_or_bypasses_row_security(database):
    connection = await asyncpg.connect(database.dsn("admin"))
    try:
        rows = await connection.fetch(
            "SELECT rolname, rolsuper, rolbypassrls FROM pg_roles WHERE rolname = ANY($1)", list(roles.logins())
        )
    finally:
        await connection.close()
    assert len(rows) == len(list(roles.logins()))
    assert not any(row["rolsuper"] or row["rolbypassrls"] for row in rows)


async def test_password_is_asked_for(database):
    dsn = database.dsn("auth").replace("tests-tollway_auth", "wrong")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await asyncpg.connect(dsn)


async def test_clones_do_not_see_each_other(postgres):
    first, second = await postgres.clone(), await postgres.clone()
    try:
        writer = await asyncpg.connect(first.dsn("owner"))
        await writer.execute("CREATE TABLE auth.only_here (id int)")
        await writer.close()
        reader = await asyncpg.connect(second.dsn("owner"))
        assert await reader.fetchval("SELECT to_regclass('auth.only_here')") is None
        await reader.close()
    finally:
        await postgres.drop(first)
        await postgres.drop(second)


async def test_redis_is_empty_and_answers(redis_url):
    client = redis.from_url(redis_url)
    assert await client.dbsize() == 0
    await client.set("left", "over")
    await client.aclose()


async def test_redis_is_emptied_between_tests(redis_url):
    client = redis.from_url(redis_url)
    assert await client.dbsize() == 0
    await client.set("left", "over")
    await client.aclose()
