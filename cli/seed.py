"""Puts the schema and the demo data into an installation; safe to repeat. Neither needs the other's files.

Accounts are written as auth's system role, which is the only one that may. Subscriptions are another matter, see
`cli/subscriptions.py`.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

import asyncpg
from argon2 import PasswordHasher

from cli.demo_data import ORGANIZATIONS, SERVICE_ACCOUNT, Organization
from cli.stack import StackError
from cli.stack.installation import Installation
from cli.stack.parts import PYTHON, inherited_environment
from cli.stack.process import die_with_parent
from cli.stack.secrets import Secrets
from cli.stack.servers import roles
from contract import key_format
from mesh.database import migrate
from mesh.database.sql import load
from mesh.rpc import opaque_tokens
from mesh.rpc.opaque_tokens import SERVICE_ACCOUNT_PREFIX

QUERIES = load(__package__)
PEPPER_VERSION: Final = 1
SERVICE_ACCOUNT_DAYS: Final = 365
SUBSCRIBE_SECONDS_MAX: Final = 60.0


async def seed_accounts(auth_system_dsn: str, secrets: Secrets) -> int:
    """Insert organizations, people, keys and the service account that are missing.

    Args:
        auth_system_dsn: Connection string of auth's system role.
        secrets: What demo passwords and keys are derived from.

    Returns:
        How many organizations were new.
    """
    connection = await asyncpg.connect(auth_system_dsn)
    try:
        async with connection.transaction():
            same = await _is_same_installation(connection, secrets)
            inserted = [await _seed_organization(connection, each, secrets, rehash=not same) for each in ORGANIZATIONS]
            await _seed_service_account(connection, secrets)
    finally:
        await connection.close()
    return sum(inserted)


async def migrate_and_seed(installation: Installation) -> int:
    """Migrates every service and inserts the demo accounts; returns how many organizations were new.

    Raises:
        StackError: a migration or a statement failed.
    """
    try:
        await migrate.up(installation.postgres.dsn(roles.OWNER))
        return await seed_accounts(installation.postgres.dsn("tollway_auth_system"), installation.secrets)
    except (migrate.MigrationError, asyncpg.PostgresError, OSError) as error:
        raise StackError(f"the database cannot be migrated: {error}") from error


def subscribe(addresses: Mapping[str, str], secrets: Secrets) -> None:
    """Subscribe the demo tenants through billing, in a process of its own.

    Args:
        addresses: Where each service is.
        secrets: For that process's token.

    Raises:
        StackError: billing refuses.
    """
    where = {f"TOLLWAY_{name.upper()}_ADDRESS": address for name, address in addresses.items()}
    try:
        done = subprocess.run(
            [*PYTHON, "cli.subscriptions"],
            env={**inherited_environment(), **where, **secrets.process_environment("cli")},
            capture_output=True,
            text=True,
            check=False,
            timeout=SUBSCRIBE_SECONDS_MAX,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(f"the demo subscriptions took longer than {SUBSCRIBE_SECONDS_MAX:.0f} s") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it says nothing"]
        raise StackError(f"the demo subscriptions failed: {said[-1]}")


async def _is_same_installation(connection: asyncpg.Connection, secrets: Secrets) -> bool:
    """Says whether the accounts there are of this installation's secrets; an external database may outlive them."""
    found = await connection.fetchval(QUERIES["select_service_account_digest"], SERVICE_ACCOUNT.service_account_id)
    return bool(found == _digest(SERVICE_ACCOUNT.token(secrets), secrets))


def _digest(key: str, secrets: Secrets) -> bytes:
    return key_format.digest(key, bytes.fromhex(secrets.key_pepper))


async def _seed_organization(
    connection: asyncpg.Connection, organization: Organization, secrets: Secrets, *, rehash: bool
) -> bool:
    now = datetime.now(UTC)
    status = await connection.execute(
        QUERIES["insert_organization"],
        organization.organization_id,
        organization.name,
        f"demo-{organization.slug}",
        f"hello@{organization.slug}.example",
        f"billing@{organization.slug}.example",
        now,
    )
    await _seed_people(connection, organization, secrets, now, rehash=rehash)
    if organization.api_key_id is not None:
        key = organization.api_key(secrets)
        await connection.execute(
            QUERIES["upsert_api_key"],
            organization.organization_id,
            organization.api_key_id,
            _digest(key, secrets),
            PEPPER_VERSION,
            key_format.hint(key),
            organization.people[0].person_id,
            now,
        )
    return bool(status == "INSERT 0 1")


async def _seed_people(
    connection: asyncpg.Connection, organization: Organization, secrets: Secrets, now: datetime, *, rehash: bool
) -> None:
    people_ids = [each.person_id for each in organization.people]
    known = {row["person_id"] for row in await connection.fetch(QUERIES["select_people"], people_ids)}
    hasher = PasswordHasher()
    for person in organization.people:
        # A hash takes 50 ms by design: only who is new needs one.
        if rehash or person.person_id not in known:
            hashed = hasher.hash(person.password(secrets))
            await connection.execute(QUERIES["upsert_person"], person.person_id, person.email, person.name, hashed, now)
        await connection.execute(
            QUERIES["insert_membership"], organization.organization_id, person.person_id, person.role, now
        )
        if person.platform_role:
            await connection.execute(QUERIES["insert_platform_role"], person.person_id, person.platform_role, now)


async def _seed_service_account(connection: asyncpg.Connection, secrets: Secrets) -> None:
    now = datetime.now(UTC)
    token = SERVICE_ACCOUNT.token(secrets)
    await connection.execute(
        QUERIES["upsert_service_account"],
        SERVICE_ACCOUNT.organization_id,
        SERVICE_ACCOUNT.service_account_id,
        SERVICE_ACCOUNT.name,
        SERVICE_ACCOUNT.role,
        SERVICE_ACCOUNT.platform_role,
        _digest(token, secrets),
        PEPPER_VERSION,
        opaque_tokens.hint(token, SERVICE_ACCOUNT_PREFIX),
        now,
        now + timedelta(days=SERVICE_ACCOUNT_DAYS),
    )
