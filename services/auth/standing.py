"""Whether something new may come into being in an organization: a key, a member, a service account, an invitation.

Whoever adds something asks here first, in the transaction that adds it. The organization's state is then held until
that transaction ends: a deletion waits for it and finds what it added, or comes first and is seen.
"""

from __future__ import annotations

from uuid import UUID

from mesh.database.connection import Connection
from services.auth import store
from services.auth.errors import OrganizationNotFound, OrganizationRestricted, OrganizationSuspended
from services.auth.model import Organization, OrganizationState


async def require_growth(tx: Connection, organization_id: UUID) -> Organization:
    """Return an organization to which something may be added, and hold its state until the transaction ends.

    Ask before any other lock is taken in the transaction, so that two who add cannot wait for each other.

    Args:
        tx: The transaction that adds something, of either role.
        organization_id: To what it is added.

    Raises:
        OrganizationNotFound: There is none, or no longer.
        OrganizationSuspended: It is suspended, by the operator or by billing.
        OrganizationRestricted: An invoice is overdue.
    """
    await store.organizations.hold_standing(tx, organization_id)
    organization = await store.organizations.find(tx, organization_id)
    if organization is None or organization.state is OrganizationState.DELETED:
        raise OrganizationNotFound(f"{organization_id}")
    if organization.state is OrganizationState.SUSPENDED:
        raise OrganizationSuspended(f"{organization_id}")
    if organization.restricted:
        raise OrganizationRestricted(f"{organization_id}")
    return organization
