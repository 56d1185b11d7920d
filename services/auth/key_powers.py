"""What somebody may do with a key, as far as their role alone does not say it.

Three rules, which hold for creating, changing, rotating and importing alike:

- Members change, rotate and revoke the keys that they created; owners, admins and the operator's people all.
- Scopes of Tollway's own (`contract.key_scopes`) are given only by whoever has the permission that the scope stands
  for. Everything else is the customer's own word for the customer's own API, and free.
- A service account ends. A key with a scope of Tollway's own that it gives must not live longer than the account does,
  or an account could prolong itself. The operator's accounts give such scopes in their own organization alone.

What is given already is not looked at again when something else of a key is changed.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Final
from uuid import UUID

from tollway.options.v1 import access_pb2

from contract import key_scopes
from mesh.database.connection import Connection
from mesh.rpc.access import Principal, PrincipalKind, platform_role_has, role_has
from services.auth import store
from services.auth.errors import ApiKeyNotOwn, ApiKeyOutlivesCreator, ScopeNotAllowed
from services.auth.model import ApiKey

_ALL_KEYS: Final = frozenset({access_pb2.ROLE_OWNER, access_pb2.ROLE_ADMIN})


def check_own(api_key: ApiKey, principal: Principal, permission: access_pb2.Permission.ValueType) -> None:
    """Let somebody do to a key what they have a permission for.

    Raises:
        ApiKeyNotOwn: A member asks for a key that somebody else created.
    """
    if str(api_key.creator_id) == principal.subject or platform_role_has(principal.platform_roles, permission):
        return
    if principal.organization_id != api_key.organization_id or principal.role not in _ALL_KEYS:
        raise ApiKeyNotOwn


async def check_given(
    tx: Connection,
    principal: Principal,
    organization_id: UUID,
    scopes: Iterable[str],
    expire_time: datetime | None,
) -> None:
    """Let somebody put scopes on a key that lives until a time.

    Args:
        tx: The transaction of the change.
        principal: Who gives.
        organization_id: Whose key it is.
        scopes: What the key gets that it did not have.
        expire_time: When it ends; None means never.

    Raises:
        ScopeNotAllowed: A scope is Tollway's own and not theirs to give; the metadata names it.
        ApiKeyOutlivesCreator: A service account gives it for longer than it lives itself.
    """
    given = key_scopes.reserved(scopes)
    for scope in given:
        if not _may_give(principal, organization_id, scope):
            raise ScopeNotAllowed(metadata={"scope": scope})
    if given and principal.kind is PrincipalKind.SERVICE_ACCOUNT:
        end_time = await store.keys.find_end_of_service_account(tx, UUID(principal.subject))
        if end_time is None:
            # An account of the operator in a customer's organization: its end is not seen from here.
            raise ApiKeyOutlivesCreator
        if expire_time is None or expire_time > end_time:
            raise ApiKeyOutlivesCreator(metadata={"expire_time_max": end_time.isoformat()})


def _may_give(principal: Principal, organization_id: UUID, scope: str) -> bool:
    permission = key_scopes.RESERVED.get(scope)
    if permission is None:
        return False
    if platform_role_has(principal.platform_roles, permission):
        return True
    return principal.organization_id == organization_id and role_has(principal.role, permission)
