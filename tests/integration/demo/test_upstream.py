"""The demo upstream over HTTP."""

from __future__ import annotations

import hashlib

import aiohttp
import pytest
from aiohttp.test_utils import RawTestServer

from demo.upstream.handlers import REQUEST_ID_HEADER, Upstream
from demo.upstream.served import Served


@pytest.fixture
async def client():
    server = RawTestServer(Upstream(Served()))
    await server.start_server()
    async with aiohttp.ClientSession(str(server.make_url("/"))) as session:
        yield session
    await server.close()


async def served(client):
    return await (await client.get("/_served")).json()


async def test_echo_says_what_arrived(client):
    answer = await (await client.post("/echo?x=1", data=b"hello", headers={"X-Thing": "7"})).json()
    assert (answer["method"], answer["path"], answer["body"]) == ("POST", "/echo?x=1", "hello")
    assert answer["headers"]["x-thing"] == "7"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/status/204", 204), ("/status/404", 404), ("/status/503", 503), ("/fail", 500), ("/nowhere", 404), ("/", 200)],
)
async def test_status_is_the_one_asked_for(client, path, status):
    assert (await client.get(path)).status == status


@pytest.mark.parametrize(
    "path", ["/status/99", "/status/x", "/slow?ms=-1", "/large?bytes=99999999999999", "/sse?events=x"]
)
async def test_impossible_wishes_are_refused_with_400(client, path):
    assert (await client.get(path)).status == 400


async def test_slow_answers_in_the_end(client):
    assert await (await client.get("/slow?ms=1")).json() == {"waited_ms": 1}


async def test_large_streams_exactly_the_bytes_asked_for(client):
    body = await (await client.get("/large?bytes=200001")).read()
    assert len(body) == 200_001


async def test_sink_names_what_it_swallowed(client):
    body = b"x" * 3_000_000
    answer = await (await client.post("/sink", data=body)).json()
    assert answer == {"bytes": len(body), "sha256": hashlib.sha256(body).hexdigest()}


async def test_sse_sends_events(client):
    answer = await client.get("/sse?events=3&interval_ms=1")
    assert answer.content_type == "text/event-stream"
    assert (await answer.text()).count("data: ") == 3


async def test_chat_completions_answer_and_stream(client):
    body = {"messages": [{"role": "user", "content": "hi there"}], "max_tokens": 3}
    whole = await (await client.post("/v1/chat/completions", json=body)).json()
    assert whole["usage"] == {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5}
    streamed = await (await client.post("/v1/chat/completions", json={**body, "stream": True})).text()
    assert streamed.endswith("data: [DONE]\n\n")
    assert (await client.post("/v1/chat/completions", data=b"?")).status == 400
    assert (await client.get("/v1/chat/completions")).status == 405


async def test_abort_dies_mid_body_and_does_not_count_as_answered(client):
    answer = await client.get("/abort", headers={REQUEST_ID_HEADER: "dying"})
    with pytest.raises(aiohttp.ClientPayloadError):
        await answer.read()
    counts = await served(client)
    assert counts["by_request_id"] == {"dying": 1}
    assert counts["answered_by_request_id"] == {}


async def test_counts_by_request_id_and_forgets_on_delete(client):
    for _ in range(2):
        await (await client.get("/echo", headers={REQUEST_ID_HEADER: "twice"})).read()
    counts = await served(client)
    assert counts["answered_by_request_id"] == {"twice": 2}
    assert counts["count"] == counts["answered_count"] == 2
    assert (await client.delete("/_served")).status == 204
    assert (await served(client))["count"] == 0
