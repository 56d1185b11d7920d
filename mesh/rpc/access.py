"""Who may call what, read from the contract and enforced in one place.

Every RPC carries `(tollway.options.v1.access)`. `AccessRules` reads it from the descriptors and refuses to be built
when an RPC has none. A service of somebody else's contract cannot carry it; what its RPCs need is written in the
catalogue of services (`contract.services.ForeignService`), and an RPC that is not written there has no rule either.
`Verifier` turns the `authorization` metadata into a `Principal`. `authorize` compares the two:

- no credentials where some are needed: UNAUTHENTICATED
- the wrong kind of caller, or a role without the permission inside its own tenant: PERMISSION_DENIED
- another tenant's organization: NOT_FOUND, the same answer as for one that does not exist
- a caller whose own organization is suspended: PERMISSION_DENIED, but for what is `allowed_while_suspended`. The
  operator's people are never locked out, or nobody could lift the suspension of the operator's own organization.

A token that is valid is refused all the same where its session has ended, its membership has changed or its
organization is deleted (`principals`). While nothing has been heard of that since the start, nobody is let in.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Awaitable, Callable, Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, Final
from uuid import UUID

import grpc
import jwt
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.message import Message
from tollway.options.v1 import access_pb2

from contract.services import ForeignService
from mesh.clock import Clock
from mesh.rpc import opaque_tokens
from mesh.rpc.errors import NotFound, PermissionDenied, RpcError, Unauthenticated, Unavailable, Violations
from mesh.rpc.opaque_tokens import SERVICE_ACCOUNT_PREFIX
from mesh.rpc.principals import Principals
from mesh.rpc.process_tokens import (
    CLOCK_SKEW_SECONDS,
    PROCESS_TOKEN_TYPE,
    TOKEN_LENGTH_MAX,
    ProcessKeys,
    read_process_token,
)
from mesh.rpc.tokens import (
    SESSION_TOKEN_TYPE,
    read_jwks,
    read_session_key_id,
    read_session_token,
    read_type,
)

SERVICE_ACCOUNT_CACHE_SECONDS: Final = 1.0
SERVICE_ACCOUNT_CACHE_MAX: Final = 10_000
PROCESS_TOKENS_REMEMBERED_MAX: Final = 1_000
JWKS_REFETCH_SECONDS_MIN: Final = 1.0
PRINCIPALS_LOAD_SECONDS_MAX: Final = 1.0
SERVICE_ACCOUNT_RECHECK_SECONDS: Final = 30.0
KEYS_FRESH_SECONDS: Final = 5 * 60
# As tokens name them; what is unspecified is no role.
_ROLES: Final = {name.removeprefix("ROLE_").lower(): role for name, role in access_pb2.Role.items() if role}
_PLATFORM_ROLES: Final = {
    name.removeprefix("PLATFORM_ROLE_").lower(): role for name, role in access_pb2.PlatformRole.items() if role
}
_BEARER: Final = "bearer"
_INFRASTRUCTURE: Final = ("/grpc.health.v1.Health/", "/grpc.reflection.")


class PrincipalKind(Enum):
    """What kind of caller this is."""

    PERSON = access_pb2.CALLER_PERSON
    SERVICE_ACCOUNT = access_pb2.CALLER_SERVICE_ACCOUNT
    PROCESS = access_pb2.CALLER_PROCESS
    ANYONE = access_pb2.CALLER_ANYONE


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who calls. `subject` is a person's or service account's id, or a process's name.

    People have a session, and the version of the membership that their role was read from. `issue_time_s` and
    `expire_time_s` are their token's, Unix time in seconds. `is_suspended` is said of the organization.
    """

    kind: PrincipalKind
    subject: str = ""
    organization_id: UUID | None = None
    role: access_pb2.Role.ValueType = access_pb2.ROLE_UNSPECIFIED
    platform_roles: tuple[access_pb2.PlatformRole.ValueType, ...] = ()
    session_id: UUID | None = None
    membership_version: int = 0
    issue_time_s: float = math.inf
    expire_time_s: float = math.inf
    is_suspended: bool = False
    token: str = field(default="", repr=False)


ANYONE: Final = Principal(kind=PrincipalKind.ANYONE)

_current: ContextVar[Principal] = ContextVar("tollway_principal", default=ANYONE)


