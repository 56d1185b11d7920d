"""Why a command fails, and with which exit code. The codes are a contract with scripts; cli/README.md lists them."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

import grpc

from mesh.rpc.errors import UNKNOWN_REASON, FailedCall, ReceivedError, from_grpc


class ExitCode(IntEnum):
    """What the shell sees."""

    OK = 0
    """Done."""
    REFUSED = 1
    """Tollway or this machine refuses: a role is missing, a state does not allow it, a file cannot be read."""
    USAGE = 2
    """The command line is wrong, or a value in it is."""
    NOT_SIGNED_IN = 3
    """Nobody is signed in, or the credentials are no longer valid."""
    UNAVAILABLE = 4
    """Tollway cannot be reached, or takes too long; nothing is known about a change that was asked for."""
    NOT_FOUND = 5
    """There is no such thing, or it is somebody else's."""
    LIMIT_REACHED = 6
    """A limit is reached: try again later, or make room."""
    INTERRUPTED = 130
    """Ctrl-C, as shells report it."""


_CODES: Final = {
    grpc.StatusCode.INVALID_ARGUMENT: ExitCode.USAGE,
    grpc.StatusCode.UNAUTHENTICATED: ExitCode.NOT_SIGNED_IN,
    grpc.StatusCode.UNAVAILABLE: ExitCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED: ExitCode.UNAVAILABLE,
    grpc.StatusCode.NOT_FOUND: ExitCode.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED: ExitCode.LIMIT_REACHED,
}


class CommandFailed(Exception):
    """A command cannot do what it was asked for; the message is the line that is printed."""

    def __init__(self, message: str, exit_code: ExitCode = ExitCode.REFUSED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class CallRefused(CommandFailed):
    """A call failed.

    Args:
        received: What was answered.
        request_id: Of the call, for whoever reads the logs.
        asked: Who was called, for people.
    """

    def __init__(self, received: ReceivedError, request_id: str, asked: str) -> None:
        super().__init__(_line(received, request_id, asked), _CODES.get(received.code, ExitCode.REFUSED))
        self.received = received


def refused(error: FailedCall, request_id: str, asked: str) -> CallRefused:
    """Read why a call failed."""
    return CallRefused(from_grpc(error), request_id, asked)


def _line(received: ReceivedError, request_id: str, asked: str) -> str:
    """Return the sentence, what is wrong with which field, and what to tell whoever helps."""
    wrong = [f"{violation.field} {violation.description}" for violation in received.violations]
    facts = [f"{key} {value}" for key, value in sorted(received.metadata.items())]
    if received.retry_after_seconds is not None:
        facts.append(f"try again in {received.retry_after_seconds:.0f} s")
    said = " ".join([received.message.rstrip(), *(f"{each};" for each in wrong)]).rstrip(";")
    if received.reason == UNKNOWN_REASON:
        # It is not Tollway that says so, but gRPC, or something in between.
        return f"{asked} answers {received.code.name}: {said} (request {request_id})"
    reason = f"{received.code.name} {received.reason}"
    return f"{said} ({', '.join([reason, *facts, f'request {request_id}'])})"
