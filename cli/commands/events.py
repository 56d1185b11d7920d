"""`tollway events`: what operators do about usage events that could not be taken in."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import grpc
import grpc.aio
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from tollway.events.v1 import usage_event_pb2
from tollway.metering.v1 import metering_service_pb2 as pb
from tollway.metering.v1.metering_service_pb2_grpc import MeteringServiceStub

from cli.commands.failure import told_in_one_line
from cli.commands.options import data_dir as data_dir_option
from cli.stack import StackError, stack_file
from cli.stack.layout import Layout
from mesh.config import TlsSettings, load
from mesh.rpc.tls import channel_credentials

ANSWER_SECONDS_MAX: Final = 30.0
STATES: Final = {
    "waiting": pb.DEAD_LETTER_STATE_WAITING,
    "replayed": pb.DEAD_LETTER_STATE_REPLAYED,
    "dropped": pb.DEAD_LETTER_STATE_DROPPED,
}

Answer = TypeVar("Answer")


@click.group()
def events() -> None:
    """Look after usage events."""


@events.group("dead-letters")
@click.option("--address", envvar="TOLLWAY_METERING_ADDRESS", help="host:port of metering's gRPC.")
@click.option("--token", envvar="TOLLWAY_TOKEN", help="A session or service account token of the operator.")
@click.option("--organization", envvar="TOLLWAY_ORGANIZATION_ID", help="The operator's organization, UUID.")
@data_dir_option
@click.pass_context
def dead_letters(
    context: click.Context, address: str | None, token: str | None, organization: str | None, data_dir: Path
) -> None:
    """List, show, replay and drop events that could not be taken in.

    What is not given is taken from the stack that runs on --data-dir. Where TLS is on, TOLLWAY_TLS_* say with what.
    """
    context.obj = lambda: Operator.find(address, token, organization, data_dir)


@dead_letters.command("list")
@click.option("--state", type=click.Choice(list(STATES)), default="waiting", show_default=True)
@click.pass_obj
def list_letters(operator: Callable[[], Operator], state: str) -> None:
    """List dead letters, the oldest first: id, arrival, reason, source, what is wrong."""
    with told_in_one_line():
        letters = operator().run(lambda stub, asked: _all(stub, asked, STATES[state]))
        for letter in letters:
            click.echo(_line(letter))
    if not letters:
        # Not on stdout: a script that counts lines still counts none.
        click.echo(f"There are no dead letters that are {state}.", err=True)


@dead_letters.command()
@click.argument("dead_letter_id")
@click.pass_obj
def show(operator: Callable[[], Operator], dead_letter_id: str) -> None:
    """Show one dead letter with its event, as JSON."""

    async def get(stub: Any, asked: Operator) -> pb.DeadLetter:
        request = pb.GetDeadLetterRequest(organization_id=asked.organization_id, dead_letter_id=dead_letter_id)
        letter: pb.DeadLetter = await stub.GetDeadLetter(request, **asked.call)
        return letter

    with told_in_one_line():
        click.echo(json.dumps(described(operator().run(get)), indent=2))


@dead_letters.command()
@click.argument("dead_letter_ids", nargs=-1, required=True)
@click.pass_obj
def replay(operator: Callable[[], Operator], dead_letter_ids: tuple[str, ...]) -> None:
    """Take dead letters in again; what is stored already is not counted twice."""

    async def ask(stub: Any, asked: Operator) -> Sequence[pb.DeadLetter]:
        request = pb.ReplayDeadLettersRequest(organization_id=asked.organization_id, dead_letter_ids=dead_letter_ids)
        return list((await stub.ReplayDeadLetters(request, **asked.call)).dead_letters)

    _decide(operator, ask, pb.DEAD_LETTER_STATE_REPLAYED)


@dead_letters.command()
@click.argument("dead_letter_ids", nargs=-1, required=True)
@click.pass_obj
def drop(operator: Callable[[], Operator], dead_letter_ids: tuple[str, ...]) -> None:
    """Give dead letters up: nobody is ever billed for them."""

    async def ask(stub: Any, asked: Operator) -> Sequence[pb.DeadLetter]:
        request = pb.DropDeadLettersRequest(organization_id=asked.organization_id, dead_letter_ids=dead_letter_ids)
        return list((await stub.DropDeadLetters(request, **asked.call)).dead_letters)

    _decide(operator, ask, pb.DEAD_LETTER_STATE_DROPPED)


class Operator:
    """Who asks, and whom.

    Args:
        address: Metering's `host:port`.
        token: The operator's credentials.
        organization_id: The operator's organization.
    """

    def __init__(self, address: str, token: str, organization_id: str) -> None:
        self._address = address
        self._token = token
        self.organization_id = organization_id

    @classmethod
    def find(cls, address: str | None, token: str | None, organization: str | None, data_dir: Path) -> Operator:
        """Take what is given, and the rest from the running stack.

        Raises:
            StackError: Something is neither given nor in the stack's file.
        """
        if address and token and organization:
            return cls(address, token, organization)
        try:
            stack = stack_file.read(Layout(data_dir=data_dir.resolve()).stack_file)
        except StackError as error:
            raise StackError(f"{error}; or give --address, --token and --organization") from None
        return cls(
            address or stack["services"]["metering"]["address"],
            token or stack["service_account_token"],
            organization or stack["operator"]["id"],
        )

    @property
    def call(self) -> dict[str, Any]:
        """Return the credentials and the deadline of a call."""
        return {"metadata": [("authorization", f"Bearer {self._token}")], "timeout": ANSWER_SECONDS_MAX}

    def run(self, ask: Callable[[Any, Operator], Awaitable[Answer]]) -> Answer:
        """Ask metering.

        Raises:
            StackError: It refuses, or does not answer.
        """
        credentials = channel_credentials(load(TlsSettings))

        async def connected() -> Answer:
            async with _channel(self._address, credentials) as channel:
                return await ask(MeteringServiceStub(channel), self)

        try:
            return asyncio.run(connected())
        except grpc.aio.AioRpcError as error:
            raise StackError(f"metering at {self._address} answers {error.code().name}: {error.details()}") from None


def _channel(address: str, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
    return grpc.aio.secure_channel(address, credentials) if credentials else grpc.aio.insecure_channel(address)


def described(letter: pb.DeadLetter) -> dict[str, Any]:
    """Return a dead letter with its payload taken apart, ready for JSON; bytes are in hex."""
    found: dict[str, Any] = MessageToDict(letter)
    found["payload"] = letter.payload.hex()
    try:
        event = usage_event_pb2.UsageEvent.FromString(letter.payload)
    except DecodeError:
        return found
    found["event"] = MessageToDict(event) | {
        name: getattr(event, name).hex() for name in ("id", "organization_id", "api_key_id")
    }
    return found


async def _all(stub: Any, asked: Operator, state: pb.DeadLetterState.ValueType) -> list[pb.DeadLetter]:
    request = pb.ListDeadLettersRequest(organization_id=asked.organization_id, state=state, page_size=100)
    found: list[pb.DeadLetter] = []
    while True:
        page = await stub.ListDeadLetters(request, **asked.call)
        found += page.dead_letters
        if not page.next_page_token:
            return found
        request.page_token = page.next_page_token


def _decide(
    operator: Callable[[], Operator],
    ask: Callable[[Any, Operator], Awaitable[Sequence[pb.DeadLetter]]],
    wanted: pb.DeadLetterState.ValueType,
) -> None:
    """Tell each letter's state; the exit status is 1 where one did not get where it was wanted."""
    with told_in_one_line():
        letters = operator().run(ask)
        for letter in letters:
            click.echo(_line(letter))
        others = sum(letter.state != wanted for letter in letters)
        if others:
            raise StackError(f"{others} of {len(letters)} dead letters are not {_word(wanted)}")


def _line(letter: pb.DeadLetter) -> str:
    arrived = letter.create_time.ToDatetime().isoformat(timespec="seconds")
    reason = pb.DeadLetterReason.Name(letter.reason).removeprefix("DEAD_LETTER_REASON_").lower()
    return f"{letter.dead_letter_id}  {arrived}Z  {_word(letter.state)}  {reason}  {letter.source}  {letter.detail}"


def _word(state: pb.DeadLetterState.ValueType) -> str:
    return pb.DeadLetterState.Name(state).removeprefix("DEAD_LETTER_STATE_").lower()