def current_principal() -> Principal:
    """Return who made the call that is being handled."""
    return _current.get()


def set_principal(principal: Principal) -> None:
    """Note who made the call that this task handles; for the server's interceptor and for tests."""
    _current.set(principal)


class CredentialsMissing(Unauthenticated):
    """Credentials are needed: send `authorization: Bearer` with a session or service account token."""


class CredentialsInvalid(Unauthenticated):
    """These credentials are not valid, or no longer."""


class CallerNotAllowed(PermissionDenied):
    """This kind of caller may not do this."""


class RoleInsufficient(PermissionDenied):
    """Your role does not include this."""


class OrganizationSuspended(PermissionDenied):
    """This organization is suspended: it can be looked at and paid for, and nothing new comes into being in it."""


class OrganizationNotFound(NotFound):
    """There is no such organization."""


class VerifierUnavailable(Unavailable):
    """Credentials cannot be checked right now; try again."""


class RuleMissing(Exception):
    """An RPC has no complete access option, so the server does not start; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """The access option of one RPC, ready to be asked."""

    method: MethodDescriptor
    callers: frozenset[int]
    permission: access_pb2.Permission.ValueType
    tenant_field: str
    processes: frozenset[str]
    acts_on_caller: bool
    allowed_while_suspended: bool
    is_foreign: bool = False
    """Whether the RPC is of somebody else's contract, so that our conventions for fields do not hold."""

    @property
    def is_stream(self) -> bool:
        """Tell whether a call may go on for long."""
        return bool(self.method.client_streaming or self.method.server_streaming)


class AccessRules:
    """The rules of all RPCs that a server offers, by `/package.Service/Method`.

    Args:
        services: The descriptors of the services offered.
        foreign: Those among them whose contract is not ours, with what their RPCs need.

    Raises:
        RuleMissing: An RPC has no access option, or one that cannot be enforced.
    """

    def __init__(self, services: Iterable[ServiceDescriptor], foreign: Iterable[ForeignService] = ()) -> None:
        rules_of_others = {each.descriptor.full_name: each for each in foreign}
        self._rules = {
            f"/{service.full_name}/{method.name}": read_rule(method, rules_of_others.get(service.full_name))
            for service in services
            for method in service.methods
        }

    def find(self, path: str) -> Rule | None:
        """Return the rule of an RPC; None for health and reflection, which anyone may call."""
        if path.startswith(_INFRASTRUCTURE):
            return None
        return self._rules[path]


def read_rule(method: MethodDescriptor, foreign: ForeignService | None = None) -> Rule:
    """Read an RPC's rule.

    Args:
        method: The RPC.
        foreign: Its service, where the contract is not ours: the rule is written there.

    Raises:
        RuleMissing: There is none, or it contradicts itself.
    """
    name = method.full_name
    access = _access_of(method) if foreign is None else foreign.access.get(method.name)
    if access is None:
        raise RuleMissing(
            f"{name} has no {'(tollway.options.v1.access)' if foreign is None else 'rule in the catalogue'}"
        )
    callers = frozenset(access.callers)
    people = callers & {access_pb2.CALLER_PERSON, access_pb2.CALLER_SERVICE_ACCOUNT}
    if not callers or access_pb2.CALLER_UNSPECIFIED in callers:
        raise RuleMissing(f"{name} names no callers")
    if access.acts_on_caller and (not people or access.permission or access.tenant_field):
        raise RuleMissing(f"{name} acts on its caller, so it is for people and has no permission and no tenant_field")
    if people and not (access.acts_on_caller or _names_whom(access)):
        raise RuleMissing(f"{name} lets people call, so it needs a permission and a tenant_field")
    if access.tenant_field and access.tenant_field not in method.input_type.fields_by_name:
        raise RuleMissing(f"{name}: its request has no field {access.tenant_field}")
    if (access_pb2.CALLER_PROCESS in callers) != bool(access.processes):
        raise RuleMissing(f"{name}: CALLER_PROCESS and processes belong together")
    return Rule(
        method=method,
        callers=callers,
        permission=access.permission,
        tenant_field=access.tenant_field,
        processes=frozenset(access.processes),
        acts_on_caller=access.acts_on_caller,
        allowed_while_suspended=access.allowed_while_suspended,
        is_foreign=foreign is not None,
    )


