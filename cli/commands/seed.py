"""`tollway seed`: the demo data, once more, into the stack that runs."""

from __future__ import annotations

import asyncio
from pathlib import Path

import click

from cli import seed as demo
from cli.commands.failure import told_in_one_line
from cli.commands.options import data_dir as data_dir_option
from cli.seed import subscribe
from cli.stack import secrets, stack_file
from cli.stack.layout import Layout


@click.command()
@data_dir_option
def seed(data_dir: Path) -> None:
    """Insert the demo organizations, people, keys and subscriptions that are missing."""
    layout = Layout(data_dir=data_dir.resolve())
    with told_in_one_line():
        described = stack_file.read(layout.stack_file)
        kept = secrets.load(layout.secrets)
        inserted = asyncio.run(demo.seed_accounts(described["postgres"]["dsns"]["auth_system"], kept))
        addresses = {name: service["address"] for name, service in described["services"].items()}
        subscribe(addresses, kept)
        click.echo(f"{inserted} organizations were new")
