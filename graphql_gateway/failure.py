"""The one shape in which anything that went wrong leaves the gateway, for GraphQL and REST alike.

A failure is made from a reason of the gateway's own or from what a service answered. A service's words are passed on
only where it gave a reason (AIP-193); whatever comes without one was written by a library, not for the public, and is
replaced by a sentence of ours.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import grpc
import grpc.aio

from graphql_gateway import errors
from mesh.rpc.errors import UNKNOWN_REASON, FieldViolation, InternalError, RpcError, from_grpc

HTTP_STATUS: Final[Mapping[grpc.StatusCode, int]] = {
    # The mapping of google/rpc/code.proto.
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
}
_HTTP_STATUS_BY_REASON: Final[Mapping[type[RpcError], int]] = {
    errors.MethodNotAllowed: 405,
    errors.BodyTooSlow: 408,
    errors.HeadTooSlow: 408,
    errors.ExpectationFailed: 417,
    errors.HeadTooLarge: 431,
    errors.ContentEncodingNotSupported: 415,
    errors.BodyTooLarge: 413,
    errors.MediaTypeNotSupported: 415,
}
_REPLACED: Final[Mapping[grpc.StatusCode, type[RpcError]]] = {
    grpc.StatusCode.UNAVAILABLE: errors.ServiceUnavailable,
    grpc.StatusCode.CANCELLED: errors.ServiceUnavailable,
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.ServiceTimedOut,
    grpc.StatusCode.UNIMPLEMENTED: errors.NotImplementedYet,
}


class Failure(Exception):
    """Something went wrong, in words that the public may read.

    Args:
        code: The gRPC code.
        reason: UPPER_SNAKE; what programs compare.
        message: One sentence.
        violations: Wrong fields by their path in the proto request.
        metadata: Public facts.
        retry_after_seconds: When trying again makes sense.
        http_status: Where it is not what the code maps to.
    """

    def __init__(
        self,
        *,
        code: grpc.StatusCode,
        reason: str,
        message: str,
        violations: tuple[FieldViolation, ...] = (),
        metadata: Mapping[str, str] | None = None,
        retry_after_seconds: float | None = None,
        http_status: int | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.code = code
        self.reason = reason
        self.message = message
        self.violations = violations
        self.metadata = dict(metadata or {})
        self.retry_after_seconds = retry_after_seconds
        self.http_status = http_status or HTTP_STATUS[code]

    @classmethod
    def of(cls, error: RpcError) -> Failure:
        """Take a reason of our own."""
        return cls(
            code=error.grpc_code,
            reason=error.reason(),
            message=error.public_message(),
            violations=error.violations,
            metadata=error.metadata,
            retry_after_seconds=error.retry_after_seconds,
            http_status=_HTTP_STATUS_BY_REASON.get(type(error)),
        )

    @classmethod
    def received(cls, error: grpc.aio.AioRpcError) -> Failure:
        """Take what a service answered, or our own words where it gave no reason."""
        received = from_grpc(error)
        if received.reason == UNKNOWN_REASON:
            return cls.of(_REPLACED.get(received.code, InternalError)())
        return cls(
            code=received.code,
            reason=received.reason,
            message=received.message,
            violations=received.violations,
            metadata=received.metadata,
            retry_after_seconds=received.retry_after_seconds,
        )

    @classmethod
    def internal(cls) -> Failure:
        """Stand in for something unexpected, whose own words go to the log only."""
        return cls.of(InternalError())

    def details(self, request_id: str) -> dict[str, Any]:
        """Return what REST answers beside code and message; keys are snake_case."""
        details: dict[str, Any] = {"status": self.code.name, "request_id": request_id}
        if self.violations:
            details["violations"] = [{"field": v.field, "description": v.description} for v in self.violations]
        if self.metadata:
            details["metadata"] = self.metadata
        if self.retry_after_seconds is not None:
            details["retry_after_seconds"] = self.retry_after_seconds
        return details
