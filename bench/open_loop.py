"""An open-loop HTTP load: requests leave on schedule, whether or not earlier ones have been answered.

A closed loop (wrk) waits for an answer before it asks again, so a slow server is asked less and looks better than it
is. Here each latency is counted from the instant at which the request was due, so time spent waiting for a free
connection counts too (the "coordinated omission" that Gil Tene describes).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import socket
import sys
import time
from collections import Counter, deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

RECEIVE_BYTES: Final = 65_536
DRAIN_SECONDS: Final = 2.0
INSTRUMENT_PRIORITY: Final = -15
_HEAD_END: Final = b"\r\n\r\n"
_CONTENT_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)


@dataclass(slots=True, kw_only=True)
class Connection:
    """One keep-alive connection with at most one request under way."""

    socket: socket.socket
    due: float = 0.0
    received: bytes = b""


@dataclass(slots=True, kw_only=True)
class Measured:
    """What came back."""

    latencies_seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    sent_count: int = 0
    late_count: int = 0


def run(*, host: str, port: int, request: bytes, rate: float, seconds: float, connections: int) -> Measured:
    """Send `rate` requests per second for `seconds` seconds.

    Args:
        host: Where to connect.
        port: Where to connect.
        request: The request's bytes; its answer must carry Content-Length.
        rate: Requests per second.
        seconds: How long.
        connections: How many may be under way at once; beyond that requests wait and the wait counts.
    """
    measured = Measured()
    with suppress(PermissionError):
        # The instrument must not wait behind what it measures; as root it need not.
        os.setpriority(os.PRIO_PROCESS, 0, INSTRUMENT_PRIORITY)
    all_connections = {c.socket.fileno(): c for c in (_connect(host, port) for _ in range(connections))}
    free = deque(all_connections.values())
    readable = select.epoll()
    for number in all_connections:
        readable.register(number, select.EPOLLIN)
    interval = 1.0 / rate
    start = time.perf_counter()
    due, end = start, start + seconds
    while due < end or len(free) < connections:
        now = time.perf_counter()
        if now > end + DRAIN_SECONDS:
            measured.late_count = connections - len(free)
            break
        while due <= now and due < end and free:
            connection = free.popleft()
            connection.due = due
            connection.socket.send(request)
            measured.sent_count += 1
            due += interval
        wait = max(0.0, due - time.perf_counter()) if free and due < end else 0.05
        # epoll itself knows milliseconds only, so select waits for it.
        select.select((readable,), (), (), wait)
        for number, _ in readable.poll(0):
            connection = all_connections[number]
            status = _receive(connection)
            if status is not None:
                measured.latencies_seconds.append(time.perf_counter() - connection.due)
                measured.statuses[status] += 1
                free.append(connection)
    return measured


def _connect(host: str, port: int) -> Connection:
    connected = socket.create_connection((host, port))
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(socket=connected)


def _receive(connection: Connection) -> int | None:
    chunk = connection.socket.recv(RECEIVE_BYTES)
    if not chunk:
        raise ConnectionError("the server closed a keep-alive connection")
    connection.received += chunk
    head_end = connection.received.find(_HEAD_END)
    if head_end < 0:
        return None
    length = _CONTENT_LENGTH.search(connection.received, 0, head_end + 2)
    if length is None or len(connection.received) < head_end + len(_HEAD_END) + int(length[1]):
        return None
    status = int(connection.received[9:12])
    connection.received = b""
    return status


def percentile(values: list[float], share: float) -> float:
    """Return the value below which `share` (0 to 1) of the values lie: the nearest rank, without interpolation."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def main() -> None:
    """Run from the command line and print one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/")
    parser.add_argument("--key", required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    request = (
        f"GET {options.path} HTTP/1.1\r\nHost: {options.host}:{options.port}\r\nX-API-Key: {options.key}\r\n\r\n"
    ).encode()
    measured = run(
        host=options.host,
        port=options.port,
        request=request,
        rate=options.rate,
        seconds=options.seconds,
        connections=options.connections,
    )
    latencies = measured.latencies_seconds
    figures = {
        f"p{name}_ms": percentile(latencies, share) * 1000
        for name, share in (("50", 0.5), ("99", 0.99), ("99.9", 0.999))
    }
    result = {
        "sent": measured.sent_count,
        "answered": len(latencies),
        "unanswered": measured.late_count,
        "statuses": {str(status): count for status, count in measured.statuses.items()},
        **figures,
    }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
