"""The page about the command line lists what there is: every command and every exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import click

from cli.commands.group import tollway
from cli.remote.failures import ExitCode

README = Path(__file__).resolve().parents[3] / "cli" / "README.md"


def leaves(command: click.Command, path: tuple[str, ...]) -> Iterator[str]:
    """Names every command that is no group, with the groups that it lies in."""
    if isinstance(command, click.Group):
        for name, each in command.commands.items():
            yield from leaves(each, (*path, name))
    else:
        yield " ".join(path)


def listed() -> list[str]:
    """Reads the table: its first cell is a command, or a group and its commands."""
    found = []
    for cell in re.findall(r"^\| (`tollway [^|]+) \|", README.read_text(), re.MULTILINE):
        first, *others = re.findall(r"`([^`]+)`", cell)
        group = first.rpartition(" ")[0]
        found += [first, *(f"{group} {name}" for name in others)]
    return found


def test_every_command_is_in_the_table_and_the_other_way_round() -> None:
    assert sorted(listed()) == sorted(leaves(tollway, ("tollway",)))
    assert len(listed()) > 40


def test_every_exit_code_is_in_the_table() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|", README.read_text(), re.MULTILINE)
    assert [(int(number), name) for number, name in rows] == [(each.value, each.name) for each in ExitCode]


def test_every_command_says_what_it_does_and_every_option_what_it_means() -> None:
    silent = []
    for path in leaves(tollway, ()):
        command: click.Command = tollway
        for name in path.split():
            assert isinstance(command, click.Group)
            command = command.commands[name]
        options = [each for each in command.params if isinstance(each, click.Option)]
        speaking = [each for each in options if each.help or isinstance(each.type, click.Choice)]
        if not command.help or options != speaking:
            silent.append(path)
    assert silent == []
