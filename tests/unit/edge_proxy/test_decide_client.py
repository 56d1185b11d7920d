"""The client of the limiter on a stream that the test plays."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from edge_proxy.limiter import decide_client
from edge_proxy.limiter.decide_client import DecideClient
from edge_proxy.limiter.local_share import LocalShare
from edge_proxy.limiter.policy import Policies


class Stream:
    """A stream that takes messages, and ends or answers when it is told to."""

    def __init__(self) -> None:
        self.written: list[ratelimit.DecideRequest] = []
        self.answers: asyncio.Queue[ratelimit.DecideResponse | None] = asyncio.Queue()

    async def write(self, message: bytes) -> None:
        self.written.append(ratelimit.DecideRequest.FromString(message))

    def cancel(self) -> None:
        self.answers.put_nowait(None)

    def __aiter__(self) -> AsyncIterator[ratelimit.DecideResponse]:
        return self.read()

    async def read(self) -> AsyncIterator[ratelimit.DecideResponse]:
        while (answer := await self.answers.get()) is not None:
            yield answer

    @property
    def given_back(self) -> list[bytes]:
        return [back.request_id for request in self.written for back in request.give_backs]


async def until(condition: object) -> None:
    async with asyncio.timeout(60):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0)


async def test_units_on_a_stream_that_breaks_go_back_on_the_next_one_and_once_where_they_were_taken(monkeypatch):
    monkeypatch.setattr(decide_client, "BACKOFF_SECONDS_MIN", 0.0)
    streams: list[Stream] = []

    def open_stream() -> Stream:
        streams.append(Stream())
        return streams[-1]

    policies = Policies()
    client = DecideClient(open_stream, deadline_seconds=60, policies=policies, share=LocalShare(policies, lambda: 0))
    running = asyncio.create_task(client.run())
    await until(lambda: streams and streams[0].written)
    for request_id in (b"a" * 16, b"b" * 16):
        client.give_back(ratelimit.GiveBack(request_id=request_id))
        count = len(streams[0].written)
        await until(lambda count=count: len(streams[0].written) > count)
    first = next(each for each in streams[0].written if each.give_backs)
    streams[0].answers.put_nowait(ratelimit.DecideResponse(batch_id=first.batch_id, has_given_back=True))
    await until(lambda: client.is_healthy)
    streams[0].answers.put_nowait(None)
    await until(lambda: len(streams) == 2 and streams[1].given_back)
    assert streams[0].given_back == [b"a" * 16, b"b" * 16]
    assert streams[1].given_back == [b"b" * 16]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
