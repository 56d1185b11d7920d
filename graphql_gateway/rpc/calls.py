"""The one way from the gateway to a service: every RPC of GraphQL and of REST goes through `Calls.unary`.

So there is one place for the deadline, the caller's credentials, the limits on changes and sign-ins, the metrics, and
the translation of what went wrong. A change is counted per call, so ten aliases of one document are ten changes.

Credentials of people and service accounts are forwarded as they came and the service decides. Credentials that were
refused stop here: above all a process's token, which would make its bearer a trusted process behind the gateway. Where
an RPC asks for none they are left out, so that signing in again works while an old token is still being sent. A change
without an idempotency key is given one, because the channel sends it again when a service goes away in the middle.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar, cast

import grpc
import grpc.aio
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from tollway.options.v1 import access_pb2

from graphql_gateway import errors, metrics
from graphql_gateway.callers.admission import Admission
from graphql_gateway.callers.identity import IdentityKind
from graphql_gateway.callers.scope import RequestScope
from graphql_gateway.callers.sign_ins import Attempt, SignIns
from graphql_gateway.failure import Failure
from graphql_gateway.text import check_message
from mesh.ids import IdSource
from mesh.rpc.access import CredentialsInvalid

RPC_TIMEOUT_SECONDS: Final = 5.0

Metadata = tuple[tuple[str, str], ...]
Request = TypeVar("Request", bound=Message)
Response = TypeVar("Response", bound=Message)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rpc(Generic[Request, Response]):
    """A unary RPC with the classes of its messages."""

    descriptor: MethodDescriptor
    request: type[Request]
    response: type[Response]

    @property
    def path(self) -> str:
        """Return the path of the RPC over HTTP/2."""
        return f"/{self.descriptor.containing_service.full_name}/{self.descriptor.name}"

    @property
    def anyone(self) -> bool:
        """Say whether the RPC asks for no credentials."""
        return access_pb2.CALLER_ANYONE in access_of(self.descriptor).callers

    @property
    def changes_something(self) -> bool:
        """Say whether the RPC is anything but a read."""
        return self.descriptor.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS

    @property
    def signs_in(self) -> bool:
        """Say whether the answer proves that the caller knew a secret: it is a session."""
        return "access_token" in self.descriptor.output_type.fields_by_name


class ChannelFinder(Protocol):
    """Where services are."""

    def find(self, service: ServiceDescriptor) -> grpc.aio.Channel | None:
        """Return the channel to a service, or None where this installation has none."""
        ...


def access_of(method: MethodDescriptor) -> access_pb2.Access:
    """Return the access rule of a method."""
    return method.GetOptions().Extensions[access_pb2.access]


def generic_rpc(method: MethodDescriptor) -> Rpc[Any, Any]:
    """Return the RPC of a descriptor, with the classes that the descriptor pool makes for its messages."""
    return Rpc(
        descriptor=method, request=GetMessageClass(method.input_type), response=GetMessageClass(method.output_type)
    )


def typed_rpc(
    service: ServiceDescriptor, name: str, request: type[Request], response: type[Response]
) -> Rpc[Request, Response]:
    """Return the RPC called `name` for code that knows its messages.

    Raises:
        KeyError: The service has no such RPC.
        TypeError: It takes or answers something else.
    """
    method = service.methods_by_name[name]
    if (method.input_type, method.output_type) != (request.DESCRIPTOR, response.DESCRIPTOR):
        raise TypeError(f"{method.full_name} has other messages")
    return Rpc(descriptor=method, request=request, response=response)


def service_name(service: ServiceDescriptor) -> str:
    """Return the short name of a service: `auth` for everything in `tollway.auth.v1`."""
    return str(service.full_name).split(".")[1]


class Calls:
    """Calls services.

    Args:
        channels: Where they are.
        admission: How many changes a caller may make.
        sign_ins: How often anyone may guess.
        ids: Where idempotency keys come from.
        vouch: Returns metadata that names the client to a service: for throttles, the audit log and lists of sessions.
        monotonic: Seconds that never go back.
    """

    def __init__(
        self,
        channels: ChannelFinder,
        *,
        admission: Admission,
        sign_ins: SignIns,
        ids: IdSource,
        vouch: Callable[[RequestScope, str], Metadata] = lambda _scope, _service: (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._vouch = vouch
        self._channels = channels
        self._admission = admission
        self._sign_ins = sign_ins
        self._ids = ids
        self._monotonic = monotonic
        self._methods: dict[str, Callable[..., Any]] = {}

    async def unary(self, rpc: Rpc[Request, Response], request: Request, scope: RequestScope) -> Response:
        """Call an RPC on behalf of the caller of a request.

        Raises:
            Failure: It did not work, in public words.
        """
        check_message(request)
        metadata = self._metadata(rpc, scope)
        attempt = self._count_change(rpc, request, scope) if rpc.changes_something else None
        call = self._callable(rpc)
        timeout_seconds = self._timeout_seconds(scope)
        started_seconds = self._monotonic()
        code = grpc.StatusCode.OK
        try:
            answer = cast("Response", await call(request, timeout=timeout_seconds, metadata=metadata))
        except grpc.aio.AioRpcError as error:
            code = error.code()
            if attempt is not None and code is grpc.StatusCode.UNAUTHENTICATED:
                self._sign_ins.failed(attempt)
            scope.note_failure(rpc.descriptor.full_name, code, error.details())
            raise Failure.received(error) from error
        finally:
            metrics.rpc_done(rpc.descriptor.full_name, code, self._monotonic() - started_seconds)
        if attempt is not None and rpc.signs_in:
            self._sign_ins.succeeded(attempt)
        return answer

    def _count_change(self, rpc: Rpc[Any, Any], request: Message, scope: RequestScope) -> Attempt | None:
        """Take a change from whoever's allowance it is, and make it safe to be sent twice."""
        if "idempotency_key" in request.DESCRIPTOR.fields_by_name and not getattr(request, "idempotency_key", ""):
            cast("Any", request).idempotency_key = str(self._ids.uuid7())
        if rpc.anyone:
            return self._sign_ins.begin(scope.address, str(getattr(request, "email", "")))
        self._admission.admit_change(scope.identity, scope.address)
        return None

    def _metadata(self, rpc: Rpc[Any, Any], scope: RequestScope) -> Metadata:
        address = self._vouch(scope, service_name(rpc.descriptor.containing_service))
        if rpc.anyone:
            return address
        if scope.identity.kind is IdentityKind.REFUSED:
            raise Failure.of(CredentialsInvalid())
        return (("authorization", scope.authorization), *address) if scope.authorization else address

    def _callable(self, rpc: Rpc[Any, Any]) -> Callable[..., Any]:
        known = self._methods.get(rpc.path)
        if known is None:
            channel = self._channels.find(rpc.descriptor.containing_service)
            if channel is None:
                raise Failure.of(errors.NotImplementedYet())
            known = self._methods[rpc.path] = channel.unary_unary(
                rpc.path,
                request_serializer=rpc.request.SerializeToString,
                response_deserializer=rpc.response.FromString,
            )
        return known

    def _timeout_seconds(self, scope: RequestScope) -> float:
        left_seconds = scope.deadline_seconds - self._monotonic()
        if left_seconds <= 0:
            raise Failure.of(errors.ServiceTimedOut())
        return min(RPC_TIMEOUT_SECONDS, left_seconds)
