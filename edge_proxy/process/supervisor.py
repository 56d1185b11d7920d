"""Owns what outlives a worker: the listening socket, the admin port, the sum of all numbers, restarts and reload.

All workers accept from one shared socket, which the supervisor keeps open: a worker that dies takes none of the queued
connections with it, and a worker that stops just stops accepting. (Of two SO_REUSEPORT sockets, closing one resets what
is queued on it.) Workers are processes of their own, started with the socket's descriptor; a dead one is replaced with
backoff, and its journal is adopted by the others.

While no worker lives, the supervisor answers 503 by itself (`turn_away.py`): a connection that waits in the socket's
queue for a worker that cannot start would hang. The same holds while the routes file cannot be copied because the disk
is full: the supervisor tries again until it can.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import signal
import socket
import sys
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from aiohttp import web

from edge_proxy.config import EdgeSettings
from edge_proxy.process.exposition import Exposition
from edge_proxy.process.turn_away import TurnAway
from edge_proxy.routing import file as routes_file
from mesh.config import host_port
from mesh.service.process import ProcessContext

BACKLOG: Final = 4_096
RESTART_SECONDS_MIN: Final = 0.1
RESTART_SECONDS_MAX: Final = 5.0
# A worker that lived this long did not fail at its start.
STABLE_SECONDS: Final = 10.0
# How long connections wait for the first workers before they are turned away.
FIRST_START_SECONDS_MAX: Final = 5.0
DISK_RETRY_SECONDS: Final = 1.0
REPORT_TIMEOUT_SECONDS: Final = 0.3
# Workers report once a second. One that hangs keeps what it accepted, and its last report says nothing any more.
SILENCE_SECONDS_MAX: Final = 5.0
REPORT_BYTES_MAX: Final = 16 << 20
# After a worker's own bounds for draining and flushing.
STOP_GRACE_SECONDS: Final = 10.0

FULL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

log = structlog.get_logger()


@dataclass(slots=True, eq=False)
class WorkerProcess:
    """A worker as the supervisor sees it; `routes_version` is what it was last told to read."""

    index: int
    process: asyncio.subprocess.Process
    writer: asyncio.StreamWriter
    routes_version: int
    report: dict[str, Any] = field(default_factory=dict)
    reported_at: float = 0.0
    reported: asyncio.Event = field(default_factory=asyncio.Event)


class Supervisor:
    """Runs the workers.

    Args:
        settings: The environment.
        context: Stops when it says so.
    """

    def __init__(self, settings: EdgeSettings, context: ProcessContext) -> None:
        self._settings = settings
        self._context = context
        self._listener = listen(settings.edge_listen)
        self._workers: dict[int, WorkerProcess] = {}
        self._exposition = Exposition()
        self._turn_away = TurnAway(self._listener, lambda: self._exposition.count("tollway_edge_turned_away_total"))
        self._is_first_start = True
        self._routes_path = settings.edge_data_dir / "routes.in-force.yaml"
        self._routes_version = 0
        self._refused = ""

    async def run(self) -> None:
        """Serve until told to stop, then let every worker drain."""
        asyncio.get_running_loop().call_later(FIRST_START_SECONDS_MAX, self._end_first_start)
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self.reload)
        await self._take_first_routes()
        runner = await self._start_admin()
        count = self._settings.edge_workers or len(os.sched_getaffinity(0))
        keepers = [self._context.tasks.create_task(self._keep(index)) for index in range(count)]
        log.info("edge_started", listen=self._settings.edge_listen, workers=count)
        await self._context.stopping.wait()
        await self._stop(keepers)
        await runner.cleanup()

    def reload(self) -> None:
        """Pass a changed routes file on, if it is right."""
        try:
            self._take_routes()
        except routes_file.RoutesFileError as error:
            self._exposition.count("tollway_edge_reloads_refused_total")
            self._refused = f"routes: the file on disk was refused: {error.violations[0]}"
            log.error("routes_refused", violations=error.violations)  # noqa: TRY400 - the reason says it all
            return
        except OSError as error:
            self._exposition.count("tollway_edge_reloads_refused_total")
            log.error("routes_not_copied", error=str(error))  # noqa: TRY400 - the reason says it all
            return
        for worker in self._workers.values():
            self._tell_routes(worker)

    def _tell_routes(self, worker: WorkerProcess) -> None:
        """Have a worker read the copy again if there is a newer one.

        Until a worker has reported it may not be listening for the signal, which would end it: it is told then.
        """
        if worker.report and worker.routes_version != self._routes_version:
            worker.routes_version = self._routes_version
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(signal.SIGHUP)

    async def _take_first_routes(self) -> None:
        """Take the routes, waiting for space where the disk is full; a file that is wrong ends the start."""
        while not self._context.stopping.is_set():
            try:
                self._settings.edge_data_dir.mkdir(parents=True, exist_ok=True)
                self._take_routes()
            except OSError as error:
                if error.errno not in FULL_DISK:
                    raise
                log.error("routes_not_copied", error=str(error))  # noqa: TRY400 - the reason says it all
                self._end_first_start()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(DISK_RETRY_SECONDS):
                        await self._context.stopping.wait()
            else:
                return

    def _take_routes(self) -> None:
        """Check the routes file and keep a copy.

        Workers read the copy, so that one that is started anew has the routes in force and not a half-edited file.
        """
        text = routes_file.read_text(self._settings.edge_config)
        routes_file.parse(text, os.environ)
        temporary = self._routes_path.with_suffix(".tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self._routes_path)
        self._routes_version += 1
        self._refused = ""

    async def _keep(self, index: int) -> None:
        """Keep one worker running."""
        loop = asyncio.get_running_loop()
        backoff_seconds = RESTART_SECONDS_MIN
        while not self._context.stopping.is_set():
            started = loop.time()
            status = await self._run_worker(index)
            if self._context.stopping.is_set():
                return
            self._exposition.count("tollway_edge_worker_restarts_total")
            log.error("worker_died", index=index, status=status)
            backoff_seconds = (
                RESTART_SECONDS_MIN
                if loop.time() - started > STABLE_SECONDS
                else min(backoff_seconds * 2, RESTART_SECONDS_MAX)
            )
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff_seconds):
                    await self._context.stopping.wait()

    async def _run_worker(self, index: int) -> int:
        ours, theirs = socket.socketpair()
        routes_version = self._routes_version
        listen_fd, control_fd = self._listener.fileno(), theirs.fileno()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "edge_proxy.process.worker", "--parent", str(os.getpid()), "--index", str(index)),
            *("--listen-fd", str(listen_fd), "--control-fd", str(control_fd), "--routes", str(self._routes_path)),
            pass_fds=(listen_fd, control_fd),
            start_new_session=True,
        )
        theirs.close()
        ours.setblocking(False)
        reader, writer = await asyncio.open_connection(sock=ours, limit=REPORT_BYTES_MAX)
        worker = self._workers[index] = WorkerProcess(index, process, writer, routes_version)
        listening = asyncio.create_task(self._listen(worker, reader))
        try:
            return await process.wait()
        finally:
            await asyncio.gather(listening, return_exceptions=True)
            writer.close()
            self._exposition.retire(worker.report.get("metrics", {}))
            if self._workers.get(index) is worker:
                del self._workers[index]
            self._end_first_start()

    async def _listen(self, worker: WorkerProcess, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                worker.report = json.loads(line)
                worker.reported_at = asyncio.get_running_loop().time()
                worker.reported.set()
                self._tell_routes(worker)
                self._turn_away_or_not()

    def _end_first_start(self) -> None:
        """Let nobody wait for the first workers any longer."""
        self._is_first_start = False
        self._turn_away_or_not()

    def _turn_away_or_not(self) -> None:
        """Answer clients in the place of the workers exactly while none of them has told that it serves."""
        is_served = any(worker.report for worker in self._workers.values())
        self._turn_away.set(is_on=not (is_served or self._is_first_start or self._context.stopping.is_set()))

    async def _stop(self, keepers: list[asyncio.Task[None]]) -> None:
        # First no new connections: what is queued is still accepted by the workers, whoever comes later is refused
        # rather than reset.
        self._turn_away.set(is_on=False)
        self._listener.close()
        for worker in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.process.terminate()
        _, late = await asyncio.wait(keepers, timeout=self._settings.edge_drain_seconds + STOP_GRACE_SECONDS)
        if late:
            for worker in self._workers.values():
                log.error("worker_killed", index=worker.index)
                with contextlib.suppress(ProcessLookupError):
                    worker.process.kill()
            await asyncio.wait(late)

    # Admin port.

    async def _start_admin(self) -> web.AppRunner:
        application = web.Application()
        application.add_routes(
            [
                web.get("/metrics", self._metrics),
                web.get("/workers", self._list_workers),
                web.get("/health", self._ready),
                web.get("/health/live", self._live),
                web.get("/health/ready", self._ready),
            ]
        )
        runner = web.AppRunner(application, access_log=None)
        await runner.setup()
        host, port = host_port(self._settings.edge_admin_listen)
        await web.TCPSite(runner, host, port).start()
        return runner

    async def _ask_workers(self) -> list[WorkerProcess]:
        """Return the workers with their newest numbers; one that does not answer keeps its last."""
        workers = list(self._workers.values())
        for worker in workers:
            worker.reported.clear()
            with contextlib.suppress(OSError):
                worker.writer.write(b"report\n")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(REPORT_TIMEOUT_SECONDS):
                for worker in workers:
                    await worker.reported.wait()
        return workers

    async def _metrics(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        workers = await self._ask_workers()
        text = self._exposition.text([worker.report.get("metrics", {}) for worker in workers], len(workers))
        return web.Response(body=text.encode(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})

    async def _list_workers(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        workers = [{"index": worker.index, "pid": worker.process.pid} for worker in self._workers.values()]
        return web.json_response(
            {"supervisor": os.getpid(), "pids": [worker["pid"] for worker in workers], "workers": workers}
        )

    async def _live(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        return web.json_response({"status": "live"})

    async def _ready(self, request: web.Request) -> web.Response:  # noqa: ARG002 - aiohttp's signature
        started = [worker for worker in await self._ask_workers() if worker.report]
        silent_since = asyncio.get_running_loop().time() - SILENCE_SECONDS_MAX
        workers = [worker for worker in started if worker.reported_at >= silent_since]
        expected = self._settings.edge_workers or len(os.sched_getaffinity(0))
        is_ready = any(worker.report.get("ready") for worker in workers)
        degraded = sorted({reason for worker in workers for reason in worker.report.get("degraded", [])})
        if is_ready and sum(1 for worker in workers if worker.report.get("ready")) < expected:
            degraded.append("edge: not every worker is ready")
        if len(workers) < len(started):
            degraded.append(f"edge: {len(started) - len(workers)} of {len(started)} workers hang: they do not report")
        if self._refused:
            degraded.append(self._refused)
        body = {"status": "ready" if is_ready else "not ready", "degraded": degraded}
        return web.json_response(body, status=200 if is_ready else 503)


def listen(address: str) -> socket.socket:
    """Open the listening socket.

    Raises:
        OSError: The address is taken or not ours.
    """
    host, port = host_port(address)
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"{address}: {error.strerror}") from None
    listener.setblocking(False)
    listener.listen(BACKLOG)
    return listener
