"""Shares the event loop among connections that have more to do than a turn's worth.

A connection whose client has sent a lot at once (pipelined requests, a body in tiny chunks) works through a bounded
part of it and then waits here. One connection is let go on per turn of the event loop, first come, first served.
However many connections are busy, a turn is thus longer by one bounded part of work, and everybody else's bytes are
read in between.

Each connection waits at most once, so the queue is bounded by the number of connections.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable


class Turns:
    """The queue of one event loop.

    Args:
        loop: Whose turns are shared.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: deque[Callable[[], None]] = deque()
        self.taken = 0

    def call(self, continue_: Callable[[], None]) -> None:
        """Call back when it is this caller's turn."""
        self._waiting.append(continue_)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._next)

    async def wait(self) -> None:
        """Return when it is this caller's turn."""
        waiter: asyncio.Future[None] = self._loop.create_future()

        def let_go() -> None:
            if not waiter.done():
                waiter.set_result(None)

        self.call(let_go)
        await waiter

    def _next(self) -> None:
        continue_ = self._waiting.popleft()
        self.taken += 1
        if self._waiting:
            self._loop.call_soon(self._next)
        continue_()
