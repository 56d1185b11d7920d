"""Runs the demo upstream: `python -m demo.upstream --listen 127.0.0.1:9900 [--served-log FILE]`."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path

import click
import uvloop
from aiohttp import web

from demo.upstream.handlers import Upstream
from demo.upstream.served import Served

SHUTDOWN_SECONDS_MAX = 5.0


async def serve(host: str, port: int, served: Served) -> None:
    """Serve until SIGTERM or SIGINT."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    runner = web.ServerRunner(web.Server(Upstream(served)), shutdown_timeout=SHUTDOWN_SECONDS_MAX)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, backlog=4_096).start()
        await stopping.wait()
    finally:
        await runner.cleanup()


@click.command()
@click.option("--listen", default="127.0.0.1:9900", show_default=True, help="host:port to listen on.")
@click.option("--served-log", type=click.Path(path_type=Path), help="File that a line per request is appended to.")
def main(listen: str, served_log: Path | None) -> None:
    """Run the demo upstream."""
    host, _, port = listen.rpartition(":")
    try:
        uvloop.run(serve(host, int(port), Served(log_path=served_log)))
    except OSError as error:
        print(f"demo upstream: {error}", file=sys.stderr)  # noqa: T201 it has no logger
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
