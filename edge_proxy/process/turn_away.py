"""Answers 503 on the public socket while no worker can, so that clients learn it at once and try elsewhere.

The supervisor shares the listening socket with its workers and takes connections from it only while this is switched
on. A connection gets its answer when its request's head has arrived, or after `HEAD_SECONDS_MAX`. Then the sending side
is closed and what still comes is read for `LINGER_SECONDS_MAX`: a socket that is closed with bytes unread resets the
connection and can take the answer with it. At most `CONNECTIONS_MAX` are looked after; more are closed unanswered.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Final

from contract.problems import SECURITY_HEADERS, body_of
from edge_proxy.pipeline import problems

CONNECTIONS_MAX: Final = 256
HEAD_BYTES_MAX: Final = 64 * 1024
HEAD_SECONDS_MAX: Final = 2.0
LINGER_SECONDS_MAX: Final = 1.0
READ_BYTES: Final = 64 * 1024


class TurnAway:
    """Turns clients away.

    Args:
        listener: The public socket, not blocking.
        count: Is told of each client.
    """

    def __init__(self, listener: socket.socket, count: Callable[[], None]) -> None:
        self._listener = listener
        self._count = count
        self._is_on = False
        self._clients: set[asyncio.Task[None]] = set()

    def set(self, *, is_on: bool) -> None:
        """Switch it on or off; connections that were taken are answered in any case."""
        if is_on == self._is_on:
            return
        self._is_on = is_on
        loop = asyncio.get_running_loop()
        if is_on:
            loop.add_reader(self._listener.fileno(), self._accept)
        else:
            loop.remove_reader(self._listener.fileno())

    def _accept(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        self._count()
        if len(self._clients) >= CONNECTIONS_MAX:
            client.close()
            return
        client.setblocking(False)
        task = asyncio.get_running_loop().create_task(_answer(client))
        self._clients.add(task)
        task.add_done_callback(self._clients.discard)


def answer() -> bytes:
    """Return the whole answer."""
    problem = problems.NO_WORKER
    body = body_of(problem, "", "")
    return b"".join(
        (
            b"HTTP/1.1 %d %b\r\n" % (problem.status, problems.reason_phrase(problem.status)),
            b"Content-Type: application/problem+json\r\nContent-Length: %d\r\nConnection: close\r\n" % len(body),
            problem.headers,
            SECURITY_HEADERS,
            b"\r\n",
            body,
        )
    )


async def _answer(client: socket.socket) -> None:
    reader, writer = await asyncio.open_connection(sock=client, limit=HEAD_BYTES_MAX)
    try:
        with contextlib.suppress(TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(HEAD_SECONDS_MAX):
                await reader.readuntil(b"\r\n\r\n")
        writer.write(answer())
        writer.write_eof()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER_SECONDS_MAX):
                while await reader.read(READ_BYTES):
                    pass
    except OSError:
        pass
    finally:
        writer.close()
