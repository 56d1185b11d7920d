"""`tollway org`: organizations, and what was done in them."""

from __future__ import annotations

import dataclasses
import sys
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import click
from google.protobuf import field_mask_pb2
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from cli.commands.remote import Instant, calls_tollway, confirm, listing, to_timestamp
from cli.commands.user import print_members
from cli.remote.client import Client, GivenToken
from cli.remote.failures import CommandFailed, ExitCode
from cli.remote.output import instant, word
from cli.remote.profiles import CredentialsFile
from cli.remote.remote import Remote
from cli.remote.sessions import with_session

EXPORT_SECONDS_MAX: Final = 3_600.0
FORMATS: Final = {"jsonl": pb.AUDIT_EXPORT_FORMAT_JSONL, "csv": pb.AUDIT_EXPORT_FORMAT_CSV}
STATES: Final = {
    "active": pb.ORGANIZATION_STATE_ACTIVE,
    "suspended": pb.ORGANIZATION_STATE_SUSPENDED,
    "deleted": pb.ORGANIZATION_STATE_DELETED,
}
_DETAILS: Final = (
    click.option("--contact-email", help="Where people of the organization are reached."),
    click.option("--billing-email", help="Where invoices go."),
    click.option("--currency", help="ISO 4217, for example USD."),
    click.option("--time-zone", help="IANA name, for example Europe/Berlin."),
    click.option("--metadata", multiple=True, metavar="KEY=VALUE", help="Own notes; may be given several times."),
)


def _details(command: Any) -> Any:
    for option in reversed(_DETAILS):
        command = option(command)
    return command


@click.group()
def org() -> None:
    """Organizations."""


@org.command()
@click.argument("name")
@click.option("--owner-email", help="Operators: who is invited as owner; without it you are the owner.")
@click.option("--external-id", help="Operators: your own id for the customer.")
@_details
@calls_tollway(changes=True, in_organization=False)
def create(remote: Remote, name: str, owner_email: str | None, external_id: str | None, **details: Any) -> None:
    """Create an organization: your own, or as an operator one for a customer."""
    values = {
        "name": name,
        "contact_email": details["contact_email"],
        "billing_email": details["billing_email"],
        "currency_code": details["currency"],
        "time_zone": details["time_zone"],
        "metadata": _metadata(details["metadata"]),
        "idempotency_key": remote.idempotency_key,
    }
    auth, made = remote.client.auth, None
    if owner_email:
        provision = pb.ProvisionOrganizationRequest(owner_email=owner_email, external_id=external_id or "", **values)
        made = remote.client.call(auth.ProvisionOrganization, provision)
    elif external_id:
        raise click.UsageError("--external-id is for operators, together with --owner-email")
    else:
        made = remote.client.call(auth.CreateOrganization, pb.CreateOrganizationRequest(**values))
    _print(remote, made)


@org.command("list")
@click.option("--mine", is_flag=True, help="Operators: only those that you are a member of.")
@click.option("--name", help="Operators: only those whose name contains this.")
@click.option("--state", type=click.Choice(list(STATES)), help="Operators: only those in this state.")
@click.option("--external-id", help="Operators: only the one with this external id.")
@listing
@calls_tollway(in_organization=False)
def list_organizations(
    remote: Remote, *, limit: int | None, mine: bool, name: str | None, state: str | None, external_id: str | None
) -> None:
    """List the organizations that you are a member of; operators see all."""
    if remote.me.platform_roles and not mine:
        request = pb.ListOrganizationsRequest(
            name_contains=name or "",
            external_id=external_id or "",
            state=STATES[state] if state else pb.ORGANIZATION_STATE_UNSPECIFIED,
        )
        found = remote.client.pages(remote.client.auth.ListOrganizations, request, "organizations", limit=limit)
        columns = [
            ("ID", lambda each: each.organization_id),
            ("NAME", lambda each: each.name),
            ("STATE", lambda each: word(pb.OrganizationState, each.state)),
            ("PLAN", lambda each: each.plan_id or "-"),
            ("CONTACT", lambda each: each.contact_email),
            ("CREATED", lambda each: instant(each, "create_time")),
        ]
        remote.output.many(
            found, columns, essence=lambda each: str(each.organization_id), none="There are no such organizations."
        )
        return
    if name or state or external_id:
        raise click.UsageError("--name, --state and --external-id are for operators")
    columns = [
        ("ID", lambda each: each.organization_id),
        ("NAME", lambda each: each.organization_name),
        ("ROLE", lambda each: word(access_pb2.Role, each.role)),
        ("STATE", lambda each: word(pb.OrganizationState, each.organization_state)),
        ("JOINED", lambda each: instant(each, "join_time")),
    ]
    remote.output.many(
        list(remote.me.person.memberships)[:limit],
        columns,
        essence=lambda each: str(each.organization_id),
        none="You are a member of no organization.",
    )


