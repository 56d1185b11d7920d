"""What commands print: a table for people, JSON for scripts, or the one value that matters.

JSON is the contract's own (proto3 JSON, as in REST): a single thing is one document, a list is one object a line.
Fields are always there, empty ones included, so that a script need not guess. Values in tables come from customers;
what a terminal would act on in them is shown as `?`.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import click
from google.protobuf import timestamp_pb2
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

GAP: Final = "  "

Column = tuple[str, Callable[[Any], object]]
"""A heading, and what stands below it."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """How to print."""

    as_json: bool = False
    quiet: bool = False

    def one(
        self,
        thing: Message,
        facts: Sequence[tuple[str, object]],
        *,
        essence: str,
        secret: tuple[str, str] | None = None,
    ) -> None:
        """Print one thing.

        Args:
            thing: As it came.
            facts: Names and values for people.
            essence: What `--quiet` prints: an id, or a secret that is shown once.
            secret: Name and value of a secret that is shown once.
        """
        if self.as_json:
            click.echo(json.dumps(as_dict(thing), indent=2, ensure_ascii=False))
        elif self.quiet:
            click.echo(essence)
        else:
            shown = [*facts, secret] if secret else list(facts)
            width = max(len(name) for name, _ in shown)
            for name, value in shown:
                click.echo(f"{name:{width}}{GAP}{printable(value)}".rstrip())
            if secret:
                click.echo(f"The {secret[0]} is shown this once: keep it safe.", err=True)

    def many(
        self, things: Iterable[Message], columns: Sequence[Column], *, essence: Callable[[Any], str], none: str
    ) -> None:
        """Print a list.

        Args:
            things: As they came; JSON and ids are printed as they come, a table at the end.
            columns: Of the table.
            essence: What `--quiet` prints of each.
            none: The sentence for people where there is none; on stderr, so that a script counts no line.
        """
        if self.as_json or self.quiet:
            for thing in things:
                click.echo(essence(thing) if self.quiet else json.dumps(as_dict(thing), ensure_ascii=False))
            return
        rows = [[printable(read(thing)) for _, read in columns] for thing in things]
        if not rows:
            click.echo(none, err=True)
            return
        table = [[heading for heading, _ in columns], *rows]
        widths = [max(len(row[at]) for row in table) for at in range(len(columns))]
        for row in table:
            click.echo(GAP.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

    def done(self, sentence: str) -> None:
        """Say that something is done which has no answer of its own."""
        if self.as_json:
            click.echo("{}")
        elif not self.quiet:
            click.echo(sentence)


def as_dict(thing: Message) -> dict[str, Any]:
    """Return a message in the contract's JSON."""
    found: dict[str, Any] = MessageToDict(
        thing, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return found


def printable(value: object) -> str:
    """Return a value as a cell: nothing in it moves a cursor or changes a colour."""
    text = "yes" if value is True else "no" if value is False else str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


def instant(message: Any, field: str) -> str:
    """Return an instant of a message in UTC; `-` where it is unset."""
    if not message.HasField(field):
        return "-"
    timestamp: timestamp_pb2.Timestamp = getattr(message, field)
    return f"{timestamp.ToDatetime().isoformat(timespec='seconds')}Z"


def word(enum: Any, number: int) -> str:
    """Return an enum's value as people say it: `ROLE_OWNER` is owner; `-` where it is unspecified."""
    if number not in enum.DESCRIPTOR.values_by_number:
        return str(number)
    names = enum.DESCRIPTOR.values_by_number
    prefix = names[0].name.removesuffix("UNSPECIFIED")
    return names[number].name.removeprefix(prefix).lower() if number else "-"
