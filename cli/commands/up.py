"""`tollway up` and `tollway dev`."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cli import show
from cli.commands.failure import told_in_one_line
from cli.commands.options import data_dir, option_name, port_options
from cli.stack.installation import Options
from cli.stack.ports import DEFAULT_PORTS
from cli.stack.up import RunningStack, running_stack
from cli.stack.watch import Restart, Restarter, StopAll

Command = TypeVar("Command", bound=Callable[..., Any])


def stack_options(command: Command) -> Command:
    """Add what both commands take."""
    options = [
        data_dir,
        click.option("--ports", type=click.Choice(["usual", "auto"]), default="usual", help="auto: any free ports."),
        click.option("--workers", type=click.IntRange(0, 256), default=0, help="Workers of the edge; 0: one per core."),
        click.option("--kafka", is_flag=True, help="Carry usage over a real Kafka (Java 17 and Maven)."),
        click.option("--reset", is_flag=True, help="Delete the data folder's content first."),
        click.option("--no-demo", is_flag=True, help="Start only; send no demo traffic."),
        port_options,
    ]
    for option in reversed(options):
        command = option(command)
    return command


@click.command()
@stack_options
@click.option("--restart", is_flag=True, help="Start a process that dies again, instead of stopping everything.")
def up(*, restart: bool, **given: Any) -> None:
    """Start everything and stay until Ctrl-C.

    Servers given by TOLLWAY_POSTGRES_ADMIN_DSN, TOLLWAY_REDIS_URL and TOLLWAY_KAFKA_BOOTSTRAP are used instead of
    embedded ones.
    """
    _run(given, lambda stack, say: Restart(stack, say) if restart else StopAll(stack))


@click.command()
@stack_options
def dev(**given: Any) -> None:
    """As up, and restart the process whose source changes."""
    _run(given, Restarter)


def _run(given: dict[str, Any], on_turn: Callable[[RunningStack, Callable[[str], None]], Callable[[], None]]) -> None:
    begun = time.monotonic()

    def say(text: str) -> None:
        click.echo(f"  {time.monotonic() - begun:5.1f} s  {text}")

    with told_in_one_line(), running_stack(_options(given), say) as stack:
        show.addresses(stack.installation)
        if not given["no_demo"]:
            show.traffic(stack.installation)
        click.echo("Ctrl-C stops everything.")
        try:
            stack.serve(on_turn(stack, say))
        except KeyboardInterrupt:
            click.echo("stopping")


def _options(given: dict[str, Any]) -> Options:
    folder: Path = given["data_dir"]
    return Options(
        data_dir=folder,
        given_ports={part: given[option_name(part)] for part in DEFAULT_PORTS},
        automatic_ports=given["ports"] == "auto",
        workers=given["workers"],
        with_kafka=given["kafka"],
        reset=given["reset"],
        postgres_admin_dsn=os.environ.get("TOLLWAY_POSTGRES_ADMIN_DSN"),
        redis_url=os.environ.get("TOLLWAY_REDIS_URL"),
        kafka_bootstrap=os.environ.get("TOLLWAY_KAFKA_BOOTSTRAP"),
    )
