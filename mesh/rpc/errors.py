"""Errors that callers see: one class per reason, one sentence each, nothing else gets out.

A class derived from one of the bases below stands for one reason. Its name, in UPPER_SNAKE, is the reason; the first
line of its docstring is the sentence that the caller reads; what is passed as `detail` goes to the log. On the wire it
is a `google.rpc.Status` with one `ErrorInfo` and, where they apply, `BadRequest` and `RetryInfo` (AIP-193).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol
from uuid import UUID

import grpc
import grpc.aio
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

ERROR_DOMAIN: Final = "tollway"
UNKNOWN_REASON: Final = "UNKNOWN"
STATUS_METADATA_KEY: Final = "grpc-status-details-bin"


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldViolation:
    """What is wrong with one field of a request: `field` is its path, `description` says what would be right."""

    field: str
    description: str


class RpcError(Exception):
    """The request failed.

    Args:
        detail: For the log only.
        metadata: Public facts for the caller's code, for example the limit that was passed.
        violations: Wrong fields, for INVALID_ARGUMENT.
        retry_after_seconds: When trying again makes sense.
    """

    grpc_code: ClassVar[grpc.StatusCode] = grpc.StatusCode.UNKNOWN

    def __init__(
        self,
        detail: str = "",
        *,
        metadata: Mapping[str, str] | None = None,
        violations: Sequence[FieldViolation] = (),
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(detail or self.public_message())
        self.detail = detail
        self.metadata = dict(metadata or {})
        self.violations = tuple(violations)
        self.retry_after_seconds = retry_after_seconds

    @classmethod
    def reason(cls) -> str:
        """Return the reason in UPPER_SNAKE."""
        return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", cls.__name__).upper()

    @classmethod
    def public_message(cls) -> str:
        """Return the sentence that the caller reads."""
        return inspect.cleandoc(cls.__doc__ or "The request failed.").splitlines()[0]

    def to_status(self) -> status_pb2.Status:
        """Return the error as it goes over the wire."""
        details = [
            _pack(error_details_pb2.ErrorInfo(reason=self.reason(), domain=ERROR_DOMAIN, metadata=self.metadata))
        ]
        if self.violations:
            wrong = [
                error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
                for v in self.violations
            ]
            details.append(_pack(error_details_pb2.BadRequest(field_violations=wrong)))
        if self.retry_after_seconds is not None:
            delay = duration_pb2.Duration()
            delay.FromNanoseconds(int(self.retry_after_seconds * 1e9))
            details.append(_pack(error_details_pb2.RetryInfo(retry_delay=delay)))
        return status_pb2.Status(code=self.grpc_code.value[0], message=self.public_message(), details=details)


def _pack(
    message: error_details_pb2.ErrorInfo | error_details_pb2.BadRequest | error_details_pb2.RetryInfo,
) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed


class InvalidArgument(RpcError):
    """The request is not valid."""

    grpc_code = grpc.StatusCode.INVALID_ARGUMENT


class NotFound(RpcError):
    """There is no such thing."""

    grpc_code = grpc.StatusCode.NOT_FOUND


class AlreadyExists(RpcError):
    """There is such a thing already."""

    grpc_code = grpc.StatusCode.ALREADY_EXISTS


class FailedPrecondition(RpcError):
    """The state of things does not allow this."""

    grpc_code = grpc.StatusCode.FAILED_PRECONDITION


class PermissionDenied(RpcError):
    """You may not do this."""

    grpc_code = grpc.StatusCode.PERMISSION_DENIED


class Unauthenticated(RpcError):
    """Valid credentials are needed."""

    grpc_code = grpc.StatusCode.UNAUTHENTICATED


class ResourceExhausted(RpcError):
    """A limit has been reached."""

    grpc_code = grpc.StatusCode.RESOURCE_EXHAUSTED


class Unavailable(RpcError):
    """Something that is needed is away; try again."""

    grpc_code = grpc.StatusCode.UNAVAILABLE


class Aborted(RpcError):
    """Another change came first; try again."""

    grpc_code = grpc.StatusCode.ABORTED


class InvalidFields(InvalidArgument):
    """Some fields of the request are not valid."""


class InternalError(RpcError):
    """Something went wrong on our side."""

    grpc_code = grpc.StatusCode.INTERNAL


class Violations:
    """Collects everything that is wrong with a request, so that the caller is told all of it at once."""

    def __init__(self) -> None:
        self._found: list[FieldViolation] = []

    def __len__(self) -> int:
        return len(self._found)

    def add(self, field: str, description: str) -> None:
        """Note a wrong field."""
        self._found.append(FieldViolation(field=field, description=description))

    def check(self, ok: bool, field: str, description: str) -> bool:
        """Note a wrong field unless `ok`, and return `ok`."""
        if not ok:
            self.add(field, description)
        return ok

    def read_uuid(self, field: str, text: str) -> UUID:
        """Read a UUID; a wrong one is noted and stands as the nil UUID until `raise_if_any`."""
        try:
            return UUID(text)
        except ValueError:
            self.add(field, "must be a UUID, for example 01890a5d-ac96-774b-bcce-b302099a8057")
            return UUID(int=0)

    def raise_if_any(self) -> None:
        """Raise `InvalidFields` with everything that was noted."""
        if self._found:
            raise InvalidFields(violations=self._found)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedError:
    """What another process answered instead of a result."""

    code: grpc.StatusCode
    reason: str
    message: str
    violations: tuple[FieldViolation, ...] = ()
    metadata: Mapping[str, str]
    retry_after_seconds: float | None = None


class FailedCall(Protocol):
    """A failed call, as grpc and grpc.aio raise it."""

    def code(self) -> grpc.StatusCode:
        """Return its status."""
        ...

    def details(self) -> str | None:
        """Return its sentence."""
        ...

    def trailing_metadata(self) -> Any:
        """Return what came behind the answer."""
        ...


def from_grpc(error: FailedCall) -> ReceivedError:
    """Read the details out of a failed call. Works for errors that are not Tollway's, with the reason `UNKNOWN`."""
    reason, metadata, retry_after_seconds = UNKNOWN_REASON, {}, None
    violations: list[FieldViolation] = []
    status = _status_of(error)
    for packed in status.details if status else ():
        info, wrong = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if packed.Unpack(info):
            reason, metadata = info.reason, dict(info.metadata)
        elif packed.Unpack(wrong):
            violations += [FieldViolation(field=v.field, description=v.description) for v in wrong.field_violations]
        elif packed.Unpack(retry):
            retry_after_seconds = retry.retry_delay.ToNanoseconds() / 1e9
    return ReceivedError(
        code=error.code(),
        reason=reason,
        message=error.details() or "",
        violations=tuple(violations),
        metadata=metadata,
        retry_after_seconds=retry_after_seconds,
    )


def _status_of(error: FailedCall) -> status_pb2.Status | None:
    trailing = error.trailing_metadata() or ()
    value = next((value for key, value in trailing if key == STATUS_METADATA_KEY), None)
    return status_pb2.Status.FromString(value) if isinstance(value, bytes) else None
