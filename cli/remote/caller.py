"""Where Tollway is and who asks: from options, variables, the profile that is signed in, or a stack that runs here.

What is given comes first. A profile's credentials go to the profile's own addresses, and those of a running stack to
that stack; another address that is given gets only a token that is given with it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from cli.remote.client import Credentials, GivenToken
from cli.remote.failures import CommandFailed, ExitCode
from cli.remote.profiles import CredentialsFile, Profile
from cli.remote.sessions import ProfileCredentials
from cli.stack import StackError, stack_file
from cli.stack.layout import Layout
from contract.services import SERVICES
from mesh.clock import Clock, SystemClock

NOBODY: Final = "nobody is signed in"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the command line and the environment say."""

    address: str = ""
    token: str = dataclasses.field(default="", repr=False)
    profile: str = ""
    data_dir: Path = Path("var")
    data_dir_chosen: bool = False
    """Whether somebody named the folder: the stack there is meant then, whoever is signed in."""
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Who asks whom."""

    addresses: Mapping[str, str]
    credentials: Credentials
    profile: str = ""
    """The profile's name; empty where the credentials are not a profile's."""
    organization_id: str = ""
    """The organization of the credentials; empty where that has to be asked."""


def find(given: Given, service: str = "auth", clock: Clock | None = None) -> Caller:
    """Find out where Tollway is and who asks.

    Args:
        given: What the command line and the environment say.
        service: Whose address a given one is, at least.
        clock: Says whether a session has to be renewed.

    Raises:
        CommandFailed: Nobody is signed in, or it is not known where.
    """
    address = given.address or given.environment.get(f"TOLLWAY_{service.upper()}_ADDRESS", "")
    file = CredentialsFile.of(given.environment)
    found = None if given.data_dir_chosen and not given.profile else _profile(file, given.profile)
    if found is not None:
        name, profile = found
        addresses = _addresses_of(profile, given.environment)
        if not address or address in {profile.address, addresses[service]}:
            if given.token:
                return Caller(addresses=addresses, credentials=GivenToken(given.token))
            credentials = ProfileCredentials(
                file, name, addresses, environment=given.environment, clock=clock or SystemClock()
            )
            return Caller(
                addresses=addresses,
                credentials=credentials,
                profile=name,
                organization_id=profile.organization_id,
            )
    if address:
        if not given.token:
            raise CommandFailed(f"{NOBODY} at {address}: tollway login --address {address}", ExitCode.NOT_SIGNED_IN)
        return Caller(addresses=_one_address(address, given.environment), credentials=GivenToken(given.token))
    return _of_stack(given)


def addresses_at(address: str, given: Given) -> tuple[str, Mapping[str, str]]:
    """Return where somebody signs in, and the addresses of services that are elsewhere.

    Raises:
        CommandFailed: No address is given and no stack runs here.
    """
    address = address or given.environment.get("TOLLWAY_AUTH_ADDRESS", "")
    if address:
        return address, {}
    stack = _stack(given.data_dir)
    if stack is None:
        raise CommandFailed("where Tollway is, is not known: give --address", ExitCode.USAGE)
    addresses = {name: str(service["address"]) for name, service in stack["services"].items()}
    return addresses["auth"], addresses


def is_id(text: str) -> bool:
    """Tell whether a text is a UUID."""
    try:
        UUID(text)
    except ValueError:
        return False
    return True


def _profile(file: CredentialsFile, wanted: str) -> tuple[str, Profile] | None:
    profiles = file.read()
    name = wanted or profiles.current
    profile = profiles.by_name.get(name)
    if profile is None and wanted:
        raise CommandFailed(f"{NOBODY} as {wanted}: tollway login --profile {wanted}", ExitCode.NOT_SIGNED_IN)
    return None if profile is None else (name, profile)


def _addresses_of(profile: Profile, environment: Mapping[str, str]) -> dict[str, str]:
    return {**_one_address(profile.address, environment), **profile.addresses}


def _one_address(address: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Return an address as that of all services, unless a variable says where one is."""
    return {name: environment.get(f"TOLLWAY_{name.upper()}_ADDRESS") or address for name in SERVICES}


def _of_stack(given: Given) -> Caller:
    stack = _stack(given.data_dir)
    if stack is None:
        raise CommandFailed(
            f"{NOBODY}, and no stack runs on {given.data_dir}: tollway login, or give --address and --token",
            ExitCode.NOT_SIGNED_IN,
        )
    return Caller(
        addresses={name: str(service["address"]) for name, service in stack["services"].items()},
        credentials=GivenToken(given.token or str(stack["service_account_token"])),
        organization_id="" if given.token else str(stack["operator"]["id"]),
    )


def _stack(data_dir: Path) -> dict[str, Any] | None:
    path = Layout(data_dir=data_dir.resolve()).stack_file
    if not path.exists():
        return None
    try:
        return stack_file.read(path)
    except StackError as error:
        raise CommandFailed(str(error)) from error