def _access_of(method: MethodDescriptor) -> access_pb2.Access | None:
    options = method.GetOptions()
    return options.Extensions[access_pb2.access] if options.HasExtension(access_pb2.access) else None


def _names_whom(access: access_pb2.Access) -> bool:
    """Tell whether a rule says what is needed and where; the operator's own permissions hold everywhere."""
    if not access.permission:
        return False
    return bool(access.tenant_field) or not _grant(access.permission).roles


def role_has(role: int, permission: int) -> bool:
    """Tell whether a role inside an organization holds a permission."""
    return role in _grant(permission).roles


def platform_role_has(platform_roles: Iterable[int], permission: int) -> bool:
    """Tell whether one of the operator's roles holds a permission in every organization."""
    return not set(platform_roles).isdisjoint(_grant(permission).platform_roles)


def _grant(permission: int) -> access_pb2.Grant:
    value = access_pb2.Permission.DESCRIPTOR.values_by_number[permission]
    return value.GetOptions().Extensions[access_pb2.grant]


def authorize(rule: Rule, principal: Principal, request: Message | None) -> None:
    """Let a call pass or raise.

    Args:
        rule: The RPC's rule.
        principal: Who calls.
        request: The request; None for an RPC that takes a stream (its rule has no tenant).

    Raises:
        RpcError: As the module's introduction says.
    """
    authorize_caller(rule, principal)
    if access_pb2.CALLER_ANYONE in rule.callers:
        return
    if principal.kind is not PrincipalKind.PROCESS:
        _authorize_person(rule, principal, request)
    elif rule.tenant_field and request is not None:
        _tenant_of(rule, request)


def authorize_caller(rule: Rule, principal: Principal) -> None:
    """Let a kind of caller pass or raise; what the caller asks for plays no part.

    Raises:
        RpcError: As the module's introduction says.
    """
    if access_pb2.CALLER_ANYONE in rule.callers:
        return
    if principal.kind is PrincipalKind.ANYONE:
        raise CredentialsMissing
    if principal.kind.value not in rule.callers:
        raise CallerNotAllowed(f"{principal.kind.name} {principal.subject}")
    if principal.kind is PrincipalKind.PROCESS and principal.subject not in rule.processes:
        raise CallerNotAllowed(f"process {principal.subject}")


def _authorize_person(rule: Rule, principal: Principal, request: Message | None) -> None:
    if not rule.acts_on_caller:
        _authorize_member(rule, principal, request)
    if principal.is_suspended and not (rule.allowed_while_suspended or principal.platform_roles):
        raise OrganizationSuspended


def _authorize_member(rule: Rule, principal: Principal, request: Message | None) -> None:
    tenant = _tenant_of(rule, request) if rule.tenant_field else principal.organization_id
    if platform_role_has(principal.platform_roles, rule.permission):
        return
    if tenant != principal.organization_id:
        raise OrganizationNotFound(f"{principal.subject} of {principal.organization_id} named {tenant}")
    if not role_has(principal.role, rule.permission):
        raise RoleInsufficient(
            metadata={"permission": access_pb2.Permission.Name(rule.permission).removeprefix("PERMISSION_")}
        )


def _tenant_of(rule: Rule, request: Message | None) -> UUID:
    violations = Violations()
    text = str(getattr(request, rule.tenant_field, ""))
    try:
        return UUID(text)
    except ValueError:
        violations.add(rule.tenant_field, "must be a UUID, for example 01890a5d-ac96-774b-bcce-b302099a8057")
    violations.raise_if_any()
    raise AssertionError


def bearer_token(authorization: str) -> str | None:
    """Return the token of an `authorization` field; None where its scheme is another one.

    The scheme's case does not matter (RFC 9110, section 11.1).
    """
    scheme, space, token = authorization.partition(" ")
    return token.strip() if space and scheme.lower() == _BEARER else None


