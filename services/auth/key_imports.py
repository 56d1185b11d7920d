"""Takes over keys that customers hold already, by their SHA-256; the keys themselves stay where they are.

What is stored is the HMAC of that SHA-256 (`contract.key_format.imported_digest`), so it says as little as the digest
of a key of our own making. All keys of a request are imported or none, in one statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from contract import key_format
from mesh.clock import Clock
from mesh.database.connection import Connection
from mesh.database.idempotency import Answer, Idempotency, Mutation
from mesh.database.pools import Database
from mesh.ids import IdSource
from mesh.rpc.access import Principal
from mesh.rpc.errors import FieldViolation
from services.auth import key_powers, store
from services.auth.audit import AuditLog
from services.auth.errors import ApiKeyExists, KeyPrefixLimitReached
from services.auth.key_changes import PREFIXES_MAX
from services.auth.key_limits import KeyLimits
from services.auth.key_making import Pepper, audited
from services.auth.mail import Mail
from services.auth.model import ApiKey, ImportedKey
from services.auth.standing import require_growth

API_KEYS_IMPORTED: Final = "api_keys_imported"
PREFIXES_PER_ORGANIZATION_MAX: Final = 20
_DUPLICATES_TOLD_MAX: Final = 20


class KeyImports:
    """Imports API keys.

    Args:
        db: Auth's tables.
        idempotency: Replays.
        limits: How many keys there may be.
        pepper: For digests.
        audit: Is told of every key.
        mail: Tells the organization.
        clock: Time.
        ids: New ids.
    """

    def __init__(
        self,
        *,
        db: Database,
        idempotency: Idempotency,
        limits: KeyLimits,
        pepper: Pepper,
        audit: AuditLog,
        mail: Mail,
        clock: Clock,
        ids: IdSource,
    ) -> None:
        self._db = db
        self._idempotency = idempotency
        self._limits = limits
        self._pepper = pepper
        self._audit = audit
        self._mail = mail
        self._clock = clock
        self._ids = ids

    async def run(
        self,
        organization_id: UUID,
        wanted: Sequence[ImportedKey],
        principal: Principal,
        asked: Mutation[Sequence[ApiKey], Answer],
    ) -> Answer:
        """Import keys, all or none.

        Raises:
            OrganizationSuspended: The organization is suspended.
            OrganizationRestricted: It has an overdue invoice.
            ApiKeyLimitReached: It would have too many keys.
            KeyPrefixLimitReached: There would be too many different beginnings.
            ApiKeyExists: Some are there already, here or elsewhere; the violations say which of the request.
            ScopeNotAllowed: One would have a scope that the caller may not give.
            ApiKeyOutlivesCreator: A service account gives one more time than it has itself.
        """
        await self._check_all_prefixes(wanted)
        async with self._db.tenant(organization_id) as tx:
            return await self._idempotency.idempotent(tx, asked, self._import, organization_id, wanted, principal)

    async def _import(
        self, tx: Connection, organization_id: UUID, wanted: Sequence[ImportedKey], principal: Principal
    ) -> Sequence[ApiKey]:
        organization = await require_growth(tx, organization_id)
        now, creator_id = self._clock.now(), UUID(principal.subject)
        await self._limits.check_count(tx, organization_id, now, more=len(wanted))
        prefixes = await store.keys.list_prefixes_of_organization(tx, organization_id)
        if len(prefixes.union(each.key_prefix for each in wanted)) > PREFIXES_PER_ORGANIZATION_MAX:
            raise KeyPrefixLimitReached(metadata={"prefixes_max": str(PREFIXES_PER_ORGANIZATION_MAX)})
        for each in _hardest_to_give(wanted):
            await key_powers.check_given(tx, principal, organization_id, each.scopes, each.expire_time)
        api_keys = [self._api_key(organization_id, each, creator_id, now) for each in wanted]
        digests = [key_format.imported_digest(each.sha256, self._pepper.value) for each in wanted]
        stored = await store.keys.insert_api_keys(tx, api_keys, digests, pepper_version=self._pepper.version)
        if len(stored) < len(api_keys):
            raise ApiKeyExists(violations=_already_there(api_keys, stored))
        for api_key in api_keys:
            await self._audit.note(
                tx,
                organization_id=organization_id,
                action="api_key.import",
                resource=f"api_key/{api_key.api_key_id}",
                after=audited(api_key),
            )
        contact = await store.organizations.find_contact(tx, organization_id)
        if contact is None:
            return api_keys
        await self._mail.enqueue(
            tx,
            API_KEYS_IMPORTED,
            recipient=contact,
            organization_id=organization_id,
            facts={
                "organization_name": organization.name,
                "count": str(len(api_keys)),
                "prefixes": ", ".join(sorted({each.key_prefix for each in wanted})),
                "create_time": now.isoformat(),
            },
        )
        return api_keys

    def _api_key(self, organization_id: UUID, wanted: ImportedKey, creator_id: UUID, now: datetime) -> ApiKey:
        return ApiKey(
            api_key_id=self._ids.uuid7(),
            organization_id=organization_id,
            name=wanted.name,
            hint=f"{wanted.key_prefix}…",
            mode=wanted.mode,
            scopes=wanted.scopes,
            allowed_ips=wanted.allowed_ips,
            external_subject=wanted.external_subject,
            creator_id=creator_id,
            create_time=now,
            expire_time=wanted.expire_time,
            key_prefix=wanted.key_prefix,
        )

    async def _check_all_prefixes(self, wanted: Sequence[ImportedKey]) -> None:
        """Keep the installation's list bounded; two who import at once may go a little over."""
        async with self._db.system() as tx:
            known = set(await store.keys.list_prefixes(tx, prefixes_max=PREFIXES_MAX + 1))
        new = {each.key_prefix for each in wanted} - known
        if new and len(known) + len(new) > PREFIXES_MAX:
            raise KeyPrefixLimitReached


def _hardest_to_give(wanted: Sequence[ImportedKey]) -> list[ImportedKey]:
    """Return, for each set of scopes, the key that lives longest: who may give that one may give all."""
    longest: dict[frozenset[str], ImportedKey] = {}
    for each in wanted:
        scopes = frozenset(each.scopes)
        held = longest.get(scopes)
        if held is None or each.lives_longer_than(held):
            longest[scopes] = each
    return list(longest.values())


def _already_there(api_keys: Sequence[ApiKey], stored: set[UUID]) -> list[FieldViolation]:
    there = [index for index, api_key in enumerate(api_keys) if api_key.api_key_id not in stored]
    return [
        FieldViolation(field=f"api_keys[{index}].sha256", description="must not be that of a key that is here already")
        for index in there[:_DUPLICATES_TOLD_MAX]
    ]
