"""Asking people who are signed in for their password again, before something that a stolen session must not do.

A wrong one counts against the same budgets as a failed sign-in: whoever has a session gets no second way to guess.
"""

from __future__ import annotations

from uuid import UUID

from mesh.database.pools import Database
from mesh.rpc.call import current_call
from services.auth import store
from services.auth.denials import Denials
from services.auth.errors import PasswordWrong, PersonNotFound, SignInBusy, SignInThrottled
from services.auth.model import Person
from services.auth.passwords import Passwords
from services.auth.throttle import Attempt, SignInThrottle


class Confirmation:
    """Verifies the password of people who are signed in.

    Args:
        db: People.
        passwords: Verifies.
        throttle: Counts wrong passwords.
        denials: Is told of them.
    """

    def __init__(self, *, db: Database, passwords: Passwords, throttle: SignInThrottle, denials: Denials) -> None:
        self._db = db
        self._passwords = passwords
        self._throttle = throttle
        self._denials = denials

    async def confirm(self, person_id: UUID, password: str) -> Person:
        """Return a person whose password this is. Whoever acts on it checks that their credentials are still these.

        Raises:
            PasswordWrong: It is not.
            SignInThrottled: There were too many wrong ones.
            SignInBusy: Too many passwords wait to be verified.
            PersonNotFound: There is no such person, or no longer.
        """
        address = current_call().address
        async with self._db.system() as tx:
            person = await store.people.find(tx, person_id)
        if person is None:
            raise PersonNotFound
        attempt = self._throttle.begin(person.email, address)
        if not isinstance(attempt, Attempt):
            self._denials.note_sign_in(email=person.email, address=address, reason=SignInThrottled.reason())
            raise SignInThrottled(retry_after_seconds=attempt)
        if not await self._fits(person, password, attempt):
            self._denials.note_sign_in(email=person.email, address=address, reason=PasswordWrong.reason())
            raise PasswordWrong
        self._throttle.give_back(attempt)
        return person

    async def _fits(self, person: Person, password: str, attempt: Attempt) -> bool:
        if person.password_hash is None:
            return False
        try:
            return await self._passwords.verify_own(person.password_hash, password, person=str(person.person_id))
        except SignInBusy:
            self._throttle.give_back(attempt)
            raise
