"""Signing in: from an address and a password to a signed token for one organization."""

from __future__ import annotations

from uuid import UUID

from mesh.database.pools import Database
from services.auth import store
from services.auth.denials import Denials
from services.auth.errors import (
    SecondFactorRefused,
    SecondFactorRequired,
    SecondFactorThrottled,
    SignInBusy,
    SignInRefused,
    SignInThrottled,
)
from services.auth.families import SessionFamilies
from services.auth.model import Person, SessionTokens
from services.auth.passwords import Passwords
from services.auth.second_factors import SecondFactors
from services.auth.throttle import Attempt, SignInThrottle


class Sessions:
    """Signs people in.

    Args:
        db: People.
        families: Opens sessions.
        second_factors: Asks for a code where there is a second factor.
        denials: Is told of refused sign-ins.
        passwords: Verifies.
        throttle: Counts wrong passwords.
    """

    def __init__(
        self,
        *,
        db: Database,
        families: SessionFamilies,
        second_factors: SecondFactors,
        denials: Denials,
        passwords: Passwords,
        throttle: SignInThrottle,
    ) -> None:
        self._db = db
        self._families = families
        self._second_factors = second_factors
        self._denials = denials
        self._passwords = passwords
        self._throttle = throttle

    async def create(
        self,
        *,
        email: str,
        password: str,
        organization_id: UUID | None,
        address: str,
        second_factor_code: str = "",
    ) -> SessionTokens:
        """Sign a person in to one organization.

        Args:
            email: As typed; letter case does not matter.
            password: As typed.
            organization_id: Which organization; None means the first that the person joined.
            address: Where the attempt comes from.
            second_factor_code: A code of the app or a recovery code; empty where there is none.

        Raises:
            SignInThrottled: There were too many failures.
            SecondFactorRequired: The password is right, and a code is needed as well.
            SecondFactorRefused: The password is right, and the code is wrong; that is a failure, too.
            SecondFactorThrottled: There were too many wrong codes.
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
        await self._ask_for_second_factor(person, second_factor_code, attempt)
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

    async def _ask_for_second_factor(self, person: Person, code: str, attempt: Attempt) -> None:
        try:
            await self._second_factors.ask(person, code)
        except SecondFactorRequired:
            self._throttle.give_back(attempt)
            raise
        except (SecondFactorRefused, SecondFactorThrottled) as error:
            self._denials.note_sign_in(email=person.email, address=attempt.network, reason=error.reason())
            raise

    async def _rehash(self, person: Person, password: str) -> str | None:
        if person.password_hash is None:
            return None
        try:
            return await self._passwords.rehash(person.password_hash, password)
        except SignInBusy:
            # The next sign-in does it.
            return None

    async def _open(self, person: Person, organization_id: UUID | None, new_hash: str | None) -> SessionTokens:
        async with self._db.system() as tx:
            await store.sessions.lock_person(tx, person.person_id)
            # Whoever changes the password ends all sessions, and this one must not come after that.
            if not await store.people.hold_credentials(tx, person):
                raise SignInRefused
            if new_hash is not None:
                await store.people.replace_password_hash(tx, person, new_hash)
            return await self._families.open(tx, person.person_id, organization_id)
