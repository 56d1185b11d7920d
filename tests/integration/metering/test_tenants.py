"""Row security of metering's tables, asked as the service's own tenant role."""

from __future__ import annotations

import asyncpg
import pytest

from mesh.database.pools import Database
from services.metering.ingest import Ingester
from services.metering.model import IngestBatch, Source
from tests.support.metering import ORGANIZATION, OTHER_ORGANIZATION, payload

TENANT_TABLES = ("usage_events", "usage_event_ids", "usage_rollups")


async def test_a_tenant_reads_its_own_usage_and_writes_none(db: Database, ingester: Ingester) -> None:
    payloads = [payload(), payload(), payload(organization_id=OTHER_ORGANIZATION.bytes)]
    await ingester.apply([IngestBatch(source=Source(name="j", partition=0), next_offset=1, payloads=payloads)])
    for table in TENANT_TABLES:
        async with db.tenant(OTHER_ORGANIZATION) as tx:
            seen = await tx.fetch(f"SELECT DISTINCT organization_id FROM {table}")
            assert [row["organization_id"] for row in seen] == [OTHER_ORGANIZATION]
            assert await tx.fetch(f"SELECT FROM {table} WHERE organization_id = $1", ORGANIZATION) == []
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            async with db.tenant(OTHER_ORGANIZATION) as tx:
                await tx.execute(f"DELETE FROM {table}")
