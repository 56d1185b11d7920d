"""What verifiers of tokens ask: what has changed since a token was signed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from datetime import datetime
from typing import Any, Final, assert_never

from tollway.auth.v1 import auth_service_pb2 as pb

from services.auth.model import (
    ChangedMembership,
    ChangedOrganization,
    ChangedServiceAccount,
    EndedSession,
    OrganizationState,
    PrincipalChange,
    RefusedTokens,
)
from services.auth.principal_changes import KEPT, PrincipalChanges

_STATES: Final = {
    OrganizationState.ACTIVE: pb.ORGANIZATION_STATE_ACTIVE,
    OrganizationState.SUSPENDED: pb.ORGANIZATION_STATE_SUSPENDED,
    OrganizationState.DELETED: pb.ORGANIZATION_STATE_DELETED,
}


class PrincipalRpcs:
    """`WatchPrincipals`.

    Args:
        principal_changes: Watches principals.
    """

    def __init__(self, principal_changes: PrincipalChanges) -> None:
        self._principal_changes = principal_changes

    async def WatchPrincipals(
        self, request: pb.WatchPrincipalsRequest, context: Any
    ) -> AsyncIterator[pb.WatchPrincipalsResponse]:
        """Stream what tokens do not know and then every change."""
        async for message in watch(self._principal_changes):
            yield message


async def watch(principal_changes: PrincipalChanges) -> AsyncIterator[pb.WatchPrincipalsResponse]:
    """Yield the messages of a watch; auth's own verifier follows them without a connection."""
    async for changes, snapshot_complete in principal_changes.watch():
        yield to_message(changes, snapshot_complete=snapshot_complete)


def to_message(changes: Iterable[PrincipalChange], *, snapshot_complete: bool) -> pb.WatchPrincipalsResponse:
    """Convert a part of a watch."""
    return pb.WatchPrincipalsResponse(
        changes=[to_change(change) for change in changes], snapshot_complete=snapshot_complete
    )


def to_change(change: PrincipalChange) -> pb.PrincipalChange:
    """Convert a change."""
    match change:
        case EndedSession():
            return pb.PrincipalChange(
                session=pb.RevokedSession(
                    session_id=str(change.session_id), forget_time_s=_forget_time_s(change.change_time)
                )
            )
        case ChangedMembership():
            return pb.PrincipalChange(
                membership=pb.ChangedMembership(
                    person_id=str(change.person_id),
                    organization_id=str(change.organization_id),
                    version=change.version,
                    forget_time_s=_forget_time_s(change.change_time),
                )
            )
        case ChangedOrganization():
            return pb.PrincipalChange(
                organization=pb.ChangedOrganization(
                    organization_id=str(change.organization_id), state=_STATES[change.state], version=change.version
                )
            )
        case ChangedServiceAccount():
            return pb.PrincipalChange(
                service_account=pb.ChangedServiceAccount(service_account_id=str(change.service_account_id))
            )
        case RefusedTokens():
            # Rounded up: what was issued in the same second is refused as well.
            issued_before_time_s = int(change.issued_before.timestamp()) + 1
            return pb.PrincipalChange(tokens=pb.RefusedTokens(issued_before_time_s=issued_before_time_s))
        case _:
            assert_never(change)


def _forget_time_s(change_time: datetime) -> int:
    return int((change_time + KEPT).timestamp()) + 1
