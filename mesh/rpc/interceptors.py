"""What stands between the wire and every handler, in one interceptor so that its order cannot be got wrong.

From the outside in: mask (an exception's text never reaches a caller; grpc.aio would send it word for word), context
(request id and RPC bound to the logs), trace, credentials, access rule, fields, handler. Each call ends in one log line
and one observation, whatever happened.

A request whose bytes cannot be read is the caller's error. gRPC would answer UNKNOWN with the name of a class, outside
of any interceptor. So a single request is read into either a message or the note that it cannot be, and the guard
answers. A stream's request that cannot be read fails where the handler waits for it, inside the guard. Health and
reflection, which anyone may call, have no guard; what stands in its place answers for such requests alone.

A stream goes on long after its caller was let in. A person's or a service account's ends within a second of what would
refuse it (`Verifier.wait_refused`), wherever it stands: in the handler, or in sending to a client that does not read.
That is why answers are sent from inside the guard. The status reaches such a client behind what was sent before it; the
handler has ended by then.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import grpc
import grpc.aio
import structlog
from google.protobuf.message import DecodeError, Message
from grpc_status import rpc_status
from opentelemetry import trace
from prometheus_client import Counter, Histogram

from mesh.clock import Clock
from mesh.ids import IdSource
from mesh.observability import TRACEPARENT, span
from mesh.rpc.access import (
    AccessRules,
    CredentialsInvalid,
    OrganizationNotFound,
    Principal,
    PrincipalKind,
    Rule,
    Verifier,
    authorize,
    authorize_caller,
    current_principal,
    set_principal,
)
from mesh.rpc.call import Call, current_call, set_call
from mesh.rpc.errors import InternalError, InvalidArgument, PermissionDenied, RpcError, Unavailable
from mesh.rpc.fields import FieldChecks

AUTHORIZATION: Final = "authorization"
REQUEST_ID: Final = "x-request-id"
REQUEST_ID_LENGTH_MAX: Final = 64
_REVOCABLE: Final = frozenset({PrincipalKind.PERSON, PrincipalKind.SERVICE_ACCOUNT})
_AWAY: Final = frozenset({grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED})

_REQUESTS: Final = Counter("tollway_rpc_requests_total", "RPCs handled", ["method", "code"])
_DURATION: Final = Histogram("tollway_rpc_duration_seconds", "Duration of unary RPCs", ["method"])

log = structlog.get_logger()


class DependencyUnavailable(Unavailable):
    """Something that this needs is away; try again."""


class RequestUnreadable(InvalidArgument):
    """The request's bytes are not a message of this RPC, or one of its strings is not UTF-8."""


class _Unreadable:
    """Stands for a request that could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A call that its caller may not make."""

    principal: Principal
    path: str
    failure: RpcError
    address: str


OnDenied = Callable[[Denied], None]
"""Is told of denied calls; must not block."""


class GuardInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """Wraps every handler of a server.

    Args:
        rules: The access rules of everything that the server offers.
        verifier: Turns credentials into principals.
        clock: For durations.
        ids: For request ids that the caller did not send.
        on_denied: Is told of calls by known callers that were denied, or that named another's organization.
    """

    def __init__(
        self,
        *,
        rules: AccessRules,
        verifier: Verifier,
        clock: Clock,
        ids: IdSource,
        on_denied: OnDenied | None = None,
    ) -> None:
        self._rules = rules
        self._verifier = verifier
        self._clock = clock
        self._ids = ids
        self._on_denied = on_denied
        self._fields = FieldChecks()

    async def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Return the handler inside its guard."""
        handler = await continuation(details)
        rule = self._rules.find(details.method) if handler is not None else None
        if handler is None:
            return None
        if rule is None:
            return _open_to_anyone(handler)
        metadata = _Metadata(details.invocation_metadata)
        wrap = _WRAPPERS[bool(handler.request_streaming), bool(handler.response_streaming)]
        return wrap(self, handler, rule, metadata, details.method)

    @contextlib.asynccontextmanager
    async def guard(
        self, rule: Rule, metadata: _Metadata, path: str, context: Any, request: Message | _Unreadable | None
    ) -> AsyncIterator[None]:
        """Run a handler's body: mask, context, trace, credentials, access."""
        started = self._clock.monotonic()
        request_id = str(metadata.get(REQUEST_ID) or self._ids.uuid7())[:REQUEST_ID_LENGTH_MAX]
        structlog.contextvars.bind_contextvars(request_id=request_id, rpc=path)
        set_call(
            Call(
                request_id=request_id,
                peer=str(context.peer()),
                metadata=metadata,
                process_keys=self._verifier.process_keys,
                service=self._verifier.audience,
            )
        )
        failure: RpcError | None = None
        code = grpc.StatusCode.OK
        try:
            with span(path, metadata.get(TRACEPARENT), kind=trace.SpanKind.SERVER):
                principal = await self._verifier.principal(metadata.authorization())
                _bind(principal)
                self._admit(rule, principal, request)
                async with self._until_refused(rule, principal, request):
                    yield
        except asyncio.CancelledError:
            code = grpc.StatusCode.CANCELLED
            raise
        except RpcError as error:
            failure = error
        except grpc.aio.AioRpcError as error:
            away = error.code() in _AWAY
            failure = DependencyUnavailable(repr(error)) if away else InternalError(repr(error))
        except Exception as error:  # the outermost edge: nothing unexpected may get past it
            log.exception("rpc_crashed")
            failure = InternalError(repr(error))
        finally:
            code = failure.grpc_code if failure else code
            self._observe(path, code, started, failure)
        if failure is not None:
            self._tell_denied(failure, path)
            await _abort(context, failure)

    @contextlib.asynccontextmanager
    async def _until_refused(
        self, rule: Rule, principal: Principal, request: Message | _Unreadable | None
    ) -> AsyncIterator[None]:
        """End a stream's handler once its caller would be refused.

        Raises:
            RpcError: Why the caller would be refused.
        """
        if not rule.is_stream or principal.kind not in _REVOCABLE:
            yield
            return
        refusal: RpcError | None = None

        async def wait() -> None:
            nonlocal refusal
            try:
                refusal = await self._verifier.wait_refused(principal, lambda now: self._admit(rule, now, request))
            except Exception as error:  # the watch's edge: a stream that nobody watches may not go on
                log.exception("stream_watch_crashed")
                refusal = InternalError(repr(error))
            ends.reschedule(asyncio.get_running_loop().time())

        try:
            async with asyncio.timeout(None) as ends:
                waiting = asyncio.ensure_future(wait())
                try:
                    yield
                finally:
                    waiting.cancel()
        except TimeoutError:
            if refusal is None or not ends.expired():
                raise
            raise refusal from None

    def _tell_denied(self, failure: RpcError, path: str) -> None:
        denied = isinstance(failure, (PermissionDenied, OrganizationNotFound))
        principal = current_principal()
        if self._on_denied is None or not denied or principal.kind is PrincipalKind.ANYONE:
            return
        self._on_denied(Denied(principal=principal, path=path, failure=failure, address=current_call().address))

    def _admit(self, rule: Rule, principal: Principal, request: Message | _Unreadable | None) -> None:
        if isinstance(request, _Unreadable):
            # Whoever may not call learns that and nothing else; without a request nobody's tenant can be compared.
            authorize_caller(rule, principal)
            raise RequestUnreadable
        authorize(rule, principal, request)
        if request is not None and not rule.is_foreign:
            self._fields.check(request)

    def _observe(self, path: str, code: grpc.StatusCode, started: float, failure: RpcError | None) -> None:
        elapsed_seconds = self._clock.monotonic() - started
        _REQUESTS.labels(path, code.name).inc()
        _DURATION.labels(path).observe(elapsed_seconds)
        say = log.error if code is grpc.StatusCode.INTERNAL else log.info
        say(
            "rpc",
            status=code.name,
            duration_ms=round(elapsed_seconds * 1000, 3),
            reason=failure.reason() if failure else None,
            detail=failure.detail if failure else None,
        )


def _bind(principal: Principal) -> None:
    set_principal(principal)
    if principal.kind in _REVOCABLE:
        structlog.contextvars.bind_contextvars(
            user_id=principal.subject, organization_id=str(principal.organization_id)
        )


