"""One connection to Redis: batches what is written, matches replies to calls, and watches the oldest call.

redis-py opens the connection and says hello on it (`source.py`). Then this protocol takes its transport over: calls of
one turn of the event loop are written together and answered in order, so many tasks share round trips without a pool,
a lock or an await per command. (redis-py's `read_response` costs several coroutines per reply.)

**What fails and how.** If the oldest call has waited longer than the timeout, the connection is given up: every call on
it fails with `RedisUnavailable`. Whether a call that failed this way had an effect is not known. Two turns of the event
loop are granted before a timeout counts, so that a stall of this process is not taken for one of Redis. A server that
says that it is a replica or still loading is given up as well, so that the next connection is made to its master.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import hiredis
from redis.asyncio.connection import AbstractConnection

CALLS_WAITING_MAX: Final = 1_000
# What a server says that should not be asked again; a script passes it on in a sentence of its own.
_LOST: Final = ("READONLY", "LOADING", "MASTERDOWN")

Command: TypeAlias = tuple[Any, ...]
"""A command's words: bytes, str or int."""
Reply: TypeAlias = Any
"""What hiredis read: bytes, int, list, None or a `hiredis.ReplyError`."""


class RedisUnavailable(Exception):
    """Redis did not answer in time, or there is no connection to it."""


@dataclass(slots=True)
class _Call:
    expected_count: int
    deadline: float
    answered: asyncio.Future[list[Reply]]
    replies: list[Reply] = field(default_factory=list)


class Wire(asyncio.Protocol):
    """One connection.

    Args:
        timeout_seconds: How long any call may wait.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout_seconds = timeout_seconds
        self._loop = asyncio.get_running_loop()
        self._reader = hiredis.Reader()
        self._calls: deque[_Call] = deque()
        self._connection: AbstractConnection | None = None
        self._transport: asyncio.WriteTransport | None = None
        self._watch: asyncio.TimerHandle | None = None
        self._outgoing: list[bytes] = []
        self.lost: asyncio.Future[str] = self._loop.create_future()

    def take_over(self, connection: AbstractConnection) -> None:
        """Take the transport of a connection over that redis-py has opened.

        redis-py has no public way to it. The connection is kept, because its stream writer closes the transport when
        it is collected.
        """
        writer = connection._writer  # noqa: SLF001
        if writer is None:
            raise RedisUnavailable("not connected")
        self._connection = connection
        self.serve(writer.transport)
        writer.transport.set_protocol(self)

    def serve(self, transport: asyncio.WriteTransport) -> None:
        """Write to a transport from now on."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Give replies to the calls that wait for them."""
        self._reader.feed(data)
        try:
            while (reply := self._reader.gets()) is not False:
                self._take(reply)
                if isinstance(reply, hiredis.ReplyError) and any(word in str(reply) for word in _LOST):
                    self.give_up("refused")
                    return
        except hiredis.HiredisError:
            self.give_up("protocol")

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the reason does not matter
        """Fail what waits."""
        self.give_up("closed")

    def call(self, commands: Sequence[Command]) -> asyncio.Future[list[Reply]]:
        """Write commands and return the future of their replies."""
        answered: asyncio.Future[list[Reply]] = self._loop.create_future()
        if self._transport is None or self.lost.done() or len(self._calls) >= CALLS_WAITING_MAX:
            answered.set_exception(RedisUnavailable("no connection"))
            return answered
        deadline = self._loop.time() + self._timeout_seconds
        self._calls.append(_Call(expected_count=len(commands), deadline=deadline, answered=answered))
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing += [hiredis.pack_command(command) for command in commands]
        if self._watch is None:
            self._watch = self._loop.call_later(self._timeout_seconds, self._look, 0)
        return answered

    def give_up(self, reason: str) -> None:
        """Close the connection and fail every call on it."""
        if self.lost.done():
            return
        self.lost.set_result(reason)
        if self._watch is not None:
            self._watch.cancel()
        if self._transport is not None:
            self._transport.abort()
        if self._connection is not None:
            # It must not warn of an open connection when it is collected.
            self._connection._close()  # type: ignore[no-untyped-call]  # noqa: SLF001
        for call in self._calls:
            if not call.answered.done():
                call.answered.set_exception(RedisUnavailable(reason))
        self._calls.clear()

    def _flush(self) -> None:
        """Write what all tasks of this turn of the event loop have called, in one system call."""
        if self._transport is not None and not self.lost.done():
            self._transport.write(b"".join(self._outgoing))
        self._outgoing.clear()

    def _take(self, reply: Reply) -> None:
        if not self._calls:
            # Nobody has asked: for example a push of the server.
            return
        call = self._calls[0]
        call.replies.append(reply)
        if len(call.replies) == call.expected_count:
            self._calls.popleft()
            if not call.answered.done():
                call.answered.set_result(call.replies)

    def _look(self, turns: int) -> None:
        """Give up if the oldest call is late; look again when the next one would be."""
        self._watch = None
        if not self._calls:
            return
        wait_seconds = self._calls[0].deadline - self._loop.time()
        if wait_seconds > 0:
            self._watch = self._loop.call_later(wait_seconds, self._look, 0)
        elif turns < 2:
            self._watch = self._loop.call_later(0, self._look, turns + 1)
        else:
            self.give_up("timeout")
