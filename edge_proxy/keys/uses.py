"""Tells `auth` which keys are in use, once a minute, without work on a request's path.

A request compares the clock with one instant of its grant anyway, to learn whether the grant is due to be asked about
(see `resolve`). That instant is never more than `NOTE_SECONDS` ahead of the last note, so a key in use comes by here
about that often, and a grant that was never used comes by with its first request.

Notes wait here, the latest per key, until `auth` has taken them: an outage costs no note. They are lost with the
process, and then a key's last use is a few minutes older than it was.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable
from typing import Final, Protocol

import grpc.aio
import structlog
from tollway.auth.v1 import auth_service_pb2 as auth

from edge_proxy.keys.grant import Grant

NOTE_SECONDS: Final = 5 * 60.0
REPORT_SECONDS: Final = 60.0
DEADLINE_SECONDS: Final = 5.0
USES_PER_REPORT_MAX: Final = 10_000
USES_MAX: Final = 1_000_000

log = structlog.get_logger()


class ReportKeyUses(Protocol):
    """The RPC, as a stub offers it."""

    def __call__(self, request: auth.ReportKeyUsesRequest, *, timeout: float) -> Awaitable[auth.ReportKeyUsesResponse]:
        """Report uses."""
        ...


class KeyUses:
    """Collects uses and reports them. `run` it in the background.

    Args:
        report: The RPC.
    """

    def __init__(self, report: ReportKeyUses) -> None:
        self._report = report
        self._used: dict[tuple[bytes, bytes], float] = {}
        self._is_taken = True

    def __len__(self) -> int:
        return len(self._used)

    def note(self, grant: Grant) -> None:
        """Note that a key is used now."""
        if len(self._used) < USES_MAX:
            self._used[grant.organization_id, grant.api_key_id] = time.monotonic()

    async def run(self) -> None:
        """Report until cancelled; edges that were started together do not report together."""
        while True:
            await asyncio.sleep(REPORT_SECONDS * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, not a secret
            await self.report()

    async def report(self) -> None:
        """Report what was noted; what `auth` does not take is kept."""
        while self._used:
            sent = dict(itertools.islice(self._used.items(), USES_PER_REPORT_MAX))
            try:
                await self._report(_request(sent), timeout=DEADLINE_SECONDS)
            except grpc.aio.AioRpcError as error:
                if self._is_taken:
                    log.warning("key_uses_not_reported", code=error.code().name, uses=len(self._used))
                self._is_taken = False
                return
            self._is_taken = True
            for key, noted in sent.items():
                if self._used[key] == noted:
                    del self._used[key]


def _request(used: dict[tuple[bytes, bytes], float]) -> auth.ReportKeyUsesRequest:
    now = time.monotonic()
    return auth.ReportKeyUsesRequest(
        uses=[
            auth.KeyUse(organization_id=organization_id, api_key_id=api_key_id, age_seconds=max(0, int(now - noted)))
            for (organization_id, api_key_id), noted in used.items()
        ]
    )
