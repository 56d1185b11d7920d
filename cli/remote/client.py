"""Calls to Tollway's services, one after the other: the command line waits for each answer.

A call has a deadline, credentials and a request id. What the contract calls idempotent is retried on UNAVAILABLE as the
services do it among themselves (`mesh/rpc/client.py`). A session that is about to end, or that is refused because the
role has changed since, is renewed by its refresh token and the call made once more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final, Protocol, TypeVar
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import Message
from tollway.auth.v1 import auth_service_pb2_grpc
from tollway.metering.v1 import metering_service_pb2_grpc

from cli.remote.failures import CallRefused, CommandFailed, ExitCode, refused
from contract.services import SERVICES
from mesh.config import TlsSettings, load
from mesh.ids import RandomIds
from mesh.rpc.client import channel_options
from mesh.rpc.interceptors import REQUEST_ID
from mesh.rpc.tls import channel_credentials

TIMEOUT_SECONDS: Final = 15.0
PAGE_SIZE: Final = 100
HTTPS_PORT: Final = 443
LOOPBACK: Final = ("127.", "localhost:", "[::1]:", "unix:")
_OPTIONS: Final = (
    ("grpc.primary_user_agent", "tollway-cli"),
    # It bounds how long a connection may take to open; between services, on one network, that is 100 ms.
    ("grpc.min_reconnect_backoff_ms", 5_000),
)
INSECURE_VARIABLE: Final = "TOLLWAY_INSECURE"

Answer = TypeVar("Answer")
Item = TypeVar("Item")


class Credentials(Protocol):
    """Where the token of a call comes from."""

    def token(self, *, refused: str = "") -> str:
        """Return a token; empty where nobody is signed in.

        Args:
            refused: A token that was refused just now: another one is wanted, or the same again where there is none.
        """
        ...


class GivenToken:
    """A token that somebody has given, by an option, a variable or the file of a running stack.

    Args:
        token: The token; empty means that the calls are anonymous.
    """

    def __init__(self, token: str) -> None:
        self._token = token

    def token(self, *, refused: str = "") -> str:
        """Return it."""
        del refused
        return self._token


class Client:
    """The services of one installation, for one caller.

    Args:
        addresses: Where each service is: `host:port`, or `https://host`.
        credentials: The caller's.
        timeout_seconds: How long one answer may take.
        environment: Says with TOLLWAY_INSECURE whether credentials may cross a network in clear.
    """

    def __init__(
        self,
        addresses: Mapping[str, str],
        credentials: Credentials,
        *,
        timeout_seconds: float = TIMEOUT_SECONDS,
        environment: Mapping[str, str],
    ) -> None:
        self._addresses = addresses
        self._credentials = credentials
        self._timeout_seconds = timeout_seconds
        self._environment = environment
        self._ids = RandomIds()

    @cached_property
    def auth(self) -> auth_service_pb2_grpc.AuthServiceStub:
        """Stub of the auth service."""
        return auth_service_pb2_grpc.AuthServiceStub(self._channel("auth"))

    @cached_property
    def metering(self) -> metering_service_pb2_grpc.MeteringServiceStub:
        """Stub of the metering service."""
        return metering_service_pb2_grpc.MeteringServiceStub(self._channel("metering"))

    def call(self, method: Callable[..., Answer], request: Message) -> Answer:
        """Make a call.

        Raises:
            CallRefused: It failed.
        """
        token = self._credentials.token()
        try:
            return self._once(method, request, token)
        except CallRefused as error:
            if error.received.reason != "CREDENTIALS_INVALID":
                raise
            another = self._credentials.token(refused=token)
            if another == token:
                raise
            return self._once(method, request, another)

    def stream(self, method: Callable[..., Any], request: Message, timeout_seconds: float) -> Iterator[Any]:
        """Make a call that is answered by a stream, and return its messages.

        Raises:
            CallRefused: It failed, at once or in the middle.
        """
        request_id = self._ids.uuid7().hex
        metadata = _metadata(self._credentials.token(), request_id)
        try:
            yield from method(request, metadata=metadata, timeout=timeout_seconds)
        except grpc.RpcError as error:
            raise refused(error, request_id, self._asked(request)) from None

    def pages(self, method: Callable[..., Any], request: Any, items: str, *, limit: int | None = None) -> Iterator[Any]:
        """Return what a list holds, page by page.

        Args:
            method: The RPC.
            request: Asks for the first page.
            items: The field of the answer that holds them.
            limit: At most so many; None means all.
        """
        left = limit
        while left is None or left > 0:
            request.page_size = PAGE_SIZE if left is None else min(left, PAGE_SIZE)
            page: Any = self.call(method, request)
            found = getattr(page, items)
            yield from found
            if left is not None:
                left -= len(found)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def _once(self, method: Callable[..., Answer], request: Message, token: str) -> Answer:
        request_id = self._ids.uuid7().hex
        try:
            return method(request, metadata=_metadata(token, request_id), timeout=self._timeout_seconds)
        except grpc.RpcError as error:
            raise refused(error, request_id, self._asked(request)) from None

    def _asked(self, request: Message) -> str:
        """Return whom a request goes to, for people: its package is tollway.<service>.v1."""
        service = request.DESCRIPTOR.file.package.split(".")[1]
        return f"{service} at {self._addresses.get(service, '')}"

    def _channel(self, service: str) -> grpc.Channel:
        address = self._addresses.get(service)
        if not address:
            raise CommandFailed(
                f"where {service} is, is not known: give --address or TOLLWAY_{service.upper()}_ADDRESS", ExitCode.USAGE
            )
        return open_channel(address, service, insecure=self._environment.get(INSECURE_VARIABLE) == "1")


def open_channel(address: str, service: str, *, insecure: bool) -> grpc.Channel:
    """Open a channel to a service.

    Args:
        address: `https://host[:port]`: TLS. `host:port`: TLS where TOLLWAY_TLS_* name its files, else in clear.
        service: Its name.
        insecure: Whether credentials may cross a network in clear; they always may on this machine.

    Raises:
        CommandFailed: The address is none, or credentials would cross a network in clear.
    """
    target, wants_tls = read_address(address)
    credentials = channel_credentials(load(TlsSettings))
    if credentials is None and wants_tls:
        credentials = grpc.ssl_channel_credentials()
    options = (*channel_options(SERVICES[service].descriptor), *_OPTIONS)
    if credentials is not None:
        return grpc.secure_channel(target, credentials, options=options)
    if not insecure and not target.startswith(LOOPBACK):
        raise CommandFailed(
            f"credentials would cross the network to {target} in clear: give https://{target}, set TOLLWAY_TLS_*,"
            f" or allow it by {INSECURE_VARIABLE}=1"
        )
    return grpc.insecure_channel(target, options=options)


def read_address(address: str) -> tuple[str, bool]:
    """Return gRPC's name of an address, and whether it asks for TLS.

    Raises:
        CommandFailed: The address is none.
    """
    scheme, separator, _ = address.partition("://")
    if not separator:
        return address, False
    try:
        split = urlsplit(address)
        port = split.port
    except ValueError:
        split, port = urlsplit(""), None
    if (
        scheme not in {"https", "http"}
        or not split.hostname
        or split.path.strip("/")
        or (scheme == "http" and not port)
    ):
        raise CommandFailed(f"{address!r} is no address: give host:port or https://host[:port]", ExitCode.USAGE)
    host = f"[{split.hostname}]" if ":" in split.hostname else split.hostname
    return f"{host}:{port or HTTPS_PORT}", scheme == "https"


def _metadata(token: str, request_id: str) -> list[tuple[str, str]]:
    metadata = [(REQUEST_ID, request_id)]
    return [("authorization", f"Bearer {token}"), *metadata] if token else metadata
