"""What somebody who calls may do in an organization at this moment, whatever their token says.

A token says what was so when it was signed. Who has been demoted or removed since is told to all verifiers within a
second; within that second, and in a call that was let in before, rules about roles look here: into the tables, in the
transaction of the change.
"""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from tollway.options.v1 import access_pb2

from mesh.database.connection import Connection
from mesh.rpc.access import Principal, PrincipalKind, RoleInsufficient, platform_role_has, role_has
from services.auth import store
from services.auth.errors import RoleAboveOwn
from services.auth.model import Role

_WIRE_ROLES = {
    Role.OWNER: access_pb2.ROLE_OWNER,
    Role.ADMIN: access_pb2.ROLE_ADMIN,
    Role.MEMBER: access_pb2.ROLE_MEMBER,
}


async def current_role(
    tx: Connection,
    principal: Principal,
    organization_id: UUID,
    permission: access_pb2.Permission.ValueType,
    now: datetime,
) -> Role:
    """Return the role that somebody acts with, and keep it so until the transaction ends.

    The operator's people who hold the permission act as owners do.

    Args:
        tx: The transaction of the change, of `db.system()`.
        principal: Who calls.
        organization_id: Where.
        permission: What the call asks for.
        now: For the expiry of service accounts.

    Raises:
        RoleInsufficient: They do not hold the permission there (any more).
    """
    if platform_role_has(principal.platform_roles, permission):
        return Role.OWNER
    actor_id = UUID(principal.subject)
    if principal.kind is PrincipalKind.SERVICE_ACCOUNT:
        role = await store.members.find_service_account_role(tx, organization_id, actor_id, now)
    else:
        role = await store.members.hold_role(tx, organization_id, actor_id)
    if role is None or not role_has(_WIRE_ROLES[role], permission):
        raise RoleInsufficient(
            metadata={"permission": access_pb2.Permission.Name(permission).removeprefix("PERMISSION_")}
        )
    return role


def require_included(own: Role, given: Role) -> None:
    """Let nobody give more than they have.

    Raises:
        RoleAboveOwn: They would.
    """
    if not own.includes(given):
        raise RoleAboveOwn(metadata={"role": given.value})
