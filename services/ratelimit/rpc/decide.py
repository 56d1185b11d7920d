"""Decisions on the wire.

A Decide stream is read on and on; every batch becomes a task, and answers leave in the order in which they are ready.
At most `BATCHES_IN_FLIGHT_MAX` batches of a stream are worked on; beyond that it is not read, which the edge feels as
back-pressure.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final

from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb

from mesh.observability import is_sampled, span
from services.ratelimit.decisions import DecisionService
from services.ratelimit.errors import DecisionBatchTooLarge
from services.ratelimit.leases import EdgeLeases
from services.ratelimit.policy_layout import PolicyLayout
from services.ratelimit.rpc.policies import to_policy

DECISIONS_PER_BATCH_MAX: Final = 1_000
BATCHES_IN_FLIGHT_MAX: Final = 64
POLICIES_REMEMBERED_MAX: Final = 100_000
TRACES_LINKED_MAX: Final = 32


class DecideRpcs:
    """Handles Decide.

    Args:
        decisions: Decides.
        leases: Counts edges.
    """

    def __init__(self, decisions: DecisionService, leases: EdgeLeases) -> None:
        self._decisions = decisions
        self._leases = leases

    async def Decide(self, request_iterator: AsyncIterator[pb.DecideRequest], context: Any) -> AsyncIterator[Any]:
        """Decide batches until the edge closes the stream."""
        lease = self._leases.acquire()
        stream = _Stream(self._decisions, self._leases)
        reader = asyncio.create_task(stream.read(request_iterator))
        try:
            while (response := await stream.ready.get()) is not None:
                yield response
            await reader
        finally:
            reader.cancel()
            stream.cancel()
            self._leases.release(lease)


class _Stream:
    """One Decide stream: its batches in flight and the policies that it has been told."""

    def __init__(self, decisions: DecisionService, leases: EdgeLeases) -> None:
        self._decisions = decisions
        self._leases = leases
        self._slots = asyncio.Semaphore(BATCHES_IN_FLIGHT_MAX)
        self._tasks: set[asyncio.Task[None]] = set()
        self._told_versions: dict[bytes, int] = {}
        self.ready: asyncio.Queue[pb.DecideResponse | None] = asyncio.Queue()

    async def read(self, requests: AsyncIterator[pb.DecideRequest]) -> None:
        """Start a task per batch; put None behind the last answer."""
        try:
            async for request in requests:
                if max(len(request.decisions), len(request.give_backs)) > DECISIONS_PER_BATCH_MAX:
                    raise DecisionBatchTooLarge(f"{len(request.decisions)} and {len(request.give_backs)}")
                await self._slots.acquire()
                task = asyncio.create_task(self._decide(request))
                self._tasks.add(task)
                task.add_done_callback(self._done)
            await asyncio.gather(*self._tasks)
        finally:
            self.ready.put_nowait(None)

    def cancel(self) -> None:
        """Stop what is in flight; nobody waits for it."""
        for task in self._tasks:
            task.cancel()

    async def _decide(self, request: pb.DecideRequest) -> None:
        traceparents = [each.traceparent for each in request.decisions if is_sampled(each.traceparent)]
        with span("ratelimit.decide", next(iter(traceparents), None), links=traceparents[1:TRACES_LINKED_MAX]):
            decided = await self._decisions.decide(request.decisions, request.give_backs)
        # An empty request is how an edge asks whether the limiter is there.
        # Answers leave in the order in which they are put here, so a policy goes out with its first use.
        self.ready.put_nowait(
            pb.DecideResponse(
                batch_id=request.batch_id,
                verdicts=decided.verdicts,
                policies=[to_policy(layout.policy) for layout in decided.layouts if self._is_news(layout)],
                live_edges=self._leases.live_count,
                has_given_back=decided.has_given_back,
            )
        )

    def _is_news(self, layout: PolicyLayout) -> bool:
        organization_id, version = layout.policy.organization_id.bytes, layout.policy.version
        if self._told_versions.get(organization_id) == version:
            return False
        if len(self._told_versions) >= POLICIES_REMEMBERED_MAX:
            self._told_versions.clear()
        self._told_versions[organization_id] = version
        return True

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._slots.release()
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error
