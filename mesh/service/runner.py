"""Runs a service: one order of set-up and clean-up for all of them.

A `ServiceSpec` says what a service is: its name, its contract, its settings and, per role, a function that wires the
role. `run` does the rest: it reads the command line and the environment, opens the database and the clients, wires the
roles that were asked for, starts their background work, the health listener and the gRPC server, and waits.

**The way down** is the way up in reverse. New calls are refused and running ones get `stop_grace_seconds`; work that
ends by itself (`Role.workers`) is awaited; loops are cancelled; then health, clients and database are closed. Workers
learn of the stop at once, so that a stream that waits for one of them ends before the grace is over.

**What fails.** A set-up that fails undoes what it has done and ends the process with status 1. A background task that
fails cancels everything else (see `process`), and the same clean-up runs.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar

import grpc.aio
from google.protobuf.descriptor import ServiceDescriptor

from contract.services import ForeignService
from mesh import config
from mesh.audit import AuditTrail, denial_of
from mesh.clock import Clock, SystemClock
from mesh.config import ServiceSettings
from mesh.database.pools import Database
from mesh.ids import IdSource, RandomIds
from mesh.rpc.access import Verifier
from mesh.rpc.client import Clients
from mesh.rpc.denials import Denials
from mesh.rpc.interceptors import OnDenied
from mesh.rpc.principals import Principals
from mesh.rpc.server import OfferedService, Server
from mesh.rpc.tls import server_credentials
from mesh.service import process
from mesh.service.listener import Check, HealthListener
from mesh.service.process import ProcessContext

STOP_GRACE_SECONDS: Final = 5.0

Settings = TypeVar("Settings", bound=ServiceSettings)
Loop = Callable[[], Coroutine[Any, Any, None]]
"""Work that runs until it is cancelled, or is done."""
Work = Callable[[asyncio.Event], Coroutine[Any, Any, None]]
"""Background work that ends by itself once the event is set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceContext(Generic[Settings]):
    """What a role is wired from. All roles of a process share it."""

    settings: Settings
    db: Database
    clients: Clients
    clock: Clock
    ids: IdSource
    tasks: asyncio.TaskGroup


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One role, wired: what it serves and what it does in the background."""

    handler: Any = None
    """Answers the service's RPCs; None for a role that serves none."""
    beside: Sequence[OfferedService] = ()
    """Services of other contracts that are answered on the same port; their rules are in `ServiceSpec.foreign`."""
    verifier: Verifier | None = None
    """Checks credentials; None means by asking `auth`."""
    on_denied: OnDenied | None = None
    """Is told of calls that were denied; None means that they are counted and told to `auth`."""
    loops: Sequence[Loop] = ()
    workers: Sequence[Work] = ()
    loaded: Loop | None = None
    """Returns once the role may serve."""
    required: Mapping[str, Check] = field(default_factory=dict)
    """What the role cannot do without, beside the database."""
    optional: Mapping[str, Check] = field(default_factory=dict)
    """What the role is degraded without."""
    close: Sequence[Loop] = ()
    """Runs after the loops have ended and before clients and database are closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSpec(Generic[Settings]):
    """What differs between services; `run` does the rest alike for all."""

    name: str
    descriptor: ServiceDescriptor
    register: Callable[[Any, grpc.aio.Server], None]
    settings: type[Settings]
    roles: Mapping[str, Callable[[ServiceContext[Settings]], Role]]
    """Wires each role; `--role` chooses among them."""
    foreign: Sequence[ForeignService] = ()
    """The services of other contracts that a role may answer beside its own, as the catalogue has them."""
    database_required: bool = True
    """Whether the service is of no use while its database is away, or only degraded."""
    stop_grace_seconds: float = STOP_GRACE_SECONDS
    """How long running calls may go on. Streams stay open until they are cut, so a service with streams says less."""


def run(spec: ServiceSpec[Settings]) -> None:
    """Run a service until it is told to stop."""
    roles = process.read_roles(f"services.{spec.name}", tuple(spec.roles))
    settings = config.load(spec.settings)

    async def main(context: ProcessContext) -> None:
        await serve(spec, settings, roles, context)

    process.run(spec.name, settings, main)


async def serve(
    spec: ServiceSpec[Settings], settings: Settings, roles: frozenset[str], process_context: ProcessContext
) -> None:
    """Set a service up, wait until it is told to stop, and let go of everything.

    Args:
        spec: The service.
        settings: What its environment says.
        roles: Which of its roles to run.
        process_context: Owns the background work and says when to stop.

    Raises:
        OSError, asyncpg.PostgresError: An address is taken, or the database cannot be reached.
    """
    async with contextlib.AsyncExitStack() as cleanup:
        context = await _open(spec, settings, process_context, cleanup)
        wired = [_count_denials(spec.roles[name](context), context) for name in spec.roles if name in roles]
        principals = Principals(clock=context.clock)
        if any(_asks_auth(role) for role in wired):
            wired.append(_watch_principals(context, principals))
        _start_background(wired, process_context, cleanup)
        if await _loaded(wired, process_context.stopping):
            await _start_serving(spec, context, wired, principals, cleanup)
        await process_context.stopping.wait()


async def _open(
    spec: ServiceSpec[Settings],
    settings: Settings,
    process_context: ProcessContext,
    cleanup: contextlib.AsyncExitStack,
) -> ServiceContext[Settings]:
    clock = SystemClock()
    read_dsn = settings.read_dsn
    db = await Database.connect(
        tenant_dsn=settings.tenant_dsn.get_secret_value(),
        system_dsn=settings.system_dsn.get_secret_value(),
        read_dsn=read_dsn.get_secret_value() if read_dsn else None,
        name=spec.name,
    )
    cleanup.push_async_callback(db.close)
    clients = Clients(settings, process=spec.name, clock=clock)
    cleanup.push_async_callback(clients.close)
    return ServiceContext(
        settings=settings, db=db, clients=clients, clock=clock, ids=RandomIds(), tasks=process_context.tasks
    )


def _count_denials(role: Role, context: ServiceContext[Settings]) -> Role:
    """Have calls that the role denies counted, unless the role sees to that itself."""
    if role.handler is None or role.on_denied is not None:
        return role
    trail = AuditTrail(context.clients.auth)
    denials = Denials(take=trail.append_denials, clock=context.clock, ids=context.ids)
    return replace(role, on_denied=lambda denied: denials.note(denial_of(denied)), workers=[*role.workers, denials.run])


def _start_background(
    wired: Sequence[Role], process_context: ProcessContext, cleanup: contextlib.AsyncExitStack
) -> None:
    tasks, stopping = process_context.tasks, process_context.stopping
    for role in wired:
        for close in role.close:
            cleanup.push_async_callback(close)
    loops = [tasks.create_task(loop()) for role in wired for loop in role.loops]
    cleanup.push_async_callback(_cancel, loops)
    workers = [tasks.create_task(work(stopping)) for role in wired for work in role.workers]
    cleanup.push_async_callback(_finish, workers, stopping)


def _asks_auth(role: Role) -> bool:
    return role.handler is not None and role.verifier is None


def _watch_principals(context: ServiceContext[Settings], principals: Principals) -> Role:
    """Hear of ended sessions and the like; without that tokens go on working until they end."""
    watch = context.clients.watch_principals(principals)
    return Role(loops=[watch.run], optional={"principals": watch.check})


async def _loaded(wired: Sequence[Role], stopping: asyncio.Event) -> bool:
    """Wait until every role may serve; False where the process is told to stop before."""
    waits = [role.loaded() for role in wired if role.loaded is not None]
    if not waits:
        return True
    loading, told_to_stop = asyncio.gather(*waits), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait((loading, told_to_stop), return_when=asyncio.FIRST_COMPLETED)
        if loading.done():
            loading.result()
        return not stopping.is_set()
    finally:
        loading.cancel()
        told_to_stop.cancel()
        await asyncio.gather(loading, told_to_stop, return_exceptions=True)


async def _start_serving(
    spec: ServiceSpec[Settings],
    context: ServiceContext[Settings],
    wired: Sequence[Role],
    principals: Principals,
    cleanup: contextlib.AsyncExitStack,
) -> None:
    required: dict[str, Check] = {name: check for role in wired for name, check in role.required.items()}
    optional: dict[str, Check] = {name: check for role in wired for name, check in role.optional.items()}
    (required if spec.database_required else optional)["postgres"] = context.db.ping
    health = HealthListener(required=required, optional=optional)
    await health.start(context.settings.metrics_listen)
    cleanup.push_async_callback(health.stop)
    for role in wired:
        if role.handler is not None:
            server = await Server.start(
                name=spec.name,
                listen=context.settings.listen,
                services=[(spec.descriptor, spec.register, role.handler), *role.beside],
                foreign=spec.foreign,
                verifier=role.verifier or context.clients.verifier(context.clock, principals),
                clock=context.clock,
                ids=context.ids,
                checks=required,
                credentials=server_credentials(context.settings),
                on_denied=role.on_denied,
            )
            cleanup.push_async_callback(server.stop, spec.stop_grace_seconds)


async def _cancel(loops: Sequence[asyncio.Task[None]]) -> None:
    for loop in loops:
        loop.cancel()
    await asyncio.gather(*loops, return_exceptions=True)


async def _finish(workers: Sequence[asyncio.Task[None]], stopping: asyncio.Event) -> None:
    # Where the set-up failed nobody has told the workers yet.
    stopping.set()
    await asyncio.gather(*workers, return_exceptions=True)
