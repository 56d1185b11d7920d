"""Auth as a process of its own, which a test can kill, freeze and start again."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

from cli.stack.ports import free_ports
from tests.support.edge_fakes import PEPPER
from tests.support.line import Line, line
from tests.support.postgres import TestDatabase
from tests.support.processes import process_variables

ROOT = Path(__file__).resolve().parents[2]
SIGNING_SEED = bytes([2]) * 32


class AuthProcess:
    """A real auth, in a process that can be killed and frozen."""

    def __init__(self, database: TestDatabase, port: int, *, postgres_port: int | None = None) -> None:
        access = dataclasses.replace(database.access, port=postgres_port or database.access.port)
        self._database = dataclasses.replace(database, access=access)
        self._port = port
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        variables = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TOLLWAY_")},
            **process_variables("auth"),
            "TOLLWAY_AUTH_LISTEN": f"127.0.0.1:{self._port}",
            "TOLLWAY_AUTH_METRICS_LISTEN": "127.0.0.1:0",
            "TOLLWAY_AUTH_DSN": self._database.dsn("auth"),
            "TOLLWAY_AUTH_SYSTEM_DSN": self._database.dsn("auth_system"),
            "TOLLWAY_KEY_PEPPERS": f"1:{PEPPER.hex()}",
            "TOLLWAY_AUTH_DATA_KEYS": f"1:{'01' * 32}",
            "TOLLWAY_SIGNING_KEY": SIGNING_SEED.hex(),
            "TOLLWAY_PAGE_TOKEN_KEY": "03" * 32,
        }
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "services.auth", "--role", "api", env=variables, cwd=ROOT
        )

    def send(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


@contextlib.asynccontextmanager
async def auth_process(database: TestDatabase) -> AsyncIterator[tuple[AuthProcess, Line]]:
    (port,) = free_ports(1)
    process = AuthProcess(database, port)
    await process.start()
    try:
        async with line("127.0.0.1", port) as way:
            yield process, way
    finally:
        await process.kill()


async def lose(process: AuthProcess, way: Line, fate: str) -> None:
    match fate:
        case "killed":
            await process.kill()
        case "frozen":
            process.send(signal.SIGSTOP)
        case "cut":
            way.swallow()


async def bring_back(process: AuthProcess, way: Line, fate: str) -> None:
    match fate:
        case "killed":
            await process.start()
        case "frozen":
            process.send(signal.SIGCONT)
        case "cut":
            way.pass_on()
