"""Every process is killed under load, again and again, one kind at a time; then the parties are counted.

`make chaos` runs this (minutes); the edge's own death is in `tests/e2e/test_killed_in_the_middle.py`, which CI runs.
"""

import asyncio
import contextlib
import os
import signal

import aiohttp
import pytest

from tests.support.load import CLIENTS, REQUESTS, Load, compare
from tests.support.stack import lift_limits, running_stack

pytestmark = pytest.mark.timeout(600)

KILLS = 3
VICTIMS = ["metering", "ratelimit", "auth", "billing", "gateway", "edge worker"]


def pids_of(stack, victim):
    file = stack.file
    if victim == "edge worker":
        return file["edge"]["pids"][1:2]
    return file["gateway"]["pids"] if victim == "gateway" else file["services"][victim]["pids"]


async def kill_again_and_again(stack, victim, load):
    """Kills the victim at even steps of the work; returns what was in flight at each kill."""
    in_flight = set()
    for kill in range(1, KILLS + 1):
        while len(load.complete) + len(load.broken) < kill * REQUESTS // (KILLS + 1):
            await asyncio.sleep(0.01)
        # A victim that has not come back yet is on its way anyway.
        pids = pids_of(stack, victim)
        in_flight |= load.in_flight
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    return in_flight


@pytest.mark.parametrize("victim", VICTIMS)
async def test_what_is_billed_equals_what_was_served_while_a_process_keeps_dying(stack_folder, victim):
    with running_stack(stack_folder, "--workers", "2", "--restart") as stack:
        pro, free = stack.organization("pro"), stack.organization("free")
        await lift_limits(stack, pro)
        load = Load(edge_url=stack.file["edge"]["url"], keys=[pro["api_key"], free["api_key"]])
        load.edge_up.set()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(CLIENTS):
                tasks.create_task(load.client())
            in_flight = await kill_again_and_again(stack, victim, load)
        if victim != "edge worker":
            assert load.broken == set(), "nobody but the edge stands in a request's way"
        async with aiohttp.ClientSession() as http:
            print(f"\n{victim}: {await compare(stack, http, load, in_flight)}")