class _Metadata(dict[str, Any]):
    """A call's metadata by name."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self._authorizations = sum(name == AUTHORIZATION for name, _ in pairs)

    def authorization(self) -> str | None:
        """Return the credentials, if there are any.

        Raises:
            CredentialsInvalid: There are two; whoever reads the one may mean the other.
        """
        if self._authorizations > 1:
            raise CredentialsInvalid("authorization comes twice")
        return self.get(AUTHORIZATION)


def _read_or_note(read: Callable[[bytes], Message]) -> Callable[[bytes], Message | _Unreadable]:
    def read_or_note(raw: bytes) -> Message | _Unreadable:
        try:
            return read(raw)
        except DecodeError:
            return _Unreadable()

    return read_or_note


def _read_or_raise(read: Callable[[bytes], Message]) -> Callable[[bytes], Message]:
    def read_or_raise(raw: bytes) -> Message:
        try:
            return read(raw)
        except DecodeError as error:
            raise RequestUnreadable from error

    return read_or_raise


async def _abort(context: Any, failure: RpcError) -> NoReturn:
    await context.abort_with_status(rpc_status.to_status(failure.to_status()))
    raise AssertionError


async def _send(context: Any, answers: AsyncGenerator[Any]) -> None:
    """Send answers as they come, from the task that asks for them."""
    async with contextlib.aclosing(answers):
        async for answer in answers:
            await context.write(answer)


def _open_to_anyone(handler: Any) -> Any:
    """Return the handler of health or reflection; only a request that cannot be read is answered before it."""
    if handler.request_streaming:
        return _open_stream(handler)
    behaviour = handler.unary_stream if handler.response_streaming else handler.unary_unary

    async def call(request: Any, context: Any) -> Any:
        if isinstance(request, _Unreadable):
            await _abort(context, RequestUnreadable())
        return await behaviour(request, context)

    make = grpc.unary_stream_rpc_method_handler if handler.response_streaming else grpc.unary_unary_rpc_method_handler
    return make(call, _read_or_note(handler.request_deserializer), handler.response_serializer)


def _open_stream(handler: Any) -> Any:
    async def call(requests: Any, context: Any) -> AsyncIterator[Any]:
        unreadable: RequestUnreadable | None = None
        try:
            async for answer in handler.stream_stream(requests, context):
                yield answer
        except RequestUnreadable as error:
            unreadable = error
        if unreadable is not None:
            await _abort(context, unreadable)

    return grpc.stream_stream_rpc_method_handler(
        call, _read_or_raise(handler.request_deserializer), handler.response_serializer
    )


def _unary_unary(guard: GuardInterceptor, handler: Any, rule: Any, metadata: _Metadata, path: str) -> Any:
    async def call(request: Any, context: Any) -> Any:
        async with guard.guard(rule, metadata, path, context, request):
            return await handler.unary_unary(request, context)
        raise AssertionError  # the guard has aborted

    return grpc.unary_unary_rpc_method_handler(
        call, _read_or_note(handler.request_deserializer), handler.response_serializer
    )


def _unary_stream(guard: GuardInterceptor, handler: Any, rule: Rule, metadata: _Metadata, path: str) -> Any:
    async def call(request: Any, context: Any) -> None:
        async with guard.guard(rule, metadata, path, context, request):
            await _send(context, handler.unary_stream(request, context))

    return grpc.unary_stream_rpc_method_handler(
        call, _read_or_note(handler.request_deserializer), handler.response_serializer
    )


def _stream_unary(guard: GuardInterceptor, handler: Any, rule: Any, metadata: _Metadata, path: str) -> Any:
    async def call(requests: Any, context: Any) -> Any:
        async with guard.guard(rule, metadata, path, context, None):
            return await handler.stream_unary(requests, context)
        raise AssertionError  # the guard has aborted

    return grpc.stream_unary_rpc_method_handler(
        call, _read_or_raise(handler.request_deserializer), handler.response_serializer
    )


def _stream_stream(guard: GuardInterceptor, handler: Any, rule: Rule, metadata: _Metadata, path: str) -> Any:
    async def call(requests: Any, context: Any) -> None:
        async with guard.guard(rule, metadata, path, context, None):
            await _send(context, handler.stream_stream(requests, context))

    return grpc.stream_stream_rpc_method_handler(
        call, _read_or_raise(handler.request_deserializer), handler.response_serializer
    )


_WRAPPERS: Final[dict[tuple[bool, bool], Callable[..., Any]]] = {
    (False, False): _unary_unary,
    (False, True): _unary_stream,
    (True, False): _stream_unary,
    (True, True): _stream_stream,
}