class Verifier:
    """Turns credentials into principals.

    Args:
        process_keys: The public keys of all processes.
        audience: The service that verifies; process tokens for another are refused.
        fetch_jwks: Gets the key set of session tokens from `auth`.
        resolve_service_account: Asks `auth` who holds a `tw_sa_` token; None where nobody does.
        clock: For the caches.
        principals: What is known beyond tokens; None where nothing can be.
    """

    def __init__(
        self,
        *,
        process_keys: ProcessKeys,
        audience: str,
        fetch_jwks: Callable[[], Awaitable[str]],
        resolve_service_account: Callable[[str], Awaitable[Principal | None]],
        clock: Clock,
        principals: Principals | None = None,
    ) -> None:
        self.process_keys = process_keys
        self.audience = audience
        self._fetch_jwks = fetch_jwks
        self._resolve_service_account = resolve_service_account
        self._clock = clock
        self._principals = principals if principals is not None else Principals.of_tokens_alone(clock)
        self._keys: dict[str, Any] = {}
        self._keys_asked_at = float("-inf")
        self._keys_are_known = False
        self._refreshing: asyncio.Task[None] | None = None
        self._asking_for_keys = asyncio.Lock()
        self._service_accounts: dict[str, tuple[float, Principal | None]] = {}
        self._processes: dict[str, tuple[float, Principal]] = {}

    async def principal(self, authorization: str | None) -> Principal:
        """Verify the value of an `authorization` field; None means that nobody in particular calls.

        Raises:
            CredentialsInvalid: The credentials are not valid.
            VerifierUnavailable: They cannot be checked.
        """
        if not authorization:
            return ANYONE
        token = bearer_token(authorization)
        if token is None:
            raise CredentialsInvalid("not a bearer token")
        if len(token) > TOKEN_LENGTH_MAX:
            raise CredentialsInvalid("a token of ours is shorter")
        try:
            if token.startswith(SERVICE_ACCOUNT_PREFIX):
                return await self._in_force(await self._service_account(token))
            token_type = read_type(token)
            if token_type == SESSION_TOKEN_TYPE:
                return await self._in_force(await self._session(token))
            if token_type == PROCESS_TOKEN_TYPE:
                return self._process(token)
            raise CredentialsInvalid(f"a token of another type: {token_type[:40]!r}")
        except (jwt.InvalidTokenError, KeyError, ValueError) as error:
            raise CredentialsInvalid(repr(error)) from error

    async def wait_refused(self, principal: Principal, admit: Callable[[Principal], None]) -> RpcError:
        """Wait until somebody who was let in may be so no longer, and return why.

        That is for whatever goes on after the call was let in: a stream, a socket. It ends with the token, too.

        Args:
            principal: A person or a service account, as `principal` returned them.
            admit: Raises where they, as they are now, may not go on.
        """
        has_changed = False
        with self._principals.watching(principal) as changed:
            while True:
                changed.clear()
                try:
                    admit(await self._again(principal))
                except VerifierUnavailable as error:
                    # Who cannot be asked about goes on; who has changed and cannot be asked about does not.
                    if has_changed:
                        return error
                except RpcError as error:
                    return error
                with contextlib.suppress(TimeoutError):
                    # Not wait_for, which Python 3.11 lets swallow the end of who waits here.
                    async with asyncio.timeout(self._recheck_seconds(principal)):
                        await changed.wait()
                has_changed = changed.is_set()

    async def _again(self, principal: Principal) -> Principal:
        """Return who somebody is by now.

        Raises:
            CredentialsInvalid: Nobody any more.
            VerifierUnavailable: That cannot be found out.
        """
        if principal.kind is PrincipalKind.SERVICE_ACCOUNT:
            principal = await self._service_account(principal.token)
        elif principal.expire_time_s <= self._clock.now().timestamp():
            raise CredentialsInvalid("the token has ended")
        return await self._in_force(principal)

    def _recheck_seconds(self, principal: Principal) -> float:
        """Return when to look again without a change: at a token's end; the end of a service account is not known."""
        if principal.kind is PrincipalKind.SERVICE_ACCOUNT:
            return SERVICE_ACCOUNT_RECHECK_SECONDS
        return max(0.0, principal.expire_time_s - self._clock.now().timestamp()) + 0.001

    async def _in_force(self, principal: Principal) -> Principal:
        """Compare a principal with what has changed since its token was signed."""
        known = self._principals
        if not known.loaded.is_set():
            try:
                async with asyncio.timeout(PRINCIPALS_LOAD_SECONDS_MAX):
                    await known.loaded.wait()
            except TimeoutError as error:
                raise VerifierUnavailable("nothing is known about ended sessions yet") from error
        if known.refuses(principal):
            raise CredentialsInvalid("ended or changed since the token was signed")
        is_suspended = known.is_suspended(principal.organization_id)
        return principal if principal.is_suspended == is_suspended else replace(principal, is_suspended=is_suspended)

    def _process(self, token: str) -> Principal:
        """Verify a process token; one that has been verified is only looked at for its end.

        A process sends the same token for minutes, and checking a signature costs more than a small RPC.
        """
        remembered = self._processes.get(token)
        if remembered is not None and self._clock.now().timestamp() < remembered[0]:
            return remembered[1]
        claims = read_process_token(token, self.process_keys, self.audience)
        principal = Principal(kind=PrincipalKind.PROCESS, subject=str(claims["sub"]), token=token)
        if len(self._processes) >= PROCESS_TOKENS_REMEMBERED_MAX:
            self._processes.clear()
        self._processes[token] = (float(claims["exp"]) + CLOCK_SKEW_SECONDS, principal)
        return principal

    async def _session(self, token: str) -> Principal:
        if read_session_key_id(token) not in self._keys:
            await self._refetch_keys()
        elif self._clock.monotonic() - self._keys_asked_at >= KEYS_FRESH_SECONDS and self._refreshing is None:
            # Nobody waits for it: the keys that are known go on being good while auth is away.
            self._refreshing = asyncio.create_task(self._refresh_keys())
        claims = read_session_token(token, self._keys, self._clock.now())
        return Principal(
            kind=PrincipalKind.PERSON,
            subject=str(claims.person_id),
            organization_id=claims.organization_id,
            role=_ROLES[claims.role],
            platform_roles=tuple(_PLATFORM_ROLES[name] for name in claims.platform_roles),
            session_id=claims.session_id,
            membership_version=claims.membership_version,
            issue_time_s=claims.issue_time_s,
            expire_time_s=claims.expire_time_s,
            token=token,
        )

    async def _refresh_keys(self) -> None:
        """Take over what was published and retired since; a key that auth does not publish any more is forgotten."""
        try:
            with contextlib.suppress(VerifierUnavailable):
                await self._refetch_keys()
        finally:
            self._refreshing = None

    async def _refetch_keys(self) -> None:
        """Ask for the keys again; whoever comes while somebody asks, or just after, takes that answer.

        A flood of tokens with made-up key ids must not become a flood of calls to auth, a hanging one least of all.
        """
        async with self._asking_for_keys:
            if self._clock.monotonic() - self._keys_asked_at < JWKS_REFETCH_SECONDS_MIN:
                if not self._keys_are_known:
                    raise VerifierUnavailable("asked a moment ago, without an answer")
                return
            self._keys_are_known = False
            try:
                self._keys = dict(read_jwks(await self._fetch_jwks()))
                self._keys_are_known = True
            except (grpc.RpcError, RpcError) as error:
                raise VerifierUnavailable(repr(error)) from error
            finally:
                self._keys_asked_at = self._clock.monotonic()

    async def _service_account(self, token: str) -> Principal:
        """Ask who holds a token, at most once a second; one that cannot exist is refused without asking."""
        if not opaque_tokens.is_well_formed(token, SERVICE_ACCOUNT_PREFIX):
            raise CredentialsInvalid("not a service account token")
        cached = self._service_accounts.get(token)
        if cached is None or not self._is_current(*cached):
            now = self._clock.monotonic()
            try:
                cached = (now, await self._resolve_service_account(token))
            except (grpc.RpcError, RpcError) as error:
                raise VerifierUnavailable(repr(error)) from error
            if len(self._service_accounts) >= SERVICE_ACCOUNT_CACHE_MAX:
                self._service_accounts.clear()
            self._service_accounts[token] = cached
        if cached[1] is None:
            raise CredentialsInvalid("unknown service account token")
        return cached[1]

    def _is_current(self, asked_at: float, account: Principal | None) -> bool:
        """Tell whether an answer still holds: it is young, and nothing changed after it was asked for."""
        if self._clock.monotonic() - asked_at >= SERVICE_ACCOUNT_CACHE_SECONDS:
            return False
        return account is None or self._principals.is_current(account.subject, asked_at)
