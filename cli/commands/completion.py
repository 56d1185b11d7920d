"""`tollway completion`: what makes a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete commands and options: eval "$(tollway completion bash)"."""
    found = get_completion_class(shell)
    assert found is not None, "click knows these shells"  # noqa: S101
    group = context.find_root().command
    click.echo(found(group, {}, "tollway", "_TOLLWAY_COMPLETE").source())
