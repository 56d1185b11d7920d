"""Loopback ports: finding free ones, and saying which one is taken and how to choose another."""

from __future__ import annotations

import socket

from cli.stack.errors import StackError

LOOPBACK = "127.0.0.1"


def free_ports(count: int) -> list[int]:
    """Returns `count` different ports that nobody listens on right now.

    All sockets are held until the last one is chosen, so the ports differ from each other. Another process may take
    one before it is used; whoever then fails to bind says so.
    """
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_STREAM) for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [int(each.getsockname()[1]) for each in sockets]
    finally:
        for each in sockets:
            each.close()


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


def require_free(port: int, *, what: str, option: str) -> None:
    """Refuses a port that is taken.

    Raises:
        StackError: naming the port, the part that needs it and the option that chooses another.
    """
    if not is_free(port):
        raise StackError(
            f"port {port} for {what} is taken: stop its user, or choose another with {option} or --ports auto"
        )
