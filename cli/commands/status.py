"""`tollway status`: what runs, read from `stack.json`."""

from __future__ import annotations

from pathlib import Path

import click

from cli.commands.failure import told_in_one_line
from cli.commands.options import data_dir as data_dir_option
from cli.stack import StackError, stack_file
from cli.stack.children import degraded_reason, not_ready_reason
from cli.stack.layout import Layout, is_locked


@click.command()
@data_dir_option
def status(data_dir: Path) -> None:
    """Say what runs and whether it is ready."""
    layout = Layout(data_dir=data_dir.resolve())
    with told_in_one_line():
        described = stack_file.read(layout.stack_file)
        if not is_locked(layout.lock):
            raise StackError(f"{layout.stack_file} is left over from a stack that was killed: nothing runs")
        reasons = {name: not_ready_reason(url) for name, url in stack_file.ready_urls(described).items()}
        for name, reason in reasons.items():
            pids = " ".join(str(pid) for pid in described["pids"].get(name, []))
            degraded = "" if reason else degraded_reason(stack_file.ready_urls(described)[name])
            click.echo(f"{name:13} {reason or 'ready':8} {pids}{f'  degraded: {degraded}' if degraded else ''}")
        for label, url in (("edge", described["edge"]["url"]), ("gateway", described["gateway"]["url"])):
            click.echo(f"{label:13} {url}")
        if any(reasons.values()):
            raise StackError("not everything is ready")
