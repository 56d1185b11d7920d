"""The gateway as a process: how it starts, what it shows, how it stops."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from typing import Any

import aiohttp

from tests.integration.graphql_gateway.conftest import Backend
from tests.support.processes import process_variables

START_SECONDS = 20.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def start(environment: dict[str, str]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "graphql_gateway",
        env={"PATH": os.environ["PATH"], **environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def line_with(process: asyncio.subprocess.Process, event: str) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(START_SECONDS):
        async for raw in process.stdout:
            line = json.loads(raw)
            if line["event"] == event:
                return dict(line)
    raise AssertionError(f"the process ended without {event}")


async def test_a_running_request_is_finished_before_the_process_ends(backend: Backend) -> None:
    gate = backend.seen.gate = asyncio.Event()
    metrics_port = free_port()
    process = await start(
        {
            **{f"TOLLWAY_{name}_ADDRESS": backend.address for name in ("AUTH", "BILLING", "METERING", "RATELIMIT")},
            **process_variables("graphql_gateway"),
            "TOLLWAY_GATEWAY_LISTEN": "127.0.0.1:0",
            "TOLLWAY_GATEWAY_METRICS_LISTEN": f"127.0.0.1:{metrics_port}",
        }
    )
    try:
        port = (await line_with(process, "serving"))["port"]
        async with aiohttp.ClientSession() as http:

            async def plans() -> tuple[int, Any]:
                async with http.get(f"http://127.0.0.1:{port}/api/v1/plans") as response:
                    return response.status, await response.json()

            running = asyncio.create_task(plans())
            async with asyncio.timeout(START_SECONDS):
                while "ListPlans" not in backend.seen.names():
                    await asyncio.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(START_SECONDS):
                while await is_open(port):
                    await asyncio.sleep(0.01)
            assert not running.done()
            gate.set()
            status, body = await running
        assert (status, body["success"]) == (200, True)
        logged = await line_with(process, "request")
        assert {"time", "level", "service", "request_id", "method", "path", "status", "duration_ms"} <= set(logged)
        assert (logged["path"], logged["status"]) == ("/api/v1/plans", 200)
        assert await asyncio.wait_for(process.wait(), START_SECONDS) == 0
    finally:
        await end(process)


async def test_metrics_and_health_have_a_port_of_their_own(backend: Backend) -> None:
    metrics_port = free_port()
    process = await start(
        {
            "TOLLWAY_BILLING_ADDRESS": backend.address,
            **process_variables("graphql_gateway"),
            "TOLLWAY_GATEWAY_LISTEN": "127.0.0.1:0",
            "TOLLWAY_GATEWAY_METRICS_LISTEN": f"127.0.0.1:{metrics_port}",
        }
    )
    try:
        port = (await line_with(process, "serving"))["port"]
        async with aiohttp.ClientSession() as http:
            for path in ("/api/v1/plans", "/api/v1/secret-7f3a"):
                async with http.get(f"http://127.0.0.1:{port}{path}") as response:
                    await response.read()
            async with http.get(f"http://127.0.0.1:{metrics_port}/metrics") as response:
                shown = await response.text()
            async with http.get(f"http://127.0.0.1:{metrics_port}/health/ready") as response:
                assert response.status == 200
        assert 'tollway_gateway_requests_total{route="/api/v1/plans",status="200"} 1.0' in shown
        assert 'tollway_gateway_requests_total{route="unmatched",status="404"} 1.0' in shown
        assert 'tollway_gateway_rpcs_total{code="OK",rpc="tollway.billing.v1.BillingService.ListPlans"} 1.0' in shown
        assert "secret-7f3a" not in shown
    finally:
        await end(process)


async def test_a_wrong_environment_is_one_line_a_variable_and_status_2() -> None:
    process = await start({"TOLLWAY_GATEWAY_TRUSTED_PROXIES": "everyone", "TOLLWAY_GATEWAY_QUERY_DEPTH_MAX": "0"})
    _, told = await process.communicate()
    names = {line.split(":")[0] for line in told.decode().splitlines()}
    assert names == {
        "TOLLWAY_PROCESS_KEY",
        "TOLLWAY_PROCESS_PUBLIC_KEYS",
        "TOLLWAY_GATEWAY_TRUSTED_PROXIES",
        "TOLLWAY_GATEWAY_QUERY_DEPTH_MAX",
    }
    assert process.returncode == 2


async def test_a_taken_port_is_one_line_and_status_1() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        process = await start(
            {
                **process_variables("graphql_gateway"),
                "TOLLWAY_GATEWAY_LISTEN": f"127.0.0.1:{taken.getsockname()[1]}",
                "TOLLWAY_GATEWAY_METRICS_LISTEN": "127.0.0.1:0",
            }
        )
        told, _ = await process.communicate()
    assert process.returncode == 1
    assert "process_failed" in told.decode().splitlines()[-1]


async def is_open(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except ConnectionError:
        return False
    writer.close()
    return True


async def end(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.kill()
        await process.wait()
