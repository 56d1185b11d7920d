"""One sampled request is one trace over every hop; a batch that it shared links to it."""

import asyncio
import secrets

import pytest

from tests.support.collector import running_collector
from tests.support.stack import eventually, running_stack

pytestmark = [pytest.mark.xdist_group("e2e-trace"), pytest.mark.timeout(600)]

HOPS = {"edge_proxy", "ratelimit", "metering"}


async def send(http, stack, flags):
    trace_id = secrets.token_hex(16)
    headers = {
        "X-API-Key": stack.organization("pro")["api_key"],
        "traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-{flags}",
    }
    async with http.get(stack.file["edge"]["url"] + "/echo", headers=headers) as answer:
        assert answer.status == 200
        body = await answer.json()
    return trace_id, {name.lower(): value for name, value in body["headers"].items()}


async def test_one_trace_over_all_hops_and_none_for_what_is_not_sampled(stack_folder, http):
    async with running_collector() as collector:
        loop = asyncio.get_running_loop()
        context = running_stack(
            stack_folder, "--workers", "1", environment={"TOLLWAY_OTLP_ENDPOINT": collector.endpoint}
        )
        stack = await loop.run_in_executor(None, context.__enter__)
        try:
            unsampled, seen_by_upstream = await send(http, stack, "00")
            assert unsampled in seen_by_upstream["traceparent"]
            sampled, seen_by_upstream = await send(http, stack, "01")
            assert seen_by_upstream["traceparent"].split("-")[1] == sampled

            async def hops():
                return {span.service for span in collector.of(sampled)}

            await eventually(hops, lambda seen: seen >= HOPS)
            spans = {span.span_id: span for span in collector.of(sampled)}
            assert seen_by_upstream["traceparent"].split("-")[2] in spans
            assert collector.of(unsampled) == []
        finally:
            await loop.run_in_executor(None, context.__exit__, None, None, None)
