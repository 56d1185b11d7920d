"""Erasing people: ids stay, and everything that tells who they were goes.

One transaction locks the person and the owners of their organizations, ends their sessions and memberships, and removes
name, address, password, second factor, registrations, invitations, e-mails that wait, and what was set aside of them in
the audit log. The address is free again with it, and verifiers of tokens learn of the ended sessions as of any others.

E-mails that `notification` has stored go by a job (DESIGN.md 4) that carries the address sealed and forgets it once it
is done. The job comes a second time `SWEEP_DELAY` later, because an e-mail, or a counted refusal of a sign-in, may have
been on its way while the person was erased.

The last owner of an organization is refused: an organization that nobody can manage any more helps nobody.
"""

from __future__ import annotations

import base64
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final
from uuid import UUID

from mesh import jobs
from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from mesh.ids import IdSource
from mesh.secretbox import Sealed, SecretBox
from services.auth import store
from services.auth.audit import INSTALLATION, AuditLog
from services.auth.confirmation import Confirmation
from services.auth.errors import PasswordWrong, PersonNotFound, SoleOwner
from services.auth.model import Person, RevokeReason
from services.auth.second_factors import SecondFactors

ERASE_ADDRESS: Final = "erase_address"
SWEEP_DELAY: Final = timedelta(minutes=5)
ERASE: Final = "person.erase"


class Erasure:
    """Erases people.

    Args:
        db: Auth's tables.
        confirmation: Verifies the password of who erases themselves.
        second_factors: Verifies their second factor.
        idempotency: Replays.
        box: Seals addresses in jobs.
        audit: Is told.
        clock: Time.
        ids: Ids of jobs.
    """

    def __init__(
        self,
        *,
        db: Database,
        confirmation: Confirmation,
        second_factors: SecondFactors,
        idempotency: Idempotency,
        box: SecretBox,
        audit: AuditLog,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._db = db
        self._confirmation = confirmation
        self._second_factors = second_factors
        self._idempotency = idempotency
        self._box = box
        self._audit = audit
        self._clock = clock
        self._ids = ids

    async def erase_self(self, person_id: UUID, password: str, second_factor_code: str) -> None:
        """Erase the account of a person who proves once more that it is theirs.

        Raises:
            PasswordWrong: It is not today's password, or no longer.
            SecondFactorRequired, SecondFactorRefused: The second factor is missing or wrong.
            SignInThrottled, SignInBusy, SecondFactorThrottled: There was too much before.
            SoleOwner: Nobody else owns one of their organizations.
        """
        person = await self._confirmation.confirm(person_id, password)
        await self._second_factors.ask(person, second_factor_code)
        async with self._db.system() as tx:
            locked = await store.people.lock(tx, person_id)
            if locked is None or locked.credential_version != person.credential_version:
                raise PasswordWrong
            await self._erase(tx, locked, details={})

    async def erase(self, person_id: UUID, reason: str, asked: Mutation[None, Answer]) -> Answer:
        """Erase somebody's account in their name.

        Raises:
            PersonNotFound: There is none, or no longer.
            SoleOwner: Nobody else owns one of their organizations.
        """
        async with self._db.system() as tx:
            return await self._idempotency.idempotent(tx, asked, self._erase_by_operator, person_id, reason)

    async def _erase_by_operator(self, tx: Connection, person_id: UUID, reason: str) -> None:
        person = await store.people.lock(tx, person_id)
        if person is None:
            raise PersonNotFound
        await self._erase(tx, person, details={"reason": reason})
        await self._audit.note(
            tx, organization_id=None, action=ERASE, resource=f"person/{person_id}", details={"reason": reason}
        )
        # The reason may name the person.
        await store.privacy.remove_personal_values(tx, person_id, [person.email])

    async def _erase(self, tx: Connection, person: Person, details: dict[str, Any]) -> None:
        await self._refuse_sole_owner(tx, person.person_id)
        await self._audit.note_person(tx, person.person_id, action=ERASE, details=details)
        await store.sessions.revoke_all(tx, person.person_id, reason=RevokeReason.PERSON_ERASED)
        addresses = await store.privacy.find_addresses(tx, person.person_id)
        await store.privacy.erase(tx, person.person_id, addresses, self._clock.now())
        for address in addresses:
            for delay in (timedelta(), SWEEP_DELAY):
                await self._enqueue(tx, address, delay)

    async def _refuse_sole_owner(self, tx: Connection, person_id: UUID) -> None:
        owned = await store.privacy.lock_owners(tx, person_id)
        sole = [str(organization_id) for organization_id, owners in owned.items() if owners == {person_id}]
        if sole:
            raise SoleOwner(metadata={"organization_ids": ",".join(sole[:10])})

    async def _enqueue(self, tx: Connection, address: str, delay: timedelta) -> None:
        job_id = self._ids.uuid7()
        sealed = self._box.seal(address.encode(), job_id.bytes)
        payload = {
            "data_key_version": sealed.key_version,
            "address": base64.b64encode(sealed.ciphertext).decode(),
        }
        run_at = self._clock.now() + delay
        await jobs.enqueue(tx, ERASE_ADDRESS, payload, job_id=job_id, organization_id=INSTALLATION, run_at=run_at)


class AddressEraser:
    """The job that removes an address where it may still lie.

    Args:
        db: Auth's tables.
        erase_recipient: Has notification remove its e-mails to an address.
        box: Opens addresses in jobs.
    """

    def __init__(self, *, db: Database, erase_recipient: Callable[[str], Awaitable[None]], box: SecretBox) -> None:
        self._db = db
        self._erase_recipient = erase_recipient
        self._box = box

    async def erase_address(self, job: jobs.Job) -> None:
        """Remove an address that is nobody's any more, then forget it."""
        if not job.payload:
            return
        sealed = Sealed(
            key_version=job.payload["data_key_version"], ciphertext=base64.b64decode(job.payload["address"])
        )
        address = self._box.open(sealed, job.job_id.bytes).decode()
        async with self._db.system() as tx:
            # Somebody may have registered with it meanwhile: then it is theirs.
            is_free = await store.people.find_by_email(tx, address) is None
        if is_free:
            await self._erase_recipient(address)
        async with self._db.system() as tx:
            if is_free:
                await store.privacy.remove_traces(tx, [address])
            await store.privacy.forget_payload(tx, job.job_id)
