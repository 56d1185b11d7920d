"""The real thing: `python -m edge_proxy` as a process with two workers."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator
from uuid import UUID

import aiohttp
import psutil
import pytest

from tests.support.edge_fakes import PEPPER, Backend, FakeUpstream, answer, grant, key
from tests.support.processes import process_variables


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


class Running:
    def __init__(self, backend, upstream, data_dir):
        self.backend, self.upstream, self.data_dir = backend, upstream, data_dir
        self.port, self.admin_port = free_port(), free_port()
        self.key = key()
        self.config = None
        self.process: asyncio.subprocess.Process | None = None
        self.session: aiohttp.ClientSession | None = None

    def environment(self) -> dict[str, str]:
        address = self.backend.address
        return (
            os.environ
            | {
                **process_variables("edge_proxy"),
                "TOLLWAY_KEY_PEPPERS": f"1:{PEPPER.hex()}",
                "TOLLWAY_AUTH_ADDRESS": address,
                "TOLLWAY_RATELIMIT_ADDRESS": address,
                "TOLLWAY_METERING_ADDRESS": address,
                "TOLLWAY_UPSTREAM_URL": self.upstream.url,
                "TOLLWAY_EDGE_LISTEN": f"127.0.0.1:{self.port}",
                "TOLLWAY_EDGE_ADMIN_LISTEN": f"127.0.0.1:{self.admin_port}",
                "TOLLWAY_EDGE_WORKERS": "2",
                "TOLLWAY_EDGE_DATA_DIR": str(self.data_dir),
                "TOLLWAY_EDGE_DECISION_DEADLINE_MS": "2000",
            }
            | ({"TOLLWAY_EDGE_CONFIG": str(self.config)} if self.config else {})
        )

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "edge_proxy", env=self.environment(), start_new_session=True
        )
        async with asyncio.timeout(30):
            while not await self.is_ready():
                assert self.process.returncode is None
                await asyncio.sleep(0.05)

    async def is_ready(self, *, but_for: str = "") -> bool:
        """Say whether it is ready and degraded by nothing but what begins like this."""
        with contextlib.suppress(aiohttp.ClientError):
            async with self.session.get(f"http://127.0.0.1:{self.admin_port}/health/ready") as got:
                reasons = (await got.json())["degraded"]
                return got.status == 200 and all(but_for and reason.startswith(but_for) for reason in reasons)
        return False

    async def pids(self) -> list[int]:
        async with self.session.get(f"http://127.0.0.1:{self.admin_port}/workers") as got:
            return (await got.json())["pids"]

    async def metrics(self) -> str:
        async with self.session.get(f"http://127.0.0.1:{self.admin_port}/metrics") as got:
            return await got.text()

    async def get(self, path: str = "/x") -> int:
        """Send one request on a connection of its own."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(
                f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-API-Key: {self.key}\r\n\r\n".encode()
            )
            return int((await reader.read()).split(b" ", 2)[1])
        finally:
            writer.close()


@pytest.fixture
async def running(tmp_path) -> AsyncIterator[Running]:
    backend, upstream = Backend(), FakeUpstream()
    await backend.start()
    await upstream.start()
    edge = Running(backend, upstream, tmp_path)
    backend.auth.add(grant(edge.key))
    async with aiohttp.ClientSession() as edge.session:
        await edge.start()
        yield edge
        if edge.process.returncode is None:
            edge.process.kill()
            await edge.process.wait()
    await upstream.stop()
    await backend.stop()


async def gone(pid: int, timeout_seconds: float = 60.0) -> None:
    async with asyncio.timeout(timeout_seconds):
        # It may be reaped between any two looks at it.
        with contextlib.suppress(psutil.NoSuchProcess):
            while psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.02)


async def test_killed_worker_is_replaced_and_its_journal_sent(running):
    first, second = await running.pids()
    assert {await running.get() for _ in range(20)} == {200}
    os.kill(first, signal.SIGKILL)
    await gone(first)
    # The shared socket goes on being served by the other worker meanwhile.
    assert {await running.get() for _ in range(20)} == {200}
    async with asyncio.timeout(60):
        while not await running.is_ready() or len(await running.pids()) < 2:
            await asyncio.sleep(0.05)
    assert second in await running.pids()
    assert len(await running.backend.metering.wait_for(40, 60)) == 40
    assert "tollway_edge_worker_restarts_total 1" in await running.metrics()


