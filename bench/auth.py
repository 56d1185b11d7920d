"""`make bench-auth`: what a key costs, cold and cached, beside sign-ins, and how long a change takes to reach an edge.

- **cached**: `KeyResolver.held` for a key that is held, in a cache of 100,000 keys: processor time.
- **cold**: 500 keys a second that the edge's resolver does not hold, asked of a real auth over gRPC. Open loop: counted
  from the instant at which the question was due.
- **beside sign-ins**: `ResolveKeys` 100 times a second, alone and while 50 sign-ins a second are offered by another
  process, all with the right password. Open loop again.
- **changes**: a key is revoked, expires, gets and loses a scope; its organization is suspended and changes its plan.
  Three edges are asked again and again until each has noticed. Counted from before the change was asked for (an RPC, or
  where another service would call one, the statement), so that its own time is in it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, Final

import grpc.aio
from tollway.auth.v1 import auth_service_pb2 as pb

from bench import edge_changes
from bench.auth_installation import PEPPER, Installation, clients_of, open_folder, running, tokens_of
from bench.open_loop import percentile
from bench.report import Figure, write
from contract import key_format
from edge_proxy.keys.cache import KeyCache
from edge_proxy.keys.resolve import KeyResolver
from edge_proxy.keys.uses import KeyUses
from mesh.clock import SystemClock
from mesh.ids import RandomIds
from mesh.rpc.client_address import vouched_address
from services.auth.passwords import hash_password

DURATION_SECONDS: Final = float(os.environ.get("DURATION") or 10)
RUNS: Final = int(os.environ.get("RUNS") or 3)
CHANGES: Final = int(os.environ.get("CHANGES") or 100)
CACHED_KEYS: Final = 100_000
CACHED_LOOKUPS: Final = 200_000
COLD_PER_SECOND: Final = 500
PROBES_PER_SECOND: Final = 100
SIGN_INS_PER_SECOND: Final = 50
PEOPLE: Final = 100
PASSWORD: Final = "correct horse battery staple"  # noqa: S105 - of people who are thrown away
MS: Final = 1000.0


def _never(*_values: Any, **_fields: Any) -> Any:
    raise AssertionError("nothing is to be asked")


async def cached_us() -> float:
    """Return what a look-up of a held key takes, in microseconds of processor time."""
    cache = KeyCache()
    loop = asyncio.get_running_loop()
    digests = [number.to_bytes(32, "big") for number in range(CACHED_KEYS)]
    ids = b"o" * 16
    messages = [
        pb.KeyGrant(digest=each, api_key_id=each[16:], organization_id=ids, state=pb.KEY_STATE_ACTIVE)
        for each in digests
    ]
    cache.push(messages, fresh_until=loop.time() + 600)
    resolver = KeyResolver(cache, _never, KeyUses(_never))
    # A stride that visits every key, so that the processor's caches do not flatter.
    shown = [digests[(number * 7919) % CACHED_KEYS] for number in range(CACHED_LOOKUPS)]
    for digest in digests:
        resolver.held(digest)
    start = time.process_time()
    for digest in shown:
        resolver.held(digest)
    return (time.process_time() - start) / CACHED_LOOKUPS * 1e6


async def open_loop(rate: float, seconds: float, work: Callable[[int], Awaitable[None]]) -> list[float]:
    """Start work at a rate and return each one's seconds, counted from when it was due."""
    taken: list[float] = []
    start = time.perf_counter()

    async def one(number: int, due: float) -> None:
        await work(number)
        taken.append(time.perf_counter() - due)

    async with asyncio.TaskGroup() as tasks:
        for number in range(int(rate * seconds)):
            due = start + number / rate
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            tasks.create_task(one(number, due))
    return taken


async def cold_seconds(installation: Installation, keys: list[str]) -> list[float]:
    """Return how long questions about keys that are not held take."""
    clients = clients_of(installation.auth_address, "edge_proxy")
    digests = [key_format.digest(key, PEPPER) for key in keys]

    def resolve(request: pb.ResolveKeysRequest, *, timeout: float) -> Any:
        return clients.auth.ResolveKeys(request, timeout=timeout)

    resolver = KeyResolver(KeyCache(), resolve, KeyUses(_never))
    for digest in digests[-10:]:
        await resolver.find(digest)

    async def find(number: int) -> None:
        if await resolver.find(digests[number]) is None:
            raise AssertionError("every key is known")

    try:
        return await open_loop(COLD_PER_SECOND, DURATION_SECONDS, find)
    finally:
        await clients.close()


async def probe_seconds(installation: Installation, key: str) -> list[float]:
    """Return how long `ResolveKeys` takes."""
    clients = clients_of(installation.auth_address, "edge_proxy")
    request = pb.ResolveKeysRequest(digests=[key_format.digest(key, PEPPER)])
    await clients.auth.ResolveKeys(request)

    async def resolve(_number: int) -> None:
        await clients.auth.ResolveKeys(request, timeout=30)

    try:
        return await open_loop(PROBES_PER_SECOND, DURATION_SECONDS, resolve)
    finally:
        await clients.close()


