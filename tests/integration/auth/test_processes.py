"""The processes of auth, billing and notification start on their environment, serve, and stop when told to."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import urllib.request
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cli.stack.ports import free_ports
from tests.support.postgres import TestDatabase
from tests.support.processes import process_variables

ROOT = Path(__file__).resolve().parents[3]
SERVICES = ("auth", "billing", "notification", "metering")


def environment(database: TestDatabase, service: str, port: int, metrics_port: int) -> dict[str, str]:
    name = service.upper()
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith("TOLLWAY_")},
        **process_variables(service),
        f"TOLLWAY_{name}_LISTEN": f"127.0.0.1:{port}",
        f"TOLLWAY_{name}_METRICS_LISTEN": f"127.0.0.1:{metrics_port}",
        f"TOLLWAY_{name}_DSN": database.dsn(service),
        f"TOLLWAY_{name}_SYSTEM_DSN": database.dsn(f"{service}_system"),
        "TOLLWAY_KEY_PEPPERS": f"1:{'00' * 32}",
        f"TOLLWAY_{name}_DATA_KEYS": f"1:{'01' * 32}",
        "TOLLWAY_SIGNING_KEY": "02" * 32,
        "TOLLWAY_PAGE_TOKEN_KEY": "03" * 32,
        "TOLLWAY_SMTP_URL": "smtp://127.0.0.1:1",
        "TOLLWAY_MAIL_FROM": "Tollway <no-reply@tollway.example>",
    }


async def start(variables: dict[str, str], service: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", f"services.{service}", env=variables, cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )


async def ready_body(metrics_port: int) -> bytes:
    def get() -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics_port}/health/ready", timeout=30) as answer:
            return answer.read()

    async with asyncio.timeout(60):
        while True:
            try:
                return await asyncio.to_thread(get)
            except OSError:
                await asyncio.sleep(0.1)


@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_starts_serves_and_stops(database: TestDatabase, service: str) -> None:
    port, metrics_port = free_ports(2)
    process = await start(environment(database, service, port, metrics_port), service)
    try:
        body = await ready_body(metrics_port)
        # The mail server is away, and mail waits for it: degraded, but ready.
        assert (b"smtp" in body) == (service == "notification")
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            health = health_pb2_grpc.HealthStub(channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(), wait_for_ready=True, timeout=30)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
    finally:
        process.send_signal(signal.SIGTERM)
        _, errors = await asyncio.wait_for(process.communicate(), 15)
    assert process.returncode == 0, errors.decode()


@pytest.mark.parametrize("service", ["auth", "billing", "notification"])
async def test_a_wrong_environment_is_told_completely(database: TestDatabase, service: str) -> None:
    variables = environment(database, service, 1, 2)
    data_keys = f"TOLLWAY_{service.upper()}_DATA_KEYS"
    variables[data_keys] = "1:short"
    del variables["TOLLWAY_PROCESS_KEY"]
    process = await start(variables, service)
    _, errors = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 2
    lines = errors.decode().splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == [data_keys, "TOLLWAY_PROCESS_KEY"]
    assert "short" not in errors.decode().replace("must", "")
