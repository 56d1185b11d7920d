"""`tollway`: one command for the local stack and what belongs to it. `python -m cli` is the same."""

from __future__ import annotations

import click

from cli.commands.migrate import migrate
from cli.commands.seed import seed
from cli.commands.status import status
from cli.commands.up import dev, up


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
def main() -> None:
    """Tollway: a gateway that meters every request and bills for it."""


for command in (up, dev, status, migrate, seed):
    main.add_command(command)


if __name__ == "__main__":
    main(prog_name="tollway")
