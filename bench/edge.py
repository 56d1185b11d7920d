"""`make bench-edge`: the edge and nginx `proxy_pass` before the same upstream, on the same cores, in one run.

Core 0 belongs to the proxy under test, core 1 to everything else: upstream, load, limiter, Redis, metering,
PostgreSQL. The edge checks key and limit on every request and meters it; nginx does nothing but forward. Closed loop:
wrk with keep-alive connections. Open loop: `bench/open_loop.py` at half of what the edge managed in the closed loop,
the same rate for all three, the bare upstream being the third. Runs are interleaved, medians are told.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from bench import machine
from bench.report import Figure, write
from cli.stack.ports import free_ports
from cli.stack.secrets import load as load_secrets
from mesh.config import ProcessSettings
from mesh.rpc.client import Clients

DURATION_SECONDS: Final = float(os.environ.get("DURATION") or 10)
RUNS: Final = int(os.environ.get("RUNS") or 3)
CONNECTIONS: Final = 64
PROXY_CORE: Final = 0
OTHER_CORE: Final = 1
UNLIMITED: Final = 1_000_000_000
START_TIMEOUT_SECONDS: Final = 120.0
WARM_UP_SECONDS: Final = 3.0
PATH: Final = "/json"

_NGINX: Final = """
worker_processes 1; daemon off; pid {folder}/nginx-{name}.pid; error_log {folder}/nginx-{name}.log warn;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/b-{name}; proxy_temp_path {folder}/p-{name};
  fastcgi_temp_path {folder}/f-{name}; uwsgi_temp_path {folder}/u-{name}; scgi_temp_path {folder}/s-{name};
  keepalive_requests 100000000; keepalive_timeout 1h;
  {body}
}}
"""
_UPSTREAM: Final = "server {{ listen 127.0.0.1:{port}; default_type application/json; return 200 '{{\"ok\":true}}'; }}"
_PROXY: Final = (
    "upstream u {{ server 127.0.0.1:{upstream}; keepalive 256; keepalive_requests 100000000; }}"
    " server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://u;"
    " proxy_http_version 1.1; proxy_set_header Connection ''; }} }}"
)
_WRK_REPORT: Final = """
done = function(summary, latency, requests)
  io.write(string.format('RESULT {"requests":%d,"seconds":%f,"failed":%d,"p50":%f,"p99":%f,"p999":%f}\\n',
    summary.requests, summary.duration / 1e6,
    summary.errors.connect + summary.errors.read + summary.errors.write
      + summary.errors.status + summary.errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency:percentile(99.9) / 1000))
