"""Load on a stack whose parts are being killed, and the comparison of three parties by request id.

The parties: what the clients got completely, what was billed, what the upstream saw.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import asyncpg

from tests.support.stack import Client, eventually

REQUESTS = 2_000
CLIENTS = 60
SENT_SECONDS_MAX = 90

# What request number n asks for: every tenth of them the same.
KINDS = [
    ("GET", "/status/200"),
    ("POST", "/echo"),
    ("GET", "/status/302"),
    ("GET", "/status/404"),
    ("GET", "/fail"),
    ("GET", "/slow?ms=250"),
    ("GET", "/sse?events=5&interval_ms=40"),
    ("GET", "/large?bytes=200000"),
    ("GET", "/slow?ms=120"),
    ("GET", "/status/201"),  # on the free plan, so most of these are 429
]


@dataclass
class Load:
    """What the clients did and got."""

    edge_url: str
    keys: list[str]
    todo: list[int] = field(default_factory=lambda: list(range(REQUESTS, 0, -1)))
    in_flight: set[int] = field(default_factory=set)
    complete: dict[str, tuple[int, int]] = field(default_factory=dict)
    broken: set[int] = field(default_factory=set)
    edge_up: asyncio.Event = field(default_factory=asyncio.Event)

    async def client(self):
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(30)) as http:
            while self.todo:
                await self.edge_up.wait()
                if not self.todo:
                    break
                await self.send(http, self.todo.pop())

    async def send(self, http, number):
        method, path = KINDS[number % len(KINDS)]
        key = self.keys[number % len(KINDS) == len(KINDS) - 1]
        url = f"{self.edge_url}{path}{'&' if '?' in path else '?'}n={number}"
        self.in_flight.add(number)
        try:
            body = b"x" * 3000 if method == "POST" else None
            async with http.request(
                method, url, data=body, headers={"X-API-Key": key}, allow_redirects=False
            ) as answer:
                await answer.read()
                self.complete[answer.headers["X-Request-Id"]] = (number, answer.status)
        except (aiohttp.ClientError, ConnectionError, TimeoutError):
            self.broken.add(number)
        finally:
            self.in_flight.discard(number)


def upstream_saw(stack):
    """Returns the request number of every request id that the upstream saw, and how often it saw each."""
    numbers, times = {}, Counter()
    with Path(stack.file["upstream"]["served_log"]).open() as log:
        for line in log:
            event, request_id, *rest = line.rstrip("\n").split("\t")
            if event == "started" and "n=" in rest[1]:
                numbers[request_id] = int(rest[1].rsplit("n=", 1)[1])
                times[request_id] += 1
    return numbers, times


async def events_of(stack):
    connection = await asyncpg.connect(stack.file["postgres"]["dsn"])
    try:
        return await connection.fetch("SELECT event_id::text AS id, billable, status FROM metering.usage_events")
    finally:
        await connection.close()


async def sources(stack):
    """Returns which ways events have come to metering."""
    connection = await asyncpg.connect(stack.file["postgres"]["dsn"])
    try:
        rows = await connection.fetch("SELECT DISTINCT split_part(source, ':', 1) AS kind FROM metering.ingest_offsets")
    finally:
        await connection.close()
    return {row["kind"] for row in rows}


async def totals_three_ways(stack, http, organization):
    """Returns (requests, billable) as GraphQL, the rollups and the events say."""
    now = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    client = await Client(stack, http).sign_in(organization)
    usage = await client.graphql(
        "query($s: DateTime!, $e: DateTime!) { usage(start: $s, end: $e) { totals { requestCount billableCount } } }",
        s=(now - timedelta(hours=3)).isoformat(),
        e=(now + timedelta(hours=3)).isoformat(),
    )
    graphql = tuple(usage["usage"]["totals"].values())
    connection = await asyncpg.connect(stack.file["postgres"]["dsn"])
    try:
        rollups = await connection.fetchrow(
            "SELECT sum(request_count)::int, sum(billable_count)::int FROM metering.usage_rollups"
            " WHERE organization_id = $1",
            organization["id"],
        )
        events = await connection.fetchrow(
            "SELECT count(*)::int, count(*) FILTER (WHERE billable)::int FROM metering.usage_events"
            " WHERE organization_id = $1",
            organization["id"],
        )
    finally:
        await connection.close()
    return graphql, tuple(rollups), tuple(events)


async def compare(stack, http, load, in_flight):
    """Compares the three parties; returns one line of figures.

    Args:
        stack: What ran.
        http: For GraphQL.
        load: What the clients did, all of it done.
        in_flight: Numbers of the requests that were in flight whenever the edge was killed.
    """
    # Everything that a client got completely is recorded once the journals have been sent.
    events = await eventually(
        lambda: events_of(stack), lambda rows: set(load.complete) <= {row["id"] for row in rows}, SENT_SECONDS_MAX
    )
    recorded = {row["id"]: row for row in events}
    billed = {row["id"] for row in events if row["billable"]}
    served, times_served = upstream_saw(stack)

    assert len(recorded) == len(events), "no id twice"
    assert set(times_served.values()) == {1}, "no request reached the upstream twice"
    got_billable = {request_id for request_id, (_, status) in load.complete.items() if status < 500 and status != 429}
    assert got_billable <= billed
    assert billed <= set(served)
    unbilled = {
        request_id for request_id in set(served) - billed if recorded.get(request_id, {"status": 0})["status"] < 500
    }
    assert {served[request_id] for request_id in unbilled} <= in_flight
    for request_id, (_, status) in load.complete.items():
        assert recorded[request_id]["status"] == status
    for plan in ("pro", "free"):
        graphql, rollups, sql = await totals_three_ways(stack, http, stack.organization(plan))
        assert graphql == rollups == sql
        assert sql[0] > 0
    statuses = dict(Counter(status for _, status in load.complete.values()))
    return (
        f"sent {REQUESTS}, complete {len(load.complete)}, broken {len(load.broken)},"
        f" in flight at the kill {len(in_flight)}, upstream saw {len(served)}, recorded {len(recorded)},"
        f" billed {len(billed)}, seen by the upstream but unbilled below 500: {len(unbilled)}; {statuses}"
    )
