"""Runs a service's jobs: claims what is due, keeps leases alive, tries again, buries."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from random import SystemRandom
from typing import Any, Final
from uuid import UUID

import structlog
from opentelemetry import trace
from prometheus_client import Counter, Gauge

from mesh.clock import Clock
from mesh.database.pools import Database
from mesh.ids import IdSource
from mesh.jobs.queue import QUERIES, Job, PermanentFailure, enqueue, to_job
from mesh.observability import span

ATTEMPTS_MAX: Final = 20
CONCURRENCY: Final = 8
POLL_SECONDS: Final = 1.0
LEASE_SECONDS: Final = 60.0
HEARTBEAT_SECONDS: Final = 15.0
STOP_GRACE_SECONDS: Final = 5.0
ERROR_LENGTH_MAX: Final = 1_000

Handler = Callable[[Job], Awaitable[None]]

_ENDED: Final = Counter("tollway_jobs_ended_total", "Attempts at jobs by how they ended", ["kind", "outcome"])
_WAITING: Final = Gauge("tollway_jobs", "Jobs that are not done, by state", ["state"])

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How long to wait after a failure: a random share of `first_seconds`, doubled with every attempt (full jitter)."""

    first_seconds: float = 1.0
    seconds_max: float = 3_600.0
    attempts_max: int = ATTEMPTS_MAX
    jitter: Callable[[], float] = field(default=SystemRandom().random)

    def delay_seconds(self, attempt_count: int) -> float:
        """Return the wait before the next attempt; at least half of the step, so that it does not spin."""
        # The exponent is bounded before the power is taken: 2 ** 10_000 is a number nobody wants.
        step = min(self.seconds_max, self.first_seconds * 2.0 ** min(attempt_count - 1, 30))
        return step * (0.5 + self.jitter() / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Daily:
    """Work for every day from an hour (UTC) on; a day on which no worker ran after that hour is left out."""

    kind: str
    hour: int


class Worker:
    """Runs the jobs of one service. `run` it in the background.

    Args:
        db: The service's database.
        name: The service; its notices come on `<name>_jobs`.
        handlers: What to do by kind; other kinds are left for other workers.
        clock: Chooses the day of daily work.
        ids: Leases and daily jobs.
        daily: What to do once a day.
        given_up: What to do, by kind, when a job becomes a dead letter.
        retry: What to do after failures.
        concurrency: Jobs at once.
    """

    def __init__(
        self,
        *,
        db: Database,
        name: str,
        handlers: Mapping[str, Handler],
        clock: Clock,
        ids: IdSource,
        daily: Sequence[Daily] = (),
        given_up: Mapping[str, Handler] | None = None,
        retry: RetryPolicy | None = None,
        concurrency: int = CONCURRENCY,
    ) -> None:
        self._db = db
        self._channel = f"{name}_jobs"
        self._handlers = dict(handlers)
        self._clock = clock
        self._ids = ids
        self._daily = tuple(daily)
        self._given_up = dict(given_up or {})
        self._retry = retry or RetryPolicy()
        self._concurrency = concurrency
        self._woken = asyncio.Event()
        self._running: dict[asyncio.Task[None], tuple[UUID, UUID]] = {}

    async def run(self, stopping: asyncio.Event) -> None:
        """Work until told to stop, then let running jobs finish for a moment and hand the others back."""
        helpers = [asyncio.create_task(self._listen()), asyncio.create_task(self._keep_house(stopping))]
        waiter = asyncio.create_task(self._wake_when(stopping))
        try:
            while not stopping.is_set():
                claimed = await self._claim_safely()
                if not claimed:
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(POLL_SECONDS):
                            await self._woken.wait()
                self._woken.clear()
        finally:
            for helper in (*helpers, waiter):
                helper.cancel()
            await asyncio.gather(*helpers, waiter, return_exceptions=True)
            await self._stop_running()

    async def _wake_when(self, stopping: asyncio.Event) -> None:
        await stopping.wait()
        self._woken.set()

    async def _claim_safely(self) -> int:
        try:
            return await self._claim()
        except Exception as error:  # noqa: BLE001 - the loop's edge: the database may be away for a while
            log.warning("job_claim_failed", detail=repr(error))
            return 0

    async def _claim(self) -> int:
        free = self._concurrency - len(self._running)
        if free <= 0:
            return 0
        lease_id = self._ids.uuid7()
        async with self._db.system() as tx:
            rows = await tx.fetch(QUERIES["claim"], list(self._handlers), free, lease_id, LEASE_SECONDS)
        for row in rows:
            job = to_job(row)
            task = asyncio.create_task(self._work(job, lease_id), name=f"job {job.kind}")
            self._running[task] = (job.job_id, lease_id)
            task.add_done_callback(self._ended)
        return len(rows)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.pop(task, None)
        self._woken.set()
        if not task.cancelled() and task.exception() is not None:
            # The outcome could not be written down; the lease runs out and the job comes again.
            log.warning("job_outcome_lost", detail=repr(task.exception()))

    async def _work(self, job: Job, lease_id: UUID) -> None:
        structlog.contextvars.bind_contextvars(job_id=str(job.job_id), job_kind=job.kind)
        if job.organization_id is not None:
            structlog.contextvars.bind_contextvars(organization_id=str(job.organization_id))
        if job.attempt_count > self._retry.attempts_max:
            await self._bury(job, lease_id, "every attempt ended with its worker")
            return
        try:
            with span(f"job {job.kind}", job.traceparent, kind=trace.SpanKind.CONSUMER):
                await self._handlers[job.kind](job)
        except PermanentFailure as error:
            await self._bury(job, lease_id, repr(error))
        except Exception as error:  # noqa: BLE001 - the loop's edge: whatever fails is tried again
            await self._fail(job, lease_id, repr(error))
        else:
            _ENDED.labels(job.kind, "done").inc()
            await self._write("finish", job.job_id, lease_id)

    async def _fail(self, job: Job, lease_id: UUID, error: str) -> None:
        if job.attempt_count >= self._retry.attempts_max:
            await self._bury(job, lease_id, error)
            return
        delay_seconds = self._retry.delay_seconds(job.attempt_count)
        _ENDED.labels(job.kind, "retry").inc()
        log.warning("job_failed", attempt=job.attempt_count, retry_seconds=round(delay_seconds, 3), detail=error)
        await self._write("retry", job.job_id, lease_id, delay_seconds, error[:ERROR_LENGTH_MAX])
        # Whichever worker polls then takes it; being woken for it makes short waits as short as they should be.
        asyncio.get_running_loop().call_later(delay_seconds, self._woken.set)

    async def _bury(self, job: Job, lease_id: UUID, error: str) -> None:
        if job.kind in self._given_up:
            await self._given_up[job.kind](replace(job, last_error=error[:ERROR_LENGTH_MAX]))
        _ENDED.labels(job.kind, "dead").inc()
        log.error("job_dead", attempt=job.attempt_count, detail=error)
        await self._write("bury", job.job_id, lease_id, error[:ERROR_LENGTH_MAX])

    async def _write(self, statement: str, *values: Any) -> None:
        async with self._db.system() as tx:
            status = await tx.execute(QUERIES[statement], *values)
        if not str(status).endswith(" 1"):
            log.warning("job_lease_lost", statement=statement)

    async def _listen(self) -> None:
        """Wake the loop on notices; without a connection the loop still polls."""

        async def wake(_payloads: frozenset[str] = frozenset()) -> None:
            self._woken.set()

        await self._db.follow(self._channel, changed=wake, read_all=wake)

    async def _keep_house(self, stopping: asyncio.Event) -> None:
        """Extend leases, take over from the dead, add daily work, count."""
        while not stopping.is_set():
            try:
                await self._keep_house_once()
            except Exception as error:  # noqa: BLE001 - the loop's edge
                log.warning("job_housekeeping_failed", detail=repr(error))
            await asyncio.sleep(HEARTBEAT_SECONDS)

    async def _keep_house_once(self) -> None:
        async with self._db.system() as tx:
            if self._running:
                job_ids, lease_ids = zip(*self._running.values(), strict=True)
                await tx.execute(QUERIES["extend"], list(job_ids), list(lease_ids), LEASE_SECONDS)
            await tx.execute(QUERIES["reclaim"])
            await self._add_daily(tx)
            counts = {row["state"]: row["jobs"] for row in await tx.fetch(QUERIES["count"])}
        for state in ("queued", "running", "dead"):
            _WAITING.labels(state).set(counts.get(state, 0))

    async def _add_daily(self, tx: Any) -> None:
        now = self._clock.now()
        for work in self._daily:
            day = (now - timedelta(hours=work.hour)).date().isoformat()
            await enqueue(tx, work.kind, {"day": day}, job_id=self._ids.uuid7(), dedupe_key=day)

    async def _stop_running(self) -> None:
        left = dict(self._running)
        if not left:
            return
        _, unfinished = await asyncio.wait(left, timeout=STOP_GRACE_SECONDS)
        for task in unfinished:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            with contextlib.suppress(Exception):
                await self._write("release", *left[task])
