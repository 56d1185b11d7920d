"""The consumer on a real broker: positions come from PostgreSQL, not from Kafka."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from cli.stack.ports import free_ports
from cli.stack.servers.kafka import create_topics, start_kafka
from contract import topics
from mesh import kafka
from mesh.database.pools import Database
from services.metering.consumer import UsageConsumer
from services.metering.ingest import Ingester
from tests.support.metering import ORGANIZATION, payload

pytestmark = pytest.mark.full


@pytest.fixture(scope="module")
def kafka_bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("kafka")
    port, controller_port = free_ports(2)
    broker = start_kafka(folder=folder, port=port, controller_port=controller_port, log_path=folder / "kafka.log")
    try:
        asyncio.run(create_topics(broker.bootstrap))
        yield broker.bootstrap
    finally:
        broker.stop()


@contextlib.asynccontextmanager
async def consuming(bootstrap: str, ingester: Ingester) -> AsyncIterator[None]:
    consumer = asyncio.create_task(UsageConsumer(bootstrap=bootstrap, ingester=ingester).run())
    yield
    consumer.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await consumer


async def send(bootstrap: str, payloads: list[bytes]) -> None:
    producer = await kafka.start_producer(bootstrap, client_id="test")
    for sent in payloads:
        await producer.send(topics.USAGE_EVENTS, value=sent, key=ORGANIZATION.bytes)
    await producer.stop()


async def figures(db: Database) -> tuple[int, int, int]:
    async with db.system() as tx:
        stored = await tx.fetchval("SELECT count(*) FROM usage_events")
        rolled = await tx.fetchval("SELECT coalesce(sum(request_count), 0) FROM usage_rollups")
        return stored, int(rolled), await tx.fetchval("SELECT count(*) FROM dead_letters")


async def positions(db: Database) -> int:
    async with db.system() as tx:
        return int(await tx.fetchval("SELECT coalesce(sum(next_offset), 0) FROM ingest_offsets"))


async def until(db: Database, wanted: tuple[int, int, int]) -> None:
    async with asyncio.timeout(30):
        while await figures(db) != wanted:
            await asyncio.sleep(0.05)


async def test_events_count_once_across_poison_restart_and_repetition(
    kafka_bootstrap: str, db: Database, ingester: Ingester
) -> None:
    first, second = [payload() for _ in range(500)], [payload() for _ in range(300)]
    async with consuming(kafka_bootstrap, ingester):
        await send(kafka_bootstrap, [*first, b"\xff", *first[:50]])
        await until(db, (500, 500, 1))
    await send(kafka_bootstrap, [*second, first[0]])
    async with consuming(kafka_bootstrap, ingester):
        await until(db, (800, 800, 1))
    assert await positions(db) == 852

    # Whatever the group remembers: the positions in PostgreSQL decide. With none, everything is read again.
    async with db.system() as tx:
        await tx.execute("UPDATE ingest_offsets SET next_offset = 0")
    async with consuming(kafka_bootstrap, ingester), asyncio.timeout(30):
        while await positions(db) != 852:
            await asyncio.sleep(0.05)
    assert await figures(db) == (800, 800, 1)


async def test_a_topic_that_is_made_again_under_its_name_is_read_from_its_start(
    kafka_bootstrap: str, db: Database, ingester: Ingester
) -> None:
    before = [payload() for _ in range(300)]
    await remake_topic(kafka_bootstrap)
    async with consuming(kafka_bootstrap, ingester):
        await send(kafka_bootstrap, before)
        await until(db, (300, 300, 0))
    await remake_topic(kafka_bootstrap)
    # As many as were read before, and one by one in the same partition: a stored position would skip them all.
    await send(kafka_bootstrap, [payload() for _ in range(300)])
    async with consuming(kafka_bootstrap, ingester):
        await until(db, (600, 600, 0))
    async with db.system() as tx:
        names = await tx.fetch("SELECT DISTINCT source FROM ingest_offsets")
    assert len(names) == 2
    assert all(row["source"].startswith("kafka:") and row["source"].count(":") == 3 for row in names)


async def remake_topic(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topics.USAGE_EVENTS])
        async with asyncio.timeout(30):
            while topics.USAGE_EVENTS in await admin.list_topics():
                await asyncio.sleep(0.05)
    finally:
        await admin.close()
    await create_topics(bootstrap)