async def test_every_answer_that_arrived_whole_is_an_event_although_workers_are_killed_meanwhile(running):
    answered: list[bytes] = []
    stop = asyncio.Event()

    async def client() -> None:
        while not stop.is_set():
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
                while not stop.is_set():
                    writer.write(f"GET /x HTTP/1.1\r\nHost: a\r\nX-API-Key: {running.key}\r\n\r\n".encode())
                    head = await reader.readuntil(b"\r\n\r\n")
                    if b"HTTP/1.1 503" in head:
                        # Both workers are between two lives.
                        break
                    assert head.startswith(b"HTTP/1.1 200")
                    await reader.readexactly(5)
                    answered.append(UUID(re.search(rb"X-Request-Id: (\S+)", head)[1].decode()).bytes)
                writer.close()

    clients = [asyncio.create_task(client()) for _ in range(16)]
    for _ in range(2):
        before = len(answered)
        async with asyncio.timeout(60):
            while len(answered) < before + 100:
                await asyncio.sleep(0.005)
        before = len(answered)
        victim = (await running.pids())[0]
        os.kill(victim, signal.SIGKILL)
        await gone(victim)
        async with asyncio.timeout(60):
            while victim in (pids := await running.pids()) or len(pids) < 2 or len(answered) < before + 200:
                await asyncio.sleep(0.05)
    stop.set()
    await asyncio.gather(*clients)
    assert len(set(answered)) == len(answered) > 400
    async with asyncio.timeout(60):
        while not set(answered) <= running.backend.metering.events.keys():
            await asyncio.sleep(0.05)
    # What was metered and not answered was in flight at a kill: at most one request per client each time.
    assert len(running.backend.metering.events) - len(answered) <= 2 * 16


async def test_metrics_are_the_sum_over_workers(running):
    await asyncio.gather(*(running.get() for _ in range(40)))
    await running.backend.metering.wait_for(40)
    text = await running.metrics()
    assert 'tollway_edge_requests_total{outcome="answered",route="api",status="2xx"} 40' in text
    assert "tollway_edge_workers 2" in text
    assert 'tollway_edge_request_duration_seconds_count{route="api"} 40' in text


async def test_terminated_edge_finishes_every_request_and_leaves_nothing(running):
    is_terminated = asyncio.Event()

    async def slow(head, reader, writer):
        await is_terminated.wait()
        return await answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")(head, reader, writer)

    running.upstream.script = slow
    requests = [asyncio.create_task(running.get()) for _ in range(60)]
    while len(running.upstream.heads) < 30:
        await asyncio.sleep(0.005)
    pids = await running.pids()
    running.process.terminate()
    is_terminated.set()
    assert [await request for request in requests] == [200] * 60
    assert await asyncio.wait_for(running.process.wait(), 60) == 0
    for pid in pids:
        await gone(pid)
    assert len(running.backend.metering.events) == 60
    assert list((running.data_dir / "journal").iterdir()) == []


async def test_workers_die_with_a_killed_supervisor(running):
    pids = await running.pids()
    running.process.kill()
    await running.process.wait()
    for pid in pids:
        await gone(pid)


async def test_nothing_is_lost_when_everything_is_killed_at_once(running):
    running.backend.metering.fail = True
    assert {await running.get() for _ in range(30)} == {200}
    pids = await running.pids()
    running.process.kill()
    await running.process.wait()
    for pid in pids:
        await gone(pid)
    running.backend.metering.fail = False
    await running.start()
    assert len(await running.backend.metering.wait_for(30, 60)) == 30


async def test_reload_reaches_every_worker_and_a_half_edited_file_none_not_even_a_new_one(running, tmp_path):
    path = tmp_path / "routes.yaml"

    def routes(name: str) -> str:
        return (
            "version: 1\nupstreams: {u: {urls: ['${TOLLWAY_UPSTREAM_URL}']}}\n"
            f"routes: [{{id: {name}, match: {{path_prefix: /}}, upstream: u}}]\n"
        )

    running.process.terminate()
    await running.process.wait()
    path.write_text(routes("before"))
    running.config = path
    await running.start()
    path.write_text(routes("after"))
    running.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(60):
        while "tollway_edge_reloads_total 2.0" not in await running.metrics():
            await asyncio.sleep(0.02)
    path.write_text("version: 1\nroutes: [")
    running.process.send_signal(signal.SIGHUP)
    async with asyncio.timeout(60):
        while "tollway_edge_reloads_refused_total 1" not in await running.metrics():
            await asyncio.sleep(0.02)
    first, _ = await running.pids()
    os.kill(first, signal.SIGKILL)
    async with asyncio.timeout(60):
        while first in (pids := await running.pids()) or len(pids) < 2 or not await running.is_ready(but_for="routes"):
            await asyncio.sleep(0.05)
    await asyncio.gather(*(running.get() for _ in range(20)))
    assert {event.route_id for event in await running.backend.metering.wait_for(20)} == {"after"}


