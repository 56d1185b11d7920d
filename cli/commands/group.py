"""The group of all commands."""

from __future__ import annotations

import click

from cli.commands.edge import edge
from cli.commands.events import events
from cli.commands.migrate import migrate
from cli.commands.seed import seed
from cli.commands.status import status
from cli.commands.up import dev, up


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def tollway() -> None:
    """Tollway: a gateway that meters every request and bills for it."""


for command in (up, dev, status, migrate, seed, events, edge):
    tollway.add_command(command)
