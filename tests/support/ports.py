"""Ports for stand-ins that come and go: reserved for this process, so that nobody else's client ever meets them.

A port that the kernel chooses may be, a moment later, the one that a client of another test or of another test process
still tries to come back to. Reserved ones are used in turn, so that even here it is long before one comes again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from cli.stack.ports import free_ports, is_free

RESERVED_COUNT = 200

_ports: Iterator[int] | None = None


def next_port() -> int:
    """Return a port that nobody listens on."""
    global _ports  # noqa: PLW0603 one row of ports per process
    if _ports is None:
        _ports = itertools.cycle(free_ports(RESERVED_COUNT))
    return next(port for port in itertools.islice(_ports, RESERVED_COUNT) if is_free(port))
