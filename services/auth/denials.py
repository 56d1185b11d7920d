"""Puts refused sign-ins and denied calls into the audit log, without letting a flood fill it.

Who is refused says so as often as they like, so repeats are counted in memory and one entry per minute and kind of
denial carries their number. Kinds are bounded as well: from `KINDS_MAX` on, further ones of a minute share one entry
without names. One source (the address of sign-ins, the caller of calls) has `KINDS_PER_SOURCE_MAX` of them, and what it
does beyond shares an entry with its name, so one source cannot push what others do out of the log. The log grows by
`KINDS_MAX` entries and a few a minute at most. A first denial is written within
`DELAY_SECONDS`; a process that dies takes the counts of at most a minute along.

A sign-in belongs to the organizations of the account's owner, so that they see who tries. What belongs to nobody, an
account that does not exist for example, belongs to the installation: organization `INSTALLATION`, which the operator's
people may list like any other.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

import structlog

from mesh.clock import Clock
from mesh.database.pools import Connection, Database
from mesh.ids import IdSource
from mesh.rpc.errors import RpcError
from services.auth import store
from services.auth.audit import INSTALLATION
from services.auth.model import AuditEntry

KINDS_MAX: Final = 100
KINDS_PER_SOURCE_MAX: Final = 10
DELAY_SECONDS: Final = 1.0
INTERVAL_SECONDS: Final = 60.0
WRITE_SECONDS_MAX: Final = 5.0
SIGN_IN: Final = "session.deny"
CALL: Final = "rpc.deny"
_NAME_LENGTH_MAX: Final = 254
_NOT_AN_ADDRESS: Final = "(not an e-mail address)"
_OTHERS: Final = "others"

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """What was denied, to whom and why. `account` is who it was tried as: an e-mail address, or a caller's id."""

    action: str
    account: str
    address: str
    reason: str
    resource: str = ""
    organization_id: UUID = INSTALLATION

    @property
    def source(self) -> str:
        """Return who causes it: whoever signs in chooses the account, so it is the address there."""
        return self.address if self.action == SIGN_IN else self.account

    def beyond_its_source(self) -> Denial:
        """Return the entry that further denials of this source share."""
        if self.action == SIGN_IN:
            return replace(self, account=_OTHERS)
        return replace(self, resource=f"rpc/{_OTHERS}")

    def beyond_all(self) -> Denial:
        """Return the entry that further denials of everybody share."""
        return Denial(action=self.action, account=_OTHERS, address=_OTHERS, reason=self.reason)


@dataclass(slots=True, kw_only=True)
class _Repeats:
    count: int
    first_time: datetime
    last_time: datetime


class Denials:
    """Collects denials and writes them. `run` it in the background.

    Args:
        db: Where the audit log is.
        clock: Times of entries.
        ids: Ids of entries.
    """

    def __init__(self, *, db: Database, clock: Clock, ids: IdSource) -> None:
        self._db = db
        self._clock = clock
        self._ids = ids
        self._pending: dict[Denial, _Repeats] = {}
        self._noted = asyncio.Event()

    def note_sign_in(self, *, email: str, address: str, reason: str) -> None:
        """Note a sign-in that was refused. What is no e-mail address may be a password in the wrong field."""
        account = email if "@" in email and email.isprintable() else _NOT_AN_ADDRESS
        self.note(Denial(action=SIGN_IN, account=account[:_NAME_LENGTH_MAX], address=address, reason=reason))

    def note(self, denial: Denial) -> None:
        """Note a denial."""
        now = self._clock.now()
        if denial not in self._pending and self._kinds_of(denial.source) >= KINDS_PER_SOURCE_MAX:
            denial = denial.beyond_its_source()
        if denial not in self._pending and len(self._pending) >= KINDS_MAX:
            denial = denial.beyond_all()
        repeats = self._pending.get(denial)
        if repeats is None:
            self._pending[denial] = _Repeats(count=1, first_time=now, last_time=now)
        else:
            repeats.count += 1
            repeats.last_time = now
        self._noted.set()

    def _kinds_of(self, source: str) -> int:
        return sum(each.source == source for each in self._pending)

    async def run(self, stopping: asyncio.Event) -> None:
        """Write what was noted, now and then, until told to stop; then write the rest."""
        told_to_stop = asyncio.ensure_future(stopping.wait())
        while not stopping.is_set():
            noted = asyncio.ensure_future(self._noted.wait())
            await asyncio.wait({noted, told_to_stop}, return_when=asyncio.FIRST_COMPLETED)
            noted.cancel()
            await asyncio.wait({told_to_stop}, timeout=DELAY_SECONDS)
            await self._write_safely()
            await asyncio.wait({told_to_stop}, timeout=INTERVAL_SECONDS)
        await self._write_safely()

    async def write(self) -> None:
        """Write what was noted so far."""
        self._noted.clear()
        pending, self._pending = self._pending, {}
        try:
            async with self._db.system() as tx:
                for denial, repeats in pending.items():
                    for organization_id, resource in await self._belongs_to(tx, denial):
                        entry = self._entry(replace(denial, resource=resource), organization_id, repeats)
                        await store.audit.append(tx, entry)
        except BaseException:
            # What came meanwhile is counted anew; the bound holds for both together.
            self._pending = {**pending, **self._pending}
            self._noted.set()
            raise

    async def _write_safely(self) -> None:
        if not self._pending:
            return
        try:
            await self._write_in_time()
        except (RpcError, OSError, TimeoutError) as error:
            log.warning("denials_not_audited", detail=repr(error))
        except Exception:  # the loop's edge: the audit of denials must not end with one failure
            log.exception("denials_not_audited")

    async def _write_in_time(self) -> None:
        async with asyncio.timeout(WRITE_SECONDS_MAX):
            await self.write()

    async def _belongs_to(self, tx: Connection, denial: Denial) -> list[tuple[UUID, str]]:
        if denial.action != SIGN_IN:
            return [(denial.organization_id, denial.resource)]
        person = await store.people.find_by_email(tx, denial.account)
        if person is None:
            return [(INSTALLATION, "person/unknown")]
        memberships = await store.people.list_memberships(tx, person.person_id)
        resource = f"person/{person.person_id}"
        return [(membership.organization_id, resource) for membership in memberships] or [(INSTALLATION, resource)]

    def _entry(self, denial: Denial, organization_id: UUID, repeats: _Repeats) -> AuditEntry:
        return AuditEntry(
            audit_entry_id=self._ids.uuid7(),
            organization_id=organization_id,
            actor=denial.account,
            action=denial.action,
            resource=denial.resource,
            address=denial.address,
            details={
                "address": denial.address,
                "reason": denial.reason,
                "count": repeats.count,
                "first_time": repeats.first_time.isoformat(),
            },
            create_time=repeats.last_time,
        )
