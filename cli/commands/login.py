"""`tollway login`, `logout`, `whoami` and `profile`: who calls from this machine."""

from __future__ import annotations

import dataclasses
import os
import sys
from typing import Final

import click
from tollway.auth.v1 import auth_service_pb2 as pb
from tollway.options.v1 import access_pb2

from cli.commands.failure import told_in_one_line
from cli.commands.remote import calls_tollway
from cli.remote.caller import addresses_at, is_id
from cli.remote.client import Client, GivenToken
from cli.remote.failures import CommandFailed, ExitCode
from cli.remote.output import Output, word
from cli.remote.profiles import DEFAULT, CredentialsFile, Profile
from cli.remote.remote import Remote
from cli.remote.sessions import sign_in, with_session
from mesh.rpc import opaque_tokens
from mesh.rpc.opaque_tokens import SERVICE_ACCOUNT_PREFIX

STDIN: Final = "-"


@click.command()
@click.option("--email", help="Your address; asked for where it is not given.")
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@calls_tollway()
def login(remote: Remote, email: str | None, password_stdin: bool) -> None:
    """Sign in: with e-mail and password, or with --token of a service account (- reads it from standard input).

    What signs in is kept in credentials.json, mode 0600, in ~/.config/tollway. --profile keeps several.
    """
    given = remote.given
    address, addresses = addresses_at(given.address, given)
    name = given.profile or DEFAULT
    profile = Profile(address=address, addresses=addresses, token="")
    if given.token:
        signed_in = _with_token(remote, profile, given.token)
    else:
        signed_in = _with_password(remote, profile, email, password_stdin=password_stdin)
    file = CredentialsFile.of(remote.environment)
    with file.locked():
        file.write(file.read().with_profile(name, signed_in))
    remote.output.done(f"Signed in to {address} as {signed_in.account} (profile {name}).")


@click.command()
@click.option("--everywhere", is_flag=True, help="End all your sessions, on other machines too.")
@calls_tollway(in_organization=False)
def logout(remote: Remote, everywhere: bool) -> None:
    """End the session and forget its tokens. A service account's token goes on working: revoke it to end it."""
    file = CredentialsFile.of(remote.environment)
    profiles = file.read()
    name = remote.given.profile or profiles.current
    profile = profiles.by_name.get(name)
    if profile is None:
        raise CommandFailed(f"nobody is signed in as {name}", ExitCode.NOT_SIGNED_IN)
    failed: CommandFailed | None = None
    try:
        if profile.refresh_token:
            given = dataclasses.replace(remote.given, profile=name, token="", address="")
            _end(Remote(given, output=remote.output, timeout_seconds=remote.timeout_seconds), everywhere=everywhere)
    except CommandFailed as error:
        # What is no longer valid needs no ending.
        failed = None if error.exit_code is ExitCode.NOT_SIGNED_IN else error
    with file.locked():
        file.write(file.read().without(name))
    if failed is not None:
        raise CommandFailed(f"the tokens are forgotten here, but the session goes on: {failed}", failed.exit_code)
    remote.output.done(f"Signed out (profile {name}).")


def _end(remote: Remote, *, everywhere: bool) -> None:
    auth = remote.client.auth
    if everywhere:
        remote.client.call(auth.RevokeAllSessions, pb.RevokeAllSessionsRequest())
    else:
        remote.client.call(auth.RevokeSession, pb.RevokeSessionRequest())


@click.command()
@calls_tollway(in_organization=False)
def whoami(remote: Remote) -> None:
    """Say who calls, for which organization, and as what."""
    me = remote.me
    facts = [
        ("account", _account(me)),
        ("kind", "person" if me.HasField("person") else "service account"),
        ("id", _id(me)),
        ("organization", me.organization_id),
        ("role", word(access_pb2.Role, me.role)),
    ]
    roles = ", ".join(word(access_pb2.PlatformRole, number) for number in me.platform_roles)
    facts += [("platform role", roles)] if roles else []
    facts += [("profile", remote.caller.profile)] if remote.caller.profile else []
    facts.append(("address", remote.caller.addresses["auth"]))
    remote.output.one(me, facts, essence=_id(me))


