"""One installation: what it is asked to be, and what every part of it has to know about the others once it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from cli.stack.layout import Layout
from cli.stack.ports import Ports
from cli.stack.secrets import Secrets
from cli.stack.servers.roles import PostgresAccess


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What the command line asked for."""

    data_dir: Path
    given_ports: Mapping[str, int | None]
    automatic_ports: bool = False
    workers: int = 0
    with_kafka: bool = False
    reset: bool = False
    postgres_admin_dsn: str | None = None
    redis_url: str | None = None
    kafka_bootstrap: str | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Installation:
    """Where things are and what opens them, embedded or external alike."""

    layout: Layout
    ports: Ports
    secrets: Secrets
    postgres: PostgresAccess
    redis_url: str
    kafka_bootstrap: str | None
    workers: int
