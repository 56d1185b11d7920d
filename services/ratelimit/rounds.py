"""Takes calls to Redis through as many rounds as they need, each organization's in order.

Most calls need one round, and all of a batch share one write. A call whose counters must be seeded, or whose script
Redis has forgotten, takes another round by itself and holds its lane meanwhile (see `lanes.py`); the other calls of its
batch are not written again.

**The trade-off.** A call waits `SEED_WAIT_SECONDS` at most for its seed. A batch is answered as a whole, so decisions
about other organizations that share a message with it wait as long. A later batch waits only where it is about the
same organization.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Final

from mesh.redis import RedisUnavailable
from services.ratelimit.counters import REFUSED, Answer, Call, Counters
from services.ratelimit.lanes import Lane, LaneKey, Lanes
from services.ratelimit.seeding import Seeder

SEED_WAIT_SECONDS: Final = 0.03


class Rounds:
    """Asks the counters.

    Args:
        counters: The counters.
        seeder: Rebuilds counters that are not known.
        seed_wait_seconds: How long a call waits for its seed; then it is decided with what Redis has.
    """

    def __init__(self, *, counters: Counters, seeder: Seeder, seed_wait_seconds: float = SEED_WAIT_SECONDS) -> None:
        self._counters = counters
        self._seeder = seeder
        self._seed_wait_seconds = seed_wait_seconds
        self._lanes = Lanes()

    async def ask(self, calls: Sequence[Call]) -> list[Answer]:
        """Return the answers in the order of the calls, which are about one organization and mode each.

        What need not wait is written, and what must wait is queued, before anything is awaited. So order among tasks
        is the order in which they call this.
        """
        is_free = [self._lanes.is_free(_lane_key(call)) for call in calls]
        if all(is_free):
            return await self._ask_now(calls)
        answers = list[Answer](REFUSED for _ in calls)
        now = [number for number, free in enumerate(is_free) if free]
        later = [number for number, free in enumerate(is_free) if not free]
        tickets = [self._lanes.queue(_lane_key(calls[number])) for number in later]
        in_turn = [self._start_in_turn(calls[number], ticket) for number, ticket in zip(later, tickets, strict=True)]
        try:
            answered = await self._ask_now([calls[number] for number in now])
            for number, answer in zip(now, answered, strict=True):
                answers[number] = answer
            for number, task in zip(later, in_turn, strict=True):
                answers[number] = await task
        finally:
            for task in in_turn:
                task.cancel()
        return answers

    async def _ask_now(self, calls: Sequence[Call]) -> list[Answer]:
        if not calls:
            return []
        for call in calls:
            self._lanes.enter(_lane_key(call))
        return await self._first_round(calls)

    def _start_in_turn(self, call: Call, ticket: asyncio.Future[None]) -> asyncio.Task[Answer]:
        waiting = [ticket]
        task = asyncio.create_task(self._ask_in_turn(call, waiting))
        # Also where the task is cancelled before it starts.
        task.add_done_callback(lambda _: self._lanes.give_up(_lane_key(call), waiting[0]))
        return task

    async def _ask_in_turn(self, call: Call, waiting: list[asyncio.Future[None]]) -> Answer:
        """Wait for the turn of the ticket in `waiting`, which may be exchanged for another one, and ask."""
        while True:
            await waiting[0]
            again = self._lanes.take_turn(_lane_key(call), waiting[0])
            if again is None:
                break
            waiting[0] = again
        (answer,) = await self._first_round([call])
        return answer

    async def _first_round(self, calls: Sequence[Call]) -> list[Answer]:
        """Run calls that are counted in their lanes; each leaves its lane with its last answer."""
        answers = list[Answer](REFUSED for _ in calls)
        try:
            answers = await self._counters.run(calls, [self._seeds_first(call) for call in calls])
        except RedisUnavailable:
            return answers
        finally:
            again = self._settle(calls, answers)
        for number, task in again:
            answers[number] = await task
        return answers

    def _settle(self, calls: Sequence[Call], answers: Sequence[Answer]) -> list[tuple[int, asyncio.Task[Answer]]]:
        """Let decided calls leave their lanes; start the next rounds of the others, in tasks that keep their order."""
        again = []
        for number, (call, answer) in enumerate(zip(calls, answers, strict=True)):
            key = _lane_key(call)
            if answer.is_final:
                self._lanes.leave(key)
                continue
            # Here and not in the task: until that runs, a seeding of others may end and would be asked for anew.
            seeding = self._seeder.start(call, answer.unseeded) if answer.unseeded else None
            task = asyncio.create_task(self._next_rounds(call, answer, self._lanes.hold(key), seeding))
            # Also where the task is cancelled before it starts.
            task.add_done_callback(partial(self._leave, key))
            again.append((number, task))
        return again

    async def _next_rounds(self, call: Call, answer: Answer, lane: Lane, seeding: asyncio.Task[None] | None) -> Answer:
        try:
            if answer.is_forgotten:
                (answer,) = await self._counters.teach([call], [self._seeds_first(call)])
                seeding = self._seeder.start(call, answer.unseeded) if answer.unseeded else None
            if answer.unseeded:
                await self._wait_for_seed(seeding, lane)
                (answer,) = await self._counters.teach([call], [False])
        except RedisUnavailable:
            return REFUSED
        return answer

    async def _wait_for_seed(self, seeding: asyncio.Task[None] | None, lane: Lane) -> None:
        if seeding is None:
            return
        if lane.gate is None:
            lane.gate = gate = asyncio.get_running_loop().create_future()
            timer = asyncio.get_running_loop().call_later(self._seed_wait_seconds, _open, gate)
            gate.add_done_callback(lambda _: timer.cancel())
            seeding.add_done_callback(lambda _: _open(gate))
        # Several calls wait for one gate; one that is cancelled must not take it from the others.
        await asyncio.shield(lane.gate)

    def _leave(self, key: LaneKey, _: asyncio.Task[Answer]) -> None:
        self._lanes.leave(key)

    def _seeds_first(self, call: Call) -> bool:
        return not call.test_mode and not self._seeder.is_running(call.layout.policy.organization_id.bytes)


def _open(gate: asyncio.Future[None]) -> None:
    if not gate.done():
        gate.set_result(None)


def _lane_key(call: Call) -> LaneKey:
    return call.layout.policy.organization_id.bytes, call.test_mode
