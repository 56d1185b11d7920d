"""What a decision costs ratelimit in CPU: `make bench-limiter`. `AGAINST=<commit>` measures an older tree beside it.

One process is the service without gRPC: it decides batches of 32 requests of eight organizations with four windows
each, `BATCHES_IN_FLIGHT` of them at a time, against a Redis of its own on loopback. The figure is the CPU time of that
process and of Redis per decision. Trees take turns, so that whatever else the machine does hits both alike.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Final

import psutil

ROOT: Final = Path(__file__).resolve().parents[1]
DURATION_SECONDS: Final = 5.0
RUNS: Final = 5
ORGANIZATIONS: Final = 8
DECISIONS_PER_BATCH: Final = 32
BATCHES_IN_FLIGHT: Final = 4
WARM_UP_BATCHES: Final = 200
US_PER_SECOND: Final = 1e6


def main() -> None:
    """Measure one tree, or compare trees and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--measure", metavar="URL", help="measure the tree on the path against this Redis")
    parser.add_argument("--against", default=os.environ.get("AGAINST") or None, help="an older commit to compare with")
    given = parser.parse_args()
    if given.measure:
        print(json.dumps(asyncio.run(_measure(given.measure, _duration_seconds()))))
    else:
        _compare(given.against)


def _duration_seconds() -> float:
    return float(os.environ.get("DURATION") or DURATION_SECONDS)


def _compare(against: str | None) -> None:
    from bench import report  # noqa: PLC0415 - an older tree measures with this file and without its neighbours
    from cli.stack.ports import free_ports  # noqa: PLC0415
    from cli.stack.servers.redis import start_redis  # noqa: PLC0415

    runs = int(os.environ.get("RUNS") or RUNS)
    with tempfile.TemporaryDirectory() as folder, _old_tree(against, Path(folder)) as old:
        trees = {"now": ROOT} | ({"before": old} if old else {})
        (port,) = free_ports(1)
        server = start_redis(
            folder=Path(folder) / "redis", port=port, log_path=Path(folder) / "redis.log", throwaway=True
        )
        try:
            taken: dict[str, list[dict[str, float]]] = {name: [] for name in trees}
            for _ in range(runs):
                for name, tree in trees.items():
                    taken[name].append(_in_tree(tree, server.url, server.process.pid))
        finally:
            server.stop()
    figures = {
        f"{name}.{figure}": report.Figure(runs=[each[figure] for each in found], unit=unit)
        for name, found in taken.items()
        for figure, unit in (("service_cpu_per_decision", "us"), ("redis_cpu_per_decision", "us"), ("rate", "1/s"))
    }
    ratios = {}
    if "before" in taken:
        now, before = (figures[f"{name}.service_cpu_per_decision"].value for name in ("now", "before"))
        ratios["now/before"] = now / before
    report.write("limiter", f"make bench-limiter AGAINST={against or ''}", figures, ratios)


