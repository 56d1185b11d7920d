"""One tenant holds a share of a pool at most."""

from __future__ import annotations

import asyncio
import contextlib
from uuid import UUID

import pytest

from mesh.database.shares import WAITING_MAX, TenantBusy, TenantShares

ONE, OTHER = UUID(int=1), UUID(int=2)


async def hold(shares, tenant, leave, entered):
    async with shares.hold(tenant):
        entered.append(tenant)
        await leave.wait()


async def turns():
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_tenant_holds_its_share_waits_a_little_and_the_rest_is_refused_at_once():
    shares, leave, entered = TenantShares(25), asyncio.Event(), []
    calls = [asyncio.create_task(hold(shares, ONE, leave, entered)) for _ in range(50)]
    await turns()
    assert len(entered) == 6
    refused = [call for call in calls if call.done()]
    assert len(refused) == 50 - 6 - WAITING_MAX
    assert {type(call.exception()) for call in refused} == {TenantBusy}
    other = asyncio.create_task(hold(shares, OTHER, leave, entered))
    await turns()
    assert entered[-1] == OTHER
    leave.set()
    await asyncio.gather(other, *(call for call in calls if call not in refused))
    assert len(entered) == 6 + WAITING_MAX + 1
    assert shares._shares == {}


async def test_a_wait_that_is_too_long_is_refused_and_told_when_to_come_back():
    shares, leave = TenantShares(4, wait_seconds_max=0.01), asyncio.Event()
    calls = [asyncio.create_task(hold(shares, ONE, leave, [])) for _ in range(3)]
    with pytest.raises(TenantBusy) as told:
        await asyncio.wait_for(calls[2], 60)
    assert told.value.retry_after_seconds == 1.0
    leave.set()
    await asyncio.gather(*calls[:2])
    assert shares._shares == {}


async def test_a_cancelled_wait_and_a_failed_call_give_their_place_back():
    shares, leave, entered = TenantShares(4), asyncio.Event(), []
    calls = [asyncio.create_task(hold(shares, ONE, leave, entered)) for _ in range(4)]
    await turns()
    calls[2].cancel()
    calls[0].cancel()
    await turns()
    assert len(entered) == 3
    leave.set()
    await asyncio.gather(*calls, return_exceptions=True)
    with contextlib.suppress(ZeroDivisionError):
        async with shares.hold(ONE):
            raise ZeroDivisionError
    assert shares._shares == {}
