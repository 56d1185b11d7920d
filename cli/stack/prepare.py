"""What has to be in an installation before anybody can use it: the schema, the demo accounts, their subscriptions."""

from __future__ import annotations

from collections.abc import Mapping

import asyncpg
import grpc.aio

from cli import seed
from cli.stack import roles
from cli.stack.errors import StackError
from cli.stack.installation import Installation
from cli.stack.secrets import Secrets
from mesh import migrate
from mesh.client import Clients
from mesh.config import ProcessSettings


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


async def subscribe(addresses: Mapping[str, str], secrets: Secrets) -> None:
    """Subscribes the demo tenants through billing.

    Args:
        addresses: Where each service is.
        secrets: For this process's own token.

    Raises:
        StackError: billing refuses.
    """
    where = {f"{name}_address": address for name, address in addresses.items()}
    settings = ProcessSettings.model_validate({"process_secret": secrets.process_secret, **where})
    clients = Clients(settings, process=seed.PROCESS)
    try:
        await seed.seed_subscriptions(clients)
    except grpc.aio.AioRpcError as error:
        raise StackError(f"billing refuses the demo subscriptions: {error.code().name} {error.details()}") from error
    finally:
        await clients.close()