@org.command()
@click.argument("organization", required=False)
@calls_tollway(in_organization=False)
def show(remote: Remote, organization: str | None) -> None:
    """Show an organization (id or name), usually the one that you are signed in to."""
    request = pb.GetOrganizationRequest(organization_id=remote.find_organization(organization or ""))
    _print(remote, remote.client.call(remote.client.auth.GetOrganization, request))


@org.command()
@click.argument("organization", required=False)
@click.option("--name", help="Display name.")
@_details
@calls_tollway(changes=True, in_organization=False)
def update(remote: Remote, organization: str | None, name: str | None, **details: Any) -> None:
    """Change an organization's name, addresses, currency, time zone or notes. --metadata replaces all notes."""
    wanted = {
        "name": name,
        "contact_email": details["contact_email"],
        "billing_email": details["billing_email"],
        "currency_code": details["currency"],
        "time_zone": details["time_zone"],
        "metadata": _metadata(details["metadata"]) or None,
    }
    changed = {field: value for field, value in wanted.items() if value is not None}
    if not changed:
        raise click.UsageError("nothing to change: give --name, --contact-email, …")
    request = pb.UpdateOrganizationRequest(
        organization_id=remote.find_organization(organization or ""),
        organization=pb.Organization(**changed),
        update_mask=field_mask_pb2.FieldMask(paths=list(changed)),
        idempotency_key=remote.idempotency_key,
    )
    _print(remote, remote.client.call(remote.client.auth.UpdateOrganization, request))


@org.command()
@click.argument("organization")
@click.option("--reason", required=True, help="Why; the organization is told.")
@calls_tollway(changes=True, in_organization=False)
def suspend(remote: Remote, organization: str, reason: str) -> None:
    """Operators: refuse an organization's keys; its people may only look and pay."""
    request = pb.SuspendOrganizationRequest(
        organization_id=remote.find_organization(organization), reason=reason, idempotency_key=remote.idempotency_key
    )
    _print(remote, remote.client.call(remote.client.auth.SuspendOrganization, request))


@org.command()
@click.argument("organization")
@click.option("--reason", required=True, help="Why, for the audit log.")
@calls_tollway(changes=True, in_organization=False)
def resume(remote: Remote, organization: str, reason: str) -> None:
    """Operators: serve an organization again."""
    request = pb.ResumeOrganizationRequest(
        organization_id=remote.find_organization(organization), reason=reason, idempotency_key=remote.idempotency_key
    )
    _print(remote, remote.client.call(remote.client.auth.ResumeOrganization, request))


@org.command()
@click.argument("organization")
@click.option("--confirm-name", help="The organization's name, typed again; asked for where it is not given.")
@calls_tollway(changes=True, in_organization=False)
def delete(remote: Remote, organization: str, confirm_name: str | None) -> None:
    """Delete an organization for good: keys, sessions and service accounts end, invoices stay."""
    organization_id = remote.find_organization(organization)
    name = confirm_name or click.prompt("This cannot be taken back. Type the organization's name", err=True)
    request = pb.DeleteOrganizationRequest(
        organization_id=organization_id, name=name, idempotency_key=remote.idempotency_key
    )
    _print(remote, remote.client.call(remote.client.auth.DeleteOrganization, request))


@org.command()
@click.argument("organization")
@calls_tollway(in_organization=False)
def switch(remote: Remote, organization: str) -> None:
    """Move your session to another of your organizations (id or name)."""
    caller = remote.caller
    if not caller.profile:
        raise CommandFailed("only a session that `tollway login` has opened can be moved", ExitCode.NOT_SIGNED_IN)
    organization_id = remote.find_organization(organization)
    token = caller.credentials.token()
    file = CredentialsFile.of(remote.environment)
    # The answer replaces the refresh token, so nobody may renew the session meanwhile.
    with file.locked():
        client = Client(
            caller.addresses,
            GivenToken(token),
            timeout_seconds=remote.timeout_seconds,
            environment=remote.environment,
        )
        request = pb.SwitchOrganizationRequest(organization_id=organization_id)
        session = client.call(client.auth.SwitchOrganization, request)
        profiles = file.read()
        moved = with_session(profiles.by_name[caller.profile], session)
        file.write(dataclasses.replace(profiles, by_name={**profiles.by_name, caller.profile: moved}))
    remote.output.done(f"Switched to {organization_id} as {word(access_pb2.Role, session.role)}.")


@org.command()
@click.argument("organization", required=False)
@listing
@calls_tollway(in_organization=False)
def members(remote: Remote, organization: str | None, limit: int | None) -> None:
    """List an organization's members."""
    print_members(remote, remote.find_organization(organization or ""), limit)


