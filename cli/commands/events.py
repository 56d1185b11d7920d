"""`tollway events`: what operators do about usage events that could not be taken in."""

from __future__ import annotations

import json
from typing import Any, Final

import click
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import DecodeError
from tollway.events.v1 import usage_event_pb2
from tollway.metering.v1 import metering_service_pb2 as pb

from cli.commands.failure import told_in_one_line
from cli.commands.remote import read_remote, where_and_whose
from cli.remote.failures import CommandFailed
from cli.remote.remote import Remote

STATES: Final = {
    "waiting": pb.DEAD_LETTER_STATE_WAITING,
    "replayed": pb.DEAD_LETTER_STATE_REPLAYED,
    "dropped": pb.DEAD_LETTER_STATE_DROPPED,
}


@click.group()
def events() -> None:
    """Look after usage events."""


@events.group("dead-letters")
@where_and_whose
@click.pass_context
def dead_letters(context: click.Context, /, **values: Any) -> None:
    """List, show, replay and drop events that could not be taken in.

    --address is metering's. What is not given is taken from who is signed in, or from the stack that runs on
    --data-dir.
    """
    context.obj = read_remote(context, values, "metering")


@dead_letters.command("list")
@click.option("--state", type=click.Choice(list(STATES)), default="waiting", show_default=True)
@click.pass_obj
def list_letters(remote: Remote, state: str) -> None:
    """List dead letters, the oldest first: id, arrival, reason, source, what is wrong."""
    with told_in_one_line():
        request = pb.ListDeadLettersRequest(organization_id=remote.organization_id, state=STATES[state])
        letters = list(remote.client.pages(remote.client.metering.ListDeadLetters, request, "dead_letters"))
        for letter in letters:
            click.echo(_line(letter))
    if not letters:
        # Not on stdout: a script that counts lines still counts none.
        click.echo(f"There are no dead letters that are {state}.", err=True)


@dead_letters.command()
@click.argument("dead_letter_id")
@click.pass_obj
def show(remote: Remote, dead_letter_id: str) -> None:
    """Show one dead letter with its event, as JSON."""
    with told_in_one_line():
        request = pb.GetDeadLetterRequest(organization_id=remote.organization_id, dead_letter_id=dead_letter_id)
        letter = remote.client.call(remote.client.metering.GetDeadLetter, request)
        click.echo(json.dumps(described(letter), indent=2))


@dead_letters.command()
@click.argument("dead_letter_ids", nargs=-1, required=True)
@click.pass_obj
def replay(remote: Remote, dead_letter_ids: tuple[str, ...]) -> None:
    """Take dead letters in again; what is stored already is not counted twice."""
    with told_in_one_line():
        request = pb.ReplayDeadLettersRequest(organization_id=remote.organization_id, dead_letter_ids=dead_letter_ids)
        answer = remote.client.call(remote.client.metering.ReplayDeadLetters, request)
        _tell(list(answer.dead_letters), pb.DEAD_LETTER_STATE_REPLAYED)


@dead_letters.command()
@click.argument("dead_letter_ids", nargs=-1, required=True)
@click.pass_obj
def drop(remote: Remote, dead_letter_ids: tuple[str, ...]) -> None:
    """Give dead letters up: nobody is ever billed for them."""
    with told_in_one_line():
        request = pb.DropDeadLettersRequest(organization_id=remote.organization_id, dead_letter_ids=dead_letter_ids)
        answer = remote.client.call(remote.client.metering.DropDeadLetters, request)
        _tell(list(answer.dead_letters), pb.DEAD_LETTER_STATE_DROPPED)


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


def _tell(letters: list[pb.DeadLetter], wanted: pb.DeadLetterState.ValueType) -> None:
    """Tell each letter's state; the exit status is 1 where one did not get where it was wanted."""
    for letter in letters:
        click.echo(_line(letter))
    others = sum(letter.state != wanted for letter in letters)
    if others:
        raise CommandFailed(f"{others} of {len(letters)} dead letters are not {_word(wanted)}")


def _line(letter: pb.DeadLetter) -> str:
    arrived = letter.create_time.ToDatetime().isoformat(timespec="seconds")
    reason = pb.DeadLetterReason.Name(letter.reason).removeprefix("DEAD_LETTER_REASON_").lower()
    return f"{letter.dead_letter_id}  {arrived}Z  {_word(letter.state)}  {reason}  {letter.source}  {letter.detail}"


def _word(state: pb.DeadLetterState.ValueType) -> str:
    return pb.DeadLetterState.Name(state).removeprefix("DEAD_LETTER_STATE_").lower()
