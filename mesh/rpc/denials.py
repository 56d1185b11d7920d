"""Counts what was denied and hands it on in batches, so that a flood of denials becomes no flood of anything.

Who is refused says so as often as they like, so repeats are counted in memory, and one record per minute and kind of
denial carries their number. Kinds are bounded as well: from `KINDS_MAX` on, further ones of a minute share one record
without names. One source has `KINDS_PER_SOURCE_MAX` of them, and what it does beyond shares a record with its name, so
one source cannot push what others do out of the log. A first denial is handed on within `DELAY_SECONDS`.

**What fails.** A batch that was not taken is kept and handed on again under the same ids, so that whoever took it and
could not say so takes it once. What comes meanwhile is counted beside it under the same bounds: memory never holds more
than one batch and one minute's kinds, however long the other side is away, and nothing is lost but the time of repeats.
A process that ends takes the counts of at most a minute along, or of as long as the other side was away; it says how
many those are.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final
from uuid import UUID

import prometheus_client
import structlog

from mesh.clock import Clock
from mesh.ids import IdSource

KINDS_MAX: Final = 100
KINDS_PER_SOURCE_MAX: Final = 10
DELAY_SECONDS: Final = 1.0
INTERVAL_SECONDS: Final = 60.0
WRITE_SECONDS_MAX: Final = 5.0
OTHERS: Final = "others"

_DENIED: Final = prometheus_client.Counter("tollway_denials_total", "Denials that were counted")
_FAILED: Final = prometheus_client.Counter(
    "tollway_denials_write_failures_total", "Batches of denials that were not taken and are kept"
)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """What was denied, to whom, from where and why; equal ones are repeats.

    Args:
        action: Names the record.
        source: Who causes it: the actor or the address, whichever of them the caller cannot choose.
        actor: Who it was denied to, or who they claimed to be.
        actor_kind: What kind of caller that is; empty where it is not known.
        address: Where it came from.
        reason: Of the error; there is a bounded number of them.
        resource: What was asked for.
        organization_id: Whose log it belongs to; None where it is nobody's.
    """

    action: str
    source: str
    actor: str
    actor_kind: str = ""
    address: str
    reason: str
    resource: str
    organization_id: UUID | None = None

    def beyond_its_source(self) -> Denial:
        """Return the record that further denials of this source share: what the source can vary is left out."""
        return replace(
            self,
            actor=self.actor if self.actor == self.source else OTHERS,
            address=self.address if self.address == self.source else OTHERS,
            resource=OTHERS,
        )

    def beyond_all(self) -> Denial:
        """Return the record that further denials of everybody share."""
        return Denial(
            action=self.action, source=OTHERS, actor=OTHERS, address=OTHERS, reason=self.reason, resource=OTHERS
        )


@dataclass(slots=True, kw_only=True)
class CountedDenial:
    """A denial, how often it came and when. The id stays the same however often it is handed on."""

    denial: Denial
    denial_id: UUID
    count: int
    first_time: datetime
    last_time: datetime


Take = Callable[[Sequence[CountedDenial]], Awaitable[None]]
"""Takes a batch for good; the same ids twice must do what they do once."""


class Denials:
    """Counts denials and hands them on. `run` it in the background.

    Args:
        take: Where they go.
        clock: Their times.
        ids: Their ids.
    """

    def __init__(self, *, take: Take, clock: Clock, ids: IdSource) -> None:
        self._take = take
        self._clock = clock
        self._ids = ids
        self._pending: dict[Denial, CountedDenial] = {}
        self._kinds_of: Counter[str] = Counter()
        self._batch: list[CountedDenial] = []
        self._noted = asyncio.Event()

    def note(self, denial: Denial) -> None:
        """Count a denial."""
        now = self._clock.now()
        _DENIED.inc()
        if denial not in self._pending and self._kinds_of[denial.source] >= KINDS_PER_SOURCE_MAX:
            denial = denial.beyond_its_source()
        if denial not in self._pending and len(self._pending) >= KINDS_MAX:
            denial = denial.beyond_all()
        counted = self._pending.get(denial)
        if counted is not None:
            counted.count += 1
            counted.last_time = now
            return
        self._pending[denial] = CountedDenial(
            denial=denial, denial_id=self._ids.uuid7(), count=1, first_time=now, last_time=now
        )
        self._kinds_of[denial.source] += 1
        self._noted.set()

    @property
    def waiting(self) -> int:
        """Return how many denials were counted and not handed on."""
        return sum(each.count for each in (*self._batch, *self._pending.values()))

    async def run(self, stopping: asyncio.Event) -> None:
        """Hand on what was counted, now and then, until told to stop; then hand on the rest."""
        told_to_stop = asyncio.ensure_future(stopping.wait())
        while not stopping.is_set():
            noted = asyncio.ensure_future(self._noted.wait())
            await asyncio.wait({noted, told_to_stop}, return_when=asyncio.FIRST_COMPLETED)
            noted.cancel()
            await asyncio.wait({told_to_stop}, timeout=DELAY_SECONDS)
            await self._write_safely()
            await asyncio.wait({told_to_stop}, timeout=INTERVAL_SECONDS)
        await self._write_safely()
        if self.waiting:
            log.error("denials_lost", count=self.waiting)

    async def write(self) -> None:
        """Hand on what was counted so far.

        Raises:
            Exception: Whatever the other side raises; everything is kept then.
        """
        if self._batch:
            await self._hand_on()
        self._batch, self._pending = list(self._pending.values()), {}
        self._kinds_of.clear()
        self._noted.clear()
        await self._hand_on()

    async def _hand_on(self) -> None:
        try:
            if self._batch:
                await self._take(self._batch)
        except BaseException:
            self._noted.set()
            raise
        self._batch = []

    async def _write_safely(self) -> None:
        try:
            async with asyncio.timeout(WRITE_SECONDS_MAX):
                await self.write()
        except Exception as error:  # noqa: BLE001 the loop's edge: counting denials must not end with one failure
            _FAILED.inc()
            log.warning("denials_not_handed_on", detail=repr(error), waiting=self.waiting)
