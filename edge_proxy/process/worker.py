"""One worker: wires everything together and serves the socket that the supervisor handed over.

Started by the supervisor as a process of its own (never forked, because gRPC's threads do not survive a fork). It talks
to the supervisor over one inherited socket: JSON lines with its state and numbers, and it ends when that socket does.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import os
import resource
import signal
import socket
import time
from pathlib import Path
from typing import Any, Final

import structlog
from tollway.auth.v1 import auth_service_pb2 as auth
from tollway.ratelimit.v1 import ratelimit_service_pb2 as ratelimit

from edge_proxy.config import EdgeSettings
from edge_proxy.http1.client.pool import Sweep
from edge_proxy.http1.server.acceptor import Acceptor
from edge_proxy.http1.server.options import ServerOptions
from edge_proxy.http1.server.protocol import Server
from edge_proxy.keys.cache import KeyCache
from edge_proxy.keys.files import KeyFiles
from edge_proxy.keys.resolve import KeyResolver
from edge_proxy.keys.saver import KeySaver
from edge_proxy.keys.uses import KeyUses
from edge_proxy.keys.watch import KeyWatch
from edge_proxy.limiter import decide_client
from edge_proxy.limiter.decide_client import DecideClient
from edge_proxy.limiter.local_share import LocalShare
from edge_proxy.limiter.policy import Policies
from edge_proxy.pipeline import client_fields, generation
from edge_proxy.pipeline.access_log import AccessLog
from edge_proxy.pipeline.admit import Admission
from edge_proxy.pipeline.authenticate import Authenticator
from edge_proxy.pipeline.endings import Endings
from edge_proxy.pipeline.forward import Forwarder
from edge_proxy.pipeline.handle import Pipeline, Steps
from edge_proxy.pipeline.key_misses import KeyMisses
from edge_proxy.pipeline.record import Recorder
from edge_proxy.pipeline.relay import Relay
from edge_proxy.pipeline.route import Router
from edge_proxy.process.metrics import WorkerMetrics
from edge_proxy.process.routes_in_force import RoutesInForce
from edge_proxy.routing import file as routes_file
from edge_proxy.routing.routes import RouteTable
from edge_proxy.usage.journal import quarantine
from edge_proxy.usage.journal.writer import JournalWriter
from edge_proxy.usage.sink.base import Sink
from edge_proxy.usage.sink.ingest import IngestSink
from edge_proxy.usage.sink.kafka import KafkaSink
from edge_proxy.usage.sink.sender import Sender
from mesh.config import load
from mesh.ids import RandomIds
from mesh.rpc.client import Clients
from mesh.service import process

PROCESS_NAME: Final = "edge_proxy"
REPORT_SECONDS: Final = 1.0
LAG_SECONDS: Final = 0.5
FLUSH_SECONDS_MAX: Final = 5.0
GC_THRESHOLD: Final = 50_000
_PR_SET_PDEATHSIG: Final = 1

log = structlog.get_logger()


class Worker:
    """A worker's parts and what happens to them.

    Args:
        settings: The environment.
        table: The routes file, compiled.
        routes_path: Where the routes in force are read from on reload.
        index: Which worker this is; the first one writes the key snapshot.
        server_options: Patience with clients.
    """

    def __init__(
        self,
        settings: EdgeSettings,
        table: RouteTable,
        routes_path: Path,
        index: int,
        server_options: ServerOptions,
    ) -> None:
        self._settings = settings
        self._routes_path = routes_path
        self._routes_in_force = RoutesInForce(settings.edge_config, routes_file.read_text(routes_path))
        self._journals = settings.edge_data_dir / "journal"
        self._quarantined_files = quarantine.count(self._journals)
        ids = RandomIds()
        self._clients = Clients(settings, process=PROCESS_NAME)
        self.metrics = WorkerMetrics()
        self._cache = KeyCache()
        self._key_files = KeyFiles(settings.edge_data_dir)
        self._key_saver = KeySaver(self._cache, self._key_files, writes_snapshots=index == 0)
        self._watch = KeyWatch(self._cache, self._open_watch, lambda: self._clients.reopen("auth"))
        self._key_uses = KeyUses(self._report_key_uses)
        self._resolver = KeyResolver(self._cache, self._resolve_keys, self._key_uses)
        self._policies = Policies()
        self._share = LocalShare(self._policies, lambda: time.monotonic_ns() // 1_000_000)
        self._limiter = DecideClient(
            self._open_decide,
            deadline_seconds=settings.edge_decision_deadline_ms / 1000,
            policies=self._policies,
            share=self._share,
        )
        self._journal = JournalWriter(
            self._journals,
            ids.uuid7(),
            bytes_max=settings.edge_journal_bytes_max,
            segment_bytes_max=settings.edge_journal_segment_bytes_max,
            sync_interval_seconds=settings.edge_journal_sync_ms / 1000,
        )
        self._sink = self._open_sink()
        self._sender = Sender(self._journals, self._journal, self._sink)
        self._sweep = Sweep()
        self._router = Router(generation.build(table, self._sweep))
        self._pipeline = self._wire(ids)
        self.server = Server(self._pipeline.handle, self._pipeline.refuse_early, server_options)

    def _wire(self, ids: RandomIds) -> Pipeline:
        """Put the steps of a request's way together."""

        def now_us() -> int:
            return time.time_ns() // 1_000

        recorder = Recorder(journal=self._journal, limiter=self._limiter, metrics=self.metrics)
        relay = Relay(sweep=self._sweep, recorder=recorder, now_us=now_us)
        steps = Steps(
            router=self._router,
            authenticator=Authenticator(
                peppers=self._settings.peppers(),
                keys=self._resolver,
                misses=KeyMisses(time.monotonic),
                metrics=self.metrics,
                decision_deadline_ms=self._settings.edge_decision_deadline_ms,
            ),
            admission=Admission(
                limiter=self._limiter,
                share=self._share,
                policies=self._policies,
                journal=self._journal,
                metrics=self.metrics,
                now_us=now_us,
            ),
            forwarder=Forwarder(sweep=self._sweep, relay=relay, metrics=self.metrics),
            endings=Endings(recorder=recorder, metrics=self.metrics, now_us=now_us),
        )
        return Pipeline(
            steps=steps,
            access_log=AccessLog(self._settings.edge_access_log_rate),
            metrics=self.metrics,
            ids=ids,
            now_us=now_us,
            health=self.health,
        )

    def start(self, tasks: asyncio.TaskGroup) -> list[asyncio.Task[None]]:
        """Start the background work."""
        try:
            stored = self._key_files.load()
        except OSError as error:
            stored = None
            log.error("key_files_not_read", error=str(error))  # noqa: TRY400 - the reason says it all
        if stored is not None:
            self._cache.put_stored(stored.grants, stored.prefixes, now=asyncio.get_running_loop().time())
        coroutines = (
            self._watch.run(),
            self._limiter.run(),
            self._journal.tend_forever(),
            self._sender.run(),
            self._key_saver.run(),
            self._key_uses.run(),
            self._measure_lag(),
            self._routes_in_force.watch(),
        )
        return [tasks.create_task(coroutine) for coroutine in coroutines]

    def reload(self) -> None:
        """Read the routes file again; a wrong one changes nothing."""
        try:
            text = routes_file.read_text(self._routes_path)
            table = routes_file.parse(text, os.environ)
            before, after = self._router.generation, generation.build(table, self._sweep, self._router.generation)
        except (routes_file.RoutesFileError, ValueError, OSError) as error:
            violations = error.violations if isinstance(error, routes_file.RoutesFileError) else [str(error)]
            self.metrics.counters["reloads_refused"] += 1
            self._routes_in_force.check()
            log.error("routes_refused", violations=violations)  # noqa: TRY400 - the reason says it all
            return
        self._router.generation = after
        generation.retire(before, after)
        self._routes_in_force.take(text)
        self.metrics.counters["reloads"] += 1
        log.info("routes_loaded", routes=len(table.routes))

    async def stop(self) -> None:
        """Finish what is in flight and send what is journalled, within bounds."""
        await self.server.drain(self._settings.edge_drain_seconds)
        is_flushed = await self._sender.flush(FLUSH_SECONDS_MAX)
        log.info("worker_drained", journal_flushed=is_flushed)

    async def close(self) -> None:
        """Let go of everything; after the background work has ended."""
        self._sweep.close()
        await self._sink.close()
        self._journal.close()
        await self._key_uses.report()
        await self._clients.close()
        await self._key_saver.save_changes()
        await self._key_saver.save_snapshot()

    def degraded(self) -> list[str]:
        """Return what is away at the moment, by name and reason."""
        reasons = []
        if not self._watch.is_connected:
            reasons.append(f"auth: key watch is not connected ({self._watch.reason})")
        if not self._key_saver.is_writing:
            reasons.append("keys: changes cannot be written to the disk")
        if not self._limiter.is_healthy:
            reasons.append("ratelimit: decisions are made locally")
        if self._routes_in_force.reason:
            reasons.append(self._routes_in_force.reason)
        if not self._sink.is_available:
            reasons.append("metering: events wait in the journal")
        if self._journal.is_blocked:
            reasons.append(f"journal: cannot be written: {self._journal.blocked_by}")
        if self._quarantined_files or self._sender.damage():
            reasons.append("journal: some of it could not be read (see quarantine in the data folder)")
        return reasons

    def is_ready(self) -> bool:
        """Tell whether requests can be served: routes and keys are loaded, the journal takes events."""
        return self._cache.is_loaded and self._journal.has_room(1) and not self.server.is_draining

    def health(self, path: str) -> tuple[int, bytes]:
        """Answer a health question."""
        if path == "/health/live":
            return 200, b'{"status":"live"}'
        is_ready = self.is_ready()
        body = {"status": "ready" if is_ready else "not ready", "degraded": self.degraded()}
        return (200 if is_ready else 503), json.dumps(body).encode()

    def report(self) -> dict[str, Any]:
        """Return state and numbers for the supervisor."""
        self._quarantined_files = quarantine.count(self._journals)
        self.metrics.gauges.update(
            journal_bytes=self._journal.bytes_held,
            journal_lag_bytes=self._sender.lag_bytes,
            journal_adopted_bytes=self._journal.adopted_bytes,
            journal_quarantined_files=self._quarantined_files,
            journal_blocked=float(self._journal.is_blocked),
            keys_held=len(self._cache),
            connections=len(self.server.connections),
            requests_in_flight=self._pipeline.in_flight,
            degraded=len(self.degraded()),
        )
        self.metrics.counters["sink_acknowledged_batches"] = self._sender.acknowledged_batches
        self.metrics.counters["sink_failures"] = self._sender.failures
        self.metrics.counters["connections_refused"] = self.server.connections_refused
        self.metrics.counters["sink_dead_events"] = self._sink.dead_events
        self._report_journal()
        self.metrics.counters["journals_adopted"] = self._sender.adopted
        self.metrics.counters["decision_batches"] = self._limiter.batches
        return {"ready": self.is_ready(), "degraded": self.degraded(), "metrics": self.metrics.snapshot()}

    def _resolve_keys(self, request: auth.ResolveKeysRequest, *, timeout: float) -> Any:
        # Looked up for each call: the channel may have been left behind.
        return self._clients.auth.ResolveKeys(request, timeout=timeout)

    def _report_key_uses(self, request: auth.ReportKeyUsesRequest, *, timeout: float) -> Any:
        return self._clients.auth.ReportKeyUses(request, timeout=timeout)

    def _report_journal(self) -> None:
        damage, counters = self._sender.damage(), self.metrics.counters
        counters["journal_corrupt_bytes"] = damage.corrupt_bytes
        counters["journal_gap_bytes"] = damage.gap_bytes
        counters["journal_torn_bytes"] = damage.torn_bytes
        counters["journal_damaged_headers"] = damage.headers
        counters["journal_write_failures"] = self._journal.write_failures
        counters["journal_sync_failures"] = self._journal.sync_failures
        counters["journal_recoveries"] = self._journal.recoveries

    def _open_watch(self) -> Any:
        return self._clients.auth.WatchKeys(auth.WatchKeysRequest(), metadata=self._metadata("auth"))

    def _open_decide(self) -> Any:
        channel: Any = self._clients.channel("ratelimit")
        decide = channel.stream_stream(decide_client.METHOD, response_deserializer=ratelimit.DecideResponse.FromString)
        return decide(metadata=self._metadata("ratelimit"))

    def _open_ingest(self) -> Any:
        stub: Any = self._clients.metering
        return stub.Ingest(metadata=self._metadata("metering"))

    def _metadata(self, service: str) -> Any:
        return tuple(self._clients.metadata(service))

    def _open_sink(self) -> Sink:
        if self._settings.kafka_bootstrap:
            return KafkaSink(self._settings.kafka_bootstrap)
        return IngestSink(self._open_ingest)

    async def _measure_lag(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            before = loop.time()
            await asyncio.sleep(LAG_SECONDS)
            self.metrics.gauges["event_loop_lag_seconds"] = max(0.0, loop.time() - before - LAG_SECONDS)


class Control:
    """The socket to the supervisor."""

    def __init__(self, control: socket.socket, worker: Worker) -> None:
        control.setblocking(False)
        self._control = control
        self._worker = worker

    async def run(self, stopping: asyncio.Event) -> None:
        """Report on request and every second; a closed socket means that the supervisor is gone."""
        reader, writer = await asyncio.open_connection(sock=self._control)
        reporter = asyncio.create_task(self._report_forever(writer))
        try:
            while await reader.readline():
                self._write(writer)
        except OSError:
            pass
        finally:
            reporter.cancel()
            writer.close()
            stopping.set()

    async def _report_forever(self, writer: asyncio.StreamWriter) -> None:
        while True:
            self._write(writer)
            await asyncio.sleep(REPORT_SECONDS)

    def _write(self, writer: asyncio.StreamWriter) -> None:
        if writer.transport.get_write_buffer_size() == 0:
            writer.write(json.dumps(self._worker.report(), separators=(",", ":")).encode() + b"\n")


def server_options(settings: EdgeSettings) -> ServerOptions:
    """Return what the environment says about client connections."""
    return ServerOptions(
        connections_max=settings.edge_connections_max,
        connections_per_client_max=settings.edge_connections_per_client_max,
        trust=settings.trust(),
        proxy_protocol=settings.edge_proxy_protocol,
        fields=client_fields.RULES,
    )


async def serve(settings: EdgeSettings, context: process.ProcessContext, options: argparse.Namespace) -> None:
    """Serve until told to stop, then drain."""
    worker = Worker(settings, routes_file.read(options.routes), options.routes, options.index, server_options(settings))
    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, worker.reload)
    background = worker.start(context.tasks)
    acceptor = Acceptor(socket.socket(fileno=options.listen_fd), worker.server)
    acceptor.start()
    control = Control(socket.socket(fileno=options.control_fd), worker)
    background.append(context.tasks.create_task(control.run(context.stopping)))
    log.info("worker_started", index=options.index, pid=os.getpid())
    await context.stopping.wait()
    await acceptor.stop()
    await worker.stop()
    for task in background:
        task.cancel()
    await asyncio.gather(*background, return_exceptions=True)
    await worker.close()


def main() -> None:
    """Run as a child of the supervisor."""
    parser = argparse.ArgumentParser(prog="edge_proxy.process.worker")
    parser.add_argument("--listen-fd", type=int, required=True)
    parser.add_argument("--control-fd", type=int, required=True)
    parser.add_argument("--index", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--routes", type=Path, required=True)
    options = parser.parse_args()
    _die_with(options.parent)
    settings = load(EdgeSettings)
    gc.set_threshold(GC_THRESHOLD, 20, 50)
    _raise_descriptor_limit()

    async def run(context: process.ProcessContext) -> None:
        await serve(settings, context, options)

    process.run(PROCESS_NAME, settings, run)


def _raise_descriptor_limit() -> None:
    """Use as many descriptors as this process may have; shells often start with 1,024."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when the supervisor ends in whatever way (prctl(2))."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        raise SystemExit("the supervisor is gone")


if __name__ == "__main__":
    main()
