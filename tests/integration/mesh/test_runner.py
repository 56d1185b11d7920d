"""A service is set up and let go of in one order, whatever fails on the way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import urllib.request

import grpc.aio
import pytest
from pydantic import SecretStr
from tollway.notification.v1 import notification_service_pb2, notification_service_pb2_grpc

from cli.stack.ports import free_ports
from mesh.config import ServiceSettings
from mesh.service.process import ProcessContext
from mesh.service.runner import Role, ServiceSpec, serve
from tests.support.postgres import TestDatabase
from tests.support.processes import process_fields

WAIT_SECONDS = 20


class DemoSettings(ServiceSettings):
    service = "notification"

    notification_listen: str
    notification_metrics_listen: str
    notification_dsn: SecretStr
    notification_system_dsn: SecretStr


def spec_of(**roles):
    return ServiceSpec(
        name="notification",
        descriptor=notification_service_pb2.DESCRIPTOR.services_by_name["NotificationService"],
        register=notification_service_pb2_grpc.add_NotificationServiceServicer_to_server,
        settings=DemoSettings,
        roles={name: (lambda _context, role=role: role) for name, role in roles.items()},
    )


@pytest.fixture
def settings(database: TestDatabase):
    port, metrics_port = free_ports(2)
    return DemoSettings(
        **process_fields("notification"),
        notification_listen=f"127.0.0.1:{port}",
        notification_metrics_listen=f"127.0.0.1:{metrics_port}",
        notification_dsn=database.dsn("notification"),
        notification_system_dsn=database.dsn("notification_system"),
    )


@contextlib.asynccontextmanager
async def running(spec, settings, roles):
    """Serves in the background; yields the event that stops it."""
    stopping = asyncio.Event()

    async def main():
        async with asyncio.TaskGroup() as tasks:
            await serve(spec, settings, frozenset(roles), ProcessContext(stopping=stopping, tasks=tasks))

    task = asyncio.create_task(main())
    try:
        yield stopping
    finally:
        stopping.set()
        await asyncio.wait_for(task, WAIT_SECONDS)


async def ready(settings) -> None:
    def get():
        with urllib.request.urlopen(f"http://{settings.metrics_listen}/health/ready", timeout=30) as answer:
            return answer.read()

    async with asyncio.timeout(WAIT_SECONDS):
        while True:
            try:
                await asyncio.to_thread(get)
            except OSError:
                await asyncio.sleep(0.02)
            else:
                return


def accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


async def serves(settings) -> bool:
    async with grpc.aio.insecure_channel(settings.listen) as channel:
        try:
            await asyncio.wait_for(channel.channel_ready(), WAIT_SECONDS)
        except TimeoutError:
            return False
    return True


async def test_a_process_without_the_api_role_answers_no_rpc(settings) -> None:
    spec = spec_of(api=Role(handler=notification_service_pb2_grpc.NotificationServiceServicer()), worker=Role())
    async with running(spec, settings, ["worker"]):
        await ready(settings)
        assert not accepts(settings.listen)
    async with running(spec, settings, ["api", "worker"]):
        await ready(settings)
        assert await serves(settings)


async def test_the_way_down_is_workers_then_loops_then_what_they_used(settings) -> None:
    story = []

    async def loop() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            story.append("loop cancelled")

    async def worker(stopping: asyncio.Event) -> None:
        await stopping.wait()
        await asyncio.sleep(0)
        story.append("worker ended")

    async def close() -> None:
        story.append("closed")

    handler = notification_service_pb2_grpc.NotificationServiceServicer()
    spec = spec_of(api=Role(handler=handler, loops=[loop], workers=[worker], close=[close]))
    async with running(spec, settings, ["api"]):
        await ready(settings)
    assert story == ["worker ended", "loop cancelled", "closed"]
    assert not accepts(settings.listen)
    assert not accepts(settings.metrics_listen)


async def test_a_taken_address_ends_the_set_up_and_every_worker(settings) -> None:
    ended = []

    async def worker(stopping: asyncio.Event) -> None:
        await stopping.wait()
        ended.append(True)

    spec = spec_of(api=Role(handler=notification_service_pb2_grpc.NotificationServiceServicer(), workers=[worker]))
    host, _, port = settings.listen.rpartition(":")
    with socket.create_server((host, int(port))), pytest.raises(BaseExceptionGroup) as failed:
        async with running(spec, settings, ["api"]) as stopping:
            await asyncio.wait_for(stopping.wait(), WAIT_SECONDS)
    assert isinstance(failed.value.exceptions[0], OSError)
    assert ended == [True]
    assert not accepts(settings.metrics_listen)


async def test_nothing_is_served_before_it_is_loaded_and_a_stop_before_is_heard(settings) -> None:
    asked, loaded = asyncio.Event(), asyncio.Event()

    async def load() -> None:
        asked.set()
        await loaded.wait()

    spec = spec_of(api=Role(handler=notification_service_pb2_grpc.NotificationServiceServicer(), loaded=load))
    async with running(spec, settings, ["api"]):
        await asyncio.wait_for(asked.wait(), WAIT_SECONDS)
        assert not accepts(settings.listen)
    async with running(spec, settings, ["api"]):
        loaded.set()
        await ready(settings)
        assert await serves(settings)


async def test_what_cannot_be_loaded_is_not_served(settings) -> None:
    async def fail() -> None:
        raise OSError("the file is gone")

    spec = spec_of(api=Role(handler=notification_service_pb2_grpc.NotificationServiceServicer(), loaded=fail))
    with pytest.raises(BaseExceptionGroup) as failed:
        async with running(spec, settings, ["api"]) as stopping:
            await asyncio.wait_for(stopping.wait(), WAIT_SECONDS)
    assert isinstance(failed.value.exceptions[0], OSError)
