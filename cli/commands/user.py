"""`tollway user`: people in an organization, invitations, sessions, and what is stored about somebody."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Final

import click
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from cli.commands.remote import ROLES, calls_tollway, confirm, listing
from cli.remote.failures import CommandFailed
from cli.remote.output import instant, word
from cli.remote.remote import Remote
from cli.stack.layout import write_text

INVITATION_STATES: Final = {
    "pending": pb.INVITATION_STATE_PENDING,
    "accepted": pb.INVITATION_STATE_ACCEPTED,
    "declined": pb.INVITATION_STATE_DECLINED,
    "cancelled": pb.INVITATION_STATE_CANCELLED,
    "expired": pb.INVITATION_STATE_EXPIRED,
}


@click.group()
def user() -> None:
    """People: members, invitations, sessions, privacy."""


@user.command("list")
@listing
@calls_tollway()
def list_members(remote: Remote, limit: int | None) -> None:
    """List the members, the first joined first."""
    print_members(remote, remote.organization_id, limit)


@user.command()
@click.argument("email")
@click.option("--role", type=click.Choice(list(ROLES)), default="member", show_default=True)
@calls_tollway(changes=True)
def invite(remote: Remote, email: str, role: str) -> None:
    """Invite somebody by e-mail."""
    request = pb.InviteMemberRequest(
        organization_id=remote.organization_id,
        email=email,
        role=ROLES[role],
        idempotency_key=remote.idempotency_key,
    )
    _print_invitation(remote, remote.client.call(remote.client.auth.InviteMember, request))


@user.command()
@click.argument("person")
@click.argument("role", type=click.Choice(list(ROLES)))
@calls_tollway(changes=True)
def role(remote: Remote, person: str, role: str) -> None:
    """Change the role of a member (id or e-mail address)."""
    request = pb.ChangeMemberRoleRequest(
        organization_id=remote.organization_id,
        person_id=remote.find_member(person),
        role=ROLES[role],
        idempotency_key=remote.idempotency_key,
    )
    member = remote.client.call(remote.client.auth.ChangeMemberRole, request)
    facts = [("id", member.person_id), ("e-mail", member.email), ("role", word(access_pb2.Role, member.role))]
    remote.output.one(member, facts, essence=member.person_id)


@user.command()
@click.argument("person")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@calls_tollway(changes=True)
def remove(remote: Remote, person: str, yes: bool) -> None:
    """Remove a member (id or e-mail address); their sessions in the organization end."""
    person_id = remote.find_member(person)
    confirm(f"Remove {person} from {remote.organization_id}?", yes=yes)
    request = pb.RemoveMemberRequest(
        organization_id=remote.organization_id, person_id=person_id, idempotency_key=remote.idempotency_key
    )
    remote.client.call(remote.client.auth.RemoveMember, request)
    remote.output.done(f"{person} is no longer a member.")


@user.group()
def invitation() -> None:
    """Invitations: of an organization, and your own."""


@invitation.command("list")
@click.option("--mine", is_flag=True, help="Those that wait for you.")
@click.option("--state", type=click.Choice(list(INVITATION_STATES)), default="pending", show_default=True)
@listing
@calls_tollway()
def list_invitations(remote: Remote, limit: int | None, mine: bool, state: str) -> None:
    """List invitations, newest first."""
    auth = remote.client.auth
    if mine:
        found = iter(remote.client.call(auth.ListMyInvitations, pb.ListMyInvitationsRequest()).invitations[:limit])
    else:
        request = pb.ListInvitationsRequest(organization_id=remote.organization_id, state=INVITATION_STATES[state])
        found = remote.client.pages(auth.ListInvitations, request, "invitations", limit=limit)
    columns = [
        ("ID", lambda each: each.invitation_id),
        ("ORGANIZATION", lambda each: each.organization_name),
        ("E-MAIL", lambda each: each.email),
        ("ROLE", lambda each: word(access_pb2.Role, each.role)),
        ("STATE", lambda each: word(pb.InvitationState, each.state)),
        ("EXPIRES", lambda each: instant(each, "expire_time")),
    ]
    remote.output.many(
        found, columns, essence=lambda each: str(each.invitation_id), none="There are no such invitations."
    )


@invitation.command()
@click.argument("invitation_id")
@calls_tollway(changes=True)
def cancel(remote: Remote, invitation_id: str) -> None:
    """Take an invitation back."""
    request = pb.CancelInvitationRequest(
        organization_id=remote.organization_id, invitation_id=invitation_id, idempotency_key=remote.idempotency_key
    )
    _print_invitation(remote, remote.client.call(remote.client.auth.CancelInvitation, request))


@invitation.command()
@click.argument("invitation_id")
@calls_tollway(changes=True)
def resend(remote: Remote, invitation_id: str) -> None:
    """Send an invitation again, with a new link; the old one ends."""
    request = pb.ResendInvitationRequest(
        organization_id=remote.organization_id, invitation_id=invitation_id, idempotency_key=remote.idempotency_key
    )
    _print_invitation(remote, remote.client.call(remote.client.auth.ResendInvitation, request))


@invitation.command()
@click.argument("invitation_id")
@calls_tollway(changes=True, in_organization=False)
def accept(remote: Remote, invitation_id: str) -> None:
    """Join the organization that invited you; `invitation list --mine` shows which."""
    request = pb.AcceptInvitationRequest(invitation_id=invitation_id, idempotency_key=remote.idempotency_key)
    membership = remote.client.call(remote.client.auth.AcceptInvitation, request)
    facts = [
        ("organization", membership.organization_id),
        ("name", membership.organization_name),
        ("role", word(access_pb2.Role, membership.role)),
    ]
    remote.output.one(membership, facts, essence=membership.organization_id)


@user.group()
def sessions() -> None:
    """Where you are signed in."""


@sessions.command("list")
@calls_tollway(in_organization=False)
def list_sessions(remote: Remote) -> None:
    """List your sessions, newest first."""
    found = remote.client.call(remote.client.auth.ListSessions, pb.ListSessionsRequest()).sessions
    columns = [
        ("ID", lambda each: each.session_id),
        ("CURRENT", lambda each: each.current),
        ("ORGANIZATION", lambda each: each.organization_id),
        ("SINCE", lambda each: instant(each, "create_time")),
        ("RENEWED", lambda each: instant(each, "last_use_time")),
        ("FROM", lambda each: each.address or "-"),
        ("CLIENT", lambda each: each.user_agent or "-"),
    ]
    remote.output.many(found, columns, essence=lambda each: str(each.session_id), none="You have no sessions.")


@sessions.command("revoke")
@click.argument("session_id", required=False)
@click.option("--others", is_flag=True, help="All but the one of this command.")
@calls_tollway(in_organization=False)
def revoke_sessions(remote: Remote, session_id: str | None, others: bool) -> None:
    """End one of your sessions, or all others."""
    if bool(session_id) == others:
        raise click.UsageError("give a session's id, or --others")
    auth = remote.client.auth
    if session_id:
        remote.client.call(auth.RevokeSession, pb.RevokeSessionRequest(session_id=session_id))
        remote.output.done(f"Session {session_id} has ended.")
    else:
        ended = remote.client.call(auth.RevokeAllSessions, pb.RevokeAllSessionsRequest(keep_current=True))
        remote.output.done(f"{ended.revoked_count} sessions have ended.")


@user.command()
@click.argument("person_id", required=False)
@click.option("--output", "target", type=click.Path(path_type=Path, dir_okay=False), help="A file; usually stdout.")
@calls_tollway(in_organization=False)
def export(remote: Remote, person_id: str | None, target: Path | None) -> None:
    """Export all that is stored about you, or as an operator about somebody, as JSON."""
    auth = remote.client.auth
    if person_id:
        answer = remote.client.call(auth.ExportPerson, pb.ExportPersonRequest(person_id=person_id))
    else:
        answer = remote.client.call(auth.ExportMe, pb.ExportMeRequest())
    if target is None:
        click.echo(answer.export_json)
    else:
        # It is about a person, so nobody else reads it.
        write_text(target, answer.export_json + "\n", mode=0o600)
        remote.output.done(f"Written to {target}.")


@user.command()
@click.argument("person_id", required=False)
@click.option("--reason", help="Operators: why, for the audit log.")
@click.option("--password-stdin", is_flag=True, help="Read your password from standard input.")
@click.option("--code", default="", help="A code of your second factor, where you have one.")
@click.option("--yes", "-y", is_flag=True, help="Do not ask.")
@calls_tollway(changes=True, in_organization=False)
def erase(
    remote: Remote, *, person_id: str | None, reason: str | None, password_stdin: bool, code: str, yes: bool
) -> None:
    """Erase your account, or as an operator somebody's: ids stay, names and addresses go."""
    auth = remote.client.auth
    confirm(f"Erase the account {person_id or 'that you are signed in with'} for good?", yes=yes)
    if person_id:
        if not reason:
            raise click.UsageError("--reason is missing")
        request = pb.ErasePersonRequest(person_id=person_id, reason=reason, idempotency_key=remote.idempotency_key)
        remote.client.call(auth.ErasePerson, request)
    else:
        if not remote.caller.profile:
            raise CommandFailed("give the id of whom to erase; without one, only who has signed in erases themselves")
        line = sys.stdin.readline().rstrip("\r\n") if password_stdin else ""
        password = line or click.prompt("Password", hide_input=True, err=True)
        remote.client.call(auth.EraseMe, pb.EraseMeRequest(password=password, second_factor_code=code))
    remote.output.done("The account is erased.")


def print_members(remote: Remote, organization_id: str, limit: int | None) -> None:
    """List the members of an organization."""
    request = pb.ListMembersRequest(organization_id=organization_id)
    columns = [
        ("ID", lambda each: each.person_id),
        ("E-MAIL", lambda each: each.email),
        ("NAME", lambda each: each.name or "-"),
        ("ROLE", lambda each: word(access_pb2.Role, each.role)),
        ("SECOND FACTOR", lambda each: each.second_factor),
        ("JOINED", lambda each: instant(each, "join_time")),
    ]
    found = remote.client.pages(remote.client.auth.ListMembers, request, "members", limit=limit)
    remote.output.many(found, columns, essence=lambda each: str(each.person_id), none="There are no members.")


def _print_invitation(remote: Remote, invitation: pb.Invitation) -> None:
    facts = [
        ("id", invitation.invitation_id),
        ("organization", invitation.organization_name or invitation.organization_id),
        ("e-mail", invitation.email),
        ("role", word(access_pb2.Role, invitation.role)),
        ("state", word(pb.InvitationState, invitation.state)),
        ("expires", instant(invitation, "expire_time")),
    ]
    remote.output.one(invitation, facts, essence=invitation.invitation_id)
