"""`tollway migrate`: the schema, service by service."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

import asyncpg
import click

from cli.commands.failure import told_in_one_line
from cli.commands.options import data_dir as data_dir_option
from cli.stack import StackError, stack_file
from cli.stack.layout import Layout
from contract.services import SERVICES
from mesh.database import migrate as schema

T = TypeVar("T")
NAME: Final = re.compile(r"[a-z][a-z0-9_]*")

service_argument: Final = click.argument("service", type=click.Choice(SERVICES))


@click.group()
def migrate() -> None:
    """Create, apply, take back and list migrations.

    They run as the owner role: TOLLWAY_OWNER_DSN, or the one of the stack that runs on --data-dir.
    """


@migrate.command()
@service_argument
@click.argument("name")
def create(service: str, name: str) -> None:
    """Make the next pair of files for a service."""
    with told_in_one_line():
        for path in create_files(schema.MIGRATIONS, service, name):
            click.echo(path)


@migrate.command()
@click.argument("service", type=click.Choice(SERVICES), required=False)
@data_dir_option
def up(service: str | None, data_dir: Path) -> None:
    """Apply what is missing, for one service or all."""
    with told_in_one_line():
        for each in _run(schema.up(_owner_dsn(data_dir), service)):
            click.echo(f"applied {each.service}/{each.version:04}_{each.name}")


@migrate.command()
@service_argument
@click.option("--steps", type=click.IntRange(1), default=1, show_default=True, help="How many to take back.")
@data_dir_option
def down(service: str, steps: int, data_dir: Path) -> None:
    """Take back the last migrations of a service."""
    with told_in_one_line():
        for each in _run(schema.down(_owner_dsn(data_dir), service, steps)):
            click.echo(f"took back {each.service}/{each.version:04}_{each.name}")


@migrate.command()
@data_dir_option
def status(data_dir: Path) -> None:
    """List every migration and whether it is applied."""
    with told_in_one_line():
        for each in _run(schema.status(_owner_dsn(data_dir))):
            state = "applied" if each.applied else "missing"
            click.echo(f"{state}  {each.service}/{each.version:04}_{each.name}")


def create_files(root: Path, service: str, name: str) -> list[Path]:
    """Make the next pair of files for a service, up and down.

    Raises:
        StackError: the name is not lower-case words joined by underscores.
    """
    if NAME.fullmatch(name) is None:
        raise StackError(f"{name!r} is no name for a migration: use lower-case words joined by underscores")
    folder = root / service
    folder.mkdir(exist_ok=True)
    last = max((int(path.name[:4]) for path in folder.glob("[0-9]*.up.sql")), default=0)
    paths = [folder / f"{last + 1:04}_{name}.{way}.sql" for way in ("up", "down")]
    for path, purpose in zip(paths, ("What it adds, and why.", "Takes the same back."), strict=True):
        path.write_text(f"-- {purpose}\n", encoding="utf-8")
    return paths


def _owner_dsn(data_dir: Path) -> str:
    given = os.environ.get("TOLLWAY_OWNER_DSN")
    return given or str(stack_file.read(Layout(data_dir=data_dir.resolve()).stack_file)["postgres"]["dsns"]["owner"])


def _run(coroutine: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(coroutine)
    except (schema.MigrationError, asyncpg.PostgresError, OSError) as error:
        raise StackError(str(error)) from error
