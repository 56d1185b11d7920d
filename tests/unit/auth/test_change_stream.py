"""A stream that does not keep up ends instead of growing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from services.auth import change_streams
from services.auth.change_streams import ChangeStream, messages
from services.auth.errors import KeyWatchUnavailable


def new_stream() -> Any:
    return ChangeStream("test", KeyWatchUnavailable)


async def test_changes_come_in_order() -> None:
    stream = new_stream()
    for number in range(3):
        stream.put((number,))
    changes = stream.changes()
    assert [await anext(changes) for _ in range(3)] == [(0,), (1,), (2,)]
    await changes.aclose()


async def test_a_slow_stream_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_streams, "CHANGES_QUEUED_PER_STREAM_MAX", 2)
    stream = new_stream()
    for number in range(3):
        stream.put((number,))
    with pytest.raises(KeyWatchUnavailable):
        async for _ in stream.changes():
            pass


async def test_a_closed_stream_ends_while_it_waits() -> None:
    stream = new_stream()
    changes = stream.changes()
    stream.close("test")
    with pytest.raises(KeyWatchUnavailable):
        await anext(changes)


@pytest.mark.parametrize("turns", range(5))
@pytest.mark.parametrize("comes", ["a change", "the end"])
async def test_whoever_is_cancelled_as_a_change_comes_ends(comes: str, turns: int) -> None:
    stream = new_stream()
    waiting = asyncio.ensure_future(anext(stream.changes()))
    await asyncio.sleep(0)
    if comes == "the end":
        stream.close("stopping")
    else:
        stream.put((1,))
    for _ in range(turns):
        await asyncio.sleep(0)
    cancelled = waiting.cancel()
    await asyncio.wait({waiting})
    # Whoever was told that the cancellation was taken waits for it, for ever if it was lost.
    assert waiting.cancelled() is cancelled
    assert cancelled or turns, "cancelled at once, nothing can have ended"


def test_changes_are_cut_into_bounded_messages() -> None:
    changes = list(range(change_streams.CHANGES_PER_MESSAGE_MAX * 2 + 1))
    parts = messages(changes)
    assert [len(part) for part in parts] == [change_streams.CHANGES_PER_MESSAGE_MAX] * 2 + [1]
    assert [change for part in parts for change in part] == changes
