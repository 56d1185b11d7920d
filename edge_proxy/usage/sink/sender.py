"""Moves journals to the sink: this worker's own while it is being written, adopted ones to their end.

Each journal has a pump. It reads batches of up to `BATCH_EVENTS_MAX`, keeps up to `IN_FLIGHT_MAX` of them with the sink
and acknowledges them in order. When the sink is away it tries again, with backoff and jitter, from the acknowledged
position; what was committed without our knowing is sent again and counted once, because events carry their own ids.

A journal that cannot be removed once it is sent (the disk fails or is full) is kept, locked, until it can be.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Final

import structlog

from edge_proxy.usage.journal.adoption import AdoptedJournal, NotRead, adopt
from edge_proxy.usage.journal.reader import Batch, JournalReader
from edge_proxy.usage.journal.segments import Damage
from edge_proxy.usage.journal.writer import JournalWriter
from edge_proxy.usage.sink.base import Sink, SinkUnavailable

BATCH_EVENTS_MAX: Final = 1_000
LINGER_SECONDS: Final = 0.2
IN_FLIGHT_MAX: Final = 4
BACKOFF_SECONDS_MIN: Final = 0.1
BACKOFF_SECONDS_MAX: Final = 5.0
ADOPTION_SECONDS: Final = 5.0

log = structlog.get_logger()

ReadBatch = Callable[[int], Batch]
Acknowledge = Callable[[int], None]
_InFlight = deque[tuple[int, "asyncio.Task[None]"]]


class Sender:
    """Sends what is journalled.

    Args:
        root: Folder of all journals.
        writer: This worker's own journal.
        sink: Where events go.
    """

    def __init__(self, root: Path, writer: JournalWriter, sink: Sink) -> None:
        self._root = root
        self._writer = writer
        self._sink = sink
        self._reader = JournalReader(writer.path, writer.journal_id, writer.places, writer.damage)
        self._is_flushing = asyncio.Event()
        self._progress = asyncio.Event()
        self._held: list[AdoptedJournal] = []
        self._past_damage = Damage()
        self.adopted = 0
        self.acknowledged_batches = 0
        self.failures = 0

    @property
    def lag_bytes(self) -> int:
        """Return how much of the own journal the sink has not committed."""
        return self._writer.position - self._writer.acknowledged

    def damage(self) -> Damage:
        """Return what could not be read since this worker started, in its own journal and in adopted ones."""
        total = Damage()
        for each in (self._past_damage, self._writer.damage, *(journal.damage for journal in self._held)):
            total.add(each)
        return total

    async def run(self) -> None:
        """Send the own journal and adopt others, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._send_own())
            tasks.create_task(self._adopt_forever(tasks))

    async def flush(self, timeout_seconds: float) -> bool:
        """Send what is left of the own journal without waiting for more; return whether all of it was committed."""
        self._is_flushing.set()
        try:
            async with asyncio.timeout(timeout_seconds):
                while self.lag_bytes:
                    self._progress.clear()
                    await self._progress.wait()
        except TimeoutError:
            return False
        return True

    async def _send_own(self) -> None:
        backoff_seconds = BACKOFF_SECONDS_MIN
        while True:
            await self._linger()
            if not self.lag_bytes:
                continue
            try:
                await self._pump_own()
                backoff_seconds = BACKOFF_SECONDS_MIN
            except SinkUnavailable:
                backoff_seconds = await self._back_off(backoff_seconds)
            except OSError as error:
                log.warning("journal_not_read_now", journal=str(self._writer.journal_id), error=str(error))
                backoff_seconds = await self._back_off(backoff_seconds)

    async def _linger(self) -> None:
        if self._is_flushing.is_set():
            await asyncio.sleep(0.01)
            return
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                await self._is_flushing.wait()
        except TimeoutError:
            return

    async def _pump_own(self) -> None:
        def read(position: int) -> Batch:
            return self._reader.read(position, count_max=BATCH_EVENTS_MAX)

        await self._pump(read_batch=read, start=self._writer.acknowledged, acknowledge=self._writer.acknowledge)

    async def _adopt_forever(self, tasks: asyncio.TaskGroup) -> None:
        while True:
            # A few system calls; in a thread, what was adopted could be lost to a cancellation.
            try:
                for journal in adopt(self._root):
                    tasks.create_task(self._send_adopted(journal))
            except OSError as error:
                log.error("journals_not_adopted", error=str(error))  # noqa: TRY400 - the reason says it all
            await asyncio.sleep(ADOPTION_SECONDS)

    async def _send_adopted(self, journal: AdoptedJournal) -> None:
        self.adopted += 1
        self._held.append(journal)
        self._weigh()
        try:
            await self._send_to_its_end(journal)
            log.info("journal_sent", journal=str(journal.journal_id), position=journal.position)
        except NotRead:
            # The next adoption reads it again.
            log.exception("journal_not_read")
        finally:
            journal.let_go()
            self._held.remove(journal)
            self._past_damage.add(journal.damage)
            self._weigh()

    async def _send_to_its_end(self, journal: AdoptedJournal) -> None:
        backoff_seconds = BACKOFF_SECONDS_MIN

        def read(start: int) -> Batch:
            return journal.reader.read(start, count_max=BATCH_EVENTS_MAX)

        def acknowledge(position: int) -> None:
            journal.acknowledge(position)
            self._weigh()

        while True:
            try:
                await self._pump(read_batch=read, start=journal.position, acknowledge=acknowledge)
                journal.finish()
            except SinkUnavailable:
                backoff_seconds = await self._back_off(backoff_seconds)
            except OSError as error:
                log.warning("journal_not_sent_now", journal=str(journal.journal_id), error=str(error))
                backoff_seconds = await self._back_off(backoff_seconds)
            else:
                return

    def _weigh(self) -> None:
        """Count what was adopted into the bound of this worker's own journal."""
        self._writer.adopted_bytes = sum(journal.bytes_held for journal in self._held)

    async def _back_off(self, backoff_seconds: float) -> float:
        self.failures += 1
        await asyncio.sleep(backoff_seconds * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
        return min(backoff_seconds * 2, BACKOFF_SECONDS_MAX)

    async def _pump(self, *, read_batch: ReadBatch, start: int, acknowledge: Acknowledge) -> None:
        """Send from `start` until there is nothing more to read."""
        position = start
        in_flight: _InFlight = deque()
        try:
            while True:
                try:
                    batch = read_batch(position)
                except OSError:
                    # What is on its way still counts, and makes room for another attempt.
                    if not in_flight:
                        raise
                    batch = Batch(journal_id=self._writer.journal_id, next_position=position, payloads=[])
                if batch.next_position == position and not in_flight:
                    return
                if batch.next_position > position:
                    position = batch.next_position
                    in_flight.append((position, asyncio.create_task(self._send(batch))))
                    # Let the batch reach the stream before the next one: offsets grow from batch to batch.
                    await asyncio.sleep(0)
                    if len(in_flight) < IN_FLIGHT_MAX:
                        continue
                committed, task = in_flight[0]
                await task
                in_flight.popleft()
                self.acknowledged_batches += 1
                acknowledge(committed)
                self._progress.set()
        finally:
            for _, task in in_flight:
                task.cancel()
            await asyncio.gather(*(task for _, task in in_flight), return_exceptions=True)

    async def _send(self, batch: Batch) -> None:
        if batch.payloads:
            await self._sink.send(batch)
