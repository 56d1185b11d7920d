"""Auth in a test: a real server on a real database, people and keys to call it with."""

from __future__ import annotations

import dataclasses
import json
import secrets
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
from tollway.auth.v1.auth_service_pb2 import KeyMode

from contract import key_format
from mesh.ids import RandomIds
from mesh.secretbox import SecretBox
from services.auth.mail import Mail
from services.auth.passwords import hash_password

PEPPER = bytes(range(32))
DATA_KEY = bytes(range(32, 64))
DASHBOARD_URL = "https://dashboard.example"
PASSWORD = "correct horse battery staple"
PASSWORD_HASH = hash_password(PASSWORD)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SeededOrganization:
    """An organization with an owner."""

    organization_id: UUID
    owner_id: UUID
    email: str


async def seed_organization(dsn: str, name: str = "acme", organization_id: UUID | None = None) -> SeededOrganization:
    """Inserts an organization and its owner under the system role."""
    ids = RandomIds()
    seeded = SeededOrganization(
        organization_id=organization_id or ids.uuid7(), owner_id=ids.uuid7(), email=f"owner@{name}.example"
    )
    now = datetime.now(UTC)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "INSERT INTO organizations (organization_id, name, contact_email, billing_email, metadata, create_time)"
            " VALUES ($1, $2, $3, $3, $4, $5)",
            seeded.organization_id,
            name,
            f"contact@{name}.example",
            json.dumps({"tier": "gold"}),
            now,
        )
    finally:
        await connection.close()
    await seed_person(dsn, seeded.organization_id, seeded.email, "owner", seeded.owner_id)
    return seeded


async def seed_person(dsn: str, organization_id: UUID, email: str, role: str, person_id: UUID | None = None) -> UUID:
    """Inserts a person who is a member of an organization."""
    person_id = person_id or RandomIds().uuid7()
    connection = await asyncpg.connect(dsn)
    try:
        now = datetime.now(UTC)
        await connection.execute(
            "INSERT INTO people (person_id, email, password_hash, create_time) VALUES ($1, $2, $3, $4)",
            person_id,
            email,
            PASSWORD_HASH,
            now,
        )
        await connection.execute(
            "INSERT INTO memberships (organization_id, person_id, role, create_time) VALUES ($1, $2, $3, $4)",
            organization_id,
            person_id,
            role,
            now,
        )
    finally:
        await connection.close()
    return person_id


async def seed_key(dsn: str, organization_id: UUID, creator_id: UUID, key: str = "") -> tuple[UUID, bytes]:
    """Inserts a live key, a random one unless it is given, and returns its id and digest."""
    api_key_id = RandomIds().uuid7()
    key = key or key_format.mint(KeyMode.KEY_MODE_LIVE, secrets.token_bytes(key_format.RANDOM_BYTES))
    digest = key_format.digest(key, PEPPER)
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "INSERT INTO api_keys (organization_id, api_key_id, digest, pepper_version, name, hint, mode, creator_id,"
            " create_time) VALUES ($1, $2, $3, 1, 'a key', $4, 'live', $5, $6)",
            organization_id,
            api_key_id,
            digest,
            key_format.hint(key),
            creator_id,
            datetime.now(UTC),
        )
    finally:
        await connection.close()
    return api_key_id, digest


async def seed_service_account(
    dsn: str,
    organization_id: UUID,
    token: str,
    role: str,
    *,
    platform_role: str | None = None,
    pepper: bytes = PEPPER,
) -> UUID:
    """Inserts a service account that shows a token, and returns its id."""
    service_account_id = RandomIds().uuid7()
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute(
            "INSERT INTO service_accounts (organization_id, service_account_id, name, role, platform_role, digest,"
            " pepper_version, hint, create_time, expire_time)"
            " VALUES ($1, $2, 'a machine', $3, $4, $5, 1, 'tw_sa_…', now(), now() + interval '1 day')",
            organization_id,
            service_account_id,
            role,
            platform_role,
            key_format.digest(token, pepper),
        )
    finally:
        await connection.close()
    return service_account_id


def secret_box() -> SecretBox:
    """Seals as the services of tests do."""
    return SecretBox({1: DATA_KEY})


def mail() -> Mail:
    """Writes and reads jobs that send e-mails."""
    return Mail(box=secret_box(), ids=RandomIds(), dashboard_url=DASHBOARD_URL)
