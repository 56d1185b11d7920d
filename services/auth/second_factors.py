"""Second factors: setting one up, asking for it, removing it.

The secret is sealed in the table, bound to its person. A code is tried within a transaction that holds the person's
row, so that it is accepted once, however many sign in with it at the same moment, on whatever replica.

Whoever tries codes at a sign-in knows the password already, so wrong codes are counted in the row itself, over all
replicas and addresses: `FAILURES_MAX`, of which one is forgotten every `FAILURE_FORGOTTEN_SECONDS`. Three of a million
codes are good at a time, so a guesser succeeds within a year of trying with a probability of 0.2. Who is kept out by a
guesser sets a new password by e-mail; the guesser does not know that one. A right code takes no failures back:
otherwise the owner's sign-ins would pay for the guesser's tries.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.pools import Database
from mesh.secretbox import SecretBox
from services.auth import store
from services.auth.audit import AuditLog
from services.auth.confirmation import Confirmation
from services.auth.errors import (
    PasswordWrong,
    PersonNotFound,
    SecondFactorExists,
    SecondFactorMissing,
    SecondFactorRefused,
    SecondFactorRequired,
    SecondFactorThrottled,
    SecondFactorWrong,
)
from services.auth.mail import Mail, Page, shown_address, shown_time
from services.auth.model import Person, RevokeReason, SecondFactor
from services.auth.totp import (
    SECRET_BYTES,
    RecoveryCodes,
    base32,
    find_step,
    is_app_code,
    otpauth_uri,
    read_code,
)

ENROLLMENT_GOOD: Final = timedelta(minutes=15)
FAILURES_MAX: Final = 10
FAILURE_FORGOTTEN_SECONDS: Final = 360.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrollment:
    """A secret that waits to be confirmed, as it is shown this once."""

    secret: str
    otpauth_uri: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What became of a code."""

    accepted: bool
    wait_seconds: float = 0.0

    def or_raise(self, refusal: type[SecondFactorWrong | SecondFactorRefused]) -> None:
        """Go on where the code was accepted.

        Raises:
            SecondFactorThrottled: It was not even tried.
            SecondFactorWrong, SecondFactorRefused: It was wrong.
        """
        if self.wait_seconds > 0:
            raise SecondFactorThrottled(retry_after_seconds=self.wait_seconds)
        if not self.accepted:
            raise refusal


