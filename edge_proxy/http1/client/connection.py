"""One connection to an origin, used by one exchange at a time.

An answer is read up to the end of its first message and no further (`answer` decides where that is). Bytes behind it,
whether in the same read or later, are never an answer: the connection is closed and not used again, while the message
that ended before them stays whole. Body bytes wait here, bounded: above `WAITING_BYTES_MAX` the socket is no longer
read until they have been taken. Whatever happens to the exchange (the origin closes, a deadline passes, whoever asked
is gone) ends in one place, `fail`, and reaches whoever awaits `head`, `read` or `drain`.

Three deadlines can pass, all compared by the pool's sweep: `deadline` for the answer to come or go on,
`write_deadline` for the origin to read on, `expires` for the exchange as a whole. `discard` lets go of everything that
could keep body bytes alive, because an error that was raised holds the frames it went through, and those hold the
connection.
"""

from __future__ import annotations

import asyncio
import re
from typing import Final, cast

from edge_proxy.http1.client.answer import (
    HEAD_BYTES_MAX,
    AnswerHead,
    ChunkedBody,
    Framing,
    MalformedAnswer,
)

WAITING_BYTES_MAX: Final = 262_144
INTERIM_ANSWERS_MAX: Final = 16
NEVER: Final = float("inf")

# An end of a head that only a lenient reader would see.
_LENIENT_END: Final = re.compile(rb"\n\r?\n")


class UpstreamFailed(Exception):
    """The origin could not be reached, broke off, or sent something that is not one HTTP answer.

    Args:
        detail: What happened, for logs.
        is_stale: A kept connection was closed before a single byte of an answer came.
    """

    def __init__(self, detail: str, *, is_stale: bool = False) -> None:
        super().__init__(detail)
        self.is_stale = is_stale


class UpstreamTimedOut(Exception):
    """The origin did not answer, did not go on or did not read in time."""


class UpstreamBusy(Exception):
    """The origin has as many connections as it may have."""


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