@click.group()
def profile() -> None:
    """Choose among several sign-ins."""


@profile.command("list")
@click.option("--quiet", "-q", is_flag=True, help="Print names only.")
def list_profiles(quiet: bool) -> None:
    """List sign-ins; * marks the one that is meant where none is named."""
    with told_in_one_line():
        profiles = _file().read()
        for name, each in sorted(profiles.by_name.items()):
            mark = "*" if name == profiles.current else " "
            click.echo(name if quiet else f"{mark} {name}  {each.account}  {each.address}")


@profile.command("use")
@click.argument("name")
def use_profile(name: str) -> None:
    """Mean this sign-in from now on."""
    with told_in_one_line():
        file = _file()
        with file.locked():
            profiles = file.read()
            if name not in profiles.by_name:
                raise CommandFailed(f"nobody is signed in as {name}", ExitCode.NOT_SIGNED_IN)
            file.write(dataclasses.replace(profiles, current=name))


def _file() -> CredentialsFile:
    return CredentialsFile.of(os.environ)


def _with_token(remote: Remote, profile: Profile, token: str) -> Profile:
    """Return a profile of a service account, once Tollway has accepted its token."""
    token = sys.stdin.readline().strip() if token == STDIN else token
    if not opaque_tokens.is_well_formed(token, SERVICE_ACCOUNT_PREFIX):
        raise CommandFailed("that is no token of a service account (tw_sa_…), or a part of it is missing")
    client = _client(remote, profile, token)
    me = client.call(client.auth.GetMe, pb.GetMeRequest())
    return dataclasses.replace(profile, token=token, account=_account(me), organization_id=me.organization_id)


def _with_password(remote: Remote, profile: Profile, email: str | None, *, password_stdin: bool) -> Profile:
    """Return a profile of a person's session."""
    email = email or click.prompt("E-mail", err=True)
    password = _line_of_stdin() if password_stdin else click.prompt("Password", hide_input=True, err=True)
    client = _client(remote, profile, "")
    session = sign_in(client, email=email, password=password, ask_code=lambda: str(_ask_code(password_stdin)))
    signed_in = with_session(dataclasses.replace(profile, account=email), session)
    wanted = remote.organization_given
    return _switched(remote, signed_in, wanted) if wanted else signed_in


def _switched(remote: Remote, signed_in: Profile, wanted: str) -> Profile:
    """Return the profile of the session in another organization."""
    client = _client(remote, signed_in, signed_in.token)
    if not is_id(wanted):
        given = dataclasses.replace(remote.given, address=signed_in.address, token=signed_in.token)
        wanted = Remote(given, output=Output(), timeout_seconds=remote.timeout_seconds).find_organization(wanted)
    if wanted == signed_in.organization_id:
        return signed_in
    request = pb.SwitchOrganizationRequest(organization_id=wanted)
    return with_session(signed_in, client.call(client.auth.SwitchOrganization, request))


def _client(remote: Remote, profile: Profile, token: str) -> Client:
    addresses = {"auth": profile.address}
    return Client(addresses, GivenToken(token), timeout_seconds=remote.timeout_seconds, environment=remote.environment)


def _ask_code(password_stdin: bool) -> str:
    if password_stdin:
        return _line_of_stdin()
    return str(click.prompt("Code of your second factor", err=True))


def _line_of_stdin() -> str:
    return sys.stdin.readline().rstrip("\r\n")


def _account(me: pb.GetMeResponse) -> str:
    return str(me.person.email if me.HasField("person") else me.service_account.name)


def _id(me: pb.GetMeResponse) -> str:
    return str(me.person.person_id if me.HasField("person") else me.service_account.service_account_id)
