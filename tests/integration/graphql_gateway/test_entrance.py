"""The gateway from outside, with raw sockets: what it cannot read, what comes slowly, what is too much."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import zlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psutil
import pytest
import structlog

from graphql_gateway.entrance.http import HEAD_BYTES_MAX, SECURITY_HEADERS
from tests.integration.graphql_gateway.conftest import ACME, Backend, RunningGateway, StartGateway

SECRET = "eyJhbGciOiJFZERTQSJ9.c2VjcmV0LXRva2Vu.c2lnbmF0dXJl"
PASSWORD = "hunter2-of-the-owner"
ANSWER_SECONDS = 20.0
MEGABYTE = 1_000_000


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        read = bytearray()
        async with asyncio.timeout(ANSWER_SECONDS):
            with contextlib.suppress(ConnectionError):
                while chunk := await self.reader.read(65_536):
                    read += chunk
        return bytes(read)

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(ANSWER_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            status, *lines = head.rstrip().split("\r\n")
            fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
            body = await self.reader.readexactly(int(fields.get("content-length", "0")))
        return int(status.split()[1]), fields, body


@contextlib.asynccontextmanager
async def connected(gateway: RunningGateway, **options: Any) -> AsyncIterator[Wire]:
    port = int(gateway.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, **options)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[Any]:
    """Everything that any logger says, as text."""
    caplog.set_level(logging.DEBUG)
    with structlog.testing.capture_logs() as lines:
        yield (
            lambda: (
                json.dumps(lines, default=str)
                + "".join(
                    logging.Formatter("%(message)s").format(record)
                    for record in caplog.records
                    if record.name != "asyncio"
                )
            )
        )


POST = b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
GET = b"GET /api/v1/plans HTTP/1.1\r\nHost: x\r\n"
UNREADABLE = {
    "a NUL in credentials": GET + f"Authorization: Bearer {SECRET}\0\r\n\r\n".encode(),
    "a bare line feed in credentials": GET + f"Authorization: Bearer {SECRET}\n x\r\n\r\n".encode(),
    "a space before the colon": GET + f"Authorization : Bearer {SECRET}\r\n\r\n".encode(),
    "a field that is no field": GET + f"Bearer {SECRET}\r\n\r\n".encode(),
    "a control character": GET + b"Authorization: Bearer " + SECRET.encode() + b"\x01\r\n\r\n",
    "a folded line": GET + f"Authorization: Bearer\r\n {SECRET}\r\n\r\n".encode(),
    "a chunk size that is none": POST + f"Transfer-Encoding: chunked\r\n\r\n{PASSWORD}\r\n".encode(),
    "a chunk longer than said": POST + f"Transfer-Encoding: chunked\r\n\r\n1\r\n{PASSWORD}\r\n".encode(),
    "two lengths": POST + f"Content-Length: 5\r\nContent-Length: 6\r\n\r\n{PASSWORD}".encode(),
    "a length and chunks": POST + f"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{PASSWORD}".encode(),
    "a length that is none": POST + f"Content-Length: {PASSWORD}\r\n\r\n".encode(),
    "no HTTP at all": f"{PASSWORD} {SECRET}\r\n\r\n".encode(),
    "a method that is none": f"{PASSWORD} / HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "a version that is none": f"GET /{PASSWORD} HTTP/{SECRET}\r\n\r\n".encode(),
    "no host": f"GET /{PASSWORD} HTTP/1.1\r\nAuthorization: Bearer {SECRET}\r\n\r\n".encode(),
    "a target that is none": f"GET {PASSWORD}:80 HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
    "TLS to a plain port": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + SECRET.encode() + b"\r\n\r\n",
}


@pytest.mark.parametrize("case", UNREADABLE)
async def test_what_cannot_be_read_is_in_no_answer_and_in_no_log(
    gateway: RunningGateway, logged: Any, case: str
) -> None:
    async with connected(gateway) as wire:
        await wire.send(UNREADABLE[case])
        told = (await wire.rest()).decode("latin-1")
    assert re.findall(r"HTTP/1\.[01] (\d{3} [A-Z].*)\r\n", told) == ["400 Bad Request"], told
    head, _, body = told.partition("\r\n\r\n")
    assert json.loads(body)["error"]["code"] in {"REQUEST_NOT_READABLE", "BODY_NOT_READABLE"}
    for name, value in SECURITY_HEADERS.items():
        assert f"{name}: {value}" in head
    assert "Server: tollway" in head
    for text in (told, logged()):
        for secret in (SECRET, PASSWORD, "aiohttp", "python", "Traceback"):
            assert secret.lower() not in text.lower()


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 431),
        (GET + b"X: " + b"a" * 20_000 + b"\r\n\r\n", 431),
        (GET + b"".join(b"X%d: a\r\n" % number for number in range(100)) + b"\r\n", 400),
        (GET + b"".join(b"X%d: %s\r\n" % (number, b"a" * 1_000) for number in range(50)) + b"\r\n", 431),
        (GET + b"".join(b"X%d: %s\r\n" % (number, b"a" * 1_000) for number in range(50)), 431),
    ],
)
async def test_a_head_has_a_largest_size(gateway: RunningGateway, request_bytes: bytes, status: int) -> None:
    assert len(request_bytes) > HEAD_BYTES_MAX or status == 400 or len(request_bytes) > 20_000
    async with connected(gateway) as wire:
        await wire.send(request_bytes)
        answered, fields, body = await wire.answer()
        assert (answered, json.loads(body)["error"]["code"]) == (
            status,
            "HEAD_TOO_LARGE" if status == 431 else "REQUEST_NOT_READABLE",
        )
        assert fields["server"] == "tollway"


@pytest.mark.parametrize("sent", [b"", b"G", GET, GET + b"X: y"])
async def test_half_a_head_is_not_waited_for(start_gateway: StartGateway, backend: Backend, sent: bytes) -> None:
    gateway = await start_gateway(backend.address, gateway_head_seconds=0.2)
    async with connected(gateway) as wire:
        await wire.send(sent)
        told = await wire.rest()
    assert (b"HEAD_TOO_SLOW" in told) == bool(sent)
    assert told.startswith(b"HTTP/1.1 408 ") or not sent


async def test_one_byte_at_a_time_gains_no_time(start_gateway: StartGateway, backend: Backend) -> None:
    gateway = await start_gateway(backend.address, gateway_head_seconds=0.3)
    async with connected(gateway) as wire:

        async def drip() -> None:
            with contextlib.suppress(ConnectionError):
                for byte in GET + b"X: y" * 10_000:
                    await wire.send(bytes((byte,)))
                    await asyncio.sleep(0.01)

        dripping = asyncio.create_task(drip())
        assert b"HEAD_TOO_SLOW" in await wire.rest()
        dripping.cancel()


async def test_half_a_head_behind_an_answered_request_is_not_waited_for(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(backend.address, gateway_head_seconds=0.2)
    async with connected(gateway) as wire:
        for _ in range(2):
            await wire.send(GET + b"\r\n")
            assert (await wire.answer())[0] == 200
        await wire.send(GET)
        assert (await wire.rest()).startswith(b"HTTP/1.1 408 ")


async def test_a_connection_without_a_request_is_closed_in_time(start_gateway: StartGateway, backend: Backend) -> None:
    gateway = await start_gateway(backend.address, gateway_idle_seconds=0.2)
    async with connected(gateway) as wire:
        await wire.send(GET + b"\r\n")
        assert (await wire.answer())[0] == 200
        assert await wire.rest() == b""


async def test_a_request_that_takes_longer_than_a_head_may_is_answered(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(backend.address, gateway_head_seconds=0.1)
    gate = backend.seen.gate = asyncio.Event()
    async with connected(gateway) as wire:
        await wire.send(GET + b"\r\n")
        async with asyncio.timeout(ANSWER_SECONDS):
            while "ListPlans" not in backend.seen.names():
                await asyncio.sleep(0.01)
        await asyncio.get_running_loop().run_in_executor(None, lambda: None)
        async with connected(gateway) as silent:
            assert await silent.rest() == b"", "a head that begins later is late by now"
        gate.set()
        assert (await wire.answer())[0] == 200


async def test_connections_of_one_address_are_counted(start_gateway: StartGateway, backend: Backend) -> None:
    gateway = await start_gateway(backend.address, gateway_connections_per_address_max=3)
    async with contextlib.AsyncExitStack() as stack:
        wires = [await stack.enter_async_context(connected(gateway)) for _ in range(3)]
        for wire in wires:
            await wire.send(GET + b"\r\n")
            assert (await wire.answer())[0] == 200
        async with connected(gateway) as wire:
            status, fields, body = await wire.answer()
            assert (status, json.loads(body)["error"]["code"]) == (429, "TOO_MANY_CONNECTIONS")
            assert (fields["retry-after"], fields["connection"]) == ("1", "close")
        wires[0].writer.close()
        async with asyncio.timeout(ANSWER_SECONDS):
            while True:
                async with connected(gateway) as wire:
                    await wire.send(GET + b"\r\n")
                    if (await wire.answer())[0] == 200:
                        break


async def test_our_own_proxies_may_have_more_connections(start_gateway: StartGateway, backend: Backend) -> None:
    gateway = await start_gateway(
        backend.address, gateway_connections_per_address_max=1, gateway_trusted_proxies="127.0.0.0/8"
    )
    async with connected(gateway) as first, connected(gateway) as second:
        for wire in (first, second):
            await wire.send(GET + b"\r\n")
            assert (await wire.answer())[0] == 200


async def test_a_client_that_does_not_read_is_given_up(start_gateway: StartGateway, backend: Backend) -> None:
    gateway = await start_gateway(backend.address, gateway_stall_seconds=0.3, gateway_address_per_minute=100_000)
    before = psutil.Process().memory_info().rss
    async with connected(gateway, limit=1_024) as wire:
        wire.writer.transport.pause_reading()
        ask = b"GET /api/v1/openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
        with contextlib.suppress(ConnectionError, TimeoutError):
            async with asyncio.timeout(ANSWER_SECONDS):
                while True:
                    await wire.send(ask * 100)
        assert wire.writer.transport.is_closing() or wire.reader.at_eof() or wire.reader.exception() is not None
    assert psutil.Process().memory_info().rss - before < 40 * MEGABYTE


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "x"])
async def test_a_packed_body_is_refused_unopened(gateway: RunningGateway, encoding: str) -> None:
    bomb = zlib.compress(b" " * 50 * MEGABYTE, 9)
    before = psutil.Process().memory_info().rss
    headers = {"Content-Type": "application/json", "Content-Encoding": encoding}
    async with gateway.session.post(f"{gateway.url}/graphql", data=bomb, headers=headers) as response:
        body = await response.json()
        assert (response.status, body["errors"][0]["extensions"]["code"]) == (415, "CONTENT_ENCODING_NOT_SUPPORTED")
    assert psutil.Process().memory_info().rss - before < 20 * MEGABYTE


async def test_an_upgrade_is_refused_and_what_follows_it_is_bounded(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(backend.address, gateway_head_seconds=0.5)
    before = psutil.Process().memory_info().rss
    async with connected(gateway) as wire:
        await wire.send(
            b"GET /graphql HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert (await wire.answer())[0] == 405
        with contextlib.suppress(ConnectionError):
            for _ in range(2_000):
                await wire.send(b"\x81\x7f" + b"\xff" * 65_536)
        assert b" 101 " not in await wire.rest()
    # Had all 130 MB been kept, far more than what this process's own buffers take.
    assert psutil.Process().memory_info().rss - before < 60 * MEGABYTE


@pytest.mark.parametrize(
    ("path", "logs"),
    [
        (f"/api/v1/sessions/{SECRET}", "/api/v1/sessions/*"),
        (f"/api/v1/organizations/{ACME}", "/api/v1/organizations/{organization_id}"),
        (f"/api/v1/organizations/{SECRET}", "/api/v1/organizations/{organization_id}"),
        (f"/invitations/{PASSWORD}?token={SECRET}", "/invitations/*"),
        (f"/nowhere/{PASSWORD}?token={SECRET}", "/*/*"),
        (f"/health/{PASSWORD}", "/*/*"),
        ("/a" * 3_000, "/*" * 12),
        (f"/graphql?query={PASSWORD}", "/graphql"),
    ],
)
async def test_a_logged_path_holds_nothing_that_a_client_wrote(
    gateway: RunningGateway, logged: Any, path: str, logs: str
) -> None:
    async with gateway.session.get(f"{gateway.url}{path}", headers={"Authorization": f"Bearer {SECRET}"}) as response:
        assert response.status in {401, 404, 405}
    assert f'"path": "{logs}"' in logged()
    assert SECRET not in logged()
    assert PASSWORD not in logged()


async def test_a_crash_is_logged_by_place_and_not_by_word(
    gateway: RunningGateway, logged: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def crash(*_arguments: Any, **_named: Any) -> None:
        raise ValueError(f"could not read {PASSWORD}")

    monkeypatch.setattr("graphql_gateway.graph.view.to_answer", crash)
    async with gateway.session.post(f"{gateway.url}/graphql", json={"query": "{ viewer { kind } }"}) as response:
        assert response.status == 500
        assert PASSWORD not in await response.text()
    assert "builtins.ValueError" in logged()
    assert "graph/view.py" in logged()
    assert "exc_info" not in logged(), "a traceback ends with the exception's words"
    assert PASSWORD not in logged()


async def test_paths_that_look_like_probes_are_limited_like_all_others(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(backend.address, gateway_address_per_minute=1)
    statuses = [(await gateway.rest("GET", "/healthy"))[0] for _ in range(2)]
    assert statuses == [404, 429]
    assert (await gateway.rest("GET", "/health/live"))[0] == 200
