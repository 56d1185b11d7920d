"""`tollway service-account`: members that are no persons."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import click
from google.protobuf import field_mask_pb2, timestamp_pb2
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from cli.commands.remote import (
    ROLES,
    Duration,
    calls_tollway,
    confirm,
    expiry_options,
    listing,
    to_duration,
)
from cli.remote.output import instant, word
from cli.remote.remote import Remote

PLATFORM_ROLES: Final = {
    name.removeprefix("PLATFORM_ROLE_").lower(): number
    for name, number in access_pb2.PlatformRole.items()
    if number != access_pb2.PLATFORM_ROLE_UNSPECIFIED
}


@click.group("service-account")
def service_account() -> None:
    """Service accounts: members that are no persons."""


@service_account.command()
@click.argument("name")
@click.option("--role", type=click.Choice(list(ROLES)), default="member", show_default=True)
@click.option(
    "--platform-role",
    type=click.Choice(list(PLATFORM_ROLES)),
    help="Administrators of the operator: what it may do in every organization.",
)
@expiry_options
@calls_tollway(changes=True)
def create(
    remote: Remote, name: str, role: str, platform_role: str | None, expire_time: timestamp_pb2.Timestamp | None
) -> None:
    """Create a service account and show its token, this once. It ends after 90 days unless told otherwise."""
    request = pb.CreateServiceAccountRequest(
        organization_id=remote.organization_id,
        name=name,
        role=ROLES[role],
        expire_time=expire_time,
        platform_role=PLATFORM_ROLES[platform_role] if platform_role else access_pb2.PLATFORM_ROLE_UNSPECIFIED,
        idempotency_key=remote.idempotency_key,
    )
    _print_created(remote, remote.client.call(remote.client.auth.CreateServiceAccount, request))


@service_account.command("list")
@listing
@calls_tollway()
def list_service_accounts(remote: Remote, limit: int | None) -> None:
    """List service accounts, newest first."""
    request = pb.ListServiceAccountsRequest(organization_id=remote.organization_id)
    columns = [
        ("ID", lambda each: each.service_account_id),
        ("NAME", lambda each: each.name),
        ("ROLE", lambda each: word(access_pb2.Role, each.role)),
        ("TOKEN", lambda each: each.hint),
        ("EXPIRES", lambda each: instant(each, "expire_time")),
        ("LAST USED", lambda each: instant(each, "last_use_time")),
        ("REVOKED", lambda each: instant(each, "revoke_time")),
    ]
    found = remote.client.pages(remote.client.auth.ListServiceAccounts, request, "service_accounts", limit=limit)
    remote.output.many(
        found, columns, essence=lambda each: str(each.service_account_id), none="There are no service accounts."
    )


@service_account.command()
@click.argument("service_account_id")
@calls_tollway()
def show(remote: Remote, service_account_id: str) -> None:
    """Show a service account."""
    request = pb.GetServiceAccountRequest(organization_id=remote.organization_id, service_account_id=service_account_id)
    _print(remote, remote.client.call(remote.client.auth.GetServiceAccount, request))


@service_account.command()
@click.argument("service_account_id")
@click.option("--name", help="Display name.")
@click.option("--role", type=click.Choice(list(ROLES)))
@expiry_options
@calls_tollway(changes=True)
def update(
    remote: Remote,
    service_account_id: str,
    name: str | None,
    role: str | None,
    expire_time: timestamp_pb2.Timestamp | None,
) -> None:
    """Change a service account's name, role or end."""
    wanted: dict[str, Any] = {"name": name, "role": ROLES[role] if role else None, "expire_time": expire_time}
    changed = {field: value for field, value in wanted.items() if value is not None}
    if not changed:
        raise click.UsageError("nothing to change: give --name, --role, --expires-in or --expire-time")
    request = pb.UpdateServiceAccountRequest(
        organization_id=remote.organization_id,
        service_account=pb.ServiceAccount(service_account_id=service_account_id, **changed),
        update_mask=field_mask_pb2.FieldMask(paths=list(changed)),
        idempotency_key=remote.idempotency_key,
    )
    _print(remote, remote.client.call(remote.client.auth.UpdateServiceAccount, request))


@service_account.command()
@click.argument("service_account_id")
@click.option("--overlap", type=Duration(), help="How long the old token goes on working, for example 1h; usually not.")
@calls_tollway(changes=True)
def rotate(remote: Remote, service_account_id: str, overlap: timedelta | None) -> None:
    """Replace a service account's token and show the new one, this once."""
    request = pb.RotateServiceAccountRequest(
        organization_id=remote.organization_id,
        service_account_id=service_account_id,
        overlap=to_duration(overlap),
        idempotency_key=remote.idempotency_key,
    )
    _print_created(remote, remote.client.call(remote.client.auth.RotateServiceAccount, request))


@service_account.command()
@click.argument("service_account_id")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@calls_tollway(changes=True)
def revoke(remote: Remote, service_account_id: str, yes: bool) -> None:
    """Revoke a service account, for good; it is refused within a second."""
    confirm(f"Revoke {service_account_id} for good?", yes=yes)
    request = pb.RevokeServiceAccountRequest(
        organization_id=remote.organization_id,
        service_account_id=service_account_id,
        idempotency_key=remote.idempotency_key,
    )
    _print(remote, remote.client.call(remote.client.auth.RevokeServiceAccount, request))


def _facts(account: pb.ServiceAccount) -> list[tuple[str, object]]:
    facts: list[tuple[str, object]] = [
        ("id", account.service_account_id),
        ("organization", account.organization_id),
        ("name", account.name),
        ("role", word(access_pb2.Role, account.role)),
        ("hint", account.hint),
        ("creator", account.creator_id or "-"),
        ("created", instant(account, "create_time")),
        ("expires", instant(account, "expire_time")),
        ("last used", instant(account, "last_use_time")),
        ("revoked", instant(account, "revoke_time")),
    ]
    if account.platform_role:
        facts.append(("platform role", word(access_pb2.PlatformRole, account.platform_role)))
    return facts


def _print(remote: Remote, account: pb.ServiceAccount) -> None:
    remote.output.one(account, _facts(account), essence=account.service_account_id)


def _print_created(remote: Remote, created: pb.CreateServiceAccountResponse) -> None:
    facts = _facts(created.service_account)
    remote.output.one(created, facts, essence=created.token, secret=("token", created.token))
