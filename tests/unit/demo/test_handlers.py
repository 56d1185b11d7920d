"""The demo upstream's endpoints, without a socket."""

from __future__ import annotations

import asyncio
import json
from unittest import mock

import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol
from aiohttp.test_utils import make_mocked_request

from demo.upstream.handlers import REQUEST_ID_HEADER, Upstream
from demo.upstream.served import Served


def request(method, path, body=b"", request_id=""):
    payload = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
    payload.feed_data(body)
    payload.feed_eof()
    return make_mocked_request(method, path, headers={REQUEST_ID_HEADER: request_id}, payload=payload)


class Asked:
    """An upstream with its counts."""

    def __init__(self):
        self.served = Served()
        self._upstream = Upstream(self.served)

    async def __call__(self, method, path, body=b"", request_id=""):
        return await self._upstream(request(method, path, body, request_id))


@pytest.fixture
def ask():
    return Asked()


async def test_echo_says_what_arrived(ask):
    response = await ask("POST", "/echo?x=1", b"hello")
    echoed = json.loads(response.body)
    assert (echoed["method"], echoed["path"], echoed["body"]) == ("POST", "/echo?x=1", "hello")


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/", 200),
        ("/status/204", 204),
        ("/status/418", 418),
        ("/status/99", 400),
        ("/status/x", 400),
        ("/fail", 500),
        ("/slow?ms=0", 200),
        ("/slow?ms=no", 400),
        ("/large?bytes=99999999999999", 400),
        ("/v1/chat/completions", 405),
        ("/nowhere", 404),
    ],
)
async def test_status_is_the_one_asked_for(ask, path, status):
    assert (await ask("GET", path)).status == status


async def test_every_answer_is_counted_at_start_and_end(ask):
    await ask("GET", "/echo", request_id="a")
    await ask("GET", "/fail", request_id="b")
    counted = json.loads((await ask("GET", "/_served")).body)
    assert counted["by_request_id"] == counted["answered_by_request_id"] == {"a": 1, "b": 1}
    assert (await ask("DELETE", "/_served")).status == 204
    assert ask.served.as_json()["count"] == 0


async def test_health_is_not_counted(ask):
    assert (await ask("GET", "/health/ready")).status == 200
    assert ask.served.as_json()["count"] == 0


async def test_a_connection_that_goes_away_is_not_counted_as_answered(ask):
    await ask("GET", "/abort", request_id="gone")
    counted = ask.served.as_json()
    assert counted["by_request_id"] == {"gone": 1}
    assert counted["answered_by_request_id"] == {}


async def test_completions_answer_or_refuse(ask):
    question = json.dumps({"messages": [{"content": "one two"}], "max_tokens": 1}).encode()
    answered = json.loads((await ask("POST", "/v1/chat/completions", question)).body)
    assert answered["usage"]["total_tokens"] == 3
    assert (await ask("POST", "/v1/chat/completions", b"{}")).status == 400


async def test_streams_write_all_that_was_asked_for():
    written = []
    with mock.patch("aiohttp.web.StreamResponse.write", new=mock.AsyncMock(side_effect=written.append)):
        upstream = Upstream(Served())
        await upstream(request("GET", "/large?bytes=70000"))
        assert sum(map(len, written)) == 70_000
        written.clear()
        await upstream(request("GET", "/sse?events=2&interval_ms=0"))
        assert len(written) == 2
        written.clear()
        body = json.dumps({"messages": [], "max_tokens": 2, "stream": True}).encode()
        await upstream(request("POST", "/v1/chat/completions", body))
        assert written[-1] == b"data: [DONE]\n\n"


async def test_sink_counts_what_it_swallows(ask):
    assert json.loads((await ask("POST", "/sink", b"x" * 1000)).body)["bytes"] == 1000