async def offer_sign_ins(auth_address: str, seconds: float) -> dict[str, Any]:
    """Offer sign-ins and return what became of them and how long those that were let in took."""
    clients, tokens = clients_of(auth_address, "graphql_gateway"), tokens_of("graphql_gateway")
    outcomes: Counter[str] = Counter()
    let_in: list[float] = []

    async def sign_in(number: int) -> None:
        who = number % PEOPLE
        start = time.perf_counter()
        try:
            await clients.auth.CreateSession(
                pb.CreateSessionRequest(email=f"p{who}@bench.example", password=PASSWORD),
                metadata=vouched_address(tokens, f"198.51.100.{who}", "auth"),
                timeout=30,
            )
        except grpc.aio.AioRpcError as error:
            outcomes[error.details() or error.code().name] += 1
        else:
            outcomes["let in"] += 1
            let_in.append(time.perf_counter() - start)

    try:
        await open_loop(SIGN_INS_PER_SECOND, seconds, sign_in)
    finally:
        await clients.close()
    return {"outcomes": outcomes, "p50_ms": statistics.median(let_in) * MS if let_in else 0.0}


async def seed_people(installation: Installation) -> None:
    """Insert people who can sign in."""
    password_hash, ids, now = hash_password(PASSWORD), RandomIds(), SystemClock().now()
    connection = await installation.connect()
    try:
        for number in range(PEOPLE):
            person_id = ids.uuid7()
            await connection.execute(
                "INSERT INTO people (person_id, email, password_hash, create_time) VALUES ($1, $2, $3, $4)",
                person_id, f"p{number}@bench.example", password_hash, now,
            )  # fmt: skip
            await connection.execute(
                "INSERT INTO memberships (organization_id, person_id, role, create_time) VALUES ($1, $2, 'member', $3)",
                installation.organization_id, person_id, now,
            )  # fmt: skip
    finally:
        await connection.close()


async def beside_sign_ins(installation: Installation, key: str) -> tuple[list[float], dict[str, Any]]:
    """Return how long `ResolveKeys` takes while another process offers sign-ins, and what became of those."""
    seconds = DURATION_SECONDS + 2
    command = [sys.executable, "-m", "bench.auth", "--sign-ins", installation.auth_address, "--seconds", str(seconds)]
    child = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
    assert child.stdout is not None, "it is a pipe"  # noqa: S101
    # It says when it begins; a second later the queues are full.
    await child.stdout.readline()
    await asyncio.sleep(1)
    taken = await probe_seconds(installation, key)
    said, _ = await child.communicate()
    return taken, json.loads(said)


class Figures:
    """Collects the runs of each figure."""

    def __init__(self) -> None:
        self._runs: dict[str, tuple[str, list[float]]] = {}

    def add(self, name: str, unit: str, value: float) -> None:
        """Note the value of one run."""
        self._runs.setdefault(name, (unit, []))[1].append(value)

    def add_latencies(self, name: str, seconds: list[float], *, shares: tuple[float, ...] = (0.5, 0.99, 1.0)) -> None:
        """Note percentiles of one run in milliseconds."""
        for share in shares:
            label = "max" if share == 1.0 else f"p{share * 100:g}"
            self.add(f"{name}.{label}", "ms", percentile(seconds, share) * MS)

    def value(self, name: str) -> float:
        """Return a figure's median."""
        return statistics.median(self._runs[name][1])

    def all(self) -> dict[str, Figure]:
        """Return every figure with its runs."""
        return {name: Figure(runs=runs, unit=unit) for name, (unit, runs) in self._runs.items()}


async def measure_lookups(figures: Figures) -> None:
    """Measure look-ups, cold and cached, and beside sign-ins; the two take turns."""
    with open_folder() as folder:
        async with running(folder) as installation:
            await seed_people(installation)
            for _ in range(RUNS):
                figures.add("cached.lookup", "us", await cached_us())
                keys = await installation.seed_keys(int(COLD_PER_SECOND * DURATION_SECONDS) + 10)
                figures.add_latencies("cold", await cold_seconds(installation, keys))
                figures.add_latencies("resolve.idle", await probe_seconds(installation, keys[0]))
                taken, sign_ins = await beside_sign_ins(installation, keys[0])
                figures.add_latencies("resolve.beside_sign_ins", taken)
                let_in = sign_ins["outcomes"].get("let in", 0)
                figures.add("sign_ins.let_in", "1/s", let_in / (DURATION_SECONDS + 2))
                figures.add("sign_ins.p50", "ms", sign_ins["p50_ms"])
                print(sign_ins, file=sys.stderr)


def main() -> None:
    """Measure everything, or offer sign-ins to a running auth."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sign-ins", metavar="ADDRESS", help="offer sign-ins to the auth at this address, then end")
    parser.add_argument("--seconds", type=float, default=DURATION_SECONDS)
    parser.add_argument("--only", choices=["lookups", "changes"])
    given = parser.parse_args()
    if given.sign_ins:
        print("offering", flush=True)
        print(json.dumps(asyncio.run(offer_sign_ins(given.sign_ins, given.seconds))))
        return
    figures = Figures()
    if given.only != "changes":
        asyncio.run(measure_lookups(figures))
    if given.only != "lookups":
        for kind, seconds in asyncio.run(edge_changes.measure(CHANGES)).items():
            figures.add_latencies(f"change.{kind}", seconds)
    ratios = {}
    if given.only != "changes":
        beside, idle = (figures.value(f"resolve.{name}.p99") for name in ("beside_sign_ins", "idle"))
        ratios["resolve beside sign-ins/idle (p99)"] = beside / idle
    write("auth", "make bench-auth", figures.all(), ratios)


if __name__ == "__main__":
    main()