async def test_reload_while_workers_start_ends_none_of_them_and_reaches_all(running, tmp_path):
    path = tmp_path / "routes.yaml"

    def routes(name: str) -> str:
        return (
            "version: 1\nupstreams: {u: {urls: ['${TOLLWAY_UPSTREAM_URL}']}}\n"
            f"routes: [{{id: {name}, match: {{path_prefix: /}}, upstream: u}}]\n"
        )

    running.process.terminate()
    await running.process.wait()
    path.write_text(routes("before"))
    running.config = path
    await running.start()
    for pid in (old := await running.pids()):
        os.kill(pid, signal.SIGKILL)
    seen, reloads = set(), 0
    async with asyncio.timeout(60):
        # From their first moment on, until both of them serve.
        while len(seen) < 2 or not await running.is_ready(but_for="routes"):
            reloads += 1
            path.write_text(routes(f"after-{reloads}"))
            running.process.send_signal(signal.SIGHUP)
            await asyncio.sleep(0.02)
            seen |= set(await running.pids()) - set(old)
    assert set(await running.pids()) == seen, "a reload ended a worker that was starting"
    async with asyncio.timeout(60):
        served, last = 0, set()
        while last != {f"after-{reloads}"}:
            await asyncio.gather(*(running.get() for _ in range(20)))
            served += 20
            last = {event.route_id for event in (await running.backend.metering.wait_for(served))[-20:]}


async def test_taken_port_is_one_clear_line_and_status_1(running):
    environment = running.environment() | {"TOLLWAY_EDGE_ADMIN_LISTEN": f"127.0.0.1:{free_port()}"}
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge_proxy", env=environment, stdout=asyncio.subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(other.communicate(), 60)
    assert other.returncode == 1
    lines = [json.loads(line) for line in output.decode().splitlines()]
    assert any(f"127.0.0.1:{running.port}" in line.get("error", "") for line in lines)


async def test_wrong_routes_file_is_told_completely_and_status_2(running, tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text("version: 1\nupstreams: {a: {urls: [ftp://x]}}\nroutes: [{id: A, match: {}, upstream: b}]\n")
    environment = running.environment() | {"TOLLWAY_EDGE_CONFIG": str(path)}
    other = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "edge_proxy", env=environment, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await asyncio.wait_for(other.communicate(), 60)
    assert other.returncode == 2
    for place in ("upstreams.a.urls", "routes[0].id", "routes[0].match"):
        assert place in errors.decode()


def limit_file_sizes(pid: int, size: int) -> None:
    """Let a process write no file beyond a size: what a full disk is to it, without a disk that is full."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


async def statuses_until(running, wanted: int, *, seconds: float = 60.0) -> set[int]:
    """Send requests until one is answered as wanted; each is answered, or its connection broken, at once."""
    seen = set()
    async with asyncio.timeout(seconds):
        while True:
            try:
                status = await running.get()
            except (OSError, IndexError):
                continue
            if status == wanted:
                return seen
            seen.add(status)
            await asyncio.sleep(0.02)


async def test_a_disk_that_was_full_heals_without_a_restart(running):
    pids = await running.pids()
    for pid in pids:
        limit_file_sizes(pid, 10)
    assert await statuses_until(running, 503) <= {200}
    for _ in range(20):
        with contextlib.suppress(OSError, IndexError):
            assert await running.get() == 503
    for pid in pids:
        limit_file_sizes(pid, resource.RLIM_INFINITY)
    async with asyncio.timeout(60):
        while {await running.get() for _ in range(20)} != {200}:
            await asyncio.sleep(0.05)
    assert await running.pids() == pids


async def test_on_a_disk_that_is_full_at_the_start_clients_get_503_at_once_and_it_heals(running):
    running.process.terminate()
    await running.process.wait()
    # The shell sets the limit: no Python may run between fork and exec in a process that has threads.
    running.process = await asyncio.create_subprocess_exec(
        *("sh", "-c", 'ulimit -S -f 0 && exec "$0" -m edge_proxy', sys.executable),
        env=running.environment(),
        stdout=asyncio.subprocess.DEVNULL,
    )
    await statuses_until(running, 503)
    for _ in range(20):
        assert await asyncio.wait_for(running.get(), 60) == 503
    limit_file_sizes(running.process.pid, resource.RLIM_INFINITY)
    assert await statuses_until(running, 200) <= {503}


async def test_workers_that_hang_are_told_and_the_edge_is_not_ready_without_others(running):
    async def health(status: int, *parts: str) -> None:
        async with asyncio.timeout(60):
            while True:
                async with running.session.get(f"http://127.0.0.1:{running.admin_port}/health/ready") as got:
                    reasons = " ".join((await got.json())["degraded"])
                    if got.status == status and all(part in reasons for part in parts):
                        return
                await asyncio.sleep(0.05)

    first, second = await running.pids()
    try:
        os.kill(first, signal.SIGSTOP)
        await health(200, "edge: 1 of 2 workers hang", "edge: not every worker is ready")
        os.kill(second, signal.SIGSTOP)
        await health(503, "edge: 2 of 2 workers hang")
    finally:
        for pid in (first, second):
            os.kill(pid, signal.SIGCONT)
    await health(200)
    async with asyncio.timeout(60):
        while not await running.is_ready():
            await asyncio.sleep(0.05)


async def test_while_no_worker_lives_clients_are_turned_away_at_once(running):
    for pid in await running.pids():
        os.kill(pid, signal.SIGKILL)
    assert await statuses_until(running, 503) <= {200}
    assert await statuses_until(running, 200) <= {503}
    assert "tollway_edge_turned_away_total" in await running.metrics()
