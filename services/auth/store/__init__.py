"""Reads and writes auth's tables: a module and a file of statements per resource.

Every function runs inside the transaction that it is given.
"""

from services.auth.store import (
    audit,
    keys,
    organizations,
    people,
    principals,
    registrations,
    service_accounts,
    sessions,
)

__all__ = ["audit", "keys", "organizations", "people", "principals", "registrations", "service_accounts", "sessions"]
