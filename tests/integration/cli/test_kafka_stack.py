"""`tollway up --kafka`: usage goes over a real broker, which a second start finds as it was."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from cli.stack.servers import kafka
from tests.support.stack import Client, eventually, running_stack

pytestmark = [pytest.mark.full, pytest.mark.timeout(400)]

USAGE = "{ invoicePreview { billableUnits } }"


async def records_of(bootstrap):
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap)
    await consumer.start()
    try:
        partitions = [TopicPartition(kafka.TOPIC, n) for n in range(kafka.PARTITION_COUNT)]
        return sum((await consumer.end_offsets(partitions)).values())
    finally:
        await consumer.stop()


async def topics_of(bootstrap):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        described = await admin.describe_topics([kafka.TOPIC])
        return {topic["topic"]: len(topic["partitions"]) for topic in described}
    finally:
        await admin.close()


async def send_and_see(stack, request_count, billed):
    organization = stack.organization("pro")
    async with aiohttp.ClientSession() as http:
        for _ in range(request_count):
            headers = {"X-API-Key": organization["api_key"]}
            async with http.get(stack.file["edge"]["url"] + "/echo", headers=headers) as answer:
                assert answer.status == 200
        client = await Client(stack, http).sign_in(organization)

        async def billable():
            return (await client.graphql(USAGE))["invoicePreview"]["billableUnits"]

        assert await eventually(billable, lambda count: count >= billed, 30) == billed


def test_usage_goes_over_kafka_and_both_survive_a_restart(stack_folder):
    for sent in (5, 10):
        with running_stack(stack_folder, "--kafka", "--workers", "1") as stack:
            bootstrap = stack.file["kafka"]["bootstrap"]
            assert asyncio.run(topics_of(bootstrap)) == {kafka.TOPIC: kafka.PARTITION_COUNT}
            asyncio.run(send_and_see(stack, 5, sent))
            assert asyncio.run(records_of(bootstrap)) == sent
            assert stack.stop() == 0
