"""What this server refuses by itself, in HTTP's own terms. Whoever runs the server words the answer."""

from __future__ import annotations

from typing import Literal

# 400 malformed or ambiguous, 408 too slow, 414 target too long, 417 unknown expectation, 431 head too large,
# 501 unknown method or coding, 505 unknown version.
RefusalStatus = Literal[400, 408, 414, 417, 431, 501, 505]


class Unacceptable(Exception):
    """What came is not a request that can be served; the connection ends with the answer.

    Args:
        status: The status that says what is wrong.
        detail: What is wrong with this request, for the client. Never a part of what it sent.
    """

    def __init__(self, status: RefusalStatus, detail: str = "") -> None:
        super().__init__(detail or str(status))
        self.status: RefusalStatus = status
        self.detail = detail


class ClientLeft(Exception):
    """The client closed its connection before it had the whole answer."""
