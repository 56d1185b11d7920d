"""Why auth refuses: one class per reason."""

from __future__ import annotations

from mesh.rpc.errors import (
    FailedPrecondition,
    NotFound,
    PermissionDenied,
    ResourceExhausted,
    Unauthenticated,
    Unavailable,
)


class SignInRefused(Unauthenticated):
    """The e-mail address or the password is wrong."""


class SignInThrottled(ResourceExhausted):
    """Too many failed attempts to sign in; try again later."""


class SignInBusy(ResourceExhausted):
    """Too many people are signing in right now; try again in a moment."""


class RefreshRefused(Unauthenticated):
    """This refresh token is not valid, or no longer; sign in again."""


class SessionEnded(Unauthenticated):
    """This session has ended; sign in again."""


class SessionNotFound(NotFound):
    """You have no such session."""


class MembershipMissing(FailedPrecondition):
    """You are not a member of any organization."""


class OrganizationNotFound(NotFound):
    """There is no such organization."""


class OrganizationSuspended(PermissionDenied):
    """This organization is suspended: it can be looked at and paid for, and nothing new comes into being in it."""


class OrganizationRestricted(FailedPrecondition):
    """An invoice is overdue: until it is paid there are no new API keys, members or service accounts."""


class ApiKeyNotFound(NotFound):
    """There is no such API key."""


class ApiKeyLimitReached(ResourceExhausted):
    """This organization has as many API keys as it may have; revoke some that are not needed."""


class ApiKeysCreatedTooFast(ResourceExhausted):
    """You have created many API keys within a minute; try again in a moment."""


class ApiKeyNotOwn(PermissionDenied):
    """Members may revoke only the API keys that they created."""


class KeyWatchUnavailable(Unavailable):
    """Key changes cannot be watched right now; connect again and start with a new snapshot."""
