"""The command line in a test, on grpcio-testing's channel: the test plays Tollway, call by call."""

from __future__ import annotations

import contextlib
import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import grpc_testing
import pytest
from click.testing import CliRunner, Result
from google.protobuf.message import Message

from cli.commands.group import tollway
from contract.services import SERVICES
from mesh.rpc.errors import STATUS_METADATA_KEY, RpcError

Answer = Message | RpcError | Sequence[Message] | grpc.StatusCode
Step = tuple[str, Answer | Callable[[Any], Answer]]
"""The RPC that the command has to make next, and what it is answered: a message, messages of a stream, or an error."""


@dataclasses.dataclass(frozen=True, slots=True)
class Made:
    """A call that a command made."""

    name: str
    request: Any
    metadata: dict[str, str]


@dataclasses.dataclass
class Outcome:
    """How a command ended."""

    result: Result
    calls: list[Made]
    unanswered: list[str]

    @property
    def code(self) -> int:
        return self.result.exit_code

    @property
    def out(self) -> str:
        return self.result.stdout

    @property
    def err(self) -> str:
        return self.result.stderr


class TollwayScript:
    """Runs commands against scripted answers.

    Args:
        channel: What the commands call over.
    """

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.opened: list[tuple[str, str]] = []

    def run(self, arguments: str | Sequence[str], *steps: Step, input: str | None = None) -> Outcome:  # noqa: A002
        """Runs a command while the steps are answered one after the other."""
        made: list[Made] = []
        waiting = [name for name, _ in steps]
        stopping = threading.Event()
        server = threading.Thread(target=self._serve, args=(steps, made, waiting, stopping), daemon=True)
        server.start()
        words = arguments.split() if isinstance(arguments, str) else list(arguments)
        result = CliRunner().invoke(tollway, words, input=input)
        stopping.set()
        server.join(0.2 if waiting else 5)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return Outcome(result, made, list(waiting))

    def _serve(self, steps: Sequence[Step], made: list[Made], waiting: list[str], stopping: threading.Event) -> None:
        for name, answer in steps:
            method = _method(name)
            take = self._channel.take_unary_stream if method.server_streaming else self._channel.take_unary_unary
            metadata, request, rpc = take(method)
            if stopping.is_set():
                return
            request = type(request).FromString(request.SerializeToString())  # as it goes over the wire
            made.append(Made(name, request, {str(key): str(value) for key, value in metadata}))
            waiting.pop(0)
            _answer(rpc, answer(request) if callable(answer) else answer, streams=method.server_streaming)


def _answer(rpc: Any, answer: Any, *, streams: bool) -> None:
    rpc.send_initial_metadata(())
    if isinstance(answer, grpc.StatusCode):
        rpc.terminate(*(() if streams else (None,)), (), answer, "no Tollway says this")
    elif isinstance(answer, RpcError):
        status = answer.to_status()
        trailing = ((STATUS_METADATA_KEY, status.SerializeToString()),)
        rpc.terminate(*(() if streams else (None,)), trailing, answer.grpc_code, status.message)
    elif streams:
        for message in answer:
            rpc.send_response(message)
        rpc.terminate((), grpc.StatusCode.OK, "")
    else:
        rpc.terminate(answer, (), grpc.StatusCode.OK, "")


def _method(name: str) -> Any:
    for service in SERVICES.values():
        if name in service.descriptor.methods_by_name:
            return service.descriptor.methods_by_name[name]
    raise AssertionError(f"there is no RPC {name}")


@contextlib.contextmanager
def tollway_script(monkeypatch: pytest.MonkeyPatch) -> Iterator[TollwayScript]:
    """The command line calls over a channel that the test answers."""
    descriptors = [service.descriptor for service in SERVICES.values()]
    channel = grpc_testing.channel(descriptors, grpc_testing.strict_real_time())
    script = TollwayScript(channel)

    def open_channel(address: str, service: str, *, insecure: bool) -> Any:
        script.opened.append((service, address))
        return channel

    monkeypatch.setattr("cli.remote.client.open_channel", open_channel)
    yield script
