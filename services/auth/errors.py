"""Why auth refuses: one class per reason."""

from __future__ import annotations

from mesh.rpc.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
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


class EmailTokenInvalid(InvalidArgument):
    """This link is not valid, or no longer; ask for another e-mail."""


class EmailRequestsThrottled(ResourceExhausted):
    """Too many e-mails were asked for; try again later."""


class PasswordWrong(PermissionDenied):
    """This is not the password."""


class AccountExists(AlreadyExists):
    """There is an account with this address already; sign in."""


class PersonNotFound(NotFound):
    """There is no such person."""


class SecondFactorRequired(Unauthenticated):
    """Signing in to this account takes a code of its second factor as well."""


class SecondFactorRefused(Unauthenticated):
    """The code of the second factor is wrong, was used before, or its time is over."""


class SecondFactorWrong(PermissionDenied):
    """This code of the second factor is wrong, was used before, or its time is over."""


class SecondFactorThrottled(ResourceExhausted):
    """Too many wrong codes of the second factor; try again later."""


class SecondFactorExists(FailedPrecondition):
    """This account has a second factor already; remove it first."""


class SecondFactorMissing(FailedPrecondition):
    """This account has no second factor, or none that waits to be confirmed."""


class RefreshRefused(Unauthenticated):
    """This refresh token is not valid, or no longer; sign in again."""


class SessionEnded(Unauthenticated):
    """This session has ended; sign in again."""


class SigningKeyPending(FailedPrecondition):
    """A new signing key is published already and does not sign yet; try again when it does."""


class SigningKeysUnavailable(Unavailable):
    """Nothing can be signed or verified right now; try again."""


class SessionNotFound(NotFound):
    """You have no such session."""


class MembershipMissing(FailedPrecondition):
    """You are not a member of any organization."""


class OrganizationNotFound(NotFound):
    """There is no such organization."""


class OrganizationLimitReached(ResourceExhausted):
    """You own as many organizations as a person may."""


class OrganizationIsOwn(FailedPrecondition):
    """Operators neither suspend nor delete the organization that they act for; nobody could take it back."""


class ContactEmailTaken(AlreadyExists):
    """Another organization has this contact address; choose another one."""


class ExternalIdTaken(AlreadyExists):
    """Another organization has this external id; choose another one."""


class OrganizationSuspended(PermissionDenied):
    """This organization is suspended: it can be looked at and paid for, and nothing new comes into being in it."""


class OrganizationRestricted(FailedPrecondition):
    """An invoice is overdue: until it is paid there are no new API keys, members or service accounts."""


class MemberNotFound(NotFound):
    """This organization has no such member."""


class LastOwner(FailedPrecondition):
    """An organization keeps at least one owner; make somebody else an owner first."""


class OwnersRemoveAdmins(PermissionDenied):
    """Only owners remove admins and owners."""


class MemberExists(AlreadyExists):
    """Somebody with this address is a member already."""


class InvitationExists(AlreadyExists):
    """An invitation for this address waits already; send it again or take it back."""


class InvitationNotFound(NotFound):
    """There is no such invitation."""


class InvitationEnded(FailedPrecondition):
    """This invitation was answered or taken back, or has expired; ask for a new one."""


class InvitationForAnother(PermissionDenied):
    """This invitation is for another address; sign in with the account that has it."""


class InvitationLimitReached(ResourceExhausted):
    """As many invitations as there may be wait for an answer; take some back."""


class InvitationsSentTooOften(ResourceExhausted):
    """This address was written to often enough for now; try again later."""


class ApiKeyNotFound(NotFound):
    """There is no such API key."""


class ApiKeyLimitReached(ResourceExhausted):
    """This organization has as many API keys as it may have; revoke some that are not needed."""


class ApiKeysCreatedTooFast(ResourceExhausted):
    """You have created many API keys within a minute; try again in a moment."""


class ApiKeyNotOwn(PermissionDenied):
    """Members may change, rotate and revoke only the API keys that they created."""


class ApiKeyExists(AlreadyExists):
    """Some of these API keys are here already, so none was imported."""


class KeyPrefixLimitReached(ResourceExhausted):
    """There are as many different beginnings of imported keys as there may be."""


class ApiKeyEnded(FailedPrecondition):
    """This API key is revoked or has expired, and that is for good; create another one."""


class ApiKeyReplaced(FailedPrecondition):
    """This API key was replaced by another one already; it can end sooner, but not live longer or be replaced again."""


class ScopeNotAllowed(PermissionDenied):
    """This scope opens something of Tollway's own, and your role may not give it to a key."""


class ApiKeyOutlivesCreator(FailedPrecondition):
    """A key with a scope of Tollway's own, made by a service account, must expire no later than the account does."""


class KeyWatchUnavailable(Unavailable):
    """Key changes cannot be watched right now; connect again and start with a new snapshot."""


class ServiceAccountNotFound(NotFound):
    """There is no such service account."""


class ServiceAccountEnded(FailedPrecondition):
    """This service account is revoked or has expired; create another one."""


class ServiceAccountLimitReached(ResourceExhausted):
    """This organization has as many service accounts as it may have; revoke some that are not needed."""


class ServiceAccountOutlivesCreator(FailedPrecondition):
    """A service account gives nobody more time than it has itself."""


class RoleAboveOwn(PermissionDenied):
    """Nobody gives or manages a role above their own."""


class OperatorsServiceAccount(PermissionDenied):
    """Only administrators of the operator manage service accounts with a platform role."""


class PlatformRoleElsewhere(FailedPrecondition):
    """Service accounts with a platform role belong to the operator's own organization."""


class PrincipalWatchUnavailable(Unavailable):
    """Changes of principals cannot be watched right now; connect again and start with a new snapshot."""


class SoleOwner(FailedPrecondition):
    """This person alone owns an organization; it needs another owner, or has to be deleted, before they are erased."""
