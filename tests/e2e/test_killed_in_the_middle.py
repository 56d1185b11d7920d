"""The edge is killed with SIGKILL under load and started again: what is billed still equals what was served."""

import asyncio
import os
import signal
from collections import Counter

import aiohttp
import pytest

from tests.support.load import CLIENTS, REQUESTS, Load, compare, sources
from tests.support.stack import POLL_SECONDS, lift_limits, running_stack

pytestmark = [pytest.mark.xdist_group("e2e-killed"), pytest.mark.timeout(600)]

COMPLETE_BEFORE_KILL = 800
IN_FLIGHT_AT_KILL_MIN = 20
EDGE_BACK_SECONDS = 120


async def kill_the_edge_under_load(stack, load):
    while len(load.complete) < COMPLETE_BEFORE_KILL or len(load.in_flight) < IN_FLIGHT_AT_KILL_MIN:
        await asyncio.sleep(0.005)
    pids = stack.file["edge"]["pids"]
    assert len(pids) == 3, "a supervisor and two workers"
    load.edge_up.clear()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    in_flight = set(load.in_flight)
    assert len(in_flight) >= IN_FLIGHT_AT_KILL_MIN
    return pids, in_flight


async def wait_for_another_edge(stack, killed, load):
    def back():
        try:
            return not set(stack.file["edge"]["pids"]) & set(killed)
        except FileNotFoundError:
            return False

    async with aiohttp.ClientSession() as http, asyncio.timeout(EDGE_BACK_SECONDS):
        while not back():
            await asyncio.sleep(POLL_SECONDS)
        load.edge_url = stack.file["edge"]["url"]
        while True:
            try:
                async with http.get(load.edge_url + "/health/ready") as answer:
                    if answer.status == 200:
                        break
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(POLL_SECONDS)
    load.edge_up.set()


@pytest.mark.parametrize("flags", [(), pytest.param(("--kafka",), marks=pytest.mark.full)], ids=["grpc", "kafka"])
async def test_what_is_billed_equals_what_was_served_through_sigkill(stack_folder, http, flags):
    with running_stack(stack_folder, "--workers", "2", "--restart", *flags) as stack:
        pro, free = stack.organization("pro"), stack.organization("free")
        await lift_limits(stack, pro)
        load = Load(edge_url=stack.file["edge"]["url"], keys=[pro["api_key"], free["api_key"]])
        load.edge_up.set()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(load.client())
            killed, in_flight = await kill_the_edge_under_load(stack, load)
            await wait_for_another_edge(stack, killed, load)
        assert len(load.complete) + len(load.broken) == REQUESTS
        assert set(Counter(status for _, status in load.complete.values())) >= {200, 201, 302, 404, 500, 429}
        assert load.broken <= in_flight, "only requests in flight at the kill may break"
        assert len(load.broken) >= IN_FLIGHT_AT_KILL_MIN
        figures = await compare(stack, http, load, in_flight)
        assert await sources(stack) == {"kafka" if flags else "journal"}
        print(f"\n{figures}")
