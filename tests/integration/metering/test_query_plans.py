"""No figure that is billed is read by walking through a table."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

from asyncpg.prepared_stmt import PreparedStatement

from mesh.database.pools import Database
from services.metering import store
from services.metering.ingest import Ingester
from services.metering.model import IngestBatch, Source
from tests.support.metering import ORGANIZATION, payload


def nodes(plan: dict[str, Any]) -> list[dict[str, Any]]:
    return [plan, *(node for child in plan.get("Plans", []) for node in nodes(child))]


async def test_usage_is_read_through_the_primary_key_of_the_rollups(db: Database, ingester: Ingester) -> None:
    others = [payload(organization_id=uuid.uuid4().bytes, route_id=f"r{n % 50}") for n in range(3_000)]
    await ingester.apply([IngestBatch(source=Source(name="j", partition=0), next_offset=1, payloads=others)])
    now = datetime.now(UTC)
    values = (ORGANIZATION, now - timedelta(days=30), now, timedelta(hours=1), True, True, True, 10_001, None)
    async with db.read(ORGANIZATION) as tx:
        (row,) = await tx.fetch("EXPLAIN (FORMAT JSON) " + store.QUERIES["query_usage"], *values)
    plan = nodes(json.loads(row[0])[0]["Plan"])
    scans = [node for node in plan if "Relation Name" in node or "Index Name" in node]
    assert scans
    assert all(node["Node Type"] != "Seq Scan" for node in plan)
    assert {node.get("Relation Name", "usage_rollups") for node in scans} == {"usage_rollups"}
    assert any(node.get("Index Name") == "usage_rollups_pkey" for node in scans)


async def test_every_statement_can_be_prepared(db: Database) -> None:
    async with db.system() as tx:
        await tx.execute(store.EVENT_QUERIES["create_staging"])
        for name, statement in [*store.QUERIES.items(), *store.EVENT_QUERIES.items()]:
            if name != "create_staging":
                assert isinstance(await tx.prepare(statement), PreparedStatement)
