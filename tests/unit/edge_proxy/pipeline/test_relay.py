from __future__ import annotations

import pytest
from tollway.events.v1 import usage_event_pb2 as events

from edge_proxy.pipeline.relay import Relay
from edge_proxy.usage.journal.writer import JournalBroken
from tests.support.pipeline_fakes import (
    FakeConnection,
    FakeRecorder,
    FakeSweep,
    exchange,
    now_us,
    request_head,
    route,
)


class Relaying:
    def __init__(self):
        self.recorder = FakeRecorder()
        self.step = Relay(sweep=FakeSweep(), recorder=self.recorder, now_us=now_us)

    async def answer(self, asked, connection):
        await self.step.answer(asked, route(), connection)
        return asked.client.sent


async def test_a_whole_answer_leaves_in_one_write_behind_its_event():
    relaying, asked = Relaying(), exchange()
    relaying.recorder.at_record = lambda: asked.client.written
    sent = await relaying.answer(asked, FakeConnection(body=[b"hello"], fields=[(b"ETag", b'"1"')]))
    assert relaying.recorder.seen == [[]]
    assert len(asked.client.written) == 1
    assert sent.startswith(b'HTTP/1.1 200 OK\r\nETag: "1"\r\n')
    assert b"Content-Length: 5\r\n" in sent
    assert sent.endswith(b"\r\n\r\nhello")
    assert (asked.status, asked.outcome, asked.response_bytes) == (200, events.OUTCOME_ANSWERED, 5)
    assert asked.keep_alive


async def test_the_end_of_a_streamed_answer_waits_for_its_event():
    relaying, asked = Relaying(), exchange()
    relaying.recorder.at_record = lambda: asked.client.sent
    sent = await relaying.answer(asked, FakeConnection(body=[b"one", b"two", b"three"], is_streamed=True))
    (at_record,) = relaying.recorder.seen
    assert sent == at_record + b"5\r\nthree\r\n0\r\n\r\n"
    assert at_record.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n")
    assert asked.response_bytes == 11


async def test_an_event_that_cannot_be_written_keeps_the_answer_back():
    relaying, asked = Relaying(), exchange()
    relaying.recorder.error = JournalBroken()
    with pytest.raises(JournalBroken):
        await relaying.answer(asked, FakeConnection(body=[b"hello"]))
    assert asked.client.sent == b""


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_an_answer_without_a_body_says_what_the_upstream_said_about_its_length(method, status):
    asked = exchange(request_head(method=method))
    sent = await Relaying().answer(asked, FakeConnection(status=status, content_length=7))
    assert (b"Content-Length: 7\r\n" in sent) == (status != 204)
    assert sent.endswith(b"\r\n\r\n")
    assert asked.response_bytes == 0


async def test_an_answer_of_unknown_length_ends_the_connection_of_an_old_client():
    asked = exchange(request_head())
    asked.head.minor_version = 0
    sent = await Relaying().answer(asked, FakeConnection(body=[b"one", b"two"], is_streamed=True))
    assert b"Connection: close\r\n" in sent
    assert b"chunked" not in sent
    assert sent.endswith(b"\r\n\r\nonetwo")
    assert not asked.keep_alive
