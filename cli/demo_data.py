"""The organizations, people and keys of the local stack. Their ids are fixed; their secrets belong to an installation.

Passwords, API keys and the service account's token are derived from the installation's secret, so they differ between
installations and are the same on every start of one.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from tollway.auth.v1 import auth_service_pb2

from cli.stack.secrets import Secrets
from contract import key_format
from mesh.rpc import opaque_tokens
from mesh.rpc.opaque_tokens import SERVICE_ACCOUNT_PREFIX

PASSWORD_BYTES: Final = 9
ROLES: Final = ("owner", "admin", "member")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Somebody who can sign in."""

    person_id: UUID
    email: str
    name: str
    role: str
    platform_role: str | None = None

    def password(self, secrets: Secrets) -> str:
        """Return the password in this installation."""
        return secrets.derive(f"password {self.email}", PASSWORD_BYTES).hex()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Organization:
    """A tenant, or the operator."""

    organization_id: UUID
    name: str
    slug: str
    plan_id: str | None
    api_key_id: UUID | None
    people: Sequence[Person]

    def api_key(self, secrets: Secrets) -> str:
        """Return its live key in this installation."""
        randomness = secrets.derive(f"api key {self.slug}", key_format.RANDOM_BYTES)
        return key_format.mint(auth_service_pb2.KEY_MODE_LIVE, randomness)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAccount:
    """A machine that acts for an organization."""

    service_account_id: UUID
    organization_id: UUID
    name: str
    role: str
    platform_role: str | None

    def token(self, secrets: Secrets) -> str:
        """Return its token in this installation."""
        randomness = secrets.derive(f"service account {self.service_account_id}", opaque_tokens.RANDOM_BYTES)
        return opaque_tokens.mint(SERVICE_ACCOUNT_PREFIX, randomness)


def _id(number: int) -> UUID:
    """Return a fixed id in the form of UUIDv7 (RFC 9562), older than any that is made at run time."""
    return UUID(f"01900000-0000-7000-8000-{number:012x}")


def _tenant(number: int, name: str, plan_id: str) -> Organization:
    slug = name.lower()
    people = [
        Person(
            person_id=_id(number * 16 + position),
            email=f"{role}@{slug}.example",
            name=f"{name} {role}",
            role=role,
        )
        for position, role in enumerate(ROLES, start=1)
    ]
    return Organization(
        organization_id=_id(number * 16),
        name=name,
        slug=slug,
        plan_id=plan_id,
        api_key_id=_id(number * 16 + 8),
        people=people,
    )


OPERATOR: Final = Organization(
    organization_id=_id(0x1000),
    name="Tollway",
    slug="operator",
    plan_id=None,
    api_key_id=None,
    people=[
        Person(
            person_id=_id(0x1001),
            email="operator@tollway.example",
            name="Operator",
            role="owner",
            platform_role="platform_admin",
        )
    ],
)
TENANTS: Final = (_tenant(0x200, "Ferry", "free"), _tenant(0x201, "Sparrow", "starter"), _tenant(0x202, "Pike", "pro"))
ORGANIZATIONS: Final = (OPERATOR, *TENANTS)
SERVICE_ACCOUNT: Final = ServiceAccount(
    service_account_id=_id(0x1009),
    organization_id=OPERATOR.organization_id,
    name="local tools",
    role="admin",
    platform_role="platform_admin",
)
