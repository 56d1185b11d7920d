"""Reads and writes auth's tables: a module and a file of statements per resource.

Every function runs inside the transaction that it is given.
"""

from services.auth.store import (
    audit,
    credentials,
    invitations,
    keys,
    members,
    organizations,
    people,
    principals,
    privacy,
    registrations,
    sealed_jobs,
    second_factors,
    service_accounts,
    sessions,
    signing_keys,
)

__all__ = [
    "audit",
    "credentials",
    "invitations",
    "keys",
    "members",
    "organizations",
    "people",
    "principals",
    "privacy",
    "registrations",
    "sealed_jobs",
    "second_factors",
    "service_accounts",
    "sessions",
    "signing_keys",
]
