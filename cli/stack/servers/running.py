"""The servers that the processes stand on: PostgreSQL, Redis, Kafka; ours, or given from outside."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from urllib.parse import unquote, urlsplit

import asyncpg

from cli.stack import StackError, secrets
from cli.stack.installation import Installation, Options
from cli.stack.layout import Layout
from cli.stack.ports import LOOPBACK, Ports
from cli.stack.secrets import Secrets
from cli.stack.servers import kafka, redis_program, roles
from cli.stack.servers.postgres import start_postgres
from cli.stack.servers.redis import start_redis

POSTGRES_PORT_DEFAULT = 5432


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunningServers:
    """Servers that are up."""

    installation: Installation
    # Pids of those that are ours.
    pids: Mapping[str, int]


@contextlib.contextmanager
def running_servers(
    options: Options, layout: Layout, ports: Ports, say: Callable[[str], None]
) -> Iterator[RunningServers]:
    """Start what is not given from outside, set PostgreSQL up for migrations, and stop what was started.

    Raises:
        StackError: whatever the reason, in one line.
    """
    kept = secrets.load_or_create(layout.secrets, database_exists=(layout.postgres / "initialized").exists())
    pids: dict[str, int] = {}
    with contextlib.ExitStack() as cleanup:
        access, admin_dsn = _postgres(options, layout, ports, kept, cleanup, pids)
        redis_url = _redis(options, layout, ports, kept, cleanup, pids, say)
        say("PostgreSQL and Redis are up")
        kafka_bootstrap = _kafka(options, layout, ports, cleanup, pids, say)
        asyncio.run(_set_up(admin_dsn, kept, kafka_bootstrap))
        installation = Installation(
            layout=layout,
            ports=ports,
            secrets=kept,
            postgres=access,
            redis_url=redis_url,
            kafka_bootstrap=kafka_bootstrap,
            workers=options.workers,
        )
        yield RunningServers(installation=installation, pids=pids)


def _postgres(  # noqa: PLR0917 one place calls it
    options: Options,
    layout: Layout,
    ports: Ports,
    kept: Secrets,
    cleanup: contextlib.ExitStack,
    pids: dict[str, int],
) -> tuple[roles.PostgresAccess, str]:
    """Return the services' access and the admin's connection string."""
    if options.postgres_admin_dsn:
        return _external_access(options.postgres_admin_dsn, kept), options.postgres_admin_dsn
    server = start_postgres(
        folder=layout.postgres,
        port=ports["postgres"],
        superuser_password=kept.postgres_passwords[roles.SUPERUSER],
        log_path=layout.log("postgres"),
    )
    cleanup.callback(server.stop)
    pids["postgres"] = server.process.pid
    access = roles.PostgresAccess(host=LOOPBACK, port=server.port, passwords=kept.postgres_passwords)
    return access, server.admin_dsn


def _external_access(admin_dsn: str, kept: Secrets) -> roles.PostgresAccess:
    target = urlsplit(admin_dsn)
    if target.scheme not in {"postgres", "postgresql"} or not target.hostname:
        raise StackError("TOLLWAY_POSTGRES_ADMIN_DSN must be postgresql://user:password@host:port/database")
    passwords = {login: kept.postgres_passwords[login] for login in roles.logins()}
    return roles.PostgresAccess(
        host=unquote(target.hostname), port=target.port or POSTGRES_PORT_DEFAULT, passwords=passwords
    )


def _redis(  # noqa: PLR0917 one place calls it
    options: Options,
    layout: Layout,
    ports: Ports,
    kept: Secrets,
    cleanup: contextlib.ExitStack,
    pids: dict[str, int],
    say: Callable[[str], None],
) -> str:
    if options.redis_url:
        return options.redis_url
    program = redis_program.find_program(say)
    server = start_redis(
        folder=layout.redis,
        port=ports["redis"],
        log_path=layout.log("redis"),
        password=kept.redis_password(),
        program=program,
    )
    cleanup.callback(server.stop)
    pids["redis"] = server.process.pid
    return server.url


def _kafka(  # noqa: PLR0917 one place calls it
    options: Options,
    layout: Layout,
    ports: Ports,
    cleanup: contextlib.ExitStack,
    pids: dict[str, int],
    say: Callable[[str], None],
) -> str | None:
    if options.kafka_bootstrap or not options.with_kafka:
        return options.kafka_bootstrap
    say("starting Kafka (the first time it is fetched with Maven)")
    broker = kafka.start_kafka(
        folder=layout.kafka,
        port=ports["kafka"],
        controller_port=ports["kafka-controller"],
        log_path=layout.log("kafka"),
    )
    cleanup.callback(broker.stop)
    pids["kafka"] = broker.process.pid
    return broker.bootstrap


async def _set_up(admin_dsn: str, kept: Secrets, kafka_bootstrap: str | None) -> None:
    try:
        await roles.bootstrap(admin_dsn, kept.postgres_passwords)
    except (OSError, asyncpg.PostgresError) as error:
        raise StackError(f"PostgreSQL cannot be set up: {error}") from error
    if kafka_bootstrap:
        await kafka.create_topics(kafka_bootstrap)
