"""What a service's roles cannot do, tried as those roles over connections of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from uuid import UUID, uuid4

import asyncpg
import pytest

from mesh.database.migrate import SERVICES
from tests.support.accounts import SeededOrganization, seed_key, seed_organization
from tests.support.postgres import TestDatabase

NOW = datetime(2024, 1, 1, tzinfo=UTC)
TENANT_CHECK = "(organization_id = (NULLIF(current_setting('tollway.organization_id'::text, true), ''::text))::uuid)"


@pytest.fixture
async def acme(database: TestDatabase) -> SeededOrganization:
    return await seed_organization(database.dsn("auth_system"), "acme")


@pytest.fixture
async def other(database: TestDatabase) -> SeededOrganization:
    return await seed_organization(database.dsn("auth_system"), "other")


async def connect(database: TestDatabase, role: str, organization_id: UUID) -> asyncpg.Connection:
    connection = await asyncpg.connect(database.dsn(role))
    await connection.execute("SELECT set_config('tollway.organization_id', $1, false)", str(organization_id))
    return connection


@pytest.fixture
async def tenant(database: TestDatabase, acme: SeededOrganization) -> AsyncIterator[asyncpg.Connection]:
    """The tenant role of auth, in the name of acme."""
    connection = await connect(database, "auth", acme.organization_id)
    yield connection
    await connection.close()


FORBIDDEN_TO_AUTH = {
    "make an operator out of a service account": "UPDATE service_accounts SET platform_role = 'platform_admin'",
    "make a service account": """INSERT INTO service_accounts (organization_id, service_account_id, name, role,
        platform_role, digest, pepper_version, hint, create_time, expire_time) SELECT organization_id,
        organization_id, 'x', 'owner', 'platform_admin', sha256('x'), 1, 'x', create_time, 'infinity'
        FROM organizations""",
    "make an operator out of a person": """INSERT INTO platform_roles (person_id, role, create_time)
        SELECT person_id, 'platform_admin', create_time FROM memberships""",
    "see who the operators are": "SELECT * FROM platform_roles",
    "restore or suspend an organization": "UPDATE organizations SET state = 'active'",
    "change an organization": "UPDATE organizations SET contact_email = 'x@acme.example'",
    "make an organization": """INSERT INTO organizations (organization_id, name, contact_email, billing_email,
        create_time) SELECT organization_id, 'x', 'x@x.example', 'x@x.example', create_time FROM organizations""",
    "change a role": "UPDATE memberships SET role = 'owner'",
    "join an organization": """INSERT INTO memberships (organization_id, person_id, role, create_time)
        SELECT organization_id, person_id, 'owner', create_time FROM memberships""",
    "leave an organization": "DELETE FROM memberships",
    "read password hashes": "SELECT password_hash FROM people",
    "read who of the service accounts is an operator": "SELECT platform_role FROM service_accounts",
    "read what an old token is compared with": "SELECT previous_digest FROM service_accounts",
    "put an old token in place": "UPDATE service_accounts SET previous_digest = sha256('x')",
    "remove a service account": "DELETE FROM service_accounts",
    "change when a service account was used": "UPDATE service_accounts SET last_use_time = now()",
    "change an e-mail address": "UPDATE people SET email = 'x@acme.example'",
    "read what tokens are compared with": "SELECT digest FROM service_accounts",
    "read what keys are compared with": "SELECT digest FROM api_keys",
    "turn a test key into a live one": "UPDATE api_keys SET mode = 'live'",
    "change who made a key": "UPDATE api_keys SET creator_id = organization_id",
    "make up when a key was used": "UPDATE api_keys SET last_use_time = now()",
    "change whose a key is": "UPDATE api_keys SET digest = sha256('x')",
    "count a version down": "UPDATE api_keys SET version = 0",
    "read jobs": "SELECT * FROM jobs",
    "change the audit log": "UPDATE audit_entries SET actor = 'x'",
    "forget a request": "DELETE FROM idempotency_keys",
    "change a request": "UPDATE idempotency_keys SET request_hash = sha256('x')",
}


@pytest.mark.parametrize("what", FORBIDDEN_TO_AUTH)
async def test_auths_tenant_role_cannot(tenant: asyncpg.Connection, what: str) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await tenant.execute(FORBIDDEN_TO_AUTH[what])


async def test_auths_tenant_role_sees_the_people_of_its_organization_alone(
    tenant: asyncpg.Connection, acme: SeededOrganization, other: SeededOrganization
) -> None:
    assert [row["email"] for row in await tenant.fetch("SELECT email FROM people")] == [acme.email]
    await tenant.execute("RESET tollway.organization_id")
    assert await tenant.fetch("SELECT email FROM people") == []


async def test_a_revoked_key_stays_revoked_whoever_asks(
    database: TestDatabase, tenant: asyncpg.Connection, acme: SeededOrganization
) -> None:
    await seed_key(database.dsn("auth_system"), acme.organization_id, acme.owner_id)
    await tenant.execute("UPDATE api_keys SET revoke_time = now()")
    for role in ("auth", "auth_system"):
        connection = await connect(database, role, acme.organization_id)
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="stays revoked"):
            await connection.execute("UPDATE api_keys SET revoke_time = NULL")
        await connection.close()


INSERT_ACCOUNT = """INSERT INTO service_accounts (organization_id, service_account_id, name, role, platform_role,
    digest, pepper_version, hint, create_time, expire_time)
    VALUES ($1, $2, 'x', 'admin', $3, $4, 1, 'x', now(), 'infinity')"""


async def test_auths_tenant_role_neither_sees_nor_changes_an_operators_service_account(
    database: TestDatabase, tenant: asyncpg.Connection, acme: SeededOrganization
) -> None:
    system = await connect(database, "auth_system", acme.organization_id)
    for platform_role in (None, "platform_support"):
        service_account_id = uuid4()
        await system.execute(
            INSERT_ACCOUNT, acme.organization_id, service_account_id, platform_role, service_account_id.bytes * 2
        )
    assert await tenant.fetchval("SELECT count(service_account_id) FROM service_accounts") == 1
    for change in ("name = 'y'", "digest = sha256('x')", "revoke_time = now()", "expire_time = 'infinity'"):
        assert await tenant.execute(f"UPDATE service_accounts SET {change}") == "UPDATE 1"
    untouched = "SELECT name, revoke_time FROM service_accounts WHERE platform_role IS NOT NULL"
    assert [tuple(row) for row in await system.fetch(untouched)] == [("x", None)]
    await system.close()


async def test_a_revoked_service_account_stays_revoked_whoever_asks(
    database: TestDatabase, acme: SeededOrganization
) -> None:
    system = await connect(database, "auth_system", acme.organization_id)
    await system.execute(INSERT_ACCOUNT, acme.organization_id, uuid4(), None, bytes(32))
    await system.execute("UPDATE service_accounts SET revoke_time = now()")
    await system.close()
    for role in ("auth", "auth_system"):
        connection = await connect(database, role, acme.organization_id)
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="stays revoked"):
            await connection.execute("UPDATE service_accounts SET revoke_time = NULL")
        await connection.close()


@pytest.mark.parametrize("service", ["auth", "billing", "notification"])
async def test_a_job_is_the_organizations_that_it_is_written_for(database: TestDatabase, service: str) -> None:
    own, foreign = uuid4(), uuid4()
    connection = await connect(database, service, own)
    insert = "INSERT INTO jobs (job_id, kind, organization_id, payload, run_time) VALUES ($1, 'k', $2, '{}', $3)"
    await connection.execute(insert, uuid4(), own, NOW)
    for organization_id in (foreign, None):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute(insert, uuid4(), organization_id, NOW)
    await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE emails SET recipient = 'x@x.example'",
        "UPDATE emails SET parameters = '{}'",
        "DELETE FROM emails",
        "SELECT * FROM jobs",
        "UPDATE idempotency_keys SET request_hash = sha256('x')",
    ],
)
async def test_notifications_tenant_role_cannot(database: TestDatabase, statement: str) -> None:
    connection = await connect(database, "notification", uuid4())
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)
    await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE subscriptions SET plan_id = 'pro'",
        "DELETE FROM subscriptions",
        "UPDATE plans SET included_requests = 0",
        "SELECT * FROM jobs",
        "UPDATE idempotency_keys SET request_hash = sha256('x')",
    ],
)
async def test_billings_tenant_role_cannot(database: TestDatabase, statement: str) -> None:
    connection = await connect(database, "billing", uuid4())
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)
    await connection.close()


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO jobs (job_id, kind, payload, run_time) VALUES (gen_random_uuid(), 'k', '{}', now())",
        "SELECT * FROM dead_letters",
        "DELETE FROM usage_events",
        "UPDATE usage_rollups SET organization_id = organization_id",
    ],
)
async def test_meterings_tenant_role_cannot(database: TestDatabase, statement: str) -> None:
    connection = await connect(database, "metering", uuid4())
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await connection.execute(statement)
    await connection.close()


async def test_every_policy_of_a_tenant_role_asks_for_the_tenant_in_both_directions(database: TestDatabase) -> None:
    admin = await asyncpg.connect(database.dsn("admin"))
    rows = await admin.fetch(
        """
        SELECT n.nspname || '.' || c.relname AS table_name, p.polcmd::text AS command,
               pg_get_expr(p.polqual, p.polrelid) AS reads, pg_get_expr(p.polwithcheck, p.polrelid) AS writes
        FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = ANY($1)
          AND p.polpermissive  -- a restrictive one only takes away
          AND p.polroles && ARRAY[0::oid, (SELECT oid FROM pg_roles WHERE rolname = 'tollway_' || n.nspname)]
        ORDER BY 1
        """,
        list(SERVICES),
    )
    await admin.close()
    assert {row["table_name"].split(".")[0] for row in rows} == set(SERVICES)
    due = {"*": (TENANT_CHECK, TENANT_CHECK), "r": (TENANT_CHECK, None), "a": (None, TENANT_CHECK)}
    others = {row["table_name"] for row in rows if (row["reads"], row["writes"]) != due[row["command"]]}
    # People have no organization of their own; which of them are seen is tried above.
    assert others == {"auth.people"}
