"""Loopback ports: finding free ones, and saying which one is taken and how to choose another.

Automatic ports come from below the range that the kernel hands to outgoing connections (32768 and up on Linux), so a
client's connection cannot take one between its choice and its use; a lock file per port keeps stacks and test runs
that start at the same moment apart for as long as their processes live.
"""

from __future__ import annotations

import dataclasses
import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from cli.stack import StackError
from contract.services import SERVICES

LOOPBACK: Final = "127.0.0.1"
AUTOMATIC_PORTS: Final = range(15_000, 32_000)

# Part -> its usual port. `<service>` is its gRPC port, `<service>-metrics` its HTTP port.
DEFAULT_PORTS: Final[Mapping[str, int]] = {
    "edge": 8080,
    "edge-admin": 8081,
    "gateway": 8000,
    "gateway-metrics": 9106,
    **{name: service.rpc_port for name, service in SERVICES.items()},
    **{f"{name}-metrics": service.metrics_port for name, service in SERVICES.items()},
    "postgres": 55432,
    "redis": 56379,
    "kafka": 59092,
    "kafka-controller": 59093,
    "upstream": 9900,
    "smtp": 1025,
}

_held_locks: list[int] = []  # descriptors, closed by the end of the process


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The port of every part."""

    by_part: Mapping[str, int]

    def __getitem__(self, part: str) -> int:
        return self.by_part[part]

    def address(self, part: str) -> str:
        """Return `host:port` of a part."""
        return f"{LOOPBACK}:{self.by_part[part]}"

    def url(self, part: str) -> str:
        """Return the HTTP address of a part."""
        return f"http://{self.address(part)}"

    def require_free(self, parts: list[str]) -> None:
        """Refuses the first port of these parts that is taken.

        Raises:
            StackError: naming the port, the part that needs it and the option that chooses another.
        """
        for part in parts:
            if not is_free(self[part]):
                raise StackError(
                    f"port {self[part]} for {part} is taken: stop whoever uses it, "
                    f"or choose another with --{part}-port or --ports auto"
                )


def choose(given: Mapping[str, int | None], *, automatic: bool) -> Ports:
    """Return the ports: those given, and for the rest the usual or free ones.

    Args:
        given: Ports that were asked for, by part.
        automatic: Takes free ports instead of the usual ones.
    """
    rest = [part for part in DEFAULT_PORTS if given.get(part) is None]
    chosen = dict(zip(rest, free_ports(len(rest)), strict=True)) if automatic else {p: DEFAULT_PORTS[p] for p in rest}
    return Ports(by_part={part: given.get(part) or chosen[part] for part in DEFAULT_PORTS})


def free_ports(count: int) -> list[int]:
    """Return `count` different ports that nobody listens on, kept from other callers while this process lives."""
    folder = Path(tempfile.gettempdir()) / f"tollway-ports-{os.geteuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found: list[int] = []
    for port in random.sample(AUTOMATIC_PORTS, len(AUTOMATIC_PORTS)):
        if len(found) == count:
            return found
        if _lock(folder / str(port)) and is_free(port):
            found.append(port)
    raise StackError(f"no {count} free ports between {AUTOMATIC_PORTS.start} and {AUTOMATIC_PORTS.stop}")


def is_free(port: int) -> bool:
    """Says whether a listener could be bound to the loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of an earlier run that linger in TIME_WAIT do not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except OSError:
            return False
        return True


def _lock(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return False
    _held_locks.append(descriptor)
    return True
