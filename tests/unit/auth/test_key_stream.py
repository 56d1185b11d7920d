"""A stream that does not keep up ends instead of growing."""

from __future__ import annotations

from typing import Any

import pytest

from services.auth import key_changes
from services.auth.errors import KeyWatchUnavailable
from services.auth.key_changes import KeyStream, chunks


async def test_changes_come_in_order() -> None:
    stream: Any = KeyStream()
    for number in range(3):
        stream.put((number,))
    changes = stream.changes()
    assert [await anext(changes) for _ in range(3)] == [(0,), (1,), (2,)]
    await changes.aclose()


async def test_a_slow_stream_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_changes, "CHANGES_QUEUED_PER_STREAM_MAX", 2)
    stream: Any = KeyStream()
    for number in range(3):
        stream.put((number,))
    with pytest.raises(KeyWatchUnavailable):
        async for _ in stream.changes():
            pass


async def test_a_closed_stream_ends_while_it_waits() -> None:
    stream = KeyStream()
    changes = stream.changes()
    stream.close("test")
    with pytest.raises(KeyWatchUnavailable):
        await anext(changes)


def test_grants_are_cut_into_bounded_messages() -> None:
    grants: Any = list(range(key_changes.GRANTS_PER_MESSAGE_MAX * 2 + 1))
    parts = chunks(grants)
    assert [len(part) for part in parts] == [key_changes.GRANTS_PER_MESSAGE_MAX] * 2 + [1]
    assert [grant for part in parts for grant in part] == grants