end
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Something to send load to."""

    name: str
    port: int
    key: str


class Figures:
    """Collects the runs of each figure."""

    def __init__(self) -> None:
        self._runs: dict[str, tuple[str, list[float]]] = {}

    def add(self, name: str, unit: str, value: float) -> None:
        """Note the value of one run."""
        self._runs.setdefault(name, (unit, []))[1].append(value)

    def all(self) -> dict[str, Figure]:
        """Return every figure with its runs."""
        return {name: Figure(runs=runs, unit=unit) for name, (unit, runs) in self._runs.items()}


@contextmanager
def nginx(folder: Path, name: str, body: str, core: int) -> Iterator[list[psutil.Process]]:
    """Run an nginx with one worker on one core."""
    config = folder / f"{name}.conf"
    config.write_text(_NGINX.format(folder=folder, name=name, body=body), encoding="utf-8")
    child = subprocess.Popen(["nginx", "-c", str(config), "-e", str(folder / "startup.log")])
    try:
        master = psutil.Process(child.pid)
        while not master.children():
            if child.poll() is not None:
                sys.exit(f"nginx did not start: {(folder / 'startup.log').read_text(encoding='utf-8')}")
            time.sleep(0.02)
        processes = [master, *master.children()]
        for process in processes:
            machine.pin(process, core)
        yield processes
    finally:
        child.send_signal(signal.SIGQUIT)
        child.wait(10)


@contextmanager
def tollway(folder: Path, upstream_port: int) -> Iterator[tuple[dict[str, Any], list[psutil.Process]]]:
    """Run the whole stack with one edge worker and yield its stack file and processes."""
    data = folder / "var"
    command = [
        sys.executable,
        "-m",
        "cli",
        "up",
        "--data-dir",
        str(data),
        "--ports",
        "auto",
        "--no-demo",
        "--workers",
        "1",
    ]
    environment = {**os.environ, "TOLLWAY_UPSTREAM_URL": f"http://127.0.0.1:{upstream_port}"}
    log = (folder / "stack.log").open("wb")
    child = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not (data / "stack.json").exists():
            if child.poll() is not None or time.monotonic() > deadline:
                sys.exit(f"the stack did not start:\n{(folder / 'stack.log').read_text(encoding='utf-8')}")
            time.sleep(0.1)
        stack = json.loads((data / "stack.json").read_text(encoding="utf-8"))
        stack["process_fields"] = load_secrets(data / "secrets.json").process_fields("cli")
        supervisor = psutil.Process(child.pid)
        processes = [supervisor, *supervisor.children(recursive=True)]
        for process in processes:
            is_worker = process.pid in stack["edge"]["pids"][1:]
            machine.pin(process, PROXY_CORE if is_worker else OTHER_CORE)
        yield stack, processes
    finally:
        child.send_signal(signal.SIGINT)
        child.wait(30)


async def lift_limits(stack: dict[str, Any], organization_id: str) -> None:
    """Give an organization limits that the load does not reach; they are checked all the same."""
    settings = ProcessSettings(**stack["process_fields"], ratelimit_address=stack["services"]["ratelimit"]["address"])
    clients = Clients(settings, process="cli")
    windows = [
        ratelimit.Window(
            name="burst",
            kind=ratelimit.WINDOW_KIND_TOKEN_BUCKET,
            limit=UNLIMITED,
            period_seconds=60,
            scope=ratelimit.WINDOW_SCOPE_ORGANIZATION,
        ),
        ratelimit.Window(
            name="month",
            kind=ratelimit.WINDOW_KIND_CALENDAR_MONTH,
            limit=UNLIMITED,
            scope=ratelimit.WINDOW_SCOPE_ORGANIZATION,
            counts_billable_only=True,
        ),
    ]
    policy = ratelimit.Policy(organization_id=str(uuid.UUID(organization_id)), version=2**52, windows=windows)
    await clients.ratelimit.PutPolicy(ratelimit.PutPolicyRequest(policy=policy))
    await clients.close()


def closed_loop(folder: Path, target: Target, seconds: float) -> dict[str, float]:
    """Load a target with wrk and return what its script printed."""
    script = folder / "report.lua"
    script.write_text(_WRK_REPORT, encoding="utf-8")
    command = ["taskset", "-c", str(OTHER_CORE), "wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds:g}s", "-s", str(script)]
    command += ["-H", f"X-API-Key: {target.key}", f"http://127.0.0.1:{target.port}{PATH}"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    match = re.search(r"RESULT (.*)", output)
    if match is None:
        sys.exit(f"wrk said:\n{output}")
    return dict(json.loads(match[1]))


def open_loop(target: Target, rate: float, seconds: float) -> dict[str, Any]:
    """Load a target at a constant rate."""
    command = ["taskset", "-c", str(OTHER_CORE), sys.executable, "-m", "bench.open_loop", "--port", str(target.port)]
    command += ["--path", PATH, "--key", target.key, "--rate", f"{rate:g}", "--seconds", f"{seconds:g}"]
    return dict(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))


def measure_closed(folder: Path, target: Target, processes: list[psutil.Process], figures: Figures) -> float:
    """Take one closed-loop run of a target and return its requests per second."""
    before = machine.usage(processes)
    result = closed_loop(folder, target, DURATION_SECONDS)
    used = machine.usage(processes).since(before)
    if result["failed"]:
        sys.exit(f"{target.name}: {result['failed']:.0f} of {result['requests']:.0f} requests failed")
    throughput = result["requests"] / result["seconds"]
    figures.add(f"{target.name} closed: throughput", "req/s", throughput)
    for name in ("p50", "p99", "p999"):
        figures.add(f"{target.name} closed: {name.replace('p999', 'p99.9')}", "ms", result[name])
    total = 0.0
    for name, seconds in sorted(used.cpu_seconds.items()):
        microseconds = seconds * 1e6 / result["requests"]
        if microseconds >= 0.05:
            figures.add(f"{target.name} closed: CPU {name}", "us/req", microseconds)
        total += microseconds
    figures.add(f"{target.name} closed: CPU all but load", "us/req", total)
    for core, (busy, elapsed) in enumerate(used.cores[:2]):
        figures.add(f"{target.name} closed: core {core} busy", "%", 100 * busy / elapsed)
    return throughput


def measure_open(target: Target, rate: float, figures: Figures) -> None:
    """Take one open-loop run of a target."""
    result = open_loop(target, rate, DURATION_SECONDS)
    if result["unanswered"] or set(result["statuses"]) != {"200"}:
        sys.exit(f"{target.name}: {result['unanswered']} unanswered, statuses {result['statuses']}")
    figures.add(f"{target.name} open: rate", "req/s", result["answered"] / DURATION_SECONDS)
    for name in ("p50_ms", "p99_ms", "p99.9_ms"):
        figures.add(f"{target.name} open: {name.removesuffix('_ms')}", "ms", result[name])


def measure(folder: Path) -> None:
    """Start everything, take the runs, record the result."""
    upstream_port, proxy_port = free_ports(2)
    figures = Figures()
    upstream_body = _UPSTREAM.format(port=upstream_port)
    proxy_body = _PROXY.format(port=proxy_port, upstream=upstream_port)
    with (
        nginx(folder, "upstream", upstream_body, OTHER_CORE) as upstream,
        nginx(folder, "proxy", proxy_body, PROXY_CORE) as proxy,
        tollway(folder, upstream_port) as (stack, processes),
    ):
        organization = next(o for o in stack["organizations"] if o["plan"] == "pro")
        asyncio.run(lift_limits(stack, organization["id"]))
        key = organization["api_key"]
        edge_target = Target(name="edge", port=int(stack["edge"]["url"].rsplit(":", 1)[1]), key=key)
        nginx_target = Target(name="nginx", port=proxy_port, key=key)
        direct_target = Target(name="upstream alone", port=upstream_port, key=key)
        for target in (edge_target, nginx_target):
            closed_loop(folder, target, WARM_UP_SECONDS)
        throughputs = []
        for _ in range(RUNS):
            measure_closed(folder, nginx_target, [*proxy, *upstream], figures)
            throughputs.append(measure_closed(folder, edge_target, [*processes, *upstream], figures))
        rate = sorted(throughputs)[len(throughputs) // 2] / 2
        for _ in range(RUNS):
            for target in (direct_target, nginx_target, edge_target):
                measure_open(target, rate, figures)
    record(figures.all())


def record(figures: dict[str, Figure]) -> None:
    """Work out the ratios and write everything down."""

    def ratio(name: str) -> float:
        return figures[f"edge {name}"].value / figures[f"nginx {name}"].value

    ratios = {
        f"edge/nginx {name}": ratio(name) for name in ("closed: throughput", "closed: p99", "open: p50", "open: p99")
    }
    for name in ("p50", "p99"):
        added = figures[f"edge open: {name}"].value - figures[f"upstream alone open: {name}"].value
        figures[f"edge added at half load: {name}"] = Figure(runs=[added], unit="ms")
    write("edge", f"make bench-edge DURATION={DURATION_SECONDS:g} RUNS={RUNS}", figures, ratios)


def main() -> None:
    """Check that the tools are there and measure."""
    for tool in ("nginx", "wrk", "taskset"):
        if shutil.which(tool) is None:
            sys.exit(f"{tool} is missing; on Debian: apt-get install nginx-light wrk util-linux")
    if (os.cpu_count() or 1) < 2:
        sys.exit("this needs two cores: one for the proxy, one for everything else")
    with tempfile.TemporaryDirectory(prefix="tollway-bench-") as folder:
        machine.pin(psutil.Process(), OTHER_CORE)
        # As root, PostgreSQL runs as another user, who must be able to enter.
        Path(folder).chmod(0o711)
        measure(Path(folder))


if __name__ == "__main__":
    main()
