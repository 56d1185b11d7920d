"""Signing in: from an address and a password to a signed token for one organization."""

from __future__ import annotations

from uuid import UUID

from mesh.database.pools import Database
from mesh.rpc.tokens import SessionSigner
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.denials import Denials
from services.auth.errors import MembershipMissing, OrganizationNotFound, SignInBusy, SignInRefused, SignInThrottled
from services.auth.model import Membership, Person, Session
from services.auth.passwords import Passwords
from services.auth.throttle import Attempt, SignInThrottle


class Sessions:
    """Signs people in.

    Args:
        db: People and memberships.
        signer: Signs tokens.
        denials: Is told of refused sign-ins.
        audit: Is told of sign-ins.
        passwords: Verifies.
        throttle: Counts wrong passwords.
    """

    def __init__(
        self,
        *,
        db: Database,
        signer: SessionSigner,
        denials: Denials,
        audit: AuditLog,
        passwords: Passwords,
        throttle: SignInThrottle,
    ) -> None:
        self._db = db
        self._signer = signer
        self._denials = denials
        self._audit = audit
        self._passwords = passwords
        self._throttle = throttle

    def jwks_json(self) -> str:
        """Return the public keys that sessions are verified with."""
        return self._signer.jwks_json()

    async def create(self, *, email: str, password: str, organization_id: UUID | None, address: str) -> Session:
        """Sign a person in to one organization.

        Args:
            email: As typed; letter case does not matter.
            password: As typed.
            organization_id: Which organization; None means the first that the person joined.
            address: Where the attempt comes from.

        Raises:
            SignInThrottled: There were too many failures.
            SignInBusy: Too many passwords wait to be verified.
            SignInRefused: Address or password is wrong.
            OrganizationNotFound: The person is not a member of that organization.
            MembershipMissing: The person is not a member of any.
        """
        email = email.strip().lower()
        attempt = self._throttle.begin(email, address)
        if not isinstance(attempt, Attempt):
            self._denials.note_sign_in(email=email, address=address, reason=SignInThrottled.reason())
            raise SignInThrottled(retry_after_seconds=attempt)
        person = await self._find(attempt, password)
        if person is None:
            self._denials.note_sign_in(email=email, address=address, reason=SignInRefused.reason())
            raise SignInRefused
        self._throttle.succeeded(attempt)
        return await self._open(person, organization_id, await self._rehash(person, password))

    async def _find(self, attempt: Attempt, password: str) -> Person | None:
        """Return the person whose password this is. A verification that is cut off stays counted as a failure."""
        try:
            async with self._db.system() as tx:
                person = await store.people.find_by_email(tx, attempt.account)
        except BaseException:
            # Whatever it was, nothing was verified.
            self._throttle.give_back(attempt)
            raise
        # No transaction is open here: a hash takes longer than all statements of a sign-in together.
        password_hash = person.password_hash if person else None
        try:
            fits = await self._passwords.verify(password_hash, password, is_familiar=attempt.is_familiar)
        except SignInBusy:
            self._throttle.give_back(attempt)
            raise
        return person if fits else None

    async def _rehash(self, person: Person, password: str) -> str | None:
        if person.password_hash is None:
            return None
        try:
            return await self._passwords.rehash(person.password_hash, password)
        except SignInBusy:
            # The next sign-in does it.
            return None

    async def _open(self, person: Person, organization_id: UUID | None, new_hash: str | None) -> Session:
        async with self._db.system() as tx:
            membership = _choose(await store.people.list_memberships(tx, person.person_id), organization_id)
            platform_roles = await store.people.list_platform_roles(tx, person.person_id)
            if new_hash is not None:
                await store.people.replace_password_hash(tx, person, new_hash)
            access_token, expire_time = self._signer.issue(
                person_id=person.person_id,
                organization_id=membership.organization_id,
                role=membership.role.value,
                platform_roles=[role.removeprefix("platform_") for role in platform_roles],
            )
            await self._audit.note(
                tx,
                organization_id=membership.organization_id,
                action="session.create",
                resource=f"person/{person.person_id}",
                actor=person.person_id,
            )
        return Session(
            access_token=access_token,
            expire_time=expire_time,
            organization_id=membership.organization_id,
            person_id=person.person_id,
            role=membership.role,
        )


def _choose(memberships: list[Membership], organization_id: UUID | None) -> Membership:
    if not memberships:
        raise MembershipMissing
    if organization_id is None:
        return memberships[0]
    for membership in memberships:
        if membership.organization_id == organization_id:
            return membership
    raise OrganizationNotFound
