"""Bytes that nobody means, on real sockets: answers of ours or a closed connection, and little memory."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import aiohttp
import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.graphql_gateway.conftest import PASSWORD, Backend, RunningGateway, StartGateway

SECRET = "tw_sa_" + "5ec7e7" * 6
ANSWER_SECONDS = 20.0
MEGABYTE = 1_000_000
EXAMPLES = 300
AT_ONCE = 50

LINES = [
    b"GET /api/v1/plans HTTP/1.1",
    b"POST /graphql HTTP/1.1",
    b"POST /api/v1/sessions HTTP/1.0",
    b"OPTIONS * HTTP/1.1",
    b"CONNECT x:443 HTTP/1.1",
    b"GET http://x/api/v1/plans HTTP/1.1",
    b"GET //x/%2e%2e/ HTTP/1.1",
    b"TRACE / HTTP/1.1",
    b"PRI * HTTP/2.0",
    b"GET /" + SECRET.encode() + b" HTTP/1.1",
]
FIELDS = [
    b"Host: x",
    b"Host: x",
    b"Host: y",
    b"Content-Type: application/json",
    b"Content-Type: application/json",
    b"Content-Length: 2",
    b"Content-Length: +2",
    b"Content-Length: 99999999999999999999",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding: chunked, chunked",
    b"Content-Encoding: gzip",
    b"Authorization: Bearer " + SECRET.encode(),
    b"Authorization: Bearer " + SECRET.encode() + b"\x00",
    b"Authorization : " + SECRET.encode(),
    b"Cookie: session=" + SECRET.encode(),
    b"X-Forwarded-For: 1.2.3.4, " + b"9" * 100,
    b"X-Request-Id: " + b"a" * 300,
    b"traceparent: 00-" + b"f" * 40,
    b"Expect: 100-continue",
    b"Expect: " + SECRET.encode(),
    b"Connection: close",
    b"Connection: keep-alive, upgrade",
    b"Upgrade: websocket",
    b"Upgrade: h2c",
    b"Range: bytes=0-0,0-0",
    b"Accept: " + b"*/*," * 300,
    b"Idempotency-Key: \xff",
    b": " + SECRET.encode(),
    b"",
]
BODIES = [
    b"",
    b"{}",
    b"2\r\n{}\r\n0\r\n\r\n",
    b"2\r\n{}\r\n0\r\nX: y\r\n\r\n",
    b"-1\r\n",
    b"2;a=b\r\n{}",
    b"\xff" * 100,
    b"[" * 500,
]
END = re.compile(rb"HTTP/1\.[01] (\d{3}) ")


@st.composite
def requests(draw: Callable[..., Any]) -> bytes:
    line = draw(st.sampled_from(LINES[:3] * 3 + LINES))
    fields = draw(st.lists(st.sampled_from(FIELDS), max_size=3))
    body = draw(st.sampled_from(BODIES))
    if draw(st.integers(0, 3)):
        fields = [b"Host: x", b"Content-Type: application/json", b"Content-Length: %d" % len(body), *fields]
    sent = b"\r\n".join([line, *fields, b"", b""]) + body
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(sent)))
        sent = sent[:at] + draw(st.binary(max_size=4)) + sent[at + draw(st.integers(0, 2)) :]
    return sent


async def exchange(gateway: RunningGateway, sent: bytes, until: bytes = b"") -> bytes:
    """Sends bytes and reads until the gateway closes, or until some bytes have come."""
    port = int(gateway.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = bytearray()
    writer.write(sent)
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(ANSWER_SECONDS):
            while chunk := await reader.read(65_536):
                answer += chunk
                if until and until in answer:
                    break
    writer.close()
    return bytes(answer)


async def test_no_bytes_get_a_page_of_the_librarys_or_a_fault(
    start_gateway: StartGateway, backend: Backend, capfd: pytest.CaptureFixture[str]
) -> None:
    gateway = await start_gateway(
        backend.address, gateway_head_seconds=0.3, gateway_idle_seconds=0.3, gateway_address_per_minute=1_000_000
    )
    collected: list[bytes] = []

    @settings(
        max_examples=EXAMPLES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
    )
    @given(sent=st.lists(requests(), min_size=1, max_size=3).map(b"".join))
    def collect(sent: bytes) -> None:
        collected.append(sent)

    collect()
    seen: Counter[int] = Counter()
    for at in range(0, len(collected), AT_ONCE):
        batch = collected[at : at + AT_ONCE]
        answers = await asyncio.gather(*(exchange(gateway, sent) for sent in batch))
        for sent, answer in zip(batch, answers, strict=True):
            statuses = [int(status) for status in END.findall(answer)]
            seen.update(statuses)
            assert all(status < 500 for status in statuses), (sent, answer)
            for page in END.split(answer)[2::2]:
                assert page.startswith(b"Continue") or b"\r\nServer: tollway\r\n" in page, (sent, answer)
            assert SECRET.encode() not in answer, (sent, answer)
            assert b"aiohttp" not in answer.lower(), (sent, answer)
    assert {200, 400, 401, 404, 415} <= seen.keys(), "what is sent has to get through the parser often enough"
    told = capfd.readouterr()
    assert SECRET not in told.out + told.err
    assert "Traceback" not in told.out + told.err
    assert (await gateway.rest("GET", "/api/v1/plans"))[0] == 200


async def test_half_open_heads_take_little_memory_and_nobody_elses_time(
    start_gateway: StartGateway, backend: Backend
) -> None:
    gateway = await start_gateway(backend.address, gateway_connections_per_address_max=400)
    port = int(gateway.url.rpartition(":")[2])
    process = psutil.Process()
    before = process.memory_info().rss
    writers = []
    for _ in range(300):
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: " + b"a" * 8_000 + b"\r\nY: " + b"b" * 8_000)
        writers.append(writer)
    assert (await gateway.rest("GET", "/api/v1/plans"))[0] == 200
    grown = process.memory_info().rss - before
    for writer in writers:
        writer.close()
    assert grown < 60 * MEGABYTE, "300 heads of 16 KB, and both ends of each connection live in this process"


async def test_large_bodies_that_are_refused_take_little_memory(gateway: RunningGateway) -> None:
    process = psutil.Process()
    before = process.memory_info().rss
    head = b"POST /graphql HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b"a" * 65_536 + b"\r\n"
    for _ in range(5):
        assert b" 413 " in await exchange(gateway, head + chunk * 160 + b"0\r\n\r\n", b" 413 ")
    assert process.memory_info().rss - before < 60 * MEGABYTE


async def test_an_expectation_that_is_no_text_is_refused_and_not_repeated(gateway: RunningGateway) -> None:
    for field in (b"q\xe0\x81w", b"hunter2"):
        head = b"GET /api/v1/plans HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: " + field + b"\r\n\r\n"
        answer = await exchange(gateway, head)
        assert b" 417 " in answer.split(b"\r\n", 1)[0]
        assert field not in answer


async def test_credentials_are_not_taken_from_cookies_or_the_query(gateway: RunningGateway, backend: Backend) -> None:
    token = backend.token()
    cookie = {"Cookie": f"session={token}; authorization=Bearer {token}; access_token={token}"}
    answer = await gateway.graphql("{ viewer { kind } }", **cookie)
    assert answer["data"]["viewer"] is None
    assert (await gateway.rest("GET", "/api/v1/me", headers=cookie))[0] == 401
    # A field that the RPC does not have.
    assert (await gateway.rest("GET", f"/api/v1/me?access_token={token}", headers=cookie))[0] == 400
    body = {"email": "owner@acme.example", "password": PASSWORD}
    _, _, headers = await gateway.rest("POST", "/api/v1/sessions", json=body)
    assert "Set-Cookie" not in headers


@pytest.mark.parametrize("second", ["Bearer x", ""])
async def test_two_authorization_fields_are_nobody(gateway: RunningGateway, backend: Backend, second: str) -> None:
    headers = [("Authorization", f"Bearer {backend.token()}"), ("Authorization", second)]
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{gateway.url}/graphql", json={"query": "{ viewer { kind } }"}, headers=headers) as response,
    ):
        answer = await response.json()
    assert answer["errors"][0]["extensions"]["code"] == "CREDENTIALS_INVALID"