class UpstreamConnection(asyncio.Protocol):
    """The protocol of one connection to an origin."""

    __slots__ = (
        "_can_write",
        "_chunked",
        "_chunks",
        "_error",
        "_framing",
        "_has_ended",
        "_head_buffer",
        "_interim_answers",
        "_is_head_request",
        "_is_reading",
        "_left",
        "_transport",
        "_waiter",
        "_waiting_bytes",
        "content_length",
        "deadline",
        "expires",
        "fields",
        "has_excess",
        "has_head",
        "idle_since",
        "is_complete",
        "is_open",
        "is_reusable",
        "served",
        "status",
        "write_deadline",
    )

    def __init__(self) -> None:
        self._transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.is_open = False
        self.served = 0
        self.idle_since = 0.0
        self.deadline = NEVER
        self.expires = NEVER
        self.write_deadline = NEVER
        self.has_excess = False
        self._has_ended = False
        self._is_reading = True
        self._can_write: asyncio.Future[None] | None = None
        self._error: Exception | None
        self._waiter: asyncio.Future[None] | None
        self._chunks: list[bytes]
        self._chunked: ChunkedBody | None
        self._head_buffer: bytearray | None
        self.fields: list[tuple[bytes, bytes]]
        self.content_length: int | None
        self.is_complete: bool
        self._is_head_request = False
        self._reset()

    # The exchange.

    def begin(self, head: bytes, *, head_request: bool) -> None:
        """Send a request's head (and whatever of its body stands behind it) and get ready for the answer."""
        if self.served:
            self._reset()
        self._is_head_request = head_request
        self.served += 1
        if self.is_open:
            self._transport.write(head)
        else:
            self._error = UpstreamFailed("closed while idle", is_stale=True)

    def write(self, data: bytes) -> None:
        """Send body bytes."""
        if self.is_open:
            self._transport.write(data)

    @property
    def is_bodiless(self) -> bool:
        """Tell whether the answer has no body by rule, whatever its fields say."""
        return self._framing is Framing.NONE

    async def drain(self, deadline: float) -> None:
        """Wait until the origin has read enough or the connection is closed, which happens at the deadline."""
        if self._can_write is not None:
            self.write_deadline = deadline
            await self._can_write
            self.write_deadline = NEVER

    async def head(self) -> None:
        """Wait for the answer's head; then `status`, `fields` and `content_length` are set.

        Raises:
            UpstreamFailed: The connection broke or the answer is malformed.
            UpstreamTimedOut: A deadline passed.
            Abandoned: `abandon` was called.
        """
        while not self.has_head:
            await self._wait()

    def take(self) -> bytes:
        """Return the body bytes that wait, without waiting for more."""
        chunks = self._chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._waiting_bytes = 0
        if not self._is_reading and self.is_open:
            self._is_reading = True
            self._transport.resume_reading()
        return data

    async def read(self) -> bytes:
        """Return the next body bytes, or none at the end. Errors as in `head`."""
        while not self._chunks and not self.is_complete:
            await self._wait()
        return self.take()

    def time_out(self, now: float) -> None:
        """Fail the exchange if one of its deadlines has passed."""
        if self.deadline < now:
            self.fail(UpstreamTimedOut("did not answer or did not go on in time"))
        elif self.write_deadline < now:
            self.fail(UpstreamTimedOut("did not read the request's body in time"))
        elif self.expires < now:
            self.fail(UpstreamTimedOut("did not end in the time that the exchange may take"))

    def fail(self, error: Exception) -> None:
        """End the exchange with an error and close the connection."""
        if self._error is None:
            self._error = error
        self._wake()
        self.close()

    def abandon(self) -> None:
        """End the exchange because nobody waits for its answer any more."""
        self.fail(Abandoned())

    def close(self) -> None:
        """Close at once; nothing that is still to be sent matters."""
        self.is_open = False
        self.is_reusable = False
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()

    def discard(self) -> None:
        """Close and let go of what the exchange left behind; nobody will use the connection again."""
        self.close()
        self._chunks.clear()
        self._waiting_bytes = 0
        self._head_buffer = None
        self._error = None
        self.fields = []

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport."""
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Read the answer, up to its end."""
        if not self.is_open:
            return
        if self.is_complete or not self.served:
            self._refuse_excess()
            return
        try:
            rest = data if self.has_head else self._feed_head(data)
            if rest:
                self._feed_body(rest)
        except MalformedAnswer as error:
            self.fail(UpstreamFailed(str(error)))

    def eof_received(self) -> bool:
        """Note that the origin ended its side in order, and let the connection close.

        Over TLS the event loop calls this for a `close_notify` only. A connection that was cut without one is lost
        without a word, and an answer that ends with its connection is then cut as well (RFC 9112 section 9.8).
        """
        self._has_ended = True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        """End an answer that ends with its connection, or fail the exchange."""
        self.is_open = False
        self.is_reusable = False
        self._let_write()
        if self.is_complete:
            return
        has_end = self.has_head and self._framing is Framing.UNTIL_CLOSE and self._has_ended
        if error is None and has_end and self._error is None:
            self.is_complete = True
        elif self._error is None:
            detail = str(error) if error is not None else "closed the connection"
            is_stale = self.served > 1 and not self.has_head and self._head_buffer is None
            self._error = UpstreamFailed(detail, is_stale=is_stale and not self._interim_answers)
        self._wake()

    def pause_writing(self) -> None:
        """Remember that the origin reads slower than it is sent to."""
        self._can_write = asyncio.get_running_loop().create_future()

    def resume_writing(self) -> None:
        """Let the body go on."""
        self._let_write()

    # Reading.

    def _feed_head(self, data: bytes) -> bytes:
        """Read heads until the final one; return the bytes behind it."""
        while data:
            end = data.find(b"\r\n\r\n") + 4 if self._head_buffer is None else 0
            if 4 <= end <= HEAD_BYTES_MAX:
                # The usual case: a whole head in one read.
                raw, data = data[:end], data[end:]
            else:
                raw, data = self._split_head(data)
                if not raw:
                    return b""
            head = AnswerHead(raw, is_head_request=self._is_head_request)
            if not head.is_interim:
                self._publish(head)
                return data
            self._interim_answers += 1
            if self._interim_answers > INTERIM_ANSWERS_MAX:
                raise MalformedAnswer("too many interim answers")
        return b""

    def _split_head(self, data: bytes) -> tuple[bytes, bytes]:
        """Return a head and what follows it, or keep what there is of it; each byte is searched once."""
        seen, buffer = 0, self._head_buffer
        if buffer is not None:
            seen = len(buffer)
            buffer += data
        end = (data if buffer is None else buffer).find(b"\r\n\r\n", max(0, seen - 3)) + 4
        size = seen + len(data)
        if max(end, 0 if end >= 4 else size) > HEAD_BYTES_MAX:
            raise MalformedAnswer("the answer's head is too large")
        if end >= 4:
            self._head_buffer = None
            whole = data if buffer is None else bytes(buffer)
            return whole[:end], whole[end:]
        if buffer is None:
            buffer = self._head_buffer = bytearray(data)
        if _LENIENT_END.search(buffer, max(0, seen - 2)):
            raise MalformedAnswer("lines do not end with CR and LF")
        return b"", b""

    def _publish(self, head: AnswerHead) -> None:
        self.status = head.status
        self.fields = head.fields
        self.content_length = head.content_length
        self.is_reusable = head.is_reusable
        self._framing = head.framing
        if head.framing is Framing.NONE or (head.framing is Framing.COUNTED and head.content_length == 0):
            self.is_complete = True
        elif head.framing is Framing.CHUNKED:
            self._chunked = ChunkedBody()
        elif head.content_length is not None:
            self._left = head.content_length
        self.has_head = True
        self._wake()

    def _feed_body(self, data: bytes) -> None:
        """Keep body bytes until they are taken; whatever follows the message's end is refused."""
        used = len(data)
        if self.is_complete:
            used = 0
        elif self._chunked is not None:
            chunked = self._chunked
            before = chunked.size
            used = chunked.feed(data, self._chunks)
            self._waiting_bytes += chunked.size - before
            self.is_complete = chunked.is_complete
        else:
            if self._framing is Framing.COUNTED:
                used = min(used, self._left)
                self._left -= used
                self.is_complete = self._left == 0
            self._chunks.append(data if used == len(data) else data[:used])
            self._waiting_bytes += used
        if used < len(data):
            self._refuse_excess()
        elif self._waiting_bytes > WAITING_BYTES_MAX and self._is_reading and not self.is_complete:
            self._is_reading = False
            self._transport.pause_reading()
        self._wake()

    def _refuse_excess(self) -> None:
        """Close: the next answer could not be told from bytes that nobody asked for (RFC 9112 section 9.2)."""
        self.has_excess = True
        self.close()

    def _reset(self) -> None:
        self._framing = Framing.NONE
        self._left = 0
        self._chunked = None
        self._chunks = []
        self._waiting_bytes = 0
        self._head_buffer = None
        self._interim_answers = 0
        self._error = None
        self._waiter = None
        self.fields = []
        self.status = 0
        self.content_length = None
        self.has_head = False
        self.is_complete = False
        self.is_reusable = False

    # Waiting.

    async def _wait(self) -> None:
        if self._error is not None:
            raise self._error
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _let_write(self) -> None:
        waiter, self._can_write = self._can_write, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
