"""Rebuilds calendar counters from metering: a Redis that lost its memory must not hand the month out again.

A calendar window that counts billable requests carries a mark that metering has been asked about it. Where the mark is
missing (nothing was there, or Redis was flushed), decide.lua says so instead of deciding, and the organization's usage
since the start of the window is asked for, once, however many batches wait for it. Where the mark is there nothing of
this runs, so the hot path pays nothing.

**The trade-off.** A batch waits a moment at most (`rounds.py`); then it is decided with what Redis has, so a slow
metering service delays nobody for long but may let requests past a quota. The question goes on in the background, with
pauses while metering is away, and raises the counters when it is answered. A counter is raised to the larger of the two
figures, never to their sum: what was counted since the flush is in metering as well, except for the last moments that
are still on their way there. Those, and only those, are given away.

**What was served without the limiter.** While the limiter or Redis is away, edges may go on by their local shares.
Those requests are billed and in no counter. So each organization that is in use is asked about again every
`ASK_AGAIN_SECONDS`, in the background, and its counters are raised in the same way. Of the windows per key or route,
those are raised that the batch at that moment is about.

**A policy that is replaced meanwhile.** A question is about the windows of one policy. Where Redis has decided by a
newer one, the question ends unanswered: the marks are still missing, so the next call asks again, by the policy in
force.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Final, Protocol
from uuid import UUID

import structlog
from prometheus_client import Counter

from contract.windows import WindowKind, WindowScope, calendar_window_id, calendar_window_start
from mesh.redis import RedisUnavailable
from services.ratelimit.counters import Answer, Call
from services.ratelimit.model import Seed, UnseededWindow

RETRY_PAUSE_SECONDS_MIN: Final = 0.5
RETRY_PAUSE_SECONDS_MAX: Final = 30.0
SEEDINGS_MAX: Final = 10_000
ASK_AGAIN_SECONDS: Final = 15 * 60.0
ORGANIZATIONS_REMEMBERED_MAX: Final = 100_000

_SEEDINGS: Final = Counter("tollway_ratelimit_seedings_total", "Counters rebuilt from metering", ["result"])

log = structlog.get_logger()


class UsageUnavailable(Exception):
    """Metering did not answer."""


class UsageSource(Protocol):
    """Who knows what an organization has used."""

    async def billable_units(
        self, organization_id: UUID, start_time: datetime, scope: WindowScope
    ) -> dict[bytes, Decimal]:
        """Return billable units from an instant on: per API key (16 bytes), per route (UTF-8), or in one sum (b"").

        Raises:
            UsageUnavailable: It cannot be told now.
        """
        ...


class NoUsage:
    """Knows of no usage: for tests, and for a limiter that runs without metering."""

    async def billable_units(
        self,
        organization_id: UUID,  # noqa: ARG002
        start_time: datetime,  # noqa: ARG002
        scope: WindowScope,  # noqa: ARG002
    ) -> dict[bytes, Decimal]:
        """Return nothing."""
        return {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wish:
    """A counter to seed: which window of the policy, of which key or route."""

    window: int
    name: bytes


Run = Callable[[Sequence[Call], Sequence[bool]], Awaitable[list[Answer]]]


class Seeder:
    """Seeds counters, one question per organization at a time.

    Args:
        usage: Who is asked.
        run: Runs calls in Redis.
        tasks: Owns the background work.
        now_seconds: A monotonic clock.
    """

    def __init__(
        self,
        *,
        usage: UsageSource,
        run: Run,
        tasks: asyncio.TaskGroup,
        now_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._usage = usage
        self._run = run
        self._tasks = tasks
        self._wishes: dict[bytes, set[_Wish]] = {}
        self._versions: dict[bytes, int] = {}
        self._running: dict[bytes, asyncio.Task[None]] = {}
        self._now_seconds = now_seconds
        # When an organization is to be asked about again, those of longest ago first.
        self._due: dict[bytes, float] = {}

    def is_running(self, organization_id: bytes) -> bool:
        """Tell whether an organization's counters are being rebuilt; until then nobody need wait again."""
        return organization_id in self._running

    def start(self, call: Call, unseeded: Sequence[UnseededWindow]) -> asyncio.Task[None] | None:
        """Start rebuilding counters, or add them to what is running; None where too much is running."""
        organization_id = call.layout.policy.organization_id.bytes
        wishes = {_Wish(window=each.window, name=call.key_name(each.key)) for each in unseeded}
        version = call.layout.policy.version
        if organization_id in self._running:
            # Windows are known by their place in a policy, so those of another version would name others.
            if self._versions[organization_id] == version:
                self._wishes[organization_id] |= wishes
            return self._running[organization_id]
        if len(self._running) >= SEEDINGS_MAX:
            return None
        self._wishes[organization_id] = wishes
        self._versions[organization_id] = version
        task = self._tasks.create_task(self._seed(call))
        self._running[organization_id] = task
        return task

    def ask_again(self, call: Call) -> None:
        """Ask again about the organization of a call where that is due; nobody waits for the answer."""
        if call.test_mode:
            return
        organization_id, now_seconds = call.layout.policy.organization_id.bytes, self._now_seconds()
        due = self._due.get(organization_id)
        if due is not None and now_seconds < due:
            return
        self._due.pop(organization_id, None)
        self._due[organization_id] = now_seconds + ASK_AGAIN_SECONDS
        if len(self._due) > ORGANIZATIONS_REMEMBERED_MAX:
            self._due.pop(next(iter(self._due)))
        # The first time is when the counters themselves say whether they are known.
        if due is not None and (windows := call.counted_windows()):
            self.start(call, windows)

    async def stop(self) -> None:
        """Give up what is running."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _seed(self, call: Call) -> None:
        organization_id = call.layout.policy.organization_id.bytes
        pause_seconds = RETRY_PAUSE_SECONDS_MIN
        try:
            while self._wishes[organization_id]:
                wishes = frozenset(self._wishes[organization_id])
                try:
                    if not await self._seed_once(call, wishes):
                        _SEEDINGS.labels("outdated").inc()
                        return
                    self._wishes[organization_id] -= wishes
                    _SEEDINGS.labels("done").inc()
                except (UsageUnavailable, RedisUnavailable) as error:
                    _SEEDINGS.labels("failed").inc()
                    log.warning("seeding_failed", organization_id=organization_id.hex(), detail=repr(error))
                    await asyncio.sleep(pause_seconds)
                    pause_seconds = min(2 * pause_seconds, RETRY_PAUSE_SECONDS_MAX)
        finally:
            del self._running[organization_id], self._wishes[organization_id], self._versions[organization_id]

    async def _seed_once(self, call: Call, wishes: frozenset[_Wish]) -> bool:
        """Raise the counters; return False where the policy is no longer the one in force."""
        layout, instant = call.layout, call.instant
        seeding = Call(layout, test_mode=False, instant=instant)
        known: dict[tuple[WindowKind, WindowScope], dict[bytes, Decimal]] = {}
        for wish in sorted(wishes, key=lambda each: (each.window, each.name)):
            window = layout.policy.windows[wish.window - 1]
            question = (window.kind, window.scope)
            if question not in known:
                start = calendar_window_start(window.kind, instant)
                known[question] = await self._usage.billable_units(layout.policy.organization_id, start, window.scope)
            used = known[question].get(wish.name[1:], Decimal())
            seeding.seed_named(
                wish.name,
                window.scope,
                Seed(
                    window=wish.window,
                    window_id=calendar_window_id(window.kind, instant),
                    # A started unit is a used unit.
                    used=int(used.to_integral_value(ROUND_CEILING)),
                ),
            )
        (answer,) = await self._run([seeding], [False])
        if answer.is_outdated:
            return False
        if answer.records is None:
            raise RedisUnavailable("the seed was refused")
        return True
