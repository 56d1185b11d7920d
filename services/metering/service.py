"""What metering promises: batches are merged into few transactions, and questions are answered from rollups.

`IngestQueue` stands between many streams and PostgreSQL. Streams put batches into a bounded queue and wait; a few
writers take what waits, up to `EVENTS_PER_TRANSACTION_MAX` events, and commit it as one. Under load the transactions
grow, alone a batch goes at once. Where a transaction fails, every batch in it fails and its sender sends it again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

import structlog
from prometheus_client import Gauge
from tollway.options.v1 import access_pb2

from mesh.database.pools import Database
from mesh.rpc.access import Principal, platform_role_has
from mesh.rpc.errors import RpcError, Violations
from services.metering import store
from services.metering.clients import OwnKeys
from services.metering.errors import IngestUnavailable
from services.metering.ingest import EVENTS_PER_TRANSACTION_MAX
from services.metering.model import BatchResult, IngestBatch, UsageQuery, UsageRow

BATCHES_WAITING_MAX: Final = 64
WRITERS_COUNT: Final = 2
USAGE_ROWS_MAX: Final = 10_000

_WAITING: Final = Gauge("tollway_metering_batches_waiting", "Batches that wait for a transaction")

log = structlog.get_logger()

Apply = Callable[[Sequence[IngestBatch]], Awaitable[list[BatchResult]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Waiting:
    batch: IngestBatch
    result: asyncio.Future[BatchResult]


class IngestQueue:
    """Merges batches of all streams into transactions.

    Args:
        apply: Takes batches in as one transaction.
    """

    def __init__(self, apply: Apply) -> None:
        self._apply = apply
        self._waiting: asyncio.Queue[_Waiting] = asyncio.Queue(BATCHES_WAITING_MAX)
        # Taken from the queue, but too large for the transaction that was being filled.
        self._next: list[_Waiting] = []

    async def submit(self, batch: IngestBatch) -> asyncio.Future[BatchResult]:
        """Queue a batch, waiting for a place; the future is done when it is committed or has failed."""
        result: asyncio.Future[BatchResult] = asyncio.get_running_loop().create_future()
        await self._waiting.put(_Waiting(batch=batch, result=result))
        _WAITING.set(self._waiting.qsize())
        return result

    async def run(self) -> None:
        """Write until cancelled. Several may run."""
        while True:
            merged = await self._take()
            _WAITING.set(self._waiting.qsize())
            try:
                results = await self._apply([waiting.batch for waiting in merged])
            except asyncio.CancelledError:
                _fail(merged, IngestUnavailable("stopping"))
                raise
            except RpcError as error:
                _fail(merged, error)
            except Exception as error:  # the loop's edge: one failed transaction must not end ingest
                log.exception("ingest_failed")
                _fail(merged, IngestUnavailable(repr(error)))
            else:
                for waiting, result in zip(merged, results, strict=True):
                    if not waiting.result.done():
                        waiting.result.set_result(result)

    async def _take(self) -> list[_Waiting]:
        merged = [self._next.pop() if self._next else await self._waiting.get()]
        event_count = len(merged[0].batch.payloads)
        while not self._waiting.empty():
            waiting = self._waiting.get_nowait()
            event_count += len(waiting.batch.payloads)
            if event_count > EVENTS_PER_TRANSACTION_MAX:
                self._next.append(waiting)
                break
            merged.append(waiting)
        return merged


def _fail(merged: Sequence[_Waiting], error: Exception) -> None:
    for waiting in merged:
        if not waiting.result.done():
            waiting.result.set_exception(error)
            # A stream that is gone asks no more; its future must not complain.
            waiting.result.exception()


class UsageService:
    """Answers questions about usage.

    Args:
        db: Where the rollups are.
        own_keys: Knows which keys a member created.
    """

    def __init__(self, *, db: Database, own_keys: OwnKeys) -> None:
        self._db = db
        self._own_keys = own_keys

    async def query(self, query: UsageQuery, principal: Principal) -> list[UsageRow]:
        """Sum usage: all of it, for a member that of the keys that the member created.

        Raises:
            InvalidFields: The answer would have more than `USAGE_ROWS_MAX` rows.
            DatabaseUnavailable: The database is away.
        """
        if _sees_own_keys_only(principal):
            query = replace(query, api_key_ids=await self._own_keys.created_by(principal))
        async with self._db.read(query.organization_id) as tx:
            rows = await store.query_usage(tx, query, rows_max=USAGE_ROWS_MAX + 1)
        violations = Violations()
        violations.check(
            len(rows) <= USAGE_ROWS_MAX,
            "granularity",
            f"must be wider, or the range shorter: at most {USAGE_ROWS_MAX} rows are answered",
        )
        violations.raise_if_any()
        return rows


def _sees_own_keys_only(principal: Principal) -> bool:
    sees_all = platform_role_has(principal.platform_roles, access_pb2.PERMISSION_USAGE_READ)
    return principal.role == access_pb2.ROLE_MEMBER and not sees_all