class SecondFactors:
    """Sets second factors up, asks for them, removes them.

    Args:
        db: Second factors.
        box: Seals secrets.
        recovery: Makes recovery codes.
        confirmation: Verifies today's password.
        mail: Tells people.
        audit: Is told of changes.
        random_bytes: A cryptographic source of randomness.
        clock: Time of codes.
    """

    def __init__(
        self,
        *,
        db: Database,
        box: SecretBox,
        recovery: RecoveryCodes,
        confirmation: Confirmation,
        mail: Mail,
        audit: AuditLog,
        random_bytes: Callable[[int], bytes],
        clock: Clock,
    ) -> None:
        self._db = db
        self._box = box
        self._recovery = recovery
        self._confirmation = confirmation
        self._mail = mail
        self._audit = audit
        self._random_bytes = random_bytes
        self._clock = clock

    async def begin(self, person_id: UUID, password: str) -> Enrollment:
        """Make a secret that is to be confirmed with a code.

        Raises:
            PasswordWrong: It is not today's password, or no longer.
            SecondFactorExists: There is one in force.
            SignInThrottled, SignInBusy: As for `Confirmation.confirm`.
        """
        person = await self._confirmation.confirm(person_id, password)
        secret = self._random_bytes(SECRET_BYTES)
        async with self._db.system() as tx:
            await _hold(tx, person)
            if not await store.second_factors.put(tx, person_id, self._box.seal(secret, context(person_id)), self._now):
                raise SecondFactorExists
        return Enrollment(secret=base32(secret), otpauth_uri=otpauth_uri(secret, person.email))

    async def confirm(self, person_id: UUID, code: str, *, session_id: UUID | None) -> list[str]:
        """Put a second factor in force, end the sessions that were opened without it, and return recovery codes.

        Raises:
            SecondFactorMissing: None waits to be confirmed.
            SecondFactorWrong: The code is wrong.
            SecondFactorThrottled: There were too many wrong ones.
        """
        async with self._db.system() as tx:
            person = await store.people.lock(tx, person_id)
            factor = await store.second_factors.lock(tx, person_id)
            if person is None or factor is None or factor.confirm_time or self._is_late(factor):
                raise SecondFactorMissing
            tried = await self._try_app_code(tx, factor, read_code(code))
            codes: list[str] = []
            if tried.accepted:
                await store.second_factors.confirm(tx, person_id, self._now)
                # A sign-in that is under way has not been asked for a code.
                await store.people.void_proofs(tx, person_id)
                await store.sessions.revoke_all(tx, person_id, session_id, reason=RevokeReason.SECOND_FACTOR_CHANGED)
                codes = await self._replace_recovery_codes(tx, person_id)
                await self._note(tx, person, "second_factor.enable", "second_factor_enabled")
        tried.or_raise(SecondFactorWrong)
        return codes

    async def disable(self, person_id: UUID, password: str, code: str) -> None:
        """Remove a second factor.

        Raises:
            PasswordWrong: It is not today's password, or no longer.
            SecondFactorMissing: There is none in force.
            SecondFactorWrong: The code is wrong.
            SecondFactorThrottled, SignInThrottled, SignInBusy: There was too much before.
        """
        person = await self._confirmation.confirm(person_id, password)
        async with self._db.system() as tx:
            await _hold(tx, person)
            tried = await self._try(tx, await self._in_force(tx, person_id), person, code)
            if tried.accepted:
                await store.second_factors.remove(tx, person_id)
                await self._note(tx, person, "second_factor.disable", "second_factor_disabled")
        tried.or_raise(SecondFactorWrong)

    async def regenerate(self, person_id: UUID, password: str, code: str) -> list[str]:
        """Replace all recovery codes; a recovery code does not do for that.

        Raises:
            As for `disable`.
        """
        person = await self._confirmation.confirm(person_id, password)
        async with self._db.system() as tx:
            await _hold(tx, person)
            factor = await self._in_force(tx, person_id)
            tried = await self._try_app_code(tx, factor, read_code(code))
            codes: list[str] = []
            if tried.accepted:
                codes = await self._replace_recovery_codes(tx, person_id)
                await self._note(tx, person, "second_factor.replace_recovery_codes", "recovery_codes_replaced")
        tried.or_raise(SecondFactorWrong)
        return codes

    async def ask(self, person: Person, code: str) -> None:
        """Let a person go on whose password was right, where they have no second factor or the code fits.

        Raises:
            SecondFactorRequired: They have one, and there is no code.
            SecondFactorRefused: The code is wrong.
            SecondFactorThrottled: There were too many wrong ones.
        """
        async with self._db.system() as tx:
            factor = await store.second_factors.lock(tx, person.person_id)
            if factor is None or factor.confirm_time is None:
                return
            if not code:
                raise SecondFactorRequired
            tried = await self._try(tx, factor, person, code)
        tried.or_raise(SecondFactorRefused)

    @property
    def _now(self) -> datetime:
        return self._clock.now()

    def _is_late(self, factor: SecondFactor) -> bool:
        return self._now - factor.create_time > ENROLLMENT_GOOD

    async def _in_force(self, tx: Connection, person_id: UUID) -> SecondFactor:
        factor = await store.second_factors.lock(tx, person_id)
        if factor is None or factor.confirm_time is None:
            raise SecondFactorMissing
        return factor

    async def _try(self, tx: Connection, factor: SecondFactor, person: Person, typed: str) -> Tried:
        code = read_code(typed)
        if is_app_code(code):
            return await self._try_app_code(tx, factor, code)
        return await self._try_recovery_code(tx, factor, person, code)

    async def _try_app_code(self, tx: Connection, factor: SecondFactor, code: str) -> Tried:
        """Try a code of the app. What is noted of it stays, so the transaction is to be committed in any case."""
        wait_seconds = self._wait_seconds(factor)
        if wait_seconds > 0:
            return Tried(accepted=False, wait_seconds=wait_seconds)
        secret = self._box.open(factor.sealed_secret, context(factor.person_id))
        step = find_step(secret, code, self._now, factor.newest_step) if is_app_code(code) else None
        if step is None:
            await self._count_failure(tx, factor)
            return Tried(accepted=False)
        await store.second_factors.note_step(tx, factor.person_id, step)
        return Tried(accepted=True)

    async def _try_recovery_code(self, tx: Connection, factor: SecondFactor, person: Person, code: str) -> Tried:
        wait_seconds = self._wait_seconds(factor)
        if wait_seconds > 0:
            return Tried(accepted=False, wait_seconds=wait_seconds)
        digests = self._recovery.digests(person.person_id, code)
        if not await store.second_factors.use_recovery_code(tx, person.person_id, digests, self._now):
            await self._count_failure(tx, factor)
            return Tried(accepted=False)
        left_count = await store.second_factors.count_recovery_codes(tx, person.person_id)
        await self._note(
            tx, person, "second_factor.use_recovery_code", "recovery_code_used", {"left_count": str(left_count)}
        )
        return Tried(accepted=True)

    def _level(self, factor: SecondFactor) -> float:
        forgotten = (self._now - factor.failure_time).total_seconds() / FAILURE_FORGOTTEN_SECONDS
        return max(0.0, factor.failure_level - max(0.0, forgotten))

    def _wait_seconds(self, factor: SecondFactor) -> float:
        return max(0.0, (self._level(factor) + 1 - FAILURES_MAX) * FAILURE_FORGOTTEN_SECONDS)

    async def _count_failure(self, tx: Connection, factor: SecondFactor) -> None:
        await store.second_factors.note_failure(tx, factor.person_id, level=self._level(factor) + 1, now=self._now)

    async def _replace_recovery_codes(self, tx: Connection, person_id: UUID) -> list[str]:
        codes, digests = self._recovery.mint(person_id)
        await store.second_factors.replace_recovery_codes(tx, person_id, digests, self._now)
        return codes

    async def _note(
        self, tx: Connection, person: Person, action: str, template: str, facts: dict[str, str] | None = None
    ) -> None:
        """Note a change in the audit log, and tell the person."""
        await self._audit.note_person(tx, person.person_id, action=action, actor=person.person_id)
        await self._mail.enqueue(
            tx,
            template,
            recipient=person.email,
            organization_id=None,
            facts={
                "time": shown_time(self._now),
                "address": shown_address(),
                "link": self._mail.link(Page.FORGOTTEN_PASSWORD),
                **(facts or {}),
            },
        )


def context(person_id: UUID) -> bytes:
    """Return what a sealed secret is bound to."""
    return b"second_factor/" + person_id.bytes


async def _hold(tx: Connection, person: Person) -> None:
    """Keep a person's credentials as they were when the password was verified.

    Raises:
        PersonNotFound: There is no such person any more.
        PasswordWrong: It is another password now.
    """
    found = await store.people.lock(tx, person.person_id)
    if found is None:
        raise PersonNotFound
    if found.credential_version != person.credential_version:
        raise PasswordWrong
