"""`tollway edge`: what an operator of the edge needs beside the running process."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from edge_proxy.routing import file as routes_file


@click.group()
def edge() -> None:
    """Work with the edge's configuration."""


@edge.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check a routes file as the edge does before it takes one; `${NAME}` is read from the environment.

    Prints one line per problem and ends with status 1 where there are any.
    """
    try:
        table = routes_file.read(file, os.environ)
    except routes_file.RoutesFileError as error:
        for violation in error.violations:
            click.echo(violation)
        sys.exit(1)
    click.echo(f"{file}: {len(table.routes)} routes, {len(table.upstreams)} upstreams")
