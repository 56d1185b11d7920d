"""What an answered request costs in CPU at the front of the edge: `make bench-http1`, the proof of ADR 0018.

Our server and aiohttp's low-level `web.Server` answer the same small response, each as a process of its own on uvloop,
to the same closed loop of keep-alive connections. The server has core 0, the load core 1. `AGAINST=<commit>` measures
our server of an older tree beside it. Runs are interleaved, medians are told. CPU is the server process's own, user and
system, divided by the answers that the load has counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, Final

import psutil
import uvloop

ROOT: Final = Path(__file__).resolve().parents[1]
DURATION_SECONDS: Final = float(os.environ.get("DURATION") or 5)
RUNS: Final = int(os.environ.get("RUNS") or 3)
CONNECTIONS: Final = 64
WARM_UP_SECONDS: Final = 0.5
SERVER_CORE: Final = 0
LOAD_CORE: Final = 1
BODY: Final = b'{"ok":true}'
REQUEST: Final = (
    b"GET /v1/items/7?expand=all HTTP/1.1\r\nHost: api.test\r\nUser-Agent: bench/1\r\nAccept: application/json\r\n"
    b"Authorization: Bearer sk_live_0123456789\r\nAccept-Encoding: gzip\r\n\r\n"
)


# The servers. Each is started as a process of its own and prints its port.


async def serve_ours() -> None:
    """Answer with the edge's HTTP server."""
    # Imported here, because an older tree takes the place of this one when it is measured.
    from edge_proxy.http1.server.acceptor import Acceptor  # noqa: PLC0415
    from edge_proxy.http1.server.protocol import Server  # noqa: PLC0415

    answer = (
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n"
        b"Date: %b\r\nServer: bench\r\n\r\n%b" % (len(BODY), b"Wed, 25 Nov 2026 00:00:00 GMT", BODY)
    )

    async def handle(client: Any, head: Any) -> bool:
        client.write(answer)
        return bool(client.keeps_alive(head))

    def refuse(_client: Any, refused: Exception) -> None:
        raise refused

    listener = socket.create_server(("127.0.0.1", 0))
    acceptor = Acceptor(listener, Server(handle, refuse))
    acceptor.start()
    print(listener.getsockname()[1], flush=True)
    await asyncio.Event().wait()


async def serve_aiohttp() -> None:
    """Answer with aiohttp's low-level server."""
    from aiohttp import web  # noqa: PLC0415

    async def handle(request: web.BaseRequest) -> web.Response:  # noqa: ARG001 - aiohttp's signature
        return web.Response(body=BODY, content_type="application/json")

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


SERVERS: Final[dict[str, Callable[[], Awaitable[None]]]] = {"ours": serve_ours, "aiohttp": serve_aiohttp}


# The load.


class Client(asyncio.Protocol):
    """One keep-alive connection that asks again as soon as it is answered."""

    def __init__(self, counter: list[int]) -> None:
        self._counter = counter
        self._transport: Any = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for the first time."""
        self._transport = transport
        self._transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        """Count an answer that is whole."""
        self._received += data
        if self._received.endswith(BODY):
            if not self._received.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(self._received[:200].decode("latin-1"))
            self._received = b""
            self._counter[0] += 1
            self._transport.write(REQUEST)


async def load(port: int, pid: int) -> tuple[float, float]:
    """Return requests a second and CPU microseconds of the server per answered request."""
    loop = asyncio.get_running_loop()
    counter = [0]
    transports = [
        (await loop.create_connection(lambda: Client(counter), "127.0.0.1", port))[0] for _ in range(CONNECTIONS)
    ]
    await asyncio.sleep(WARM_UP_SECONDS)
    process = psutil.Process(pid)
    started, answered, cpu = time.perf_counter(), counter[0], sum(process.cpu_times()[:2])
    await asyncio.sleep(DURATION_SECONDS)
    taken, answered, cpu = (
        time.perf_counter() - started,
        counter[0] - answered,
        sum(process.cpu_times()[:2]) - cpu,
    )
    for transport in transports:
        transport.close()
    return answered / taken, cpu / answered * 1e6


def measure(name: str, tree: Path) -> tuple[float, float]:
    """Start a server, load it, end it."""
    environment = {**os.environ, "PYTHONPATH": f"{tree}:{tree / 'gen' / 'python'}"}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__).resolve()), "--serve", name],
        env=environment,
        cwd=tree,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None  # noqa: S101 - it is a pipe
        port = int(process.stdout.readline())
        os.sched_setaffinity(process.pid, {SERVER_CORE})
        os.sched_setaffinity(0, {LOAD_CORE})
        return uvloop.run(load(port, process.pid))
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def older_tree(commit: str) -> Iterator[Path]:
    """Check a commit out into a folder of its own."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        subprocess.run(["git", "worktree", "add", "-q", "--detach", str(tree), commit], cwd=ROOT, check=True)
        try:
            yield tree
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=ROOT, check=True)


def compare(against: str | None) -> None:
    """Measure all servers, interleaved, and record the result."""
    from bench.report import Figure, write  # noqa: PLC0415 - the servers run without it

    runs: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    with contextlib.ExitStack() as stack:
        places = {"ours": ("ours", ROOT), "aiohttp": ("aiohttp", ROOT)}
        if against:
            places["ours_before"] = ("ours", stack.enter_context(older_tree(against)))
        for _ in range(RUNS):
            for label, (name, tree) in places.items():
                runs[label].append(measure(name, tree))
    figures = {}
    for label, pairs in runs.items():
        figures[f"{label}_requests"] = Figure(runs=[rate for rate, _ in pairs], unit="req/s")
        figures[f"{label}_cpu"] = Figure(runs=[cpu for _, cpu in pairs], unit="us")
    ratios = {
        f"ours_{what}/{other}_{what}": figures[f"ours_{what}"].value / figures[f"{other}_{what}"].value
        for other in runs
        if other != "ours"
        for what in ("cpu", "requests")
    }
    command = f"make bench-http1 AGAINST={against}" if against else "make bench-http1"
    write("http1", command, figures, ratios)


def main() -> None:
    """Run as a server or as the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--serve", choices=sorted(SERVERS))
    parser.add_argument("--against", default=os.environ.get("AGAINST") or None, help="an older commit to compare with")
    options = parser.parse_args()
    if options.serve:
        with contextlib.suppress(KeyboardInterrupt):
            uvloop.run(SERVERS[options.serve]())  # type: ignore[arg-type]  # coroutine functions
        return
    compare(options.against)


if __name__ == "__main__":
    main()
