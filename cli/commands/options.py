"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from cli.stack.ports import DEFAULT_PORTS

Command = TypeVar("Command", bound=Callable[..., Any])

data_dir: Final = click.option(
    "--data-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("var"),
    show_default=True,
    help="Where the stack keeps everything.",
)


def option_name(part: str) -> str:
    """Return the parameter that carries a part's port."""
    return f"{part.replace('-', '_')}_port"


def port_options(command: Command) -> Command:
    """Add `--<part>-port` for every part of the stack."""
    for part in reversed(list(DEFAULT_PORTS)):
        option = click.option(
            f"--{part}-port",
            option_name(part),
            type=click.IntRange(1, 65_535),
            help=f"Port of {part} (usually {DEFAULT_PORTS[part]}).",
        )
        command = option(command)
    return command
