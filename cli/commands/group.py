"""The group of all commands."""

from __future__ import annotations

import click

from cli.commands.apikey import apikey
from cli.commands.completion import completion
from cli.commands.edge import edge
from cli.commands.events import events
from cli.commands.login import login, logout, profile, whoami
from cli.commands.migrate import migrate
from cli.commands.org import org
from cli.commands.seed import seed
from cli.commands.service_account import service_account
from cli.commands.status import status
from cli.commands.up import dev, up
from cli.commands.user import user


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def tollway() -> None:
    """Tollway: a gateway that meters every request and bills for it."""


_STACK = (up, dev, status, migrate, seed, edge)
_REMOTE = (login, logout, whoami, profile, org, user, service_account, apikey, events)
for command in (*_STACK, *_REMOTE, completion):
    tollway.add_command(command)
