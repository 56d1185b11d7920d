"""What a stack is asked to be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path


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
