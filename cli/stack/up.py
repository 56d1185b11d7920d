"""`tollway up`: starts everything in order, keeps it running, and takes it all down again.

One thread, no event loop of its own: children are forked by the main thread alone (their life hangs on it), and a
signal becomes `KeyboardInterrupt` wherever the start happens to be. Whatever was started is on one exit stack, so
every way out stops it in the opposite order: the edge first, while the services that it drains to still answer, the
databases last. `stack.json` appears when the stack is usable and is gone before anything stops.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from cli.seed import migrate_and_seed, subscribe
from cli.stack import StackError, children, ports, stack_file
from cli.stack.children import Child
from cli.stack.installation import Installation, Options
from cli.stack.layout import Layout, locked, write_json
from cli.stack.parts import inherited_environment, parts
from cli.stack.process import last_line
from cli.stack.servers.running import running_servers
from contract.services import SERVICES

POLL_SECONDS: Final = 0.1
# Looking for the edge's workers walks over every process of the machine: not on every turn.
DESCRIBE_EVERY_TURNS: Final = 10


class RunningStack:
    """A stack that is up.

    Args:
        installation: Where things are.
        own_pids: Pids of servers that are ours besides the children.
        running: The children by name.
    """

    def __init__(self, installation: Installation, own_pids: Mapping[str, int], running: dict[str, Child]) -> None:
        self.installation = installation
        self._own_pids = own_pids
        self._running = running
        self._described: dict[str, list[int]] = {}

    def describe(self) -> None:
        """Write `stack.json` where processes have changed since it was last written."""
        pids = {"supervisor": [os.getpid()], **{name: [pid] for name, pid in self._own_pids.items()}}
        pids |= {name: child.pids() for name, child in self._running.items()}
        if pids != self._described:
            write_json(self.installation.layout.stack_file, stack_file.describe(self.installation, pids), mode=0o600)
            self._described = pids

    def raise_if_server_dead(self) -> None:
        """Raise for the first of our servers that has ended; nothing goes on without one.

        Raises:
            StackError: naming it and its log.
        """
        for name, pid in self._own_pids.items():
            if not stack_file.is_running(pid):
                path = self.installation.layout.log(name)
                raise StackError(f"{name} has ended: {last_line(path)} (log: {path})")

    def dead(self) -> list[Child]:
        """Return the children that have ended."""
        return [child for child in self._running.values() if child.process.poll() is not None]

    def restart(self, name: str) -> None:
        """Start a child anew, in place of one that ended or is to be replaced.

        Raises:
            StackError: when the new one does not become ready.
        """
        children.stop([self._running[name]])
        self._running[name] = children.start(self._running[name].part)
        children.wait_until_ready([self._running[name]])

    def sources(self) -> dict[str, tuple[str, ...]]:
        """Return the source folders of every child."""
        return {name: tuple(child.part.sources) for name, child in self._running.items()}

    def serve(self, on_turn: Callable[[], None]) -> None:
        """Stays until a signal comes or a server of ours ends.

        Args:
            on_turn: Called several times a second; decides what a dead child means.

        Raises:
            StackError: what ended the stack.
        """
        for turn in itertools.count():
            self.raise_if_server_dead()
            on_turn()
            if turn % DESCRIBE_EVERY_TURNS == 0:
                self.describe()
            time.sleep(POLL_SECONDS)


@contextlib.contextmanager
def running_stack(options: Options, say: Callable[[str], None]) -> Iterator[RunningStack]:
    """Start the stack, yield it when everything is ready, and stop it at the end.

    Args:
        options: What to start and where.
        say: Told in a few words what is going on.

    Raises:
        StackError: whatever the reason, in one line.
    """
    layout = Layout(data_dir=options.data_dir.resolve())
    try:
        layout.data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StackError(
            f"{layout.data_dir} cannot be written ({error.strerror}): choose another --data-dir"
        ) from error
    with contextlib.ExitStack() as cleanup:
        cleanup.enter_context(_stoppable())
        cleanup.enter_context(locked(layout.lock))
        stack_file.clear_leftovers(layout, say)
        _reset_if_asked(options, layout)
        layout.create()
        chosen = ports.choose(options.given_ports, automatic=options.automatic_ports)
        chosen.require_free(_needed_ports(options))
        servers = cleanup.enter_context(running_servers(options, layout, chosen, say))
        installation = servers.installation
        new_count = asyncio.run(migrate_and_seed(installation))
        say(f"database is migrated, {new_count} demo organizations are new")
        running: dict[str, Child] = {}
        cleanup.callback(_stop_in_order, running)
        for part in parts(installation, inherited_environment()):
            running[part.name] = children.start(part)
        children.wait_until_ready(list(running.values()))
        say(f"{len(running)} processes ready")
        degraded = children.wait_until_whole(running["edge"])
        if degraded:
            say(f"the edge is degraded: {degraded}")
        addresses = {name: chosen.address(name) for name in SERVICES}
        subscribe(addresses, installation.secrets)
        stack = RunningStack(installation, servers.pids, running)
        cleanup.callback(layout.stack_file.unlink, missing_ok=True)
        stack.describe()
        yield stack


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Turn SIGTERM and SIGHUP into KeyboardInterrupt, and let the clean-up finish once it has begun."""

    def interrupt(_number: int, _frame: object) -> None:
        for each in caught:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    caught = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(each, interrupt) for each in caught]
    try:
        yield
    finally:
        for each, handler in zip(caught, before, strict=True):
            signal.signal(each, handler)


def _reset_if_asked(options: Options, layout: Layout) -> None:
    if not options.reset:
        return
    if options.postgres_admin_dsn or options.redis_url:
        raise StackError("--reset deletes embedded data only: empty the external PostgreSQL and Redis yourself")
    layout.delete()


def _needed_ports(options: Options) -> list[str]:
    external = {"postgres": options.postgres_admin_dsn, "redis": options.redis_url}
    kafka_needed = options.with_kafka and not options.kafka_bootstrap
    unneeded = {part for part, given in external.items() if given}
    unneeded |= set() if kafka_needed else {"kafka", "kafka-controller"}
    return [part for part in ports.DEFAULT_PORTS if part not in unneeded]


def _stop_in_order(running: dict[str, Child]) -> None:
    """Stop the edge, then the gateway, then everything that they call."""
    for names in (["edge"], ["gateway"], [name for name in running if name not in ("edge", "gateway")]):
        children.stop([running[name] for name in names if name in running])