@org.command()
@click.argument("organization", required=False)
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@calls_tollway(changes=True, in_organization=False)
def leave(remote: Remote, organization: str | None, yes: bool) -> None:
    """Leave an organization; the last owner stays."""
    organization_id = remote.find_organization(organization or "")
    confirm(f"Leave {organization_id}?", yes=yes)
    request = pb.LeaveOrganizationRequest(organization_id=organization_id, idempotency_key=remote.idempotency_key)
    remote.client.call(remote.client.auth.LeaveOrganization, request)
    remote.output.done(f"You are no longer a member of {organization_id}.")


@org.group()
def audit() -> None:
    """Look into the audit log: who did what, when, from where."""


_FILTER: Final = (
    click.option("--actor", help="Only what this person, service account or process did."),
    click.option("--action", help="Only this action, for example api_key.create; api_key.* means all of a kind."),
    click.option("--resource", help="Only what was done to this, for example api_key/0190…"),
    click.option("--since", type=Instant(), help="Only from this time on (ISO 8601)."),
    click.option("--until", type=Instant(), help="Only before this time."),
)


def _filtered(command: Any) -> Any:
    for option in reversed(_FILTER):
        command = option(command)
    return command


@audit.command("list")
@_filtered
@listing
@calls_tollway()
def list_audit_entries(remote: Remote, limit: int | None, **wanted: Any) -> None:
    """List the audit log, newest first."""
    request = pb.ListAuditEntriesRequest(organization_id=remote.organization_id, filter=_to_filter(**wanted))
    columns = [
        ("TIME", lambda each: instant(each, "create_time")),
        ("ACTION", lambda each: each.action),
        ("ACTOR", lambda each: f"{each.actor_kind} {each.actor}".strip()),
        ("RESOURCE", lambda each: each.resource),
        ("FROM", lambda each: each.address or "-"),
        ("REQUEST", lambda each: each.request_id or "-"),
    ]
    found = remote.client.pages(remote.client.auth.ListAuditEntries, request, "audit_entries", limit=limit)
    remote.output.many(found, columns, essence=lambda each: str(each.audit_entry_id), none="There are no such entries.")


@audit.command()
@_filtered
@click.option("--format", "form", type=click.Choice(list(FORMATS)), default="jsonl", show_default=True)
@click.option("--output", "target", type=click.Path(path_type=Path, dir_okay=False), help="A file; usually stdout.")
@calls_tollway()
def export(remote: Remote, form: str, target: Path | None, **wanted: Any) -> None:
    """Export the audit log, oldest first. A file is there whole or not at all."""
    request = pb.ExportAuditEntriesRequest(
        organization_id=remote.organization_id, filter=_to_filter(**wanted), format=FORMATS[form]
    )
    parts = remote.client.stream(remote.client.auth.ExportAuditEntries, request, EXPORT_SECONDS_MAX)
    if target is None:
        for part in parts:
            sys.stdout.buffer.write(part.content)
        sys.stdout.buffer.flush()
        return
    temporary = target.with_name(f"{target.name}.part")
    try:
        with temporary.open("wb") as file:
            for part in parts:
                file.write(part.content)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)
    remote.output.done(f"Written to {target}.")


def _to_filter(
    actor: str | None, action: str | None, resource: str | None, since: datetime | None, until: datetime | None
) -> pb.AuditFilter:
    return pb.AuditFilter(
        actor=actor or "",
        action=action or "",
        resource=resource or "",
        start_time=to_timestamp(since) if since else None,
        end_time=to_timestamp(until) if until else None,
    )


def _metadata(pairs: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        key, separator, value = pair.partition("=")
        if not separator or not key:
            raise click.UsageError(f"--metadata takes KEY=VALUE, not {pair!r}")
        found[key] = value
    return found


def _print(remote: Remote, organization: pb.Organization) -> None:
    facts = [
        ("id", organization.organization_id),
        ("name", organization.name),
        ("state", word(pb.OrganizationState, organization.state)),
        ("plan", organization.plan_id or "-"),
        ("restricted", organization.restricted),
        ("contact", organization.contact_email),
        ("billing", organization.billing_email),
        ("currency", organization.currency_code),
        ("time zone", organization.time_zone),
        ("external id", organization.external_id or "-"),
        ("created", instant(organization, "create_time")),
    ]
    facts += [(f"metadata {key}", value) for key, value in sorted(organization.metadata.items())]
    facts += [("suspended because", organization.suspend_reason)] if organization.suspend_reason else []
    facts += [("deleted", instant(organization, "delete_time"))] if organization.HasField("delete_time") else []
    remote.output.one(organization, facts, essence=organization.organization_id)
