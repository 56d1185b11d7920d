"""What every part of one running installation has to know about the others."""

from __future__ import annotations

import dataclasses

from cli.stack.layout import Layout
from cli.stack.ports import Ports
from cli.stack.roles import PostgresAccess
from cli.stack.secrets import Secrets


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
