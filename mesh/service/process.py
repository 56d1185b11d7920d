"""Runs a process: uvloop, logs, signals, and one task group that owns all background work.

SIGTERM and SIGINT set `stopping`; `main` waits for it and returns when it has let go of everything. A background task
that fails ends the process with status 1 and one log line, so that whoever supervises it can act.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

import structlog
import uvloop

from mesh import observability
from mesh.config import ProcessSettings

log = structlog.get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessContext:
    """What a process's `main` is given."""

    stopping: asyncio.Event
    tasks: asyncio.TaskGroup


def read_roles(process: str, known: Sequence[str]) -> frozenset[str]:
    """Read `--role a,b` from the command line; without it the process has every role.

    Args:
        process: The process, for the usage line.
        known: The roles that it can have.
    """
    parser = argparse.ArgumentParser(prog=process)
    parser.add_argument("--role", default=",".join(known), help=f"comma-separated: {', '.join(known)}")
    roles = frozenset(parser.parse_args().role.split(","))
    if not roles <= frozenset(known):
        parser.error(f"--role takes {', '.join(known)}")
    return roles


def run(name: str, settings: ProcessSettings, main: Callable[[ProcessContext], Awaitable[None]]) -> None:
    """Run `main` until it returns, then exit with 0, or with 1 where something failed.

    Args:
        name: The process, for logs and traces.
        settings: Level and form of logs, where traces go.
        main: Wires and serves; returns once `stopping` is set.
    """
    observability.configure(name, settings)
    # What was imported lives for ever: keep the collector from walking it again and again.
    gc.collect()
    gc.freeze()
    try:
        uvloop.run(_run(main))
    except BaseExceptionGroup as group:
        for error in group.exceptions:
            log.critical("process_failed", error=repr(error), exc_info=error)
        sys.exit(1)
    except OSError as error:
        log.critical("process_failed", error=str(error))
        sys.exit(1)
    finally:
        observability.flush_traces()


async def _run(main: Callable[[ProcessContext], Awaitable[None]]) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with asyncio.TaskGroup() as tasks:
        await main(ProcessContext(stopping=stopping, tasks=tasks))
        # Background loops have nothing left to serve.
        stopping.set()
