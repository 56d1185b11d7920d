"""What has to be in an installation before anybody can use it: the schema, the demo accounts, their subscriptions."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import Final

import asyncpg

from cli import seed
from cli.stack import roles
from cli.stack.death_signal import die_with_parent
from cli.stack.errors import StackError
from cli.stack.installation import Installation
from cli.stack.parts import ROOT, inherited_environment
from cli.stack.secrets import Secrets
from mesh.database import migrate

SUBSCRIBE_SECONDS_MAX: Final = 60.0


async def migrate_and_seed(installation: Installation) -> int:
    """Migrates every service and inserts the demo accounts; returns how many organizations were new.

    Raises:
        StackError: a migration or a statement failed.
    """
    try:
        await migrate.up(installation.postgres.dsn(roles.OWNER))
        return await seed.seed_accounts(installation.postgres.dsn("tollway_auth_system"), installation.secrets)
    except (migrate.MigrationError, asyncpg.PostgresError, OSError) as error:
        raise StackError(f"the database cannot be migrated: {error}") from error


def subscribe(addresses: Mapping[str, str], secrets: Secrets) -> None:
    """Subscribes the demo tenants through billing, in a process of its own.

    Args:
        addresses: Where each service is.
        secrets: For that process's token.

    Raises:
        StackError: billing refuses.
    """
    where = {f"TOLLWAY_{name.upper()}_ADDRESS": address for name, address in addresses.items()}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "cli.subscriptions"],
            cwd=ROOT,
            env={**inherited_environment(), **where, "TOLLWAY_PROCESS_SECRET": secrets.process_secret},
            capture_output=True,
            text=True,
            check=False,
            timeout=SUBSCRIBE_SECONDS_MAX,
            preexec_fn=die_with_parent(signal.SIGTERM),
        )
    except subprocess.TimeoutExpired as error:
        raise StackError(f"the demo subscriptions took longer than {SUBSCRIBE_SECONDS_MAX:.0f} s") from error
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or ["it says nothing"]
        raise StackError(f"the demo subscriptions failed: {said[-1]}")
