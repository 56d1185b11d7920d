"""Keeps the decisions of one organization in the order in which they came.

All calls share one pipelined connection, so Redis sees them in the order in which they were written, and most of them
need one round. Order is lost only where a call needs a second round: its counters must be seeded first, or Redis has
forgotten the script. A call that was written later would then be decided earlier.

So each organization and mode has a lane while it has calls on their way. A call that needs a second round holds its
lane: calls that are already written come back with the same answer and take their second round behind it, and calls
that come later wait until nothing of the lane is on its way. Other organizations never wait. A lane that nobody uses
is dropped.

Everything runs on one event loop, and nothing here waits for anything but the calls of the same lane, so a lane cannot
lock up: it is held as long as a second round takes, which the wait for a seed and Redis' timeout bound.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeAlias

LaneKey: TypeAlias = tuple[bytes, bool]
"""An organization, 16 bytes, and whether it is about its test keys."""


class Lane:
    """The calls of one organization and mode that are on their way.

    `gate` is what second rounds of this lane wait for together; a future wakes its waiters in their order.
    """

    __slots__ = ("gate", "is_held", "on_way", "queue")

    def __init__(self) -> None:
        self.on_way = 0
        self.is_held = False
        self.gate: asyncio.Future[None] | None = None
        self.queue: deque[asyncio.Future[None]] = deque()

    @property
    def is_free(self) -> bool:
        """Tell whether a call may be written now."""
        return not self.is_held and not self.queue


class Lanes:
    """The lanes in use."""

    def __init__(self) -> None:
        self._lanes: dict[LaneKey, Lane] = {}

    def __len__(self) -> int:
        return len(self._lanes)

    def is_free(self, key: LaneKey) -> bool:
        """Tell whether a call of this lane may be written now."""
        lane = self._lanes.get(key)
        return lane is None or lane.is_free

    def enter(self, key: LaneKey) -> Lane:
        """Count a call as on its way; `leave` must follow."""
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._lanes[key] = Lane()
        lane.on_way += 1
        return lane

    def leave(self, key: LaneKey) -> None:
        """Count a call as answered; the last one lets those that wait go on."""
        lane = self._lanes[key]
        lane.on_way -= 1
        if lane.on_way:
            return
        lane.is_held, lane.gate = False, None
        self._wake_first(key, lane)

    def hold(self, key: LaneKey) -> Lane:
        """Keep later calls out of a lane until nothing of it is on its way."""
        lane = self._lanes[key]
        lane.is_held = True
        return lane

    def queue(self, key: LaneKey) -> asyncio.Future[None]:
        """Queue behind a lane that is not free; the ticket is done when it is its owner's turn."""
        ticket: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lanes[key].queue.append(ticket)
        return ticket

    def take_turn(self, key: LaneKey, ticket: asyncio.Future[None]) -> asyncio.Future[None] | None:
        """Count the call of a ticket as on its way; `leave` must follow. Or return a new ticket, for the same place.

        The ticket stays in the queue until its owner comes here, so that a call that comes in between queues behind
        it. The owner writes its call before it awaits anything; the next owner runs after that. Where a call before it
        has been answered meanwhile and holds the lane again, the owner waits once more.
        """
        lane = self._lanes[key]
        if lane.is_held:
            again: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            lane.queue[lane.queue.index(ticket)] = again
            return again
        lane.on_way += 1
        lane.queue.remove(ticket)
        self._wake_first(key, lane)
        return None

    def give_up(self, key: LaneKey, ticket: asyncio.Future[None]) -> None:
        """Drop a ticket, if it is still queued, for example because its owner was cancelled."""
        lane = self._lanes.get(key)
        if lane is not None and ticket in lane.queue:
            lane.queue.remove(ticket)
            if not lane.is_held:
                self._wake_first(key, lane)

    def _wake_first(self, key: LaneKey, lane: Lane) -> None:
        if lane.queue:
            if not lane.queue[0].done():
                lane.queue[0].set_result(None)
        elif not lane.on_way:
            self._lanes.pop(key, None)
