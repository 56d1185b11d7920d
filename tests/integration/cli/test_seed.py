"""The demo data in a real database."""

from __future__ import annotations

import asyncpg
import pytest
from argon2 import PasswordHasher

from cli import demo_data, seed
from cli.stack import secrets


@pytest.fixture
def kept(tmp_path):
    return secrets.load_or_create(tmp_path / "secrets.json", database_exists=False)


async def rows(database, table):
    connection = await asyncpg.connect(database.dsn("admin"))
    try:
        return [dict(row) for row in await connection.fetch(f"SELECT * FROM auth.{table} ORDER BY 1, 2")]
    finally:
        await connection.close()


async def test_seeding_twice_changes_nothing(database, kept):
    assert await seed.seed_accounts(database.dsn("auth_system"), kept) == len(demo_data.ORGANIZATIONS)
    tables = ("organizations", "people", "memberships", "platform_roles", "api_keys")
    before = {table: await rows(database, table) for table in tables}
    assert await seed.seed_accounts(database.dsn("auth_system"), kept) == 0
    assert {table: await rows(database, table) for table in tables} == before
    assert len(before["people"]) == 10
    assert len(before["api_keys"]) == 3


async def test_everybody_can_sign_in_with_the_derived_password(database, kept):
    await seed.seed_accounts(database.dsn("auth_system"), kept)
    hashes = {row["person_id"]: row["password_hash"] for row in await rows(database, "people")}
    for person in demo_data.TENANTS[0].people:
        assert PasswordHasher().verify(hashes[person.person_id], person.password(kept))


async def test_a_revoked_demo_key_stays_revoked(database, kept):
    await seed.seed_accounts(database.dsn("auth_system"), kept)
    connection = await asyncpg.connect(database.dsn("auth_system"))
    await connection.execute("UPDATE api_keys SET revoke_time = now()")
    await connection.close()
    await seed.seed_accounts(database.dsn("auth_system"), kept)
    assert all(row["revoke_time"] for row in await rows(database, "api_keys"))


async def test_a_database_that_outlived_its_secrets_gets_the_new_ones(database, kept, tmp_path):
    await seed.seed_accounts(database.dsn("auth_system"), kept)
    other = secrets.load_or_create(tmp_path / "others.json", database_exists=False)
    await seed.seed_accounts(database.dsn("auth_system"), other)
    tenant = demo_data.TENANTS[1]
    digests = {row["digest"] for row in await rows(database, "api_keys")}
    assert seed._digest(tenant.api_key(other), other) in digests
    hashes = {row["person_id"]: row["password_hash"] for row in await rows(database, "people")}
    owner = tenant.people[0]
    assert PasswordHasher().verify(hashes[owner.person_id], owner.password(other))