@contextlib.contextmanager
def _old_tree(commit: str | None, folder: Path) -> Any:
    if commit is None:
        yield None
        return
    tree = folder / "before"
    subprocess.run(["git", "worktree", "add", "-q", "--detach", str(tree), commit], cwd=ROOT, check=True)
    try:
        yield tree
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def _in_tree(tree: Path, url: str, redis_pid: int) -> dict[str, float]:
    redis = psutil.Process(redis_pid)
    before = sum(redis.cpu_times()[:2])
    command = [sys.executable, str(Path(__file__)), "--measure", url]
    environment = {**os.environ, "PYTHONPATH": f"{tree}:{tree / 'gen' / 'python'}"}
    done = subprocess.run(command, cwd=tree, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    # The warm-up's decisions are Redis' work too.
    found["redis_cpu_per_decision"] = (sum(redis.cpu_times()[:2]) - before) / found["all_decisions"] * US_PER_SECOND
    return found


async def _measure(url: str, duration_seconds: float) -> dict[str, float]:
    """Decide for a while with whatever tree is on the path."""
    from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb  # noqa: PLC0415

    async with asyncio.TaskGroup() as tasks:
        decide, stop = await _service(url, tasks)
        batches = [_batch(pb) for _ in range(64)]
        for number in range(WARM_UP_BATCHES):
            await decide(batches[number % len(batches)], [])
        count, cpu = 0, _own_cpu_seconds()
        started = time.perf_counter()

        async def keep_deciding(number: int) -> None:
            nonlocal count
            while time.perf_counter() - started < duration_seconds:
                await decide(batches[number % len(batches)], [])
                number, count = number + 1, count + DECISIONS_PER_BATCH

        await asyncio.gather(*(keep_deciding(number) for number in range(BATCHES_IN_FLIGHT)))
        took = time.perf_counter() - started
        used = _own_cpu_seconds() - cpu
        await stop()
    return {
        "service_cpu_per_decision": used / count * US_PER_SECOND,
        "rate": count / took,
        "all_decisions": count + WARM_UP_BATCHES * DECISIONS_PER_BATCH,
    }


async def _service(url: str, tasks: asyncio.TaskGroup) -> tuple[Any, Any]:
    """Wire decisions without PostgreSQL, metering and gRPC."""
    import mesh.redis  # noqa: PLC0415
    from mesh.clock import SystemClock  # noqa: PLC0415
    from services.ratelimit.counters import Counters, greeting  # noqa: PLC0415
    from services.ratelimit.policies import Policies  # noqa: PLC0415
    from services.ratelimit.seeding import NoUsage, Seeder  # noqa: PLC0415

    DecisionService = _found("DecisionService", "decisions", "service")  # noqa: N806 - a class

    # Before `redis_pipe` there was one class, which took no keys.
    made: Any = getattr(mesh.redis, "redis_pipe", None)
    make: Any = made or mesh.redis.RedisPipe
    pipe = make(url, timeout_seconds=5.0, greeting=greeting)
    running = tasks.create_task(pipe.run())
    await pipe.connected.wait()
    await pipe.call([("FLUSHALL",)], *([[b"k"]] if made else []))
    counters, policies = Counters(pipe), Policies(db=None)  # type: ignore[arg-type]
    for number in range(ORGANIZATIONS):
        policies.take(_policy(number))
    seeder = Seeder(usage=NoUsage(), run=counters.teach, tasks=tasks)
    service = DecisionService(policies=policies, counters=counters, seeder=seeder, clock=SystemClock())

    async def stop() -> None:
        await seeder.stop()
        running.cancel()

    return service.decide, stop


def _policy(number: int) -> Any:
    """Return four windows: two of the organization, a month, and one of the key."""
    from tollway.ratelimit.v1 import ratelimit_service_pb2 as pb  # noqa: PLC0415

    from_policy = _found("from_policy", "rpc.policies", "convert")
    bucket, month = pb.WINDOW_KIND_TOKEN_BUCKET, pb.WINDOW_KIND_CALENDAR_MONTH
    organization, key = pb.WINDOW_SCOPE_ORGANIZATION, pb.WINDOW_SCOPE_API_KEY
    return from_policy(
        pb.Policy(
            organization_id=str(uuid.UUID(int=number + 1)),
            version=1,
            windows=[
                pb.Window(name="burst", kind=bucket, limit=10**6, period_seconds=60, scope=organization),
                pb.Window(name="day", kind=pb.WINDOW_KIND_CALENDAR_DAY, limit=10**12, scope=organization),
                pb.Window(name="month", kind=month, limit=10**12, scope=organization, counts_billable_only=True),
                pb.Window(name="key", kind=bucket, limit=10**6, period_seconds=60, scope=key),
            ],
        )
    )


def _found(name: str, *modules: str) -> Any:
    """Return what has moved between the trees from where it is in this one."""
    for module in modules:
        with contextlib.suppress(ImportError, AttributeError):
            return getattr(importlib.import_module(f"services.ratelimit.{module}"), name)
    raise ImportError(name)


def _batch(pb: Any) -> list[Any]:
    return [
        pb.Decision(
            request_id=uuid.uuid4().bytes,
            organization_id=uuid.UUID(int=number % ORGANIZATIONS + 1).bytes,
            api_key_id=uuid.UUID(int=number % ORGANIZATIONS + 1).bytes,
            route_id="orders",
            cost_units=1,
        )
        for number in range(DECISIONS_PER_BATCH)
    ]


def _own_cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
